"""What headers of XTC, TRR and DCD files tell, and what of it the files do not hold.

mdtraj goes by a file's size and by its first frame: a file that was cut, or to which one of other particles was
appended, has to be found here.
"""

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.trajectories.text import suffix_of

__all__ = ["announced_atoms", "require_same_atoms", "require_whole_dcd"]

ATOMS_AT = {".xtc": 4, ".trr": 64}
"""Bytes from the start of a frame to its number of atoms, big-endian."""
MAGIC = {".xtc": (b"\0\0\x07\xcb", b"\0\0\x07\xe7"), ".trr": (b"\0\0\x07\xc9",)}
HEADER = 100
"""Bytes in which the header of a frame ends."""
XTC_PLAIN, XTC_PACKED = 56, 88
"""Where coordinates of an XTC frame begin, and where the bytes of packed ones are counted."""
TRR_SIZES, TRR_TIMES = 24, 76
"""Where the sizes of the blocks of a TRR frame are, and its times."""
XTC_BITS, DCD_BITS = 3, 96
"""An atom takes so many bits at least."""


def announced_atoms(path: str) -> tuple[int, int] | None:
    """Atoms that the header of an XTC, TRR or DCD file tells of, and the least bits of one; None: not known."""
    suffix = suffix_of(path)
    if suffix in ATOMS_AT:
        at = ATOMS_AT[suffix]
        with open(path, "rb") as file:
            header = file.read(at + 4)
        if header[:4] not in MAGIC[suffix] or len(header) < at + 4:
            return None
        return struct.unpack(">i", header[at:])[0], XTC_BITS
    dcd = _dcd(path) if suffix == ".dcd" else None
    return None if dcd is None else (dcd.atoms, DCD_BITS)


def require_same_atoms(path: str) -> None:
    """Refuse an XTC or TRR file with a frame of other atoms than the first, before anything is read: mdtraj
    fills what a smaller one lacks with what is in memory, and writes a larger one beyond it.
    """
    first = None
    for frame, count in enumerate(_atoms_of_frames(path)):
        first = count if first is None else first
        if count != first:
            raise InputError(
                f"{path}: frame {frame} has {count} atoms, those before it {first}; were two trajectories put "
                "together?"
            )


def _atoms_of_frames(path: str) -> Iterator[int]:
    """Atoms by the header of each frame; ends where no frame begins."""
    suffix, start, size = suffix_of(path), 0, os.path.getsize(path)
    length = _xtc_bytes if suffix == ".xtc" else _trr_bytes
    with open(path, "rb") as file:
        while start < size:
            file.seek(start)
            header = file.read(HEADER)
            if header[:4] not in MAGIC[suffix] or len(header) < ATOMS_AT[suffix] + 4:
                return
            yield struct.unpack_from(">i", header, ATOMS_AT[suffix])[0]
            start += length(header)


def _xtc_bytes(header: bytes) -> int:
    """Of a frame with this header: up to nine atoms are not compressed."""
    (count,) = struct.unpack_from(">i", header, 4)
    if count <= 9:
        plain: int = XTC_PLAIN + 12 * max(count, 0)
        return plain
    large = header[:4] == MAGIC[".xtc"][1]
    (packed,) = struct.unpack_from(">q" if large else ">i", header.ljust(HEADER, b"\0"), XTC_PACKED)
    found: int = XTC_PACKED + (8 if large else 4) + max(packed + 3, 0) // 4 * 4
    return found


def _trr_bytes(header: bytes) -> int:
    """Of a frame with this header: its blocks, and times of four or eight bytes."""
    sizes = struct.unpack_from(">10i", header, TRR_SIZES)
    (count,) = struct.unpack_from(">i", header, ATOMS_AT[".trr"])
    real = sizes[2] // 9 or max(sizes[7:]) // max(3 * count, 1)
    found: int = TRR_TIMES + 2 * real + max(sum(sizes), 0)
    return found


def require_whole_dcd(path: str, frames: int) -> None:
    """Refuse a DCD file with fewer than the frames it announces, or with a piece of one after ``frames``.

    A header of an interrupted run announces none.
    """
    dcd = _dcd(path)
    if dcd is None:
        return
    if frames < dcd.frames:
        raise InputError(f"{path}: truncated, {frames} of {dcd.frames} frames are there")
    rest = os.path.getsize(path) - dcd.begin - frames * dcd.frame_bytes
    if not dcd.fixed and 0 < rest < dcd.frame_bytes:
        raise InputError(
            f"{path}: truncated, {frames} frames and {rest} of the {dcd.frame_bytes} bytes of another are "
            f"there; cut it after byte {os.path.getsize(path) - rest} (truncate -s)"
        )


class _Dcd(NamedTuple):
    """frames: announced. atoms: of a frame. begin: first byte of the first frame. fixed: atoms that only the
    first frame has.
    """

    frames: int
    atoms: int
    begin: int
    frame_bytes: int
    fixed: int


def _dcd(path: str) -> _Dcd | None:
    """None for a file that is none, or of another word size."""
    with open(path, "rb") as file:
        header = file.read(92)
        if len(header) < 92 or header[4:8] != b"CORD":
            return None
        order = "<" if header[:4] == struct.pack("<i", 84) else ">"
        numbers = struct.unpack(order + "20i", header[8:88])
        (title,) = struct.unpack(order + "i", file.read(4).ljust(4, b"\0"))
        file.seek(92 + 8 + max(title, 0) + 4)
        word = file.read(4)
    if title < 0 or len(word) < 4:
        return None
    (atoms,) = struct.unpack(order + "i", word)
    charmm = numbers[19] != 0
    cell = 56 if charmm and numbers[10] else 0
    axes = 4 if charmm and numbers[11] else 3
    return _Dcd(
        frames=numbers[0],
        atoms=atoms,
        begin=92 + 8 + title + 12,
        frame_bytes=cell + axes * (4 * atoms + 8),
        fixed=numbers[8],
    )
