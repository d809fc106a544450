"""GRO files of GROMACS: names and frames, read frame by frame."""

import math
import os
import re
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.trajectories.text import Frame, Rows, bad_line, decode, lines_of, numbers_of

__all__ = ["GroFile"]

SHORTEST = 35
"""Bytes of an atom's line at least: names, number and three coordinates."""
NAMES = slice(0, 15)
PLACES = (0, 1, 2), (0, 0, 1, 1, 2, 2), (1, 2, 0, 2, 0, 1)
"""Order of a box line: the diagonal, then v1y v1z v2x v2z v3x v3y."""


class _Block(NamedTuple):
    title: bytes
    lines: list[bytes]
    first: int
    box: np.ndarray | None


class GroFile:
    """Raises InputError that names file and line for text that is not understood."""

    def __init__(self, path: str):
        self.path = str(path)
        block = next(self._blocks(), None)
        if block is None or not block.lines:
            raise InputError(f"{path}: no atoms; this is no GRO file with coordinates")
        self._identity = [line[NAMES] for line in block.lines]
        self.rows = _rows(block, self.path)

    @cached_property
    def first(self) -> Frame:
        return next(self.frames())

    def frames(self) -> Iterator[Frame]:
        """Every frame. Raises InputError if one has other atoms."""
        for count, block in enumerate(self._blocks()):
            found = [line[NAMES] for line in block.lines]
            if found != self._identity:
                at = next(
                    (
                        i
                        for i, (a, b) in enumerate(zip(found, self._identity, strict=False))
                        if a != b
                    ),
                    min(len(found), len(self._identity)) - 1,
                )
                raise bad_line(
                    self.path,
                    block.first + max(at, 0),
                    f"frame {count} has other atoms than the first ({len(found)} and "
                    f"{len(self._identity)}, atom {at + 1} differs)",
                )
            yield Frame(_positions(block, self.path), block.box, _time(block.title))

    def _blocks(self) -> Iterator[_Block]:
        lines = lines_of(self.path)
        for number, title in lines:
            if not title.strip():
                continue  # a title may be blank, but then the count follows at once
            number, line = next(lines, (number + 1, b""))
            count, untitled = _count(title, line, number, self.path)
            atoms = [line] if untitled else []
            first = number + 1 - len(atoms)
            while len(atoms) < count:
                number, line = next(lines, (number + 1, b""))
                if len(line.rstrip()) < SHORTEST:
                    raise bad_line(
                        self.path, number, f"atom {len(atoms) + 1} of {count} is cut off or missing"
                    )
                atoms.append(line)
            number, line = next(lines, (number + 1, b""))
            yield _Block(title, atoms, first, _box(line, number, self.path))


def _count(title: bytes, line: bytes, number: int, path: str) -> tuple[int, bool]:
    """Atoms of a frame, and whether a blank title was skipped, so that ``title`` is the line of the count."""
    if re.fullmatch(rb"\s*\d{1,9}\s*", line):
        count = int(line)
    elif re.fullmatch(rb"\s*\d{1,9}\s*", title):
        return int(title) or 1, True
    else:
        raise bad_line(path, number, f"{decode(line)[:20]!r} is no number of atoms")
    if count == 0:
        raise bad_line(path, number, "no atoms are announced")
    if not path.lower().endswith(".gz") and count * SHORTEST > os.path.getsize(path):
        raise bad_line(path, number, f"{count} atoms are announced, the file is too short for them")
    return count, False


def _box(line: bytes, number: int, path: str) -> np.ndarray | None:
    try:
        values = [float(word) for word in line.split()]
    except ValueError:
        values = []
    if len(values) not in (3, 9):
        raise bad_line(path, number, "no box (three or nine numbers) follows the atoms")
    diagonal, rows, columns = PLACES
    cell = np.zeros((3, 3))
    cell[diagonal, diagonal] = values[:3]
    if len(values) == 9:
        cell[rows, columns] = values[3:]
    return cell if cell.any() else None


def _positions(block: _Block, path: str) -> np.ndarray:
    """Columns are as wide as the decimal points of the first atom stand apart."""
    line = block.lines[0].rstrip()
    points = [match.start() for match in re.finditer(rb"\.", line[20:])]
    if len(points) < 3 or not 4 <= points[1] - points[0] <= 25:
        raise bad_line(path, block.first, "three coordinates are expected from column 21 on")
    end = 20 + 3 * (points[1] - points[0])
    fields = [line[20:end] for line in block.lines]
    numbers = range(block.first, block.first + len(fields))
    return numbers_of(fields, 3, list(numbers), path)


def _rows(block: _Block, path: str) -> Rows:
    rows = Rows([], [], [], [], [], [], [], [])
    for i, line in enumerate(block.lines):
        try:
            number = int(line[0:5])
        except ValueError:
            raise bad_line(
                path, block.first + i, f"{decode(line[0:5])!r} is no residue number"
            ) from None
        rows.numbers.append(number)
        rows.residue_names.append(decode(line[5:10]))
        rows.names.append(decode(line[10:15]))
    blank = [""] * len(rows.names)
    return rows._replace(
        insertions=blank, chains=blank, segments=blank, elements=blank, strands=[0] * len(blank)
    )


def _time(title: bytes) -> float:
    match = re.search(rb"\bt=\s*(\S+)", title)
    try:
        return float(match[1]) if match else math.nan
    except ValueError:
        return math.nan
