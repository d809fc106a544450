"""Everything that a GPU would run, on a pretended one: right devices, no waiting in a step, same bits.

Single molecules and batches of several. What a real card has to show is in `tests/cuda`.
"""

import shutil
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from pretend_cuda import HostRead, MixedDevices, PretendedGpu
from tiny_campaign import make_campaign

from hpcbackmap.backmapping import driver
from hpcbackmap.backmapping.chain import Chain
from hpcbackmap.config.campaign import CgvaeConfig, GenzprotConfig, TraceConfig, TrainConfig
from hpcbackmap.evaluation.likelihood import evaluate_elbo, stage_nats
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.mpi import LocalComm
from hpcbackmap.stages.artifact import load_artifact, save_artifact
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.build import build_stage
from hpcbackmap.stages.genzprot import ease, push
from hpcbackmap.stages.layers.close_trace import close_calpha
from hpcbackmap.store.split import split_frames
from hpcbackmap.store.store import open_store
from hpcbackmap.training.engine import Objective
from hpcbackmap.training.feed import Feed
from hpcbackmap.training.init_from import start_from
from hpcbackmap.training.ranks.world import World
from hpcbackmap.training.validation import validate, warn_of_collapse

SMALL = {"width": 8, "layers": 1}
FEW = {"rounds": 2, "redraws": 1}
ATOMS = ["fg", "ucg:5"]
BEADS = ["fg", "ca", "ucg:5"]
KINDS = {
    "cgvae to atoms": ("ucg5-fg", ATOMS, CgvaeConfig(latent=2, **SMALL)),
    "cgvae to ca": ("ucg5-ca", BEADS, CgvaeConfig(latent=2, **SMALL)),
    "trace": ("ucg5-ca", BEADS, TraceConfig(rounds=2, **SMALL)),
    "genzprot": ("ca-fg", BEADS, GenzprotConfig(coarse_noise=0.01, **FEW, **SMALL)),
    "genzprot by heart": ("ca-fg", BEADS, GenzprotConfig(per_system=True, **FEW, **SMALL)),
    "genzprot, steric": ("ca-fg", BEADS, GenzprotConfig(steric_weight=0.1, **FEW, **SMALL)),
}
WAITING = {"trace", "genzprot, steric"}
"""What is near what decides what their losses compute, so a step of training waits for the device."""
MANY = {"trace", "genzprot", "genzprot, steric"}
SEQUENCES = ("MKVLAAGIVGLCAKTWPGFYHDESNQRMKV", "PGASWKLPVIDE", "ACDEFGHIKLMNPQRSTVWYAC")
GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def few_iterations(monkeypatch):
    """Ten of the closing projection, four draws behind a likelihood and two steps of what moves side chains are
    enough to pass through them.
    """
    monkeypatch.setattr(close_calpha, "__defaults__", (10,))
    monkeypatch.setattr(stage_nats, "__defaults__", (4,))
    monkeypatch.setattr(ease, "STEPS", ease.STEPS[-2:])
    monkeypatch.setattr(push, "TURNWISE", 2)


def case(kind: str, several: bool):
    """Stage, system, fine and coarse, on the CPU; frames of one molecule or one frame of each of several."""
    name, specs, config = KINDS[kind]
    sequences = SEQUENCES if several else SEQUENCES[:1]
    ladders = [build_ladder(topology_from_sequence([it]), specs) for it in sequences]
    stage = build_stage(name, config, ladders, seed=1)
    rng = np.random.default_rng(0)
    frames = 1 if several else 4
    levels = []
    for ladder in ladders:
        steps = rng.normal(scale=0.08, size=(frames, ladder.topology.n_atoms, 3))
        levels.append(ladder.coarsen(np.cumsum(steps, 1)))
    fine, coarse = (
        torch.from_numpy(np.concatenate([it[level] for it in levels], 1)).float()
        for level in (stage.fine, stage.coarse)
    )
    return stage, collate([stage.describe(ladder) for ladder in ladders]), fine, coarse


def cases():
    for kind in KINDS:
        for several in (False, True) if kind in MANY else (False,):
            yield pytest.param(kind, several, id=kind + (", several" if several else ""))


def every_answer(stage, fine, coarse, system, noise, training, judging) -> dict[str, torch.Tensor]:
    """What a stage can be asked, and the weights after two steps of training.

    training, judging: contexts of a step and of the likelihoods.
    """
    found = {}
    with torch.no_grad():
        stage.calibrate(fine, coarse, system)
    optimiser = torch.optim.AdamW(stage.parameters(), 1e-3)
    for number in range(2):
        stage.train()
        stage.at_step(number)
        stage.loss(fine, coarse, system, noise)
        with training():
            terms = stage.loss(fine, coarse, system, noise)
            terms["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()
        found |= {f"{key} {number}": value.detach() for key, value in terms.items()}
    stage.eval()
    with torch.no_grad():
        stage.elbo(fine, coarse, system, noise)
        with judging():
            elbo = stage.elbo(fine, coarse, system, noise)
            found |= {"likelihood": elbo.log_likelihood, "kl": elbo.kl}
            found["weight"] = stage.log_weight(fine, coarse, system, noise)
            found["information"] = stage.information(fine, coarse, system)
        found["member"], found["other"] = stage.samples(coarse, system, [noise, -noise])
        found["mode"] = stage.mode(coarse, system)
    return found | {f"weights {key}": value for key, value in stage.state_dict().items()}


@pytest.mark.trains
@pytest.mark.parametrize(("kind", "several"), cases())
def test_stage(kind, several):
    stage, system, fine, coarse = case(kind, several)
    noise = torch.randn(
        *coarse.shape[:2], stage.noise_width, generator=torch.Generator().manual_seed(2)
    )
    noise = torch.cat([noise, noise], -1)[..., : max(stage.noise_width, stage.elbo_noise)]
    expected = every_answer(stage, fine, coarse, system, noise, nullcontext, nullcontext)
    again, system, *_ = case(kind, several)
    with PretendedGpu() as gpu:
        again.to(GPU)
        training = nullcontext if kind in WAITING else gpu.in_a_step
        moved = [it.to(GPU) for it in (fine, coarse)]
        found = every_answer(again, *moved, system.to(GPU), noise.to(GPU), training, gpu.in_a_step)
        assert all(value.is_cuda for value in found.values())
        found = {key: value.cpu() for key, value in found.items()}
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize("kind", sorted(WAITING))
def test_some_training_does_wait(kind):
    """The exceptions above are some: without them the test of the step would fail."""
    stage, system, fine, coarse = case(kind, False)
    with PretendedGpu() as gpu:
        noise = torch.zeros(*coarse.shape[:2], stage.elbo_noise).to(GPU)
        given = (fine.to(GPU), coarse.to(GPU), system.to(GPU), noise)
        with gpu.in_a_step(), pytest.raises(HostRead):
            stage.to(GPU).train().loss(*given)


def test_a_table_left_on_the_host_is_found():
    """As `information` once was: ranks from a table on the CPU, indexed from the device."""
    stage, system, fine, coarse = case("genzprot", False)
    information = stage.information

    def wrong(fine, coarse, system):
        ranks = torch.linspace(-2, 2, coarse.shape[1])[system.place % coarse.shape[1]]
        return information(fine, coarse, system) + ranks.unsqueeze(-1)

    with PretendedGpu():
        moved = fine.to(GPU), coarse.to(GPU), system.to(GPU)
        stage.to(GPU).information(*moved)
        with pytest.raises(MixedDevices, match="__getitem__"):
            wrong(*moved)


@pytest.mark.parametrize("train", [{"precision": "bf16"}, {"activation_checkpointing": True}])
@pytest.mark.parametrize("kind", ["cgvae to ca", "trace", "genzprot"])
def test_objective_of_a_training(kind, train):
    """Message passing in bfloat16, and computed a second time in the backward pass."""
    stage, system, fine, coarse = case(kind, False)
    with PretendedGpu() as gpu:
        objective = Objective(stage, TrainConfig(**train)).to(GPU).train()
        noise = torch.zeros(*coarse.shape[:2], stage.elbo_noise).to(GPU)
        given = (fine.to(GPU), coarse.to(GPU), system.to(GPU), noise)
        objective(*given)
        with nullcontext() if kind in WAITING else gpu.in_a_step():
            objective(*given)["loss"].backward()
        assert all(it.grad is None or it.grad.is_cuda for it in objective.parameters())


class Engine:
    """Of DeepSpeed's engine what `validate` uses."""

    def __init__(self, objective):
        self.objective = objective
        self.train, self.eval = objective.train, objective.eval

    def __call__(self, *inputs):
        return self.objective(*inputs)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """One protein, ucg3 to heavy atoms: cgvae and genzprot."""
    return make_campaign(tmp_path_factory.mktemp("one"), ["fg", "ca", "ucg:3"], ["first"])[0]


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Two proteins, ucg3 to heavy atoms: trace and genzprot."""
    folder = tmp_path_factory.mktemp("two")
    return make_campaign(folder, ["fg", "ca", "ucg:3"], ["first", "second"], kind="trace")[0]


@pytest.mark.trains
@pytest.mark.parametrize("which", ["campaign", "several"])
@pytest.mark.parametrize("rung", ["ucg3-ca", "ca-fg"])
def test_feed_validation_and_warning(request, which, rung, monkeypatch):
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
    campaign = request.getfixturevalue(which)
    store = open_store(campaign.store_place())
    ranges = split_frames(store, campaign.split)
    found = []
    for device in (torch.device("cpu"), GPU):
        with PretendedGpu() as gpu:
            stage = load_artifact(campaign.path(f"stages/{rung}/artifact")).to(device)
            feed = Feed(store, stage, 0, device)
            batches = list(feed.fixed(ranges["validation"], 4, 2, "validation"))
            engine = Engine(Objective(stage, TrainConfig()))
            found.append(validate(engine, [(it, it.n_frames) for it in batches]))
            stream = iter(feed.stream(ranges["train"], 4, World(0, 1, 0, "one"), 16))
            for number in range(2):
                inputs = feed.inputs(next(stream), f"train/{number}")
                assert inputs.fine.is_cuda == (device == GPU)
                with nullcontext() if stage.kind in WAITING else gpu.in_a_step():
                    engine(*inputs.arguments())["loss"].backward()
            warn_of_collapse(stage.eval(), batches[0], {"active_units": 1.0}, seed=0)
    assert found[0] == found[1]


@pytest.mark.parametrize("rung", ["ucg3-ca", "ca-fg"])
def test_weights_come_back(campaign, rung, tmp_path):
    """Saved from the device, loaded on the host, and taken up by a stage on the device."""
    given = campaign.path(f"stages/{rung}/artifact")
    with PretendedGpu():
        stage = load_artifact(given).to(GPU)
        again = load_artifact(save_artifact(stage, tmp_path / "again", {})).to(GPU)
        for parameter in again.parameters():
            parameter.data.zero_()
        start_from(given, again)
        for key, value in stage.state_dict().items():
            assert again.state_dict()[key].is_cuda
            assert torch.equal(again.state_dict()[key], value)


@pytest.mark.trains
def test_chain(campaign):
    """Members and the one answer, stage by stage: the bits of the CPU."""
    store = open_store(campaign.store_place())
    ladder = store.system("first").ladder
    coarse, frames = store.system("first").read("ucg3", 0, 4), [0, 1, 2, 3]
    folders = [campaign.path(f"stages/{rung}/artifact") for rung in ("ucg3-ca", "ca-fg")]
    found = []
    for device in (torch.device("cpu"), GPU):
        with PretendedGpu():
            chain = Chain([load_artifact(folder) for folder in folders], ladder, device)
            found += [
                chain.run_members(coarse, frames, members, seed=3) for members in ([0, 1], [None])
            ]
    for here, there in zip(found[:2], found[2:], strict=True):
        for one, other in zip(here, there, strict=True):
            assert all(np.array_equal(one[level], other[level]) for level in ("ca", "fg"))


@pytest.mark.trains
def test_driver_and_evaluation(several, tmp_path):
    """`backmap` and `evaluate --elbo` as the commands call them, where torch says that there is a GPU."""
    records, frames = [], []
    for number, there in enumerate((False, True)):
        folder = shutil.copytree(several.workdir, tmp_path / str(number))
        settings = {"frames": "0:3", "members": 1, "shard_frames": 3, "batch_frames": 3}
        campaign = several.model_copy(
            update={
                "workdir": str(folder),
                "backmap": several.backmap.model_copy(update=settings),
                "evaluate": several.evaluate.model_copy(update={"max_frames": 2}),
            }
        )
        if there:
            with PretendedGpu():
                driver.backmap(campaign, LocalComm())
                records.append(evaluate_elbo(campaign, LocalComm()))
        else:
            driver.backmap(campaign, LocalComm())
            records.append(evaluate_elbo(campaign, LocalComm()))
        store = open_store(folder / "backmapped.zarr")
        system = store.system("first")
        frames.append(system.read("fg", 0, system.n_frames))
    assert np.array_equal(*frames)
    assert len(frames[0]) == 3
    assert records[0]["rows"] == records[1]["rows"]
