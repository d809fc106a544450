"""Dump files of LAMMPS, frame by frame: particles by id, in any order, plain, unwrapped or scaled.

Lengths are taken as Angstrom (units real and metal), unless ``ITEM: UNITS`` says otherwise. A frame's
time is ``ITEM: TIME`` where that is there, else its step.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.trajectories.text import Frame, Rows, bad_line, decode, lines_of

__all__ = ["LammpsFile"]

NM = {"nano": 1.0, "micro": 1e3, "si": 1e9, "cgs": 1e7}
"""nm of a unit of length where it is not Angstrom."""
PLACES = (("xu", "yu", "zu"), ("xsu", "ysu", "zsu"), ("x", "y", "z"), ("xs", "ys", "zs"))
IMAGES = ("ix", "iy", "iz")
OPEN = {a + b for a in (b"p", b"f", b"s", b"m") for b in (b"f", b"s", b"m")} | {b"fp", b"sp", b"mp"}
"""Boundaries that are not periodic on both sides."""
SHORTEST = 5
"""Bytes of an atom's line at least."""


@dataclass
class _Header:
    """What was read of a frame before its atoms; a later frame keeps what it does not say anew."""

    time: float | None = None
    step: float = 0.0
    unit: float = 0.1
    count: int | None = None
    box: np.ndarray | None = None
    periodic: bool = True


class _Block(NamedTuple):
    time: float
    unit: float
    box: np.ndarray
    periodic: bool
    columns: list[str]
    values: list[bytes]
    line: int

    @property
    def n_atoms(self) -> int:
        return len(self.values) // len(self.columns)


class LammpsFile:
    """rows: ids and types; molecules by ``mol``. Raises InputError that names file and line."""

    def __init__(self, path: str):
        self.path = str(path)
        block = next(self._blocks(), None)
        if block is None:
            raise InputError(f"{path}: no ITEM: ATOMS; this is no LAMMPS dump with coordinates")
        self._ids = self._sorted(block)[0]
        self.rows = self._rows(block)

    @cached_property
    def first(self) -> Frame:
        return next(self.frames())

    def frames(self) -> Iterator[Frame]:
        for count, block in enumerate(self._blocks()):
            ids, order = self._sorted(block)
            if not np.array_equal(ids, self._ids):
                raise bad_line(
                    self.path,
                    block.line,
                    f"frame {count} has {len(ids)} particles of other ids than the first "
                    f"({len(self._ids)} particles)",
                )
            cell = (block.box[1:] * block.unit) if block.periodic else None
            yield Frame(self._positions(block)[order] * block.unit, cell, block.time)

    def _blocks(self) -> Iterator[_Block]:
        lines = lines_of(self.path)
        header = _Header()
        for number, line in lines:
            words = line.split()
            if words[:1] != [b"ITEM:"]:
                if words:
                    shown = decode(line)[:30]
                    raise bad_line(self.path, number, f"{shown!r} stands where ITEM: belongs")
                continue
            item = b" ".join(words[1:3])
            if item.startswith(b"ATOMS"):
                yield self._atoms(header, words[2:], lines, number)
                continue
            if item == b"BOX BOUNDS":
                rows = [next(lines, (number, b"")) for _ in range(3)]
                header.box = self._box(words[3:], rows)
                header.periodic = not any(word in OPEN for word in words[3:])
                continue
            here, text = next(lines, (number, b""))
            if item == b"NUMBER OF":
                header.count = self._count(here, text)
            elif item == b"UNITS":
                header.unit = NM.get(decode(text), 0.1)
            elif item == b"TIMESTEP":
                header.step = self._number(text, here)
            elif item == b"TIME":
                header.time = self._number(text, here)

    def _atoms(
        self, header: "_Header", words: list[bytes], lines: Iterator[tuple[int, bytes]], number: int
    ) -> _Block:
        columns = [decode(word) for word in words]
        if header.count is None or header.box is None:
            raise bad_line(self.path, number, "no NUMBER OF ATOMS and BOX BOUNDS stand before it")
        if "id" not in columns or not any(set(place) <= set(columns) for place in PLACES):
            raise bad_line(
                self.path,
                number,
                f"columns {' '.join(columns) or '(none)'}: id and three coordinates (x y z, xu yu zu or xs ys "
                "zs) are needed; write `dump … custom … id type xu yu zu`, or convert to XTC or DCD",
            )
        text = []
        for _ in range(header.count):
            here, line = next(lines, (number, b""))
            if len(line.split()) != len(columns):
                raise bad_line(
                    self.path, here, f"{len(columns)} columns are expected; is the file truncated?"
                )
            text.append(line)
        time = header.step if header.time is None else header.time
        values = b" ".join(text).split()
        return _Block(time, header.unit, header.box, header.periodic, columns, values, number)

    def _column(self, block: _Block, name: str) -> np.ndarray:
        words = block.values[block.columns.index(name) :: len(block.columns)]
        try:
            return np.array(words, dtype="S").astype(np.float64)
        except ValueError:
            for row, word in enumerate(words):
                self._number(word, block.line + 1 + row)
            raise

    def _sorted(self, block: _Block) -> tuple[np.ndarray, np.ndarray]:
        ids = self._column(block, "id")
        order = np.argsort(ids, kind="stable")
        if len(np.unique(ids)) < len(ids):
            raise bad_line(self.path, block.line, "two particles of a frame have one id")
        return ids[order], order

    def _positions(self, block: _Block) -> np.ndarray:
        """In the dump's unit, [P, 3], in its order."""
        place = next(place for place in PLACES if set(place) <= set(block.columns))
        found = np.stack([self._column(block, name) for name in place], axis=1)
        if place[0] in ("xs", "xsu"):
            found = block.box[0] + found @ block.box[1:]
        if not place[0].endswith("u") and set(IMAGES) <= set(block.columns):
            found += (
                np.stack([self._column(block, name) for name in IMAGES], axis=1) @ block.box[1:]
            )
        return found

    def _rows(self, block: _Block) -> Rows:
        _, order = self._sorted(block)
        count = block.n_atoms
        blank = [""] * count

        def texts(name: str, default: list[str]) -> list[str]:
            if name not in block.columns:
                return default
            words = block.values[block.columns.index(name) :: len(block.columns)]
            return [decode(words[i]) for i in order]

        kinds = texts("type", ["1"] * count)
        molecules = {name: k for k, name in enumerate(dict.fromkeys(texts("mol", blank)))}
        numbers = [int(value) for value in self._ids]
        return Rows(
            names=texts("element", kinds),
            residue_names=kinds,
            numbers=numbers,
            insertions=blank,
            chains=blank,
            segments=blank,
            strands=[molecules[name] for name in texts("mol", blank)],
            elements=blank,
        )

    def _count(self, number: int, line: bytes) -> int:
        text = line.strip()
        if not text.isdigit() or not 0 < int(text) < 10**10:
            raise bad_line(self.path, number, f"{decode(line)[:20]!r} is no number of atoms")
        count = int(text)
        if not self.path.lower().endswith(".gz") and count * SHORTEST > os.path.getsize(self.path):
            raise bad_line(
                self.path, number, f"{count} atoms are announced, the file is too short for them"
            )
        return count

    def _box(self, words: list[bytes], rows: list[tuple[int, bytes]]) -> np.ndarray:
        """Origin and three edges [4, 3]; bounds of a tilted box are those of a box around it."""
        table = []
        for number, line in rows:
            values = [self._number(word, number) for word in line.split()]
            if len(values) not in (2, 3, 4):
                raise bad_line(self.path, number, "the bounds of the box are not understood")
            table.append(values)
        if len(table[0]) == 4 or words[:1] == [b"abc"]:
            wide = np.array(table)
            return np.vstack([wide[:, 3], wide[:, :3]])
        low, high = (np.array([row[k] for row in table]) for k in (0, 1))
        xy, xz, yz = (row[2] for row in table) if len(table[0]) == 3 else (0.0, 0.0, 0.0)
        low = low - [min(0.0, xy, xz, xy + xz), min(0.0, yz), 0.0]
        high = high - [max(0.0, xy, xz, xy + xz), max(0.0, yz), 0.0]
        x, y, z = high - low
        return np.array([low, [x, 0, 0], [xy, y, 0], [xz, yz, z]])

    def _number(self, word: bytes, line: int) -> float:
        try:
            return float(word)
        except ValueError:
            raise bad_line(self.path, line, f"{decode(word)[:20]!r} is no number") from None
