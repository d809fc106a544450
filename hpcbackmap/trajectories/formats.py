"""Which reader a file needs, by its suffix: upper or lower case, with or without ``.gz``."""

import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any

from hpcbackmap.trajectories.gro import GroFile
from hpcbackmap.trajectories.lammps import LammpsFile
from hpcbackmap.trajectories.lammps_data import LammpsData
from hpcbackmap.trajectories.mmcif import MmcifFile
from hpcbackmap.trajectories.pdb import PdbFile
from hpcbackmap.trajectories.text import Frame, TextFile, suffix_of

__all__ = ["NAMED_TEXT", "TEXT", "is_text", "may_be_crystal", "text_file", "text_frames"]

TEXT: dict[str, Callable[[str], TextFile]] = {
    ".pdb": PdbFile, ".ent": PdbFile, ".pdb1": PdbFile, ".brk": PdbFile, ".cif": MmcifFile, ".mmcif": MmcifFile,
    ".pdbx": MmcifFile, ".gro": GroFile, ".lammpstrj": LammpsFile, ".lammpsdump": LammpsFile,
    ".dump": LammpsFile, ".data": LammpsData, ".lmp": LammpsData, ".lammps": LammpsData,
}  # fmt: skip

NAMED_TEXT = tuple(suffix for suffix, kind in TEXT.items() if kind is not LammpsFile)
"""Text that names particles and residues."""

CRYSTALS = tuple(suffix for suffix, kind in TEXT.items() if kind in (PdbFile, MmcifFile))

_open: dict[tuple[Any, ...], tuple[int, Iterator[Frame]]] = {}
"""The text last read, and its next frame: reading on must not begin at the first line again."""


def is_text(path: str) -> bool:
    return suffix_of(path) in TEXT


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
