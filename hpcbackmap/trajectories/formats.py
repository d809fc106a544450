"""Which reader a file needs, by its suffix: upper or lower case, with or without ``.gz``."""

import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.trajectories.gro import GroFile
from hpcbackmap.trajectories.lammps import LammpsFile
from hpcbackmap.trajectories.lammps_data import LammpsData
from hpcbackmap.trajectories.mmcif import MmcifFile
from hpcbackmap.trajectories.pdb import PdbFile
from hpcbackmap.trajectories.text import Frame, TextFile, suffix_of
from hpcbackmap.trajectories.xyz import XyzFile

__all__ = [
    "NAMED_TEXT",
    "TEXT",
    "is_text",
    "may_be_crystal",
    "require_format",
    "text_file",
    "text_frames",
]

TEXT: dict[str, Callable[[str], TextFile]] = {
    ".pdb": PdbFile, ".ent": PdbFile, ".pdb1": PdbFile, ".brk": PdbFile, ".cif": MmcifFile, ".mmcif": MmcifFile,
    ".pdbx": MmcifFile, ".gro": GroFile, ".lammpstrj": LammpsFile, ".lammpsdump": LammpsFile,
    ".dump": LammpsFile, ".data": LammpsData, ".lmp": LammpsData, ".lammps": LammpsData, ".xyz": XyzFile,
}  # fmt: skip

NAMED_TEXT = tuple(suffix for suffix, kind in TEXT.items() if kind not in (LammpsFile, XyzFile))
"""Text that names particles and residues."""

CRYSTALS = tuple(suffix for suffix, kind in TEXT.items() if kind in (PdbFile, MmcifFile))

_PACKED = "a packed file: unpack it"
_NEITHER = "write PDB or mmCIF from the program that it belongs to"
_DOWNLOAD = "binary: take the same entry as mmCIF (.cif)"
UNREAD = {
    ".tpr": "a run input of GROMACS: gmx editconf -f NAME.tpr -o NAME.gro writes what can be read",
    ".tng": "gmx trjconv -f NAME.tng -o NAME.xtc writes what can be read",
    ".g96": "gmx trjconv -f NAME.g96 -o NAME.xtc (or editconf, .gro) writes what can be read",
    ".mdcrd": "text of Amber without a number of atoms: cpptraj (trajout NAME.nc) writes what can be read",
    ".crd": "text of Amber or CHARMM: cpptraj (trajout NAME.nc), or PDB by CHARMM, is what can be read",
    ".arc": "of Tinker: write PDB, DCD or XYZ",
    ".dtr": "of Desmond: write DCD or XTC (VMD, mdconvert)",
    ".bcif": _DOWNLOAD,
    ".mmtf": _DOWNLOAD,
    ".npy": "numbers alone: write XTC or DCD (mdtraj) and a PDB file that names the particles",
    ".npz": "numbers alone: write XTC or DCD (mdtraj) and a PDB file that names the particles",
    **dict.fromkeys(
        (".pdbqt", ".pqr", ".mae", ".maegz", ".sdf", ".xml", ".json", ".pse"), _NEITHER
    ),
    **dict.fromkeys((".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz", ".7z"), _PACKED),
}
"""Formats that users have and that are not read, and what to do about each."""

_open: dict[tuple[Any, ...], tuple[int, Iterator[Frame]]] = {}
"""The text last read, and its next frame: reading on must not begin at the first line again."""


def is_text(path: str) -> bool:
    return suffix_of(path) in TEXT


def require_format(path: str) -> None:
    """Refuse a file of which it is known that it is not read, with the way on. Raises InputError."""
    suffix = suffix_of(path)
    if suffix in UNREAD:
        raise InputError(f"{path}: {suffix} is not read; {UNREAD[suffix]}")
    if str(path).lower().endswith(".gz") and suffix not in TEXT:
        raise InputError(f"{path}: only text is read as .gz; unpack it (gunzip)")


def may_be_crystal(path: str) -> bool:
    """Whether the cell in a file may be that of a crystal, whose author chose where each chain is."""
    return suffix_of(path) in CRYSTALS


def text_file(path: str) -> TextFile:
    """PdbFile, MmcifFile or GroFile of ``path``. Raises InputError."""
    return _text_file(str(path), _stamp(path))


def text_frames(path: str, start: int, stop: int) -> Iterator[Frame]:
    """Frames ``start`` to ``stop``, as many as there are."""
    if (start, stop) == (0, 1):
        yield text_file(path).first
        return
    key = str(path), _stamp(path)
    at, frames = _open.pop(key, (0, None))
    if frames is None or at > start:
        at, frames = 0, text_file(path).frames()
    for _ in islice(frames, start - at):
        at += 1
    for frame in islice(frames, stop - start):
        at += 1
        yield frame
    _open.clear()
    _open[key] = at, frames


@lru_cache(maxsize=2)
def _text_file(path: str, _changed: int) -> TextFile:
    return TEXT[suffix_of(path)](path)


def _stamp(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
