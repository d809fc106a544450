"""The pretended GPU catches what a GPU would refuse, and what would make a step wait for it."""

import pytest
import torch
from pretend_cuda import HostRead, MixedDevices, PretendedGpu


@pytest.fixture
def gpu():
    with PretendedGpu() as found:
        yield found


def test_tensors_say_where_they_are(gpu):
    there, here = torch.ones(3, device="cuda"), torch.ones(3)
    assert there.device == torch.device("cuda:0")
    assert there.is_cuda
    assert not there.is_cpu
    assert here.device.type == "cpu"
    assert not here.is_cuda
    for made in (there + 1, there[1:], torch.zeros_like(there), there.new_zeros(2), there.sum()):
        assert made.is_cuda
    assert torch.arange(3, device=there.device).is_cuda
    assert here.to(there).is_cuda
    assert here.to("cuda").is_cuda
    assert here.cuda().is_cuda
    assert not here.is_cuda, "a copy was moved"
    assert there.double().is_cuda
    assert there.to(torch.float64).is_cuda
    assert not there.cpu().is_cuda
    assert not there.to("cpu").is_cuda
    assert there.cpu().tolist() == [1, 1, 1]
    assert torch.einsum("i,j->ij", there, there).is_cuda


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x + torch.ones(3),
        lambda x: x[torch.arange(3)],
        lambda x: torch.ones(3)[x.long()],
        lambda x: torch.where(x > 0, x, torch.zeros(3)),
        lambda x: torch.cat([x, torch.zeros(1)]),
        lambda x: torch.nn.Linear(3, 1)(x),
        lambda x: x.index_add(0, torch.tensor([0]), x[:1]),
    ],
)
def test_two_devices_do_not_mix(gpu, wrong):
    with pytest.raises(MixedDevices):
        wrong(torch.ones(3, device="cuda"))


def test_single_numbers_may_come_from_the_host(gpu):
    there = torch.ones(3, device="cuda")
    assert torch.where(there > 0, torch.tensor(2.0), 0.0).is_cuda
    assert (there * torch.tensor(2.0)).is_cuda


def test_numpy_is_refused(gpu):
    with pytest.raises(TypeError, match="no numpy"):
        torch.ones(3, device="cuda").numpy()
    assert torch.ones(3, device="cuda").cpu().numpy().sum() == 3


@pytest.mark.parametrize(
    "waiting",
    [
        lambda x: x.sum().item(),
        lambda x: float(x[0]),
        lambda x: bool((x > 0).all()),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x[x > 0],
        lambda x: torch.nonzero(x),
        lambda x: torch.bincount(x.long()),
        lambda x: x.repeat_interleave(x.long()),
        lambda x: x.masked_select(x > 0),
        lambda x: x.to("cpu"),
    ],
)
def test_a_step_does_not_wait(gpu, waiting):
    there = torch.ones(3, device="cuda")
    waiting(there)
    with gpu.in_a_step(), pytest.raises(HostRead):
        waiting(there)


def test_a_module_moves_and_learns(gpu):
    """As on the CPU, bit for bit; gradients and optimiser state are where the weights are."""
    torch.manual_seed(0)
    there = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 1))
    here = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 1))
    here.load_state_dict(there.state_dict())
    there.to("cuda")
    assert all(parameter.is_cuda for parameter in there.parameters())
    x = torch.randn(5, 3)
    for module, given in ((here, x), (there, x.to("cuda"))):
        optimiser = torch.optim.AdamW(module.parameters(), 0.1)
        for _ in range(2):
            optimiser.zero_grad()
            with gpu.in_a_step():
                loss = module(given)[given[:, :1].long().clamp(0, 0), 0].square().mean()
                loss.backward()
            optimiser.step()
    assert all(parameter.grad.is_cuda for parameter in there.parameters())
    for one, other in zip(here.parameters(), there.parameters(), strict=True):
        assert torch.equal(one, other.cpu())


def test_without_it_there_is_no_gpu():
    assert not torch.cuda.is_available() or torch.cuda.get_device_name() != "a pretended GPU"
