"""XYZ files, frame by frame: a count, a comment, a line of name and three coordinates for each particle.

Lengths are in Angstrom. ``Lattice="…"`` in a comment (extended XYZ) is the cell.
"""

import math
import os
import re
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.trajectories.text import Frame, Rows, bad_line, decode, lines_of

__all__ = ["XyzFile"]

SHORTEST = 6
"""Bytes of a particle's line at least."""
LATTICE = re.compile(rb'Lattice="([^"]*)"', re.IGNORECASE)


class _Block(NamedTuple):
    comment: bytes
    words: list[list[bytes]]
    line: int


class XyzFile:
    """rows: a residue for each particle, both named as in the file.

    Raises InputError that names file and line.
    """

    def __init__(self, path: str):
        self.path = str(path)
        block = next(self._blocks(), None)
        if block is None:
            raise InputError(f"{path}: no count of particles; this is no XYZ file")
        self.rows = _rows(block)

    @cached_property
    def first(self) -> Frame:
        return next(self.frames())

    def frames(self) -> Iterator[Frame]:
        for count, block in enumerate(self._blocks()):
            if len(block.words) != self.rows.n_atoms:
                raise bad_line(
                    self.path,
                    block.line,
                    f"frame {count} has {len(block.words)} particles, the first {self.rows.n_atoms}",
                )
            yield Frame(self._positions(block), _cell(block.comment), math.nan)

    def _blocks(self) -> Iterator[_Block]:
        lines = lines_of(self.path)
        for number, line in lines:
            if not line.strip():
                continue
            count = self._count(number, line)
            _, comment = next(lines, (number, b""))
            words = []
            for _ in range(count):
                here, line = next(lines, (number, b""))
                words.append(line.split())
                if len(words[-1]) < 4:
                    raise bad_line(
                        self.path,
                        here,
                        f"particle {len(words)} of {count} has no name and three coordinates; is the file "
                        "truncated?",
                    )
            yield _Block(comment, words, number)

    def _count(self, number: int, line: bytes) -> int:
        text = line.strip()
        if not text.isdigit() or not 0 < int(text) < 10**10:
            raise bad_line(self.path, number, f"{decode(line)[:20]!r} is no number of particles")
        count = int(text)
        if not self.path.lower().endswith(".gz") and count * SHORTEST > os.path.getsize(self.path):
            raise bad_line(
                self.path,
                number,
                f"{count} particles are announced, the file is too short for them",
            )
        return count

    def _positions(self, block: _Block) -> np.ndarray:
        """[P, 3], nm."""
        try:
            found = np.array([words[1:4] for words in block.words]).astype(np.float64) / 10
        except ValueError:
            for row, words in enumerate(block.words):
                for word in words[1:4]:
                    if not _is_number(word):
                        raise bad_line(
                            self.path, block.line + 2 + row, f"{decode(word)[:20]!r} is no number"
                        ) from None
            raise
        return found


def _is_number(word: bytes) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _cell(comment: bytes) -> np.ndarray | None:
    """[3, 3], nm; None where the comment has none."""
    match = LATTICE.search(comment)
    try:
        values = [float(word) for word in match[1].split()] if match else []
    except ValueError:
        return None
    return np.array(values).reshape(3, 3) / 10 if len(values) == 9 else None


def _rows(block: _Block) -> Rows:
    names = [decode(words[0]) for words in block.words]
    blank = [""] * len(names)
    return Rows(
        names=names,
        residue_names=names,
        numbers=list(range(1, len(names) + 1)),
        insertions=blank,
        chains=blank,
        segments=blank,
        strands=[0] * len(names),
        elements=blank,
    )
