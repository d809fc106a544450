"""Trajectory files: how many frames, and the frames in bounded pieces, in nm and ps.

Text is read frame by frame by this package, all else through mdtraj and gsd. Whatever these raise on a file
that they cannot read becomes an InputError that names the file.
"""

import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from mdtraj.formats.registry import FormatRegistry

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.files import require_file
from hpcbackmap.trajectories.cells import SMALLEST_CELL, cleaned, usable_cells
from hpcbackmap.trajectories.formats import (
    NAMED_TEXT,
    is_text,
    require_format,
    text_file,
    text_frames,
)
from hpcbackmap.trajectories.gsd import frame_count, is_gsd, read_gsd
from hpcbackmap.trajectories.headers import announced_atoms
from hpcbackmap.trajectories.mdtraj_files import (
    CHOOSING,
    HDF5,
    Counted,
    count_frames,
    mdtraj_pieces,
    particles_of_first_frame,
    require_atoms,
)
from hpcbackmap.trajectories.text import Frame, suffix_of
from hpcbackmap.trajectories.units import frame_bytes

__all__ = [
    "FAR",
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
_WITH_TOPOLOGY = (*NAMED_TEXT, *HDF5, ".gsd")


def holds_topology(path: str) -> bool:
    return suffix_of(path) in _WITH_TOPOLOGY


def holds_frames(path: str) -> bool:
    """Whether the suffix is that of a format with coordinates."""
    return is_text(path) or is_gsd(path) or suffix_of(path) in FormatRegistry.fileobjects


def count_particles(path: str) -> int:
    """Particles of a frame of a file without names. Raises InputError."""
    with reading(path):
        if is_text(path):
            return text_file(path).rows.n_atoms
        announced = announced_atoms(path) if Path(path).exists() else None
        if announced is not None:
            return announced[0]
        return particles_of_first_frame(path)


def describe_file(path: str, topology: Counted) -> tuple[int, np.ndarray]:
    """Number of frames of a trajectory and its first frame [atoms, 3], nm.

    Raises InputError if the file is missing, no trajectory, empty, truncated, or of
    another number of atoms.
    """
    with reading(path):
        if is_text(path):
            require_atoms(path, topology, text_file(path).rows.n_atoms)
            n_frames = sum(1 for _ in text_file(path).frames())
        elif is_gsd(path):
            n_frames = frame_count(path)
        else:
            n_frames = count_frames(path, topology)
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
    held = topology.n_atoms if atoms is None or suffix_of(path) not in CHOOSING else len(atoms)
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
            require_atoms(path, topology, text_file(path).rows.n_atoms)
            for positions, *rest in _text_pieces(path, start, stop, size):
                yield _chosen(positions, atoms), *rest
        elif is_gsd(path):
            for piece in read_gsd(path, start, stop, size):
                require_atoms(path, topology, piece[0].shape[1])
                yield _chosen(piece[0], atoms), *piece[1:]
        else:
            yield from mdtraj_pieces(path, topology, start, stop, size, atoms)


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
