"""Data files of LAMMPS (``read_data``, ``write_data``): particles by id, molecules, one frame.

A particle is called what the file calls its type: a label of ``Atom Type Labels``, or the word behind the ``#``
of its mass, which programs that build these files write there; else the number of the type. Lengths are taken
as Angstrom (units real and metal).
"""

import math
from collections.abc import Iterator

import numpy as np

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.trajectories.text import Frame, Rows, bad_line, decode, lines_of

__all__ = ["LammpsData"]

STYLES = {
    "full": ("mol", "type", "q"), "molecular": ("mol", "type"), "bond": ("mol", "type"),
    "angle": ("mol", "type"), "template": ("mol", "index", "atom", "type"),
    "charge": ("type", "q"), "atomic": ("type",),
}  # fmt: skip
"""Columns between the id and the coordinates."""
BY_COLUMNS = {5: "atomic", 6: "molecular", 7: "full", 8: "atomic", 9: "molecular", 10: "full"}
"""Style by the number of columns, with and without three image flags, where the file does not say."""
BOUNDS = ("xlo", "ylo", "zlo")


class LammpsData:
    """Raises InputError that names file and line for what is not understood."""

    def __init__(self, path: str):
        self.path = str(path)
        self._bounds: dict[str, list[float]] = {}
        self._announced: int | None = None
        self._labels: dict[str, str] = {}
        self._style, self._atoms = "", list[tuple[int, list[str]]]()
        self._read()
        if not self._atoms:
            raise bad_line(
                self.path, 1, "no section Atoms; this is no LAMMPS data file with particles"
            )
        if self._announced not in (None, len(self._atoms)):
            raise InputError(
                f"{path}: {self._announced} atoms are announced, {len(self._atoms)} are there; is the file "
                "truncated?"
            )
        between = self._between()
        table = sorted((self._whole(row[0], line), line, row) for line, row in self._atoms)
        kinds = [row[1 + between.index("type")] for _, _, row in table]
        strands = [row[1 + between.index("mol")] if "mol" in between else "" for *_, row in table]
        at = 1 + len(between)
        self._positions = self._placed([(line, row[at:]) for _, line, row in table])
        known = {strand: k for k, strand in enumerate(dict.fromkeys(strands))}
        names = [self._labels.get(kind, kind) for kind in kinds]
        blank = [""] * len(names)
        self.rows = Rows(
            names=names,
            residue_names=names,
            numbers=[number for number, *_ in table],
            insertions=blank,
            chains=blank,
            segments=blank,
            strands=[known[strand] for strand in strands],
            elements=blank,
        )

    @property
    def first(self) -> Frame:
        return Frame(self._positions / 10, self._cell(), math.nan)

    def frames(self) -> Iterator[Frame]:
        yield self.first

    def _read(self) -> None:
        """Bounds, labels and the lines of particles."""
        section = ""
        for number, line in lines_of(self.path):
            text, _, comment = decode(line).partition("#")
            words = text.split()
            if number == 1 or not words:
                continue
            if words[0].isalpha():
                section = " ".join(words)
                if section == "Atoms":
                    self._style = (comment.split() or [""])[0]
            elif section == "Atoms":
                self._atoms.append((number, words))
            elif section == "Masses" and comment.split():
                self._labels.setdefault(words[0], comment.split()[0])
            elif section == "Atom Type Labels" and len(words) > 1:
                self._labels[words[0]] = words[1]
            elif not section:
                self._header(number, words)

    def _header(self, number: int, words: list[str]) -> None:
        if words[1:] == ["atoms"]:
            self._announced = self._whole(words[0], number)
        for name in (*BOUNDS, "xy"):
            if name in words:
                values = words[: words.index(name)]
                self._bounds[name] = [self._number(value, number) for value in values]

    def _between(self) -> tuple[str, ...]:
        """Columns between id and coordinates."""
        line, row = self._atoms[0]
        style = self._style if self._style in STYLES else BY_COLUMNS.get(len(row), "")
        if not style or len(row) < 4 + len(STYLES[style]):
            raise bad_line(
                self.path, line,
                f"{len(row)} columns of atom style {self._style or 'unknown'} are not understood; write "
                "`Atoms # full` (id molecule type charge x y z), or give a PDB file with --top",
            )  # fmt: skip
        return STYLES[style]

    def _placed(self, rows: list[tuple[int, list[str]]]) -> np.ndarray:
        """Angstrom [P, 3], unwrapped by image flags where there are any."""
        found = np.array([[self._number(word, line) for word in row[:3]] for line, row in rows])
        cell = self._cell()
        if cell is not None and all(len(row) >= 6 for _, row in rows):
            flags = np.array(
                [[self._number(word, line) for word in row[3:6]] for line, row in rows]
            )
            found += flags @ (10 * cell)
        return found

    def _cell(self) -> np.ndarray | None:
        """Rows are vectors, nm."""
        if not set(BOUNDS) <= set(self._bounds):
            return None
        x, y, z = (self._bounds[name][1] - self._bounds[name][0] for name in BOUNDS)
        xy, xz, yz = self._bounds.get("xy", [0.0, 0.0, 0.0])
        return np.array([[x, 0, 0], [xy, y, 0], [xz, yz, z]]) / 10

    def _whole(self, word: str, line: int) -> int:
        if not word.isdigit():
            raise bad_line(self.path, line, f"{word[:20]!r} is no number of an atom")
        return int(word)

    def _number(self, word: str, line: int) -> float:
        try:
            return float(word)
        except ValueError:
            raise bad_line(self.path, line, f"{word[:20]!r} is no number") from None
