"""Trajectory files through mdtraj: how many frames, and the frames in bounded pieces, in nm and ps.

Whatever mdtraj raises on a file that it cannot read becomes an InputError that names the file.
"""

import ctypes
import gzip
import os
import struct
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import mdtraj
import numpy as np
from mdtraj.formats.registry import FormatRegistry

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.trajectories.gsd import frame_count, gsd_topology, is_gsd, read_gsd

__all__ = ["describe_file", "holds_topology", "load_topology", "read_frames"]

PIECE_BYTES = 8e6
"""Coordinates that are read at a time."""
_WHOLE = (".pdb", ".pdb.gz", ".cif", ".cif.gz", ".gro")
"""Text formats, which mdtraj can only read whole."""
_WITH_TOPOLOGY = (*_WHOLE, ".h5", ".hdf5", ".lh5", ".gsd")


def holds_topology(path: str) -> bool:
    return str(path).endswith(_WITH_TOPOLOGY)


def load_topology(path: str) -> mdtraj.Topology:
    """Topology of any file that mdtraj understands. Raises InputError."""
    with _reading(path):
        if is_gsd(path):
            return gsd_topology(path)
        return (
            _load_whole(path, _stamp(path)).topology
            if _is_whole(path)
            else mdtraj.load_topology(path)
        )


def describe_file(path: str, topology: mdtraj.Topology) -> tuple[int, np.ndarray]:
    """Number of frames of a trajectory and its first frame [atoms, 3], nm.

    topology: its atoms, in its order. Raises InputError if the file is missing, no trajectory, empty,
    truncated, or of another number of atoms.
    """
    with _reading(path):
        if _is_whole(path):
            whole = _load_whole(path, _stamp(path))
            n_frames, first = whole.n_frames, whole.xyz[0]
            _require_atoms(path, topology, len(first))
        elif is_gsd(path):
            n_frames = frame_count(path)
            if n_frames == 0:
                raise InputError(f"{path}: no frames")
            first = next(read_gsd(path, 0, 1, 1))[0][0]
            _require_atoms(path, topology, len(first))
        else:
            with _no_c_output(), _open(path) as file:
                n_frames = len(file)
                promised = _promised_frames(path)
                if n_frames < promised:
                    raise InputError(
                        f"{path}: truncated, {n_frames} of {promised} frames are there"
                    )
                if n_frames == 0:
                    raise InputError(f"{path}: no frames")
                _require_atoms(path, topology, file.read(n_frames=1)[0].shape[1])
                file.seek(0)
                first = _read(file, path, topology, 1).xyz[0]
                file.seek(n_frames - 1)
                if (
                    len(_read(file, path, topology, 2)) != 1
                ):  # the second: pieces of a frame not counted
                    raise InputError(f"{path}: truncated, its last frame is incomplete")
    return n_frames, first


def read_frames(
    path: str, topology: mdtraj.Topology, start: int, stop: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Pieces of frames ``start`` to ``stop``: positions float32 [n, atoms, 3] (nm), times [n] (ps), and
    unit cells [n, 3, 3] (nm; rows are vectors) or None.

    Raises InputError if the file cannot be read or ends before ``stop``.
    """
    size = max(1, int(PIECE_BYTES / (12 * topology.n_atoms)))
    with _reading(path):
        if is_gsd(path):
            yield from read_gsd(path, start, stop, size)
            return
        if _is_whole(path):
            whole = _load_whole(path, _stamp(path))
            boxes = whole.unitcell_vectors
            for first in range(start, min(stop, len(whole)), size):
                last = min(stop, first + size)
                cells = None if boxes is None else boxes[first:last]
                yield whole.xyz[first:last], whole.time[first:last], cells
            return
        with _no_c_output():
            file = _open(path)
            file.seek(start)
        with file:
            while start < stop:
                piece = _read(file, path, topology, min(size, stop - start))
                if len(piece) == 0:
                    raise InputError(f"{path}: ends at frame {start}, {stop} frames were expected")
                yield piece.xyz, piece.time, piece.unitcell_vectors
                start += len(piece)


@contextmanager
def _reading(path: str):
    try:
        yield
    except (InputError, MemoryError):
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except ImportError as error:
        needed = "gsd (pip install 'hpcbackmap[gsd]')" if is_gsd(path) else error.name or "PyTables"
        raise InputError(f"{path}: reading this format needs {needed}") from None
    except Exception as error:  # mdtraj's readers raise nearly every class there is
        reason = textwrap.shorten(str(error) or type(error).__name__, 120, placeholder=" …")
        raise InputError(f"{path}: cannot be read, perhaps truncated ({reason})") from None


def _open(path: str):
    if not str(path).endswith(tuple(FormatRegistry.fileobjects)):
        raise InputError(
            f"{path}: not a trajectory file that mdtraj knows (xtc, dcd, trr, h5, pdb, pdb.gz, gro, gsd, …)"
        )
    if not Path(path).exists():
        raise FileNotFoundError(path)
    if Path(path).stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    return mdtraj.open(path)


@contextmanager
def _no_c_output():
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


def _require_atoms(path: str, topology: mdtraj.Topology, n_atoms: int) -> None:
    if n_atoms != topology.n_atoms:
        raise InputError(f"{path}: {n_atoms} atoms, the topology has {topology.n_atoms}")


def _read(file, path: str, topology: mdtraj.Topology, n_frames: int) -> mdtraj.Trajectory:
    if holds_topology(path):
        return file.read_as_traj(n_frames=n_frames)
    return file.read_as_traj(topology, n_frames=n_frames)


def _is_whole(path: str) -> bool:
    return str(path).endswith(_WHOLE)


def _stamp(path: str) -> int:
    return os.stat(path).st_mtime_ns


@lru_cache(maxsize=1)
def _load_whole(path: str, stamp: int) -> mdtraj.Trajectory:
    """The last text file read stays in memory: parsing it takes far longer than using it."""
    _require_structure(path)
    if str(path).endswith((".pdb", ".pdb.gz")):
        return mdtraj.load_pdb(path)  # mdtraj.load parses it twice
    return mdtraj.load(path)


def _require_structure(path: str) -> None:
    """Refuse a text file that is empty or something else, which mdtraj would tell by an index."""
    with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
        begin = file.read(1000).lstrip()
        file.seek(0)
        pdb = path.endswith((".pdb", ".pdb.gz"))
        atoms = not pdb or any(line.startswith((b"ATOM", b"HETATM")) for line in file)
    if not begin:
        raise InputError(f"{path}: the file is empty")
    if begin.startswith(b"<"):
        raise InputError(
            f"{path}: holds HTML or XML, no structure; was a web page saved in its place?"
        )
    if not atoms:
        raise InputError(f"{path}: no ATOM line; this is no PDB file with coordinates")


def _promised_frames(path: str) -> int:
    """Frames that the header of a DCD file tells of (mdtraj goes by the file's size); 0 if it does not say."""
    if not path.endswith(".dcd"):
        return 0
    with open(path, "rb") as file:
        header = file.read(12)
    if header[4:8] != b"CORD":
        return 0
    order = "<" if header[:4] == struct.pack("<i", 84) else ">"
    return struct.unpack(order + "i", header[8:12])[0]
