"""PDBx/mmCIF files, through gemmi: names by author and by label, long chain names, frames by model number."""

import codecs
import gzip
import math
from collections.abc import Iterator
from functools import cached_property
from operator import itemgetter
from typing import Any

import gemmi
import numpy as np

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.trajectories.cells import cell_of
from hpcbackmap.trajectories.text import Frame, Rows, lines_of

__all__ = ["MmcifFile"]

TAGS = (
    "Cartn_x", "Cartn_y", "Cartn_z", "?auth_atom_id", "?label_atom_id", "?auth_comp_id", "?label_comp_id",
    "?auth_asym_id", "?label_asym_id", "?auth_seq_id", "?label_seq_id", "?pdbx_PDB_ins_code", "?label_alt_id",
    "?occupancy", "?type_symbol", "?pdbx_PDB_model_num",
)  # fmt: skip
COLUMN = {tag.lstrip("?"): column for column, tag in enumerate(TAGS)}
CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
BONDS = (
    "conn_type_id", "ptnr1_auth_asym_id", "ptnr1_auth_seq_id", "?pdbx_ptnr1_PDB_ins_code",
    "ptnr2_auth_asym_id", "ptnr2_auth_seq_id", "?pdbx_ptnr2_PDB_ins_code", "?ptnr1_symmetry", "?ptnr2_symmetry",
)  # fmt: skip


class MmcifFile:
    """As `hpcbackmap.trajectories.pdb.PdbFile`, of mmCIF."""

    def __init__(self, path: str):
        self.path = str(path)
        next(lines_of(self.path))
        block = _block(self.path)
        table = block.find("_atom_site.", TAGS)
        columns = {
            tag: _texts(table.column(column)) if table.has_column(column) else None
            for tag, column in COLUMN.items()
        }
        self._positions = np.stack(
            [_floats(columns[f"Cartn_{axis}"] or [], self.path, axis) for axis in "xyz"], axis=1
        )
        self._models = self._model_starts(columns["pdbx_PDB_model_num"])
        self._cell = _cell(block)
        self.disulphides = _disulphides(block)
        first = slice(0, self._models[1])
        own = {tag: None if column is None else column[first] for tag, column in columns.items()}
        rows = _rows(own, self.path)
        self._keep = _kept(own, rows)
        self.alternates = len(rows.names) - len(self._keep)
        self.rows = Rows._make([column[i] for i in self._keep] for column in rows)
        self._require_same(columns)

    @cached_property
    def first(self) -> Frame:
        return next(self.frames())

    def frames(self) -> Iterator[Frame]:
        for start, stop in zip(self._models[:-1], self._models[1:], strict=True):
            yield Frame(self._positions[start:stop][self._keep] / 10, self._cell, math.nan)

    def _model_starts(self, numbers: list[str] | None) -> list[int]:
        count = len(self._positions)
        if numbers is None:
            return [0, count]
        array = np.array(numbers)
        return [0, *(np.flatnonzero(array[1:] != array[:-1]) + 1).tolist(), count]

    def _require_same(self, columns: dict[str, Any]) -> None:
        """Refuse models of other atoms, or of the same in another order."""
        same = [
            columns[tag]
            for tag in COLUMN
            if not tag.startswith(("Cartn", "occupancy", "pdbx_PDB_model")) and columns[tag]
        ]
        _, size, *others = self._models
        start = size
        for number, stop in enumerate(others, start=2):
            if stop - start != size:
                raise InputError(
                    f"{self.path}: model {number} has {stop - start} atoms, the first model {size}"
                )
            for column in same:
                if column[start:stop] != column[:size]:
                    at = next(i for i in range(size) if column[start + i] != column[i])
                    raise InputError(
                        f"{self.path}: atom {at + 1} of model {number} is another than in the first "
                        f"({column[start + at]} and {column[at]}); all models must have the same atoms in "
                        "the same order"
                    )
            start = stop


def _block(path: str) -> gemmi.cif.Block:
    try:
        document = _document(path)
    except Exception as error:  # gemmi's parser has no class of its own
        reason = " ".join(str(error).split())[-150:]
        raise InputError(f"{path}: is no mmCIF that can be read ({reason})") from None
    for block in document:
        if len(block.find("_atom_site.", TAGS)):
            return block
    raise InputError(
        f"{path}: no _atom_site with coordinates; this is no mmCIF file of a structure"
    )


def _document(path: str) -> gemmi.cif.Document:
    with gzip.open(path) if path.lower().endswith(".gz") else open(path, "rb") as file:
        begins = file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
        return gemmi.cif.read_string(file.read().decode()) if begins else gemmi.cif.read(path)


def _texts(column: gemmi.cif.Column) -> list[str]:
    return [gemmi.cif.as_string(value) for value in column]


def _floats(texts: list[str], path: str, axis: str) -> np.ndarray:
    values = np.array([gemmi.cif.as_number(text) for text in texts])
    if np.isnan(values).any():
        at = int(np.isnan(values).argmax())
        raise InputError(
            f"{path}: atom {at + 1}: {texts[at][:20]!r} stands where Cartn_{axis} belongs"
        )
    return values


def _rows(columns: dict[str, Any], path: str) -> Rows:
    count = len(columns["Cartn_x"])
    blank = [""] * count

    def first(*tags: str) -> list[str]:
        found = [columns[tag] for tag in tags if columns[tag] is not None]
        if len(found) < 2:
            return found[0] if found else blank
        return [a or b for a, b in zip(*found, strict=True)]

    numbers = []
    for i, text in enumerate(first("auth_seq_id", "label_seq_id")):
        try:
            numbers.append(int(text) if text else 0)
        except ValueError:
            raise InputError(f"{path}: atom {i + 1}: {text[:20]!r} is no residue number") from None
    labels = columns["label_asym_id"] or blank
    known: dict[str, int] = {}
    return Rows(
        names=first("auth_atom_id", "label_atom_id"),
        residue_names=first("auth_comp_id", "label_comp_id"),
        numbers=numbers,
        insertions=columns["pdbx_PDB_ins_code"] or blank,
        chains=first("auth_asym_id", "label_asym_id"),
        segments=labels,
        strands=[known.setdefault(label, len(known)) for label in labels],
        elements=[symbol.capitalize() for symbol in columns["type_symbol"] or blank],
    )


def _kept(columns: dict[str, Any], rows: Rows) -> list[int]:
    """Rows without the less occupied alternate locations of each residue."""
    letters, occupancies = columns["label_alt_id"], columns["occupancy"]
    if letters is None or not any(letters):
        return list(range(len(rows.names)))
    residues = list(zip(rows.chains, rows.segments, rows.numbers, rows.insertions, strict=True))
    weights: dict[tuple[Any, ...], dict[str, float]] = {}
    for i, (residue, letter) in enumerate(zip(residues, letters, strict=True)):
        if letter:
            weight = gemmi.cif.as_number(occupancies[i]) if occupancies else 1.0
            here = weights.setdefault(residue, {})
            here[letter] = here.get(letter, 0.0) + (weight if np.isfinite(weight) else 1.0)
    best = {residue: max(found.items(), key=itemgetter(1))[0] for residue, found in weights.items()}
    return [i for i, letter in enumerate(letters) if not letter or letter == best[residues[i]]]


def _cell(block: gemmi.cif.Block) -> np.ndarray | None:
    values = [gemmi.cif.as_number(block.find_value(f"_cell.{tag}") or "?") for tag in CELL]
    return cell_of(np.array(values[:3]) / 10, values[3:])


def _disulphides(block: gemmi.cif.Block) -> list[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    pairs = []
    for row in block.find("_struct_conn.", BONDS):
        value = [gemmi.cif.as_string(row[i]) if row.has(i) else "" for i in range(len(BONDS))]
        operators = [text for text in value[7:] if text not in ("", "1_555")]
        if value[0].lower().startswith("disulf") and not operators:
            numbers = value[2], value[5]
            if all(number.lstrip("-").isdigit() for number in numbers):
                pairs.append(
                    ((value[1], int(value[2]), value[3]), (value[4], int(value[5]), value[6]))
                )
    return pairs
