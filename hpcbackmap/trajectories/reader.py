"""Trajectory files: how many frames, and the frames in bounded pieces, in nm and ps.

Text is read frame by frame by this package, all else through mdtraj and gsd. Whatever these raise on a file
that they cannot read becomes an InputError that names the file.
"""

import ctypes
import os
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import mdtraj
import numpy as np
from mdtraj.formats.registry import FormatRegistry

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.files import ascii_name, require_file
from hpcbackmap.trajectories.cells import SMALLEST_CELL, cleaned, usable_cells
from hpcbackmap.trajectories.formats import (
    NAMED_TEXT,
    is_text,
    require_format,
    text_file,
    text_frames,
)
from hpcbackmap.trajectories.gsd import frame_count, is_gsd, read_gsd
from hpcbackmap.trajectories.headers import (
    announced_atoms,
    require_same_atoms,
    require_whole_dcd,
)
from hpcbackmap.trajectories.text import Frame, suffix_of
from hpcbackmap.trajectories.units import frame_bytes

__all__ = [
    "FAR",
    "OtherCount",
    "count_particles",
    "describe_file",
    "first_frames",
    "holds_frames",
    "holds_topology",
    "impossible_cell",
    "origin_of",
    "read_frames",
    "reading",
]

PIECE_BYTES = 8e6
"""Coordinates that are read at a time."""
FAR = 1000.0
"""nm from the origin beyond which a file's frames are moved back: 32-bit numbers are 6e-5 nm apart there."""
COARSEST = 1e-3
"""nm that the numbers of a file may be apart: the precision of XTC."""
HDF5 = (".h5", ".hdf5", ".lh5")
_WITH_TOPOLOGY = (*NAMED_TEXT, *HDF5, ".gsd")
_CHOOSING = (".xtc", ".trr")
"""Formats of which mdtraj holds one whole frame at a time and the chosen atoms of all."""
_RESTARTS = (".rst7", ".inpcrd", ".restrt", ".ncrst")
"""Formats of one frame."""
_BEAD = mdtraj.element.virtual


def holds_topology(path: str) -> bool:
    return suffix_of(path) in _WITH_TOPOLOGY


def holds_frames(path: str) -> bool:
    """Whether the suffix is that of a format with coordinates."""
    return is_text(path) or is_gsd(path) or suffix_of(path) in FormatRegistry.fileobjects


class Counted(Protocol):
    """A topology, or whatever else knows how many particles a frame has."""

    @property
    def n_atoms(self) -> int: ...


def count_particles(path: str) -> int:
    """Particles of a frame of a file without names. Raises InputError."""
    with reading(path):
        if is_text(path):
            return text_file(path).rows.n_atoms
        announced = announced_atoms(path) if Path(path).exists() else None
        if announced is not None:
            return announced[0]
        with _no_c_output(), _open(path, None) as file:
            block = file.read(n_frames=1)
            found: int = (block if hasattr(block, "shape") else block[0]).shape[1]
            return found


def describe_file(path: str, topology: Counted) -> tuple[int, np.ndarray]:
    """Number of frames of a trajectory and its first frame [atoms, 3], nm.

    Raises InputError if the file is missing, no trajectory, empty, truncated, or of
    another number of atoms.
    """
    with reading(path):
        if is_text(path):
            _require_atoms(path, topology, text_file(path).rows.n_atoms)
            n_frames = sum(1 for _ in text_file(path).frames())
        elif is_gsd(path):
            n_frames = frame_count(path)
        else:
            n_frames = _count_frames(path, topology)
        if n_frames == 0:
            raise InputError(f"{path}: no frames")
    return n_frames, first_frames(path, topology, 1)[0][0]


def first_frames(path: str, topology: Counted, count: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Positions [n, atoms, 3] and cells [n, 3, 3] (or None) of up to ``count`` frames."""
    pieces = list(read_frames(path, topology, 0, count, exactly=False))
    if not pieces:
        raise InputError(f"{path}: no frames")
    cells = [piece[2] for piece in pieces]
    shown = None if cells[0] is None else np.concatenate([c for c in cells if c is not None])
    return np.concatenate([piece[0] for piece in pieces]), shown


def read_frames(
    path: str,
    topology: Counted,
    start: int,
    stop: int,
    exactly: bool = True,
    atoms: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Pieces of frames ``start`` to ``stop``: positions float32 [n, atoms, 3] (nm), times [n] (ps), and
    unit cells [n, 3, 3] (nm; rows are vectors; zeros for none) or None.

    atoms: those to read, int64, in this order; default: all. What is left out of
    XTC and TRR is never in memory. Raises InputError if the file cannot be read or, with ``exactly``, ends
    before ``stop``. A file `FAR` from the origin is moved by `origin_of` it.
    """
    held = topology.n_atoms if atoms is None or suffix_of(path) not in _CHOOSING else len(atoms)
    size = max(1, int(PIECE_BYTES / frame_bytes(held)))
    origin = origin_of(path, topology)
    for positions, times, cells in _pieces(path, topology, start, stop, size, atoms):
        start += len(positions)
        if origin.any():
            _require_digits(path, positions)
            positions = positions - origin
        yield positions.astype(np.float32), times, cleaned(cells)
    if exactly and start < stop:
        raise InputError(f"{path}: ends at frame {start}, {stop} frames were expected")


def origin_of(path: str, topology: Counted) -> np.ndarray:
    """What is subtracted from every position of a file, nm [3]: 0 unless its first frame is `FAR` away."""
    return _origin(str(path), topology.n_atoms, os.path.getsize(path) if Path(path).exists() else 0)


@lru_cache(maxsize=64)
def _origin(path: str, n_atoms: int, _size: int) -> np.ndarray:
    count = _Count(n_atoms)
    for positions, *_ in _pieces(path, count, 0, 1, 1):
        with np.errstate(all="ignore"):
            centre = np.nanmean(positions[0].astype(np.float64), axis=0)
        if np.isfinite(centre).all() and np.abs(centre).max() > FAR:
            found: np.ndarray = np.rint(centre)
            return found
    return np.zeros(3)


def impossible_cell(path: str, topology: Counted) -> np.ndarray | None:
    """Edges [3, 3], nm, that the first frame has and no box can have; None for a box, none or a placeholder."""
    for *_, cells in _pieces(path, _Count(topology.n_atoms), 0, 1, 1):
        if cells is None or usable_cells(cells[:1])[0]:
            return None
        cell: np.ndarray = cells[0]
        return None if (np.abs(cell) <= SMALLEST_CELL).all() else cell
    return None


def _require_digits(path: str, positions: np.ndarray) -> None:
    """Refuse 32-bit numbers so large that they are further apart than `COARSEST`."""
    apart = np.spacing(np.nanmax(np.abs(positions)))
    if apart > COARSEST:
        far = np.nanmax(np.abs(positions))
        raise InputError(
            f"{path}: its particles are {far:.3g} nm from the origin, where the numbers of this format are "
            f"{apart:.2g} nm apart; move them to the origin in the program that wrote the file"
        )


class _Count:
    """So many particles without names."""

    def __init__(self, n_atoms: int):
        self.n_atoms = n_atoms


def _pieces(
    path: str, topology: Counted, start: int, stop: int, size: int, atoms: np.ndarray | None = None
) -> Iterator[tuple[Any, ...]]:
    """Positions (of text in float64) of chosen atoms, times and cells, as the file has them."""
    with reading(path):
        if is_text(path):
            _require_atoms(path, topology, text_file(path).rows.n_atoms)
            for positions, *rest in _text_pieces(path, start, stop, size):
                yield _chosen(positions, atoms), *rest
        elif is_gsd(path):
            for piece in read_gsd(path, start, stop, size):
                _require_atoms(path, topology, piece[0].shape[1])
                yield _chosen(piece[0], atoms), *piece[1:]
        else:
            yield from _mdtraj_pieces(path, topology, start, stop, size, atoms)


def _chosen(positions: np.ndarray, atoms: np.ndarray | None) -> np.ndarray:
    return positions if atoms is None else positions[:, atoms]


def _text_pieces(path: str, start: int, stop: int, size: int) -> Iterator[tuple[Any, ...]]:
    frames = text_frames(path, start, stop)
    while group := list(islice(frames, min(size, stop - start))):
        numbers = np.arange(start, start + len(group), dtype=np.float64)
        start += len(group)
        times = np.array([frame.time for frame in group])
        yield (
            np.stack([frame.positions for frame in group]),
            np.where(np.isnan(times), numbers, times),
            _cells(group),
        )


def _cells(group: list[Frame]) -> np.ndarray | None:
    if all(frame.cell is None for frame in group):
        return None
    return np.stack([np.zeros((3, 3)) if frame.cell is None else frame.cell for frame in group])


def _mdtraj_pieces(
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
                _require_atoms(path, topology, piece.n_atoms)
            with np.errstate(all="ignore"):
                cells = piece.unitcell_vectors
            yield _chosen(piece.xyz, back), piece.time, cells
            start += len(piece)


def _count_frames(path: str, topology: Counted) -> int:
    """Frames of a file of mdtraj's. Raises InputError if its header or its last frame tells that it is cut."""
    with _no_c_output(), _open(path, topology) as file:
        n_frames = len(file)
        if suffix_of(path) == ".dcd":
            require_whole_dcd(path, n_frames)
        if n_frames == 0:
            return 0
        block = file.read(n_frames=1)
        _require_atoms(path, topology, (block if hasattr(block, "shape") else block[0]).shape[1])
        file.seek(n_frames - 1)
        # the second: pieces of a frame not counted
        if len(_read(file, path, topology, 2)) != 1:
            raise InputError(f"{path}: truncated, its last frame is incomplete")
        return n_frames


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turns what libraries raise about ``path`` into InputError; refuses what is no file."""
    require_file(path)
    require_format(path)
    if suffix_of(path) in HDF5 and find_spec("tables") is None:
        raise InputError(f"{path}: reading HDF5 needs PyTables (pip install 'hpcbackmap[h5]')")
    try:
        yield
    except (InputError, MemoryError):
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except ImportError as error:
        needed = "gsd (pip install 'hpcbackmap[gsd]')" if is_gsd(path) else error.name
        raise InputError(f"{path}: reading this format needs {needed}") from None
    except Exception as error:  # mdtraj's readers raise nearly every class there is
        reason = textwrap.shorten(str(error) or type(error).__name__, 120, placeholder=" …")
        raise InputError(f"{path}: cannot be read, perhaps truncated ({reason})") from None


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
    if suffix_of(path) in _CHOOSING:
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


class OtherCount(InputError):
    """A file has another number of particles than its topology. count: its own."""

    def __init__(self, message: str, count: int):
        super().__init__(message)
        self.count = count


def _require_atoms(path: str, topology: Counted, n_atoms: int) -> None:
    if n_atoms != topology.n_atoms:
        message = f"{path}: {n_atoms} atoms, the topology has {topology.n_atoms}"
        raise OtherCount(message, n_atoms)


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
        _require_atoms(path, topology, count)


def _read(
    file: Any, path: str, topology: Counted, n_frames: int, atoms: np.ndarray | None = None
) -> mdtraj.Trajectory:
    named = () if holds_topology(path) else (_beads(topology.n_atoms),)
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
