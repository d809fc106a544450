"""Files of several ranks become the file that one would have written."""

from itertools import pairwise

import gemmi
import mdtraj
import numpy as np
import pytest

from hpcbackmap.protein.topology import Topology, topology_from_sequence
from hpcbackmap.trajectories.concatenate import join_files
from hpcbackmap.trajectories.writer import TrajectoryWriter

SHARES = (2, 1, 3)
DCD_TITLE = slice(92, 264)
"""It holds a date."""


@pytest.fixture(scope="module")
def molecule():
    """Two bonded cysteines, so that PDB files have bonds behind their frames; frames [F, A, 3]."""
    plain = topology_from_sequence(["CAC"])
    topology = Topology.from_dict({**plain.to_dict(), "disulphides": [(0, 2)]})
    rng = np.random.default_rng(0)
    frames = rng.normal(scale=0.3, size=(sum(SHARES), topology.n_atoms, 3)).astype(np.float32)
    return topology, frames


def write(path, molecule, start, stop):
    topology, frames = molecule
    with TrajectoryWriter(path, topology.to_mdtraj()) as writer:
        for number in range(start, stop):
            writer.append(frames[[number]], np.array([number]), np.array([2.0 * number]))
    return path


@pytest.mark.parametrize("suffix", [".pdb", ".cif", ".gro", ".xtc", ".dcd"])
def test_the_joined_file_is_the_one_of_a_single_writer(tmp_path, molecule, suffix):
    ends = np.cumsum([0, *SHARES])
    parts = [
        write(tmp_path / f"part{number}{suffix}", molecule, start, stop)
        for number, (start, stop) in enumerate(pairwise(ends))
    ]
    whole = write(tmp_path / f"whole{suffix}", molecule, 0, ends[-1]).read_bytes()
    output = tmp_path / f"joined{suffix}"
    join_files(parts, output)
    found = bytearray(output.read_bytes())
    assert not any(part.exists() for part in parts)
    assert count_of(output, molecule[0].to_mdtraj()) == sum(SHARES), "as other programs read it"
    if suffix == ".dcd":
        found, whole = bytearray(found), bytearray(whole)
        found[DCD_TITLE] = whole[DCD_TITLE] = b""
    assert found == whole


def count_of(path, topology) -> int:
    if path.suffix in (".pdb", ".cif"):
        return len(gemmi.read_structure(str(path)))
    return mdtraj.load(str(path), top=topology).n_frames


def test_a_single_part_is_the_file(tmp_path, molecule):
    part = write(tmp_path / "part.pdb", molecule, 0, 2)
    before = part.read_bytes()
    join_files([part], tmp_path / "joined.pdb")
    assert (tmp_path / "joined.pdb").read_bytes() == before
    assert b"CONECT" in before.rpartition(b"ENDMDL")[2]
