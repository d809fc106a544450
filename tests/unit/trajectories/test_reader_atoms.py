"""Atoms are chosen while a file is read."""

import numpy as np
import pytest

from hpcbackmap.trajectories import reader
from hpcbackmap.trajectories.reader import read_frames


@pytest.mark.parametrize("suffix", [".xtc", ".trr", ".dcd", ".pdb", ".h5"])
def test_chosen_atoms_are_those_of_all(suffix, example_run, tmp_path, monkeypatch):
    if suffix == ".h5":
        pytest.importorskip("tables")
    monkeypatch.setattr(reader, "PIECE_BYTES", 20_000)
    loaded = example_run[:30]
    path = str(tmp_path / f"a{suffix}")
    loaded.save(path)
    whole = np.concatenate([piece for piece, *_ in read_frames(path, loaded.topology, 2, 27)])
    for atoms in (np.arange(5, 90, 3), np.array([40, 2, 17, 3])):
        pieces = list(read_frames(path, loaded.topology, 2, 27, atoms=atoms))
        assert np.array_equal(np.concatenate([piece[0] for piece in pieces]), whole[:, atoms])
    if suffix in (".xtc", ".trr"):
        assert len(pieces) == 1
