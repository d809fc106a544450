"""Confidence: the B-factor column holds what the structure itself makes likely, residue by residue."""

import csv
import json

import gemmi
import mdtraj
import numpy as np
import pytest

import hpcbackmap
from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.stages.expected_error import bead_features, expected_error


@pytest.fixture(scope="module")
def example(example_run):
    frames = example_run[:4]
    topology, atoms, _ = topology_from_mdtraj(frames.topology, frames.xyz[0], "example")
    return build_ladder(topology, ["fg", "ca", "ucg:/5"]), frames.xyz[:, atoms]


def test_a_structure_alone_decides(example):
    """Not those beside it, nor where and how it lies in space."""
    ladder, frames = example
    together = expected_error(ladder, frames, "ca", mode=False)
    assert together.shape == (4, 20)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    moved = (frames[2:3] @ turn.T + [3.0, -1.0, 40.0]).astype(np.float32)
    np.testing.assert_allclose(
        expected_error(ladder, moved, "ca", mode=False)[0], together[2], atol=1e-5
    )


def test_a_structure_that_could_not_be_made_has_none():
    """Of a large protein too, whose neighbours are looked up in another way."""
    ladder = build_ladder(topology_from_sequence(["AG" * 100]), ["fg", "ca"])
    frames = np.random.default_rng(0).uniform(0, 4, (3, ladder.topology.n_atoms, 3))
    frames[1] = np.nan
    found = expected_error(ladder, frames.astype(np.float32), "ca", mode=True)
    assert np.isfinite(found).all(axis=1).tolist() == [True, False, True]


def test_coarser_input_is_worse_and_a_member_more_than_one_answer(example):
    ladder, frames = example
    beads = ladder.resolutions[-1]
    means = {
        (kind, mode): expected_error(ladder, frames, kind, mode).mean()
        for kind in ("martini3", "ca", beads)
        for mode in (True, False)
    }
    assert means["martini3", True] < means["ca", True] < means[beads, True] / 2
    assert all(means[kind, True] < means[kind, False] for kind in ("martini3", "ca"))


def test_beads_tell_where_their_residues_are(example):
    """Twenty residues in four beads: size five, the middle one nearest, all but the inner beads at an end."""
    ladder, _ = example
    size, off, last = bead_features(ladder, ladder.resolutions[-1]).T
    np.testing.assert_allclose(size, np.log(5))
    np.testing.assert_allclose(off.reshape(4, 5), np.tile([0.8, 0.4, 0.0, 0.4, 0.8], (4, 1)))
    assert last.reshape(4, 5).all(axis=1).tolist() == [True, False, False, True]
    assert bead_features(ladder, "ca") is None


@pytest.mark.parametrize("suffix", [".pdb", ".cif"])
def test_files_have_it_in_angstrom_for_each_frame(example, example_dir, tmp_path, suffix):
    ladder, _ = example
    output = tmp_path / f"atoms{suffix}"
    hpcbackmap.backmap(
        example_dir / "trpcage.xtc", top=example_dir / "trpcage_top.pdb", representation="ca",
        frames="0:40:20", output=output,
    )  # fmt: skip
    models = gemmi.read_structure(str(output))
    made = mdtraj.load_pdb(str(output)) if suffix == ".pdb" else None
    for number, model in enumerate(models):
        column = [{round(atom.b_iso, 2) for atom in residue} for residue in model[0]]
        assert all(len(values) == 1 for values in column)
        found = np.array([values.pop() for values in column])
        assert found.min() > 0.01
        if made is not None:
            order = [atom.index for atom in made.topology.atoms]
            again = expected_error(
                ladder, made.xyz[number : number + 1][:, order], "ca", mode=False
            )
            np.testing.assert_allclose(found, 10 * again[0], atol=0.02)
    record = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert 0.2 < record["run"]["expected_error_angstrom"] < 3


@pytest.mark.trains
def test_it_is_right_for_families_never_seen(data_dir):
    """Ten test chains: the mean within a fifth, the ranks of residues well apart from chance."""
    folder, expected, seen = data_dir / "static_more", [], []
    with (folder / "index.csv").open() as handle:
        files = [row["file"] for row in csv.DictReader(handle) if row["split"] == "test"]
    for file in files[::10]:
        truth = mdtraj.load(str(folder / file))
        topology, atoms, _ = topology_from_mdtraj(truth.topology, truth.xyz[0], file)
        frame = truth.xyz[:1, atoms]
        trace = mdtraj.Trajectory(frame[:, topology.ca_index], topology.to_mdtraj("ca"))
        (made,) = hpcbackmap.backmap(trace, members=1)
        place = {(atom.residue.index, atom.name): atom.index for atom in made.topology.atoms}
        owner = topology.atom_residue
        kept = [place[key] for key in zip(owner.tolist(), topology.atom_names, strict=True)]
        gap = np.square(made.xyz[0, kept] - frame[0]).sum(1)
        seen.append(np.sqrt(np.bincount(owner, gap) / np.bincount(owner)))
        ladder = build_ladder(topology, ["fg", "ca"])
        expected.append(expected_error(ladder, made.xyz[:, kept], "ca", mode=False)[0])
    expected, seen = np.concatenate(expected), np.concatenate(seen)
    assert expected.mean() == pytest.approx(seen.mean(), rel=0.2)
    ranks = [np.argsort(np.argsort(values)) for values in (expected, seen)]
    assert np.corrcoef(*ranks)[0, 1] > 0.5
