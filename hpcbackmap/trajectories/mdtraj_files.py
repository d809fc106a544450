"""Files that are read through mdtraj: opened, held against what their headers tell, read in silence."""

import ctypes
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import mdtraj
import numpy as np
from mdtraj.formats.registry import FormatRegistry

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.files import ascii_name
from hpcbackmap.trajectories.headers import (
    announced_atoms,
    require_same_atoms,
    require_whole_dcd,
)
from hpcbackmap.trajectories.text import suffix_of

__all__ = [
    "CHOOSING",
    "HDF5",
    "Counted",
    "OtherCount",
    "count_frames",
    "mdtraj_pieces",
    "particles_of_first_frame",
    "require_atoms",
]

HDF5 = (".h5", ".hdf5", ".lh5")
CHOOSING = (".xtc", ".trr")
"""Formats of which mdtraj holds one whole frame at a time and the chosen atoms of all."""
_RESTARTS = (".rst7", ".inpcrd", ".restrt", ".ncrst")
"""Formats of one frame."""
_BEAD = mdtraj.element.virtual


class Counted(Protocol):
    """A topology, or whatever else knows how many particles a frame has."""

    @property
    def n_atoms(self) -> int: ...


class OtherCount(InputError):
    """A file has another number of particles than its topology. count: its own."""

    def __init__(self, message: str, count: int):
        super().__init__(message)
        self.count = count


def require_atoms(path: str, topology: Counted, n_atoms: int) -> None:
    if n_atoms != topology.n_atoms:
        message = f"{path}: {n_atoms} atoms, the topology has {topology.n_atoms}"
        raise OtherCount(message, n_atoms)


def mdtraj_pieces(
    path: str, topology: Counted, start: int, stop: int, size: int, atoms: np.ndarray | None
) -> Iterator[tuple[Any, ...]]:
    rising = back = None
    if atoms is not None:
        rising, back = np.unique(atoms, return_inverse=True)
        back = None if np.array_equal(rising, atoms) else back
    expected = topology.n_atoms if rising is None else len(rising)
    with _no_c_output():
        file = _open(path, topology)
        if start:
            file.seek(start)
    with file:
        while start < stop:
            piece = _read(file, path, topology, min(size, stop - start), rising)
            if len(piece) == 0:
                return
            if piece.n_atoms != expected:
                require_atoms(path, topology, piece.n_atoms)
            with np.errstate(all="ignore"):
                cells = piece.unitcell_vectors
            yield piece.xyz if back is None else piece.xyz[:, back], piece.time, cells
            start += len(piece)


def count_frames(path: str, topology: Counted) -> int:
    """Frames of a file of mdtraj's. Raises InputError if its header or its last frame tells that it is cut."""
    with _no_c_output(), _open(path, topology) as file:
        n_frames = len(file)
        if suffix_of(path) == ".dcd":
            require_whole_dcd(path, n_frames)
        if n_frames == 0:
            return 0
        require_atoms(path, topology, _atoms_of(file.read(n_frames=1)))
        file.seek(n_frames - 1)
        # the second: pieces of a frame not counted
        if len(_read(file, path, topology, 2)) != 1:
            raise InputError(f"{path}: truncated, its last frame is incomplete")
        return n_frames


def particles_of_first_frame(path: str) -> int:
    """How many the first frame has, of a file whose header does not tell."""
    with _no_c_output(), _open(path, None) as file:
        return _atoms_of(file.read(n_frames=1))


def _atoms_of(block: Any) -> int:
    """Of what a file of mdtraj's has read: positions [F, atoms, 3], or these and more."""
    count: int = (block if hasattr(block, "shape") else block[0]).shape[1]
    return count


def _open(path: str, topology: Counted | None) -> Any:
    kind = FormatRegistry.fileobjects.get(suffix_of(path))
    if kind is None:
        raise InputError(
            f"{path}: not a trajectory file of a format that is read here (xtc, dcd, trr, h5, pdb, cif, gro, "
            "gsd, lammpstrj, …)"
        )
    if not Path(path).exists():
        raise FileNotFoundError(path)
    if Path(path).stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    _require_header(path, topology)
    if suffix_of(path) in CHOOSING:
        _looked_through(path, os.stat(path).st_mtime_ns, os.path.getsize(path))
    with warnings.catch_warnings():  # that another package would be faster
        warnings.simplefilter("ignore")
        file = kind(ascii_name(path))
    return _OneFrame(file) if suffix_of(path) in _RESTARTS else file


class _OneFrame:
    """A restart file of Amber's, read as mdtraj's files of many frames are."""

    def __init__(self, file: Any):
        self._file, self._at = file, 0

    def __len__(self) -> int:
        return 1

    def __enter__(self) -> "_OneFrame":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def seek(self, frame: int) -> None:
        self._at = frame

    def read(self, n_frames: int) -> Any:
        return self._file.read()

    def read_as_traj(
        self, topology: mdtraj.Topology, n_frames: int, atom_indices: np.ndarray | None
    ) -> mdtraj.Trajectory:
        found = self._file.read_as_traj(topology, atom_indices=atom_indices)[self._at :]
        self._at = 1
        return found


@lru_cache(maxsize=64)
def _looked_through(path: str, _changed: int, _size: int) -> None:
    """Once for every file: all headers of its frames are read."""
    require_same_atoms(path)


@contextmanager
def _no_c_output() -> Iterator[None]:
    """Readers in C print what they found, and half lines about errors that they also raise."""
    flush = ctypes.CDLL(None).fflush
    flush(None)
    before = {number: os.dup(number) for number in (1, 2)}
    with open(os.devnull, "wb") as nothing:
        for number in before:
            os.dup2(nothing.fileno(), number)
    try:
        yield
    finally:
        flush(None)
        for number, copy in before.items():
            os.dup2(copy, number)
            os.close(copy)


def _require_header(path: str, topology: Counted | None) -> None:
    """Hold the number of atoms that a header tells against the file's size and a topology, or None."""
    announced = announced_atoms(path)
    if announced is None:
        return
    count, least = announced
    if count < 0 or count * least > 8 * os.path.getsize(path):
        raise InputError(
            f"{path}: its header announces {count} atoms, more than a file of this size can hold"
        )
    if topology is not None:
        require_atoms(path, topology, count)


def _read(
    file: Any, path: str, topology: Counted, n_frames: int, atoms: np.ndarray | None = None
) -> mdtraj.Trajectory:
    named = () if suffix_of(path) in HDF5 else (_beads(topology.n_atoms),)
    with _no_c_output():
        return file.read_as_traj(*named, n_frames=n_frames, atom_indices=atoms)


class _Anonymous(mdtraj.Topology):
    """Particles without names: some of them are as good as so many others, which takes no time to make."""

    def subset(self, atom_indices: np.ndarray) -> mdtraj.Topology:
        return _beads(len(atom_indices))


@lru_cache(maxsize=4)
def _beads(count: int) -> mdtraj.Topology:
    """So many particles: mdtraj's readers want a topology."""
    top = _Anonymous()
    residue = top.add_residue("X", top.add_chain())
    for _ in range(count):
        top.add_atom("X", _BEAD, residue)
    return top
