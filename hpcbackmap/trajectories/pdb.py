"""PDB files: names, identity and frames, read model by model.

Widths grew over time, so: residue names of three or four letters, numbers of four or five digits or in
hybrid-36, chains of one or two letters, element and segment where there are some.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from hpcbackmap.protein.residues import standard_residue_name
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.trajectories.cells import cell_of
from hpcbackmap.trajectories.hybrid36 import read_hybrid36
from hpcbackmap.trajectories.text import Frame, Rows, bad_line, decode, lines_of, numbers_of

__all__ = ["PdbFile"]

ATOM = (b"ATOM  ", b"HETATM")
IDENTITY = slice(12, 27)
"""Columns that are the same in every model: names, chain, number."""


class _Model(NamedTuple):
    lines: list[bytes]
    numbers: list[int]
    strands: list[int]
    cell: np.ndarray | None


class PdbFile:
    """rows: of the atoms that are kept, after alternate locations. disulphides: of SSBOND, pairs of (chain,
    number, insertion). alternates: number of atoms left out as alternate locations. bad_cell: what CRYST1 says,
    where no box can have it.

    Raises InputError that names file and line for text that is not understood.
    """

    def __init__(self, path: str):
        self.path = str(path)
        self.disulphides: list[tuple[tuple[Any, ...], tuple[Any, ...]]] = []
        self.bad_cell = ""
        model = next(self._models(), None)
        if model is None:
            raise InputError(f"{path}: no ATOM line; this is no PDB file with coordinates")
        self._keep = _kept(model, self.path)
        self._identity = [line[IDENTITY] for line in model.lines]
        self.alternates = len(model.lines) - len(self._keep)
        self.rows = _rows(model, self._keep, self.path)

    @cached_property
    def first(self) -> Frame:
        return next(self.frames())

    def frames(self) -> Iterator[Frame]:
        """Every model. Raises InputError if one has other atoms, or the same in another order."""
        for count, model in enumerate(self._models()):
            self._require_same(model, count)
            fields = [line[30:54] for line in model.lines]
            positions = numbers_of(fields, 3, model.numbers, self.path) / 10
            yield Frame(positions[self._keep], model.cell, math.nan)

    def _models(self) -> Iterator[_Model]:
        cell, strand, model = None, 0, _Model([], [], [], None)
        bonds = not self.disulphides
        for number, line in lines_of(self.path):
            tag = line[:6]
            if tag in ATOM:
                model.lines.append(line)
                model.numbers.append(number)
                model.strands.append(strand)
                if len(line.rstrip()) < 54:
                    raise bad_line(self.path, number, "ends before the coordinates do")
            elif tag.startswith(b"TER"):
                strand += 1
            elif tag == b"CRYST1":
                cell = _cell(line)
                if cell is None:
                    self.bad_cell = decode(line[6:54])
            elif tag == b"SSBOND" and bonds:
                self._read_disulphide(line)
            elif tag.startswith((b"MODEL", b"END")) and model.lines:
                yield model._replace(cell=cell)
                strand, model = 0, _Model([], [], [], None)
        if model.lines:
            yield model._replace(cell=cell)

    def _require_same(self, model: _Model, count: int) -> None:
        found = [line[IDENTITY] for line in model.lines]
        if found == self._identity:
            return
        if len(found) != len(self._identity):
            raise bad_line(
                self.path,
                model.numbers[-1],
                f"model {count + 1} has {len(found)} atoms, the first model {len(self._identity)}",
            )
        at = next(i for i, (a, b) in enumerate(zip(found, self._identity, strict=True)) if a != b)
        raise bad_line(
            self.path,
            model.numbers[at],
            f"atom {at + 1} of model {count + 1} is {_shown(found[at])}, of the first model "
            f"{_shown(self._identity[at])}; all models must have the same atoms in the same order",
        )

    def _read_disulphide(self, line: bytes) -> None:
        ends = []
        for at in (15, 29):
            number = read_hybrid36(line[at + 2 : at + 6])
            if number is None:
                return
            ends.append((decode(line[at : at + 1]) or " ", number, decode(line[at + 6 : at + 7])))
        operators = [decode(line[59:65]), decode(line[66:72])]
        if all(operator in ("", "1555") for operator in operators):
            self.disulphides.append((ends[0], ends[1]))


def _shown(identity: bytes) -> str:
    name, _, residue, chain, number = (
        decode(identity[part])
        for part in (slice(0, 4), slice(4, 5), slice(5, 9), slice(9, 10), slice(10, 15))
    )
    return f"{name} of {chain}:{residue}{number}"


def _cell(line: bytes) -> np.ndarray | None:
    try:
        lengths = [float(line[at : at + 9]) / 10 for at in (6, 15, 24)]
        angles = [float(line[at : at + 7]) for at in (33, 40, 47)]
    except ValueError:
        return None
    return cell_of(lengths, angles)


def _kept(model: _Model, path: str) -> np.ndarray:
    """Rows of a model without the less occupied alternate locations of each residue, int64."""
    occupied: dict[bytes, dict[bytes, float]] = defaultdict(dict)
    for line, number in zip(model.lines, model.numbers, strict=True):
        if (letter := line[16:17]) != b" ":
            here = occupied[line[21:27]]
            here[letter] = here.get(letter, 0.0) + _occupancy(line, number, path)
    if not occupied:
        return np.arange(len(model.lines))
    best = {
        residue: max(found.items(), key=itemgetter(1))[0] for residue, found in occupied.items()
    }
    keep = [
        i
        for i, line in enumerate(model.lines)
        if line[16:17] == b" " or line[16:17] == best[line[21:27]]
    ]
    return np.array(keep, dtype=np.int64)


def _occupancy(line: bytes, number: int, path: str) -> float:
    try:
        return float(line[54:60].strip() or 1.0)
    except ValueError:
        raise bad_line(path, number, f"{decode(line[54:60])!r} is no occupancy") from None


def _rows(model: _Model, keep: np.ndarray, path: str) -> Rows:
    """Fields that repeat are understood once."""
    rows = Rows([], [], [], [], [], [], [model.strands[i] for i in keep], [])
    texts: dict[bytes, str] = {}
    elements: dict[bytes, str] = {}
    last, residue = b"", ("", " ", 0, "")
    for i in keep.tolist():
        line = model.lines[i].rstrip(b"\r\n")
        if line[17:27] != last:
            last, residue = line[17:27], _residue(line, model.numbers[i], path)
        rows.residue_names.append(residue[0])
        rows.chains.append(residue[1])
        rows.numbers.append(residue[2])
        rows.insertions.append(residue[3])
        for field, column in ((line[12:16], rows.names), (line[72:76], rows.segments)):
            if field not in texts:
                texts[field] = decode(field)
            column.append(texts[field])
        if (field := line[76:78]) not in elements:
            elements[field] = decode(field).capitalize() if decode(field).isalpha() else ""
        rows.elements.append(elements[field])
    return rows


def _residue(line: bytes, number: int, path: str) -> tuple[str, str, int, str]:
    """Name, chain, number and insertion code."""
    name, chain = _residue_and_chain(line)
    found, insertion = _number(line)
    if found is None:
        raise bad_line(path, number, f"{decode(line[22:26])!r} is no residue number")
    return name, chain, found, insertion


def _residue_and_chain(line: bytes) -> tuple[str, str]:
    """Column 21 belongs to a name of four letters or to a chain of two."""
    name, extra, chain = decode(line[17:20]), decode(line[20:21]), decode(line[21:22])
    if not extra:
        return name, chain or " "
    if standard_residue_name(name) and not standard_residue_name(name + extra) and chain:
        return name, extra + chain
    return name + extra, chain or " "


def _number(line: bytes) -> tuple[int | None, str]:
    if line[26:27].isdigit():
        return read_hybrid36(line[22:27]), ""
    return read_hybrid36(line[22:26]), decode(line[26:27])
