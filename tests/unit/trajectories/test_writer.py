"""Structures out and in again: identity, cells and numbers, or a word about what is lost."""

import logging

import gemmi
import mdtraj
import numpy as np
import pytest

from hpcbackmap.protein.topology import Topology
from hpcbackmap.runtime.errors import OutputError
from hpcbackmap.trajectories import writer
from hpcbackmap.trajectories.read_particles import read_particles
from hpcbackmap.trajectories.reader import describe_file, read_frames
from hpcbackmap.trajectories.writer import TrajectoryWriter

FRAMES = 3
CELL = np.array([[5.0, 0, 0], [1.0, 4.0, 0], [0.5, -0.5, 6.0]])


def molecule(chain_ids=("H", "L"), numbers=(-2, -1, 100, 100, 101, 3, 10500)):
    return Topology(
        sequence=("ALA", "GLY", "CYS", "TRP", "SER", "CYS", "LYS"),
        chain_index=(0, 0, 0, 0, 0, 1, 1),
        chain_ids=tuple(chain_ids),
        residue_numbers=tuple(numbers),
        bonded=(False, True, True, True, True, False, True),
        has_oxt=(False, False, False, False, True, False, True),
        disulphides=((2, 5),),
        insertion_codes=("", "", "", "A", "", "", ""),
    )


def written(path, topology, scale=3.0):
    generator = np.random.default_rng(0)
    positions = generator.normal(scale=scale, size=(FRAMES, topology.n_atoms, 3)).astype(np.float32)
    with TrajectoryWriter(path, topology.to_mdtraj()) as file:
        for i in range(FRAMES):
            frames = slice(i, i + 1)
            file.append(positions[frames], np.array([7 + i]), np.array([0.5 * i]), CELL[None])
    return positions


@pytest.mark.parametrize("suffix", ["pdb", "cif", "gro"])
def test_identity_comes_back(tmp_path, suffix):
    topology = molecule()
    path = tmp_path / f"out.{suffix}"
    positions = written(path, topology)
    found = read_particles(path)
    n_frames, first = describe_file(str(path), found)
    assert n_frames == FRAMES
    np.testing.assert_allclose(first, positions[0], atol=6e-4 if suffix == "gro" else 6e-5)
    assert found.names == list(topology.atom_names)
    assert [row.name for row in found.residues] == list(topology.sequence)
    assert [row.number for row in found.residues] == list(topology.residue_numbers)
    np.testing.assert_allclose(found.cell, CELL, atol=1e-3)
    if suffix == "gro":
        return
    assert [row.insertion for row in found.residues] == list(topology.insertion_codes)
    assert [found.chains[row.chain].id for row in found.residues] == ["H"] * 5 + ["L"] * 2
    assert found.disulphides == [(2, 5)]
    pieces = np.concatenate([piece[0] for piece in read_frames(str(path), found, 1, FRAMES)])
    np.testing.assert_allclose(pieces, positions[1:], atol=6e-5)


@pytest.mark.parametrize("suffix", ["pdb", "cif", "gro"])
def test_other_programs_read_it(tmp_path, suffix):
    topology = molecule(numbers=(-2, -1, 100, 100, 101, 3, 500))
    path = tmp_path / f"out.{suffix}"
    positions = written(path, topology)
    if suffix != "cif":  # mdtraj takes 100 and 100A of a second mmCIF model for one residue
        loaded = mdtraj.load(str(path))
        np.testing.assert_allclose(loaded.xyz, positions, atol=6e-4)
        assert [residue.name for residue in loaded.topology.residues] == list(topology.sequence)
    if suffix == "gro":
        return
    structure = gemmi.read_structure(str(path))
    labels = [f"{chain.name}{residue.seqid}" for chain in structure[2] for residue in chain]
    assert labels == ["H-2", "H-1", "H100", "H100A", "H101", "L3", "L500"]
    assert len(structure) == FRAMES
    np.testing.assert_allclose(
        structure.cell.parameters[:3], 10 * np.linalg.norm(CELL, axis=1), atol=2e-3
    )


def test_long_chain_names_live_in_mmcif_and_are_said_in_pdb(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(writer, "_said", set())
    topology = molecule(chain_ids=("Heavy-1", "A"))
    written(tmp_path / "out.cif", topology)
    assert [chain.id for chain in read_particles(tmp_path / "out.cif").chains] == ["Heavy-1", "A"]
    with caplog.at_level(logging.WARNING):
        written(tmp_path / "out.pdb", topology)
    assert "Heavy-1 is B" in caplog.text
    assert [chain.id for chain in read_particles(tmp_path / "out.pdb").chains] == ["B", "A"]


def test_what_does_not_fit_into_the_columns_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"do not fit into the columns of a PDB file"):
        written(tmp_path / "out.pdb", molecule(), scale=900.0)
    assert not (tmp_path / "out.pdb").exists()
    written(tmp_path / "out.cif", molecule(), scale=900.0)


@pytest.mark.parametrize("suffix", ["xtc", "dcd", "pdb", "cif", "gro"])
def test_a_cell_that_is_none_never_becomes_numbers(tmp_path, suffix):
    topology = molecule()
    path = tmp_path / f"out.{suffix}"
    bad = np.stack([np.zeros((3, 3)), np.full((3, 3), np.nan)])
    positions = np.zeros((2, topology.n_atoms, 3), dtype=np.float32)
    with TrajectoryWriter(path, topology.to_mdtraj()) as file:
        file.append(positions, np.arange(2), np.zeros(2), bad)
    assert b"nan" not in path.read_bytes().lower()
    ((_, _, cells),) = read_frames(str(path), topology, 0, 2)
    assert cells is None


@pytest.mark.parametrize(
    ("suffix", "told"), [(".xtc", False), (".dcd", True), (".pdb", True), (".gro", False)]
)
def test_times_that_a_format_does_not_keep_are_told(
    suffix, told, example_dir, example_run, tmp_path, caplog
):
    top = str(example_dir / "trpcage_top.pdb")
    loaded = example_run[:3]
    output = tmp_path / f"out{suffix}"
    times = np.array([5.0, 15.0, 25.0])
    with (
        caplog.at_level(logging.INFO, "hpcbackmap"),
        TrajectoryWriter(output, loaded.topology) as file,
    ):
        file.append(loaded.xyz, np.arange(3), times)
    with (
        pytest.raises(OutputError, match=r"exists already.*--force"),
        TrajectoryWriter(output, loaded.topology),
    ):
        pass
    assert ("keeps no times" in caplog.text) == told
    back = mdtraj.load(str(output), top=top).time
    assert np.array_equal(back, np.arange(3) if told else times)


@pytest.mark.parametrize("suffix", [".xtc", ".dcd", ".pdb"])
def test_folders_of_any_name_are_written_to_and_read_from(suffix, example_run, tmp_path):
    """mdtraj's readers and writers in C know ASCII names only."""
    loaded = example_run[:3]
    output = tmp_path / "José" / f"mémoire {{frame}}{suffix}"
    output.parent.mkdir()
    with TrajectoryWriter(output, loaded.topology) as file:
        file.append(loaded.xyz, np.arange(3), np.arange(3))
    assert [path.name for path in output.parent.iterdir()] == [output.name]
    assert describe_file(str(output), loaded.topology)[0] == 3
    (positions, times, _), *_ = read_frames(str(output), loaded.topology, 0, 3)
    np.testing.assert_allclose(positions, loaded.xyz, atol=6e-4)
    assert np.array_equal(times, np.arange(3))


def test_a_dcd_file_does_not_say_when_it_was_written(tmp_path):
    """Equal runs give equal files, whenever they are made."""
    frames = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    topology = mdtraj.Topology()
    residue = topology.add_residue("GLY", topology.add_chain())
    for _ in range(5):
        topology.add_atom("C", mdtraj.element.carbon, residue)
    with TrajectoryWriter(tmp_path / "a.dcd", topology) as file:
        file.append(frames, np.arange(2), np.arange(2))
    assert b"Created 2" not in (tmp_path / "a.dcd").read_bytes()[:400]
    read = mdtraj.load_dcd(str(tmp_path / "a.dcd"), top=topology)
    np.testing.assert_allclose(read.xyz, frames, atol=1e-5)
