"""What a stage eats: read once, described once, together on the device once."""

import numpy as np
import pytest
import torch
from judged_campaign import LADDER, load_example, write_store

from hpcbackmap.config.campaign import Campaign, GenzprotConfig
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.stages.build import build_stage
from hpcbackmap.stages.genzprot.model import Genzprot
from hpcbackmap.stages.system import collate
from hpcbackmap.store.split import FrameRange
from hpcbackmap.store.store import create_store, open_store
from hpcbackmap.store.stream import StreamBatch
from hpcbackmap.store.system import StoredSystem
from hpcbackmap.training.feed import Feed

SMALL = GenzprotConfig(width=8, layers=1, neighbours=4)
CPU = torch.device("cpu")
SEQUENCES = {"a": "ACDEFG", "b": "GHIKL", "c": "ACDEFGHIK"}


@pytest.fixture
def described(monkeypatch):
    """Residues of every molecule that a stage describes, in order."""
    seen, describe = [], Genzprot.describe
    monkeypatch.setattr(
        Genzprot,
        "describe",
        lambda stage, ladder: seen.append(ladder.topology.n_residues) or describe(stage, ladder),
    )
    return seen


@pytest.fixture
def several(tmp_path):
    """A store of three molecules, one frame each."""
    ladders = {
        name: build_ladder(topology_from_sequence([letters]), ["fg", "ca"])
        for name, letters in SEQUENCES.items()
    }
    campaign = Campaign(
        name="x", ladder=["fg", "ca"], systems=[{"name": "x", "trajectories": ["x"]}]
    )
    store = create_store(
        tmp_path / "three.zarr",
        ladders,
        dict.fromkeys(ladders, 1),
        ["fg", "ca"],
        campaign.store,
        {},
    )
    for number, (name, ladder) in enumerate(ladders.items()):
        random = np.random.default_rng(number)
        atoms = random.normal(size=(1, ladder.topology.n_atoms, 3)).astype(np.float32)
        store.system(name).write_shard(0, ladder.coarsen(atoms))
    store.mark_complete()
    return open_store(tmp_path / "three.zarr")


def batch_of(store, names: list[str]) -> StreamBatch:
    fine, coarse = (
        np.concatenate([store.system(name).read(level, 0, 1) for name in names], axis=1)
        for level in ("fg", "ca")
    )
    return StreamBatch(fine, coarse, names, np.arange(len(names)), len(names))


def test_a_molecule_is_described_when_it_is_met(several, described):
    stage = build_stage("ca-fg", SMALL, [several.system(n).ladder for n in several.systems], 0)
    assert described == []
    feed = Feed(several, stage, 0, CPU)
    for _ in range(3):
        feed.inputs(batch_of(several, ["a", "b"]), "x")
    assert described == [6, 5]


def test_several_molecules_become_one_once(several):
    stage = build_stage("ca-fg", SMALL, [several.system("a").ladder], 0)
    feed = Feed(several, stage, 0, CPU)
    first, again, other = (
        feed.inputs(batch_of(several, names), "x").system
        for names in (["a", "b"], ["a", "b"], ["b", "a"])
    )
    assert again is first
    assert other is not first
    plain = collate([stage.describe(several.system(name).ladder) for name in "ab"])
    for key in type(plain).fields:
        one, two = getattr(plain, key), getattr(first, key)
        assert torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two


def test_validation_reads_each_block_once(example_dir, tmp_path, monkeypatch):
    topology, positions = load_example(example_dir, 20)
    ladder = build_ladder(topology, LADDER)
    write_store(tmp_path / "s.zarr", ladder, positions, ["fg", "ca", "ucg5"], {}, {})
    store = open_store(tmp_path / "s.zarr")
    feed = Feed(store, build_stage("ca-fg", SMALL, [ladder], 0), 0, CPU)
    calls, read = [], StoredSystem.read
    monkeypatch.setattr(
        StoredSystem, "read", lambda self, *where: calls.append(where) or read(self, *where)
    )
    (inputs,) = feed.fixed([FrameRange("trpcage", 4, 16)], 6, 8, "validation")
    assert len(calls) <= 4
    chosen = np.unique(np.linspace(0, 11, 6).round().astype(int)) + 4
    expected = np.concatenate([read(store.system("trpcage"), "fg", i, i + 1) for i in chosen])
    gap = np.diff(inputs.fine.numpy() - expected, axis=1)
    assert np.abs(gap).max() < 1e-6


def test_a_molecule_far_from_the_origin_is_shown_as_one_beside_it(tmp_path, example_dir):
    """As backmapping shows it: about the centre of its beads."""
    topology, positions = load_example(example_dir, 8)
    ladder = build_ladder(topology, LADDER)
    stage = build_stage("ca-fg", SMALL, [ladder], 0)
    shown = []
    for name, shift in (("near", 0.0), ("far", 64.0)):
        moved = (positions + np.float32(shift)).astype(np.float32)
        write_store(tmp_path / name, ladder, moved, ["fg", "ca", "ucg5"], {}, {})
        feed = Feed(open_store(tmp_path / name), stage, 0, CPU)
        (inputs,) = feed.fixed([FrameRange("trpcage", 0, 8)], 8, 8, "x")
        assert np.abs(inputs.coarse.numpy().mean(1)).max() < 1e-5
        batch = StreamBatch(
            *(feed.store.system("trpcage").read(level, 0, 8) for level in ("fg", "ca")),
            ["trpcage"],
            np.arange(8),
            8,
        )
        assert torch.equal(feed.inputs(batch, "x").fine, inputs.fine)
        shown.append(inputs.fine.numpy())
    assert np.abs(shown[0] - shown[1]).max() < 1e-5


def test_each_of_several_molecules_is_about_its_own_centre(several):
    stage = build_stage("ca-fg", SMALL, [several.system("a").ladder], 0)
    inputs = Feed(several, stage, 0, CPU).inputs(batch_of(several, ["a", "b", "c"]), "x")
    for beads in inputs.coarse.split([6, 5, 9], dim=1):
        assert beads.mean(1).abs().max() < 1e-6
    calpha = (
        several.system("b").ladder.topology.ca_index + several.system("a").ladder.topology.n_atoms
    )
    assert torch.equal(inputs.fine[0, calpha], inputs.coarse[0, 6:11])
