"""A training step through DeepSpeed on a pretended GPU: what it reads from the device is on a list.

ZeRO 0 on one rank. What ZeRO 1 to 3 do to the memory of parameters cannot be pretended over that of the host.
"""

import os
from contextlib import ExitStack
from unittest import mock

import pytest
import torch
from pretend_cuda import HostRead, PretendedGpu

from hpcbackmap.config.campaign import CgvaeConfig, GenzprotConfig, TrainConfig
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.stages.build import build_stage
from hpcbackmap.training.engine import Objective, apply_gradients, engine_config, make_engine

GPU = torch.device("cuda", 0)
READS = {"_local_scalar_dense": 1}
"""Of one optimiser step: the norm of the gradients, which decides whether it is taken."""
STAGES = {
    "genzprot": ("ca-fg", GenzprotConfig(coarse_noise=0.01, width=8, layers=1)),
    "cgvae": ("ucg5-ca", CgvaeConfig(latent=2, width=8, layers=1)),
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A process group of one, perhaps left by another test, and DeepSpeed without what it would compile."""
    import deepspeed
    import deepspeed.ops
    from deepspeed import accelerator

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    begun = not torch.distributed.is_initialized()
    if begun:
        place = tmp_path_factory.mktemp("group") / "store"
        torch.distributed.init_process_group("gloo", f"file://{place}", rank=0, world_size=1)
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
    with ExitStack() as pretended:
        pretended.enter_context(mock.patch.dict(os.environ, LOCAL_RANK="0"))
        for name in ("device_name", "current_device_name"):
            answer = mock.patch.object(accelerator.get_accelerator(), name, return_value="cuda:0")
            pretended.enter_context(answer)
        yield
    if begun:
        deepspeed.comm.destroy_process_group()
        deepspeed.comm.comm.cdb = None


def trained(kind: str, gpu: PretendedGpu, reads: dict[str, int]) -> dict[str, torch.Tensor]:
    """Weights after three steps, of which the last may do ``reads``."""
    name, config = STAGES[kind]
    ladder = build_ladder(
        topology_from_sequence(["MKVLAAGIVGLCAKTWPGFYHDESN"]), ["fg", "ca", "ucg:5"]
    )
    stage = build_stage(name, config, [ladder], seed=1)
    steps = 0.08 * torch.randn(
        4, ladder.topology.n_atoms, 3, generator=torch.Generator().manual_seed(0)
    )
    levels = ladder.coarsen(steps.cumsum(1).numpy())
    fine, coarse = (torch.from_numpy(levels[level]).float() for level in (stage.fine, stage.coarse))
    system = stage.describe(ladder)
    train = TrainConfig(batch_size=4, zero_stage=0)
    with torch.no_grad():
        stage.calibrate(fine, coarse, system)
    engine = make_engine(Objective(stage, train), train, engine_config(name, train, 1))
    engine.module.to(GPU)
    given = [
        it.to(GPU)
        for it in (fine, coarse, system, torch.zeros(*coarse.shape[:2], stage.elbo_noise))
    ]

    def step() -> None:
        engine.backward(engine(*given)["loss"])
        assert 0 < apply_gradients(engine, 1e-3) < torch.inf

    step()
    step()
    with gpu.in_a_step(reads):
        step()
    return {key: value.cpu() for key, value in stage.state_dict().items()}


@pytest.mark.trains
@pytest.mark.parametrize("kind", STAGES)
def test_a_step_reads_the_norm_and_nothing_else(alone, kind):
    with PretendedGpu() as gpu:
        weights = trained(kind, gpu, READS)
        assert all(
            value.isfinite().all() for value in weights.values() if value.is_floating_point()
        )


@pytest.mark.trains
def test_without_the_list_the_norm_is_found_and_a_longer_list_is_refused(alone):
    with PretendedGpu() as gpu:
        with pytest.raises(HostRead, match="_local_scalar_dense"):
            trained("genzprot", gpu, {})
        with pytest.raises(AssertionError, match=r"allowed and not done: .*'nonzero': 1"):
            trained("genzprot", gpu, READS | {"nonzero": 1})
