"""Trajectory files that several ranks wrote, one after another, as one file."""

import shutil
import struct
from pathlib import Path
from typing import BinaryIO

from hpcbackmap.runtime.files import commit, writing

__all__ = ["join_files"]

COPIED = 1 << 22
"""Bytes that are held at a time."""
DCD_COUNTS = (8, 20)
"""Where the header of a DCD file holds its number of frames, and of steps, which are the same here."""
TAIL = 10_000_000
"""Bytes in which the end of a PDB file is looked for."""
FRAME_STARTS = {".pdb": b"MODEL", ".cif": b"ATOM"}
"""How the first line of a frame begins."""


def join_files(parts: list[Path], output: Path) -> None:
    """One file of the frames of all ``parts``, in order. ``output`` appears when it is whole, the parts go.

    parts: files of `TrajectoryWriter`, of the format that the suffix of ``output`` names. Raises OutputError.
    """
    first, *others = parts
    with writing(output):
        with first.open("r+b") as joined:
            tail = _pdb_tail(joined) if output.suffix == ".pdb" else b""
            joined.truncate(first.stat().st_size - len(tail))
            joined.seek(0, 2)
            for part in others:
                with part.open("rb") as file:
                    _append(file, joined, output.suffix)
            joined.write(tail)
        commit(first, output)
        for part in others:
            part.unlink()


def _append(file: BinaryIO, joined: BinaryIO, suffix: str) -> None:
    """Frames of an XTC or GRO file stand for themselves; the others have a header before them, PDB a line
    after them.
    """
    if suffix == ".dcd":
        for place in DCD_COUNTS:
            count = _number(file, place) + _number(joined, place)
            joined.seek(place)
            joined.write(struct.pack("=i", count))
        joined.seek(0, 2)
        file.seek(_dcd_header(file))
    for start in filter(None, [FRAME_STARTS.get(suffix)]):
        while (line := file.readline()) and not line.startswith(start):
            pass
        file.seek(-len(line), 1)
    shutil.copyfileobj(file, joined, COPIED)
    if suffix == ".pdb":
        joined.seek(-len(_pdb_tail(joined)), 2)
        joined.truncate()


def _pdb_tail(file: BinaryIO) -> bytes:
    """What stands behind the last frame: bonds, END."""
    file.seek(0, 2)
    file.seek(max(0, file.tell() - TAIL))
    return file.read().rpartition(b"ENDMDL\n")[2]


def _dcd_header(file: BinaryIO) -> int:
    """Bytes of the three records (counts, title, atoms) before the first frame."""
    end = 0
    for _ in range(3):
        end += _number(file, end) + 8
    return end


def _number(file: BinaryIO, place: int) -> int:
    file.seek(place)
    found: int = struct.unpack("=i", file.read(4))[0]
    return found
