"""Beads of several residues and a sequence through `backmap FILE` and the Python face."""

import json
import os

import mdtraj
import numpy as np
import pytest
from typer.testing import CliRunner

import hpcbackmap
from hpcbackmap.backmapping.files import backmap_in_memory
from hpcbackmap.backmapping.request import Request
from hpcbackmap.cli.app import app
from hpcbackmap.metrics.peptide import link_lengths
from hpcbackmap.protein.chirality import chiral_volumes
from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.runtime.mpi import LocalComm

SEQUENCE = "ACDEFGHIKLMNPQRSTVWYGASTKLEQNRHIPDMF"
LENGTHS = [5, 9, 4, 8, 6, 4]


def trace(residues: int) -> np.ndarray:
    turn = np.deg2rad(100) * np.arange(residues)
    return np.stack([0.23 * np.cos(turn), 0.23 * np.sin(turn), 0.15 * np.arange(residues)], axis=1)


def bead_trajectory(lengths=LENGTHS, frames=2, copies=1) -> mdtraj.Trajectory:
    """Means of runs of a helix, copies side by side in chains of their own."""
    ends = np.cumsum(lengths)[:-1]
    beads = np.stack([part.mean(0) for part in np.split(trace(sum(lengths)), ends)])
    topology, places = mdtraj.Topology(), []
    for copy in range(copies):
        chain = topology.add_chain()
        places.append(beads + [2.0 * copy, 0, 0])
        for number in range(len(lengths)):
            residue = topology.add_residue("UNK", chain, resSeq=number + 1)
            topology.add_atom("B", mdtraj.element.virtual, residue)
    positions = np.concatenate(places)
    noise = 0.01 * np.random.default_rng(0).normal(size=(frames, *positions.shape))
    return mdtraj.Trajectory(positions + noise, topology)


def means(made: mdtraj.Trajectory, lengths) -> np.ndarray:
    calpha = made.xyz[:, made.topology.select("name CA")].astype(np.float64)
    return np.stack([part.mean(1) for part in np.split(calpha, np.cumsum(lengths)[:-1], 1)], 1)


@pytest.mark.trains
def test_members_and_the_mode_are_whole_molecules_with_these_beads():
    given = bead_trajectory()
    drawn = hpcbackmap.backmap(given, members=2, sequence=SEQUENCE, segments=LENGTHS)
    (mode,) = hpcbackmap.backmap(given, mode=True, sequence=SEQUENCE, segments=LENGTHS)
    for made in (*drawn, mode):
        topology, index, _ = topology_from_mdtraj(made.topology, made.xyz[0], "made")
        assert topology.n_residues == len(SEQUENCE)
        assert (chiral_volumes(topology, made.xyz[:, index]) > 0).all(), "every residue is L"
        assert link_lengths(topology, made.xyz[:, index]).max() < 0.16
        assert np.abs(means(made, LENGTHS) - given.xyz).max() < 1e-5, "nm"
    assert np.abs(drawn[0].xyz - drawn[1].xyz).max() > 0.05


@pytest.mark.trains
def test_beads_on_a_line_have_no_side_for_atoms(tmp_path):
    """Every draw has D-residues and broken chains: the frame is left out, the other is not."""
    given = bead_trajectory(frames=2)
    given.xyz[0] = 0
    given.xyz[0, :, 0] = 0.9 * np.arange(given.n_atoms)
    _, told = backmap_in_memory(
        given, Request(sequence=SEQUENCE, segments=",".join(map(str, LENGTHS)), seed=3), LocalComm()
    )
    (left_out,) = told["quarantined"]
    assert left_out["frame"] == 0
    assert "has D-residues or broken peptide bonds" in left_out["reason"]


@pytest.mark.trains
def test_copies_share_one_sequence_and_frames_are_alike_one_by_one(tmp_path):
    given = bead_trajectory(copies=3, frames=3)
    (whole,) = hpcbackmap.backmap(given, sequence=SEQUENCE, segments=LENGTHS, seed=3)
    assert [chain.n_residues for chain in whole.topology.chains] == [len(SEQUENCE)] * 3
    (last,) = hpcbackmap.backmap(given, sequence=SEQUENCE, segments=LENGTHS, seed=3, frames="2:3")
    apart = np.abs(last.xyz[0] - whole.xyz[2]).max()
    assert apart < 1e-4, "nm; sums of other batches round otherwise, and closing carries that on"


@pytest.mark.trains
def test_the_command_says_what_it_took_and_names_the_frames_it_left_out(tmp_path):
    given = bead_trajectory(frames=3)
    given.xyz[1, 2] = given.xyz[1, 3]
    given[0].save_pdb(str(tmp_path / "beads.pdb"))
    given.save_xtc(str(tmp_path / "beads.xtc"))
    (tmp_path / "protein.fasta").write_text(f">p\n{SEQUENCE}\n")
    runs = np.repeat(np.arange(len(LENGTHS)), LENGTHS).tolist()
    (tmp_path / "map.yaml").write_text(f"bead: {runs}\n")
    files = [str(tmp_path / name) for name in ("beads.xtc", "beads.pdb", "protein.fasta")]
    output = tmp_path / "atoms.pdb"
    command = ["backmap", files[0], "--top", files[1], "--sequence", files[2], "-o", str(output)]
    result = CliRunner().invoke(app, [*command, "--beads", str(tmp_path / "map.yaml"), "--json"])
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "atoms.pdb.json").read_text())["run"]
    assert summary["representation"] == "ucg"
    assert summary["beads"] == 6
    assert summary["residues_per_bead"] == "4 to 9"
    assert summary["bead_center"] == "ca"
    assert summary["largest_bead_error_angstrom"] < 1e-3
    assert [item["frame"] for item in summary["quarantined"]] == [1]
    assert "lie at one place" in summary["quarantined"][0]["reason"]
    assert mdtraj.load(str(output)).n_frames == 2


def test_a_mapping_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "map.yaml")
    with pytest.raises(InputError, match=r"map.yaml: a device or a pipe"):
        backmap_in_memory(
            bead_trajectory(),
            Request(sequence=SEQUENCE, beads=str(tmp_path / "map.yaml")),
            LocalComm(),
        )


def test_a_run_that_made_nothing_is_not_in_the_way_of_the_next(tmp_path):
    output = tmp_path / "atoms.xtc"
    far = bead_trajectory()
    far.xyz[:, 3:] += 3.0
    with pytest.raises(InputError, match=r"none of its 2 frames .* bead 2 .* and bead 3 .* reach"):
        hpcbackmap.backmap(far, sequence=SEQUENCE, segments=LENGTHS, output=output)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({}, ConfigError, "give --sequence FASTA"),
        ({"sequence": SEQUENCE, "segments": "5,9"}, InputError, "runs of 5, 9 residues make 14"),
        ({"sequence": SEQUENCE, "segments": "5,x"}, ConfigError, "write the residues of each bead"),
        ({"sequence": SEQUENCE, "segments": 4}, InputError, "4 residues a bead make 9"),
        ({"sequence": SEQUENCE[:6]}, InputError, "beads of one residue are read as ca or com"),
        ({"sequence": SEQUENCE[:-1] + "X"}, ConfigError, "'X' at position 36"),
        ({"sequence": "missing.fasta"}, InputError, "missing.fasta: no such file"),
        ({"sequence": SEQUENCE, "bead_center": "middle"}, ConfigError, "give ca, atoms, mass"),
        ({"sequence": SEQUENCE, "on_bad_frame": "repair"}, ConfigError, "give stop or skip"),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_on(options, error, says):
    with pytest.raises(error, match=says):
        hpcbackmap.backmap(bead_trajectory(), representation="ucg", **options)


def test_another_unit_is_told_by_the_distances_that_residues_allow(tmp_path):
    large = bead_trajectory()
    large.xyz *= 10
    large.save_xtc(str(tmp_path / "large.xtc"))
    large[0].save_pdb(str(tmp_path / "top.pdb"))
    with pytest.raises(InputError, match=r"beads that follow each other .* or say --unit A"):
        hpcbackmap.backmap(tmp_path / "large.xtc", top=tmp_path / "top.pdb", sequence=SEQUENCE)


@pytest.mark.trains
def test_beads_that_the_box_cuts_are_made_whole():
    given = bead_trajectory(frames=1)
    (whole,) = hpcbackmap.backmap(given, sequence=SEQUENCE, segments=LENGTHS)
    cut = mdtraj.Trajectory(given.xyz.copy(), given.topology)
    cut.unitcell_vectors = 7.0 * np.eye(3)[None]
    cut.xyz[:, 4:, 2] -= 7.0
    (mended,) = hpcbackmap.backmap(cut, sequence=SEQUENCE, segments=LENGTHS)
    assert np.abs(mended.xyz - whole.xyz).max() < 1e-4


@pytest.mark.trains
def test_chains_of_beads_that_a_box_cuts_are_whole():
    """A box of 9 nm, beads that may be 8 nm apart: wrapped, none of their distances is too long."""
    lengths, sequence = [18, 18, 18, 18], 2 * SEQUENCE
    given = bead_trajectory(lengths)
    given.unitcell_vectors = np.tile(np.eye(3) * 9.0, (2, 1, 1))
    cut = given[:]
    cut.xyz = (given.xyz + np.float32([0, 0, 4.9])) % 9.0
    assert np.linalg.norm(np.diff(cut.xyz, axis=1), axis=-1).max() > 6
    (made,) = hpcbackmap.backmap(cut, mode=True, sequence=sequence, segments=lengths)
    found = means(made, lengths)
    assert np.abs(found - found[:, :1] - (given.xyz - given.xyz[:, :1])).max() < 1e-4, "nm"
