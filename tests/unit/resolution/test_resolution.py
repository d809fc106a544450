"""Mappings and ladders."""

import os

import mdtraj
import numpy as np
import pytest

from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder, resolution_name
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.resolution.mapping import Mapping
from hpcbackmap.runtime.errors import ConfigError, InputError


@pytest.fixture(scope="module")
def ensemble(data_dir):
    frames = mdtraj.load(
        str(data_dir / "trpcage_tc5b" / "tc5b_md.xtc"),
        top=str(data_dir / "trpcage_tc5b" / "tc5b_md_top.pdb"),
        stride=20,
    )
    topology, index, _ = topology_from_mdtraj(frames.topology, frames.xyz[0], "tc5b")
    return topology, frames.xyz[:, index]


@pytest.mark.parametrize(
    "specs",
    [
        ["fg", "ca", "ucg:5"],
        ["fg", "ca", "ucg:10", "ucg:4"],
        ["fg", "com", "ucg:5:blobs"],
        pytest.param(["fg", "ca", "ucg:5:cgae"], marks=pytest.mark.trains),
        ["fg", "ucg:/4"],
    ],
)
def test_every_mapping_is_a_partition_with_unit_rows(ensemble, specs):
    topology, positions = ensemble
    ladder = build_ladder(topology, specs, positions)
    levels = ladder.coarsen(positions.astype(np.float64))
    for name, mapping in zip(ladder.resolutions[1:], ladder.mappings, strict=True):
        rows = np.asarray(mapping.matrix.sum(axis=1)).ravel()
        np.testing.assert_allclose(rows, 1, atol=1e-12)
        assert (np.bincount(mapping.bead, minlength=mapping.n_coarse) > 0).all(), "no empty bead"
        assert levels[name].shape[1] == ladder.n_particles(name)
    direct = ladder.composed(ladder.resolutions[-1]).apply(positions.astype(np.float64))
    np.testing.assert_allclose(direct, levels[ladder.resolutions[-1]], atol=1e-12)
    shifted = ladder.coarsen(positions.astype(np.float64) + 3)[ladder.resolutions[-1]]
    np.testing.assert_allclose(shifted, direct + 3, atol=1e-9)


def test_one_step_and_two_step_ladders_share_their_beads(ensemble):
    topology, positions = ensemble
    two = build_ladder(topology, ["fg", "ca", "ucg:5"]).coarsen(positions)["ucg5"]
    one = build_ladder(topology, ["fg", "ucg:5"]).coarsen(positions)["ucg5"]
    np.testing.assert_array_equal(one, two)


def test_segments_respect_chains():
    ladder = build_ladder(topology_from_sequence(["A" * 17, "G" * 5]), ["fg", "ca", "ucg:5"])
    chain = np.array(ladder.topology.chain_index)
    for bead in range(5):
        assert len(set(chain[ladder.mapping("ucg5").bead == bead])) == 1


@pytest.mark.trains
def test_groupings_are_deterministic(ensemble):
    topology, positions = ensemble
    for method in ("blobs", "cgae"):
        first, second = (
            build_ladder(topology, ["fg", "ca", f"ucg:4:{method}"], positions, 7) for _ in "ab"
        )
        assert first.digest == second.digest


def test_blobs_are_compact(ensemble):
    """A blob's particles are nearer to each other than those of random groups."""
    topology, positions = ensemble
    bead = build_ladder(topology, ["fg", "ca", "ucg:4:blobs"], positions).mapping("ucg4").bead
    trace = positions[:, topology.ca_index]

    def spread(groups):
        return np.mean([trace[:, groups == b].std(axis=1).mean() for b in range(4)])

    assert spread(bead) < 0.8 * spread(np.random.default_rng(0).permutation(bead))


def test_file_mapping_and_round_trip(tmp_path):
    topology = topology_from_sequence(["GGGGGG"])
    (tmp_path / "halves.yaml").write_text("bead: [0, 0, 1, 1, 2, 2]\nweight: [1, 3, 1, 1, 1, 1]\n")
    ladder = build_ladder(topology, ["fg", "ca", f"file:{tmp_path / 'halves.yaml'}"])
    assert ladder.resolutions == ("fg", "ca", "halves")
    np.testing.assert_allclose(ladder.mapping("halves").weight[:2], [0.25, 0.75])
    again = Ladder.from_dict(ladder.to_dict())
    assert again.digest == ladder.digest
    (tmp_path / "short.yaml").write_text("bead: [0, 0, 1]\n")
    with pytest.raises(InputError, match=r"short\.yaml: maps 3 particles"):
        build_ladder(topology, ["fg", "ca", f"file:{tmp_path / 'short.yaml'}"])
    for text, fault in (
        ("bead: [0, 0, 1, 1, 2, 2.5]", "whole numbers"),
        ("bead: [0, 0, 1, 1, 2, 2]\nweihgt: [1]", "unknown key 'weihgt'"),
        ("bead: [0, 0, 0, 1, 1, 1]", "three at least"),
    ):
        (tmp_path / "wrong.yaml").write_text(text)
        with pytest.raises(InputError, match=fault):
            build_ladder(topology, ["fg", "ca", f"file:{tmp_path / 'wrong.yaml'}"])
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(InputError, match="a device or a pipe"):
        build_ladder(topology, ["fg", "ca", f"file:{tmp_path / 'pipe.yaml'}"])
    with pytest.raises(InputError, match="bead 1 is empty"):
        Mapping(np.array([0, 2]), np.ones(2))


def test_what_cannot_be_is_refused():
    topology = topology_from_sequence(["GGGGGG", "GGG"])
    with pytest.raises(InputError, match=r"ucg:20 asks for 20 beads of 9"):
        build_ladder(topology, ["fg", "ca", "ucg:20"])
    with pytest.raises(InputError, match="three beads at least"):
        build_ladder(topology, ["fg", "ca", "ucg:2"])
    with pytest.raises(ConfigError, match="no resolution"):
        build_ladder(topology, ["fg", "cb"])
    with pytest.raises(ConfigError, match="ca must come right after fg"):
        build_ladder(topology, ["fg", "ucg:4", "ca"])
    with pytest.raises(InputError, match="built from structures"):
        build_ladder(topology, ["fg", "ca", "ucg:4:blobs"])
    assert resolution_name("ucg:/4") == "ucgr4"
    assert resolution_name("ucg:10:blobs") == "ucg10"


def test_only_the_calpha_trace_is_calpha():
    """Beads made straight from heavy atoms weigh the same C-alpha atoms, and are something else."""
    topology = topology_from_sequence(["GAGAGAGAGAGA"])
    ladder = build_ladder(topology, ["fg", "ca", "ucg:6"])
    assert ladder.is_calpha("ca")
    assert not ladder.is_calpha("fg")
    assert not ladder.is_calpha("ucg6")
    assert not build_ladder(topology, ["fg", "ucg:6", "ucg:3"]).is_calpha("ucg6")
    assert not build_ladder(topology, ["fg", "com"]).is_calpha("com")


def test_runs_of_given_lengths():
    ladder = build_ladder(topology_from_sequence(["A" * 9, "G" * 6]), ["fg", "ca", "ucg:4,5,6"])
    name = ladder.resolutions[2]
    assert np.bincount(ladder.mapping(name).bead).tolist() == [4, 5, 6]
    assert name == resolution_name("ucg:4,5,6") != resolution_name("ucg:5,4,6")
    assert "-" not in name
    assert len(resolution_name("ucg:" + ",".join(["8"] * 500))) < 20


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("ucg:4,5,5", InputError, "add up to 14, there are 15"),
        ("ucg:5,5,5", InputError, "bead 1 crosses the end of a chain after residue 9"),
        ("ucg:4,x,5", ConfigError, "whole numbers"),
        ("ucg:9,6", ConfigError, "three beads at least"),
        ("ucg:4,0,5,6", ConfigError, "one residue or more"),
        ("ucg:/4:mass:atoms", ConfigError, "says twice"),
        ("ucg:/4:middle", ConfigError, "no grouping 'middle'"),
    ],
)
def test_runs_that_cannot_be(spec, error, message):
    with pytest.raises(error, match=message):
        build_ladder(topology_from_sequence(["A" * 9, "G" * 6]), ["fg", "ca", spec])


def test_a_bead_is_what_it_is_defined_as(ensemble):
    topology, positions = ensemble
    positions = positions.astype(np.float64)
    plain = build_ladder(topology, ["fg", "ca", "ucg:/5"])
    bead = plain.composed("ucgr5").bead
    for of, weight in (("atoms", np.ones(topology.n_atoms)), ("mass", topology.masses)):
        ladder = build_ladder(topology, ["fg", "ca", f"ucg:/5:{of}"])
        name = f"ucgr5{of}"
        assert (ladder.definition(name), ladder.definition("ca")) == (of, "ca")
        first = (positions * weight[:, None])[:, bead == 0].sum(1) / weight[bead == 0].sum()
        np.testing.assert_allclose(ladder.coarsen(positions)[name][:, 0], first, atol=1e-12)
        again = Ladder.from_dict(ladder.to_dict())
        assert again.digest == ladder.digest != plain.digest
        assert again.rung_digest(name) != plain.rung_digest("ucgr5")
        with pytest.raises(InputError, match="made from heavy atoms"):
            ladder.coarsen(positions[:, topology.ca_index], "ca")
