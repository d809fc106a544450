"""Structures as text: PDB, mmCIF and GRO, frame by frame, and what each cannot hold.

Shapes: P atoms; positions in nm.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import BinaryIO

import gemmi
import mdtraj
import numpy as np

from hpcbackmap.protein.residues import RESIDUES
from hpcbackmap.runtime.errors import OutputError
from hpcbackmap.trajectories.cells import lengths_and_angles
from hpcbackmap.trajectories.hybrid36 import DIGITS, write_hybrid36

__all__ = ["GroText", "MmcifText", "PdbText", "structure_text"]

LETTERS = DIGITS[10:] + DIGITS[10:].lower() + DIGITS[:10]
PDB_RANGE = (-999.9994, 9999.9994)
"""Angstrom that eight columns with three decimals hold."""
MOST_ERROR = 999.99
"""What six columns with two decimals hold."""
LINKED = 4
"""Atoms that a line of CONECT links another one to."""


@dataclass(frozen=True)
class _Residue:
    name: str
    number: int
    insertion: str
    chain: int


class _Text:
    """What the formats share. losses: sentences about what the format cannot hold of ``topology``."""

    def __init__(self, topology: mdtraj.Topology):
        self.atoms = list(topology.atoms)
        self.residues = [
            _Residue(
                residue.name,
                int(residue.resSeq),
                getattr(residue, "insertion", ""),
                residue.chain.index,
            )
            for residue in topology.residues
        ]
        self.chain_ids = [str(chain.chain_id or "").strip() for chain in topology.chains]
        self._bonds = [(first, second) for first, second, *_ in topology.bonds]
        self.disulphides = [
            (first.residue.index, second.residue.index)
            for first, second in self._bonds
            if first.name == second.name == "SG"
        ]
        self.losses: list[str] = []

    def begin(self, file: BinaryIO, cell: np.ndarray | None) -> None:
        """What stands before the first frame."""

    def frame(
        self,
        file: BinaryIO,
        positions: np.ndarray,
        number: int,
        time: float,
        cell: np.ndarray | None,
        errors: np.ndarray | None = None,
    ) -> None:
        """One frame [P, 3] with its number, time (ps) and cell [3, 3] (zeros for none).

        errors: expected error of each residue (nm), for formats that have a column for it (in Angstrom).
        """
        raise NotImplementedError

    @cached_property
    def _residue_of(self) -> np.ndarray:
        return np.array([atom.residue.index for atom in self.atoms])

    def _rows(self, angstrom: np.ndarray, errors: np.ndarray | None) -> np.ndarray:
        """x, y, z and expected error of each atom, Angstrom [P, 4]."""
        shown = np.zeros(len(angstrom))
        if errors is not None:
            shown = np.minimum(10 * errors.astype(np.float64), MOST_ERROR)[self._residue_of]
        return np.column_stack([angstrom, shown])

    def end(self, file: BinaryIO) -> None:
        """What stands after the last."""


class PdbText(_Text):
    """Models with TER after each chain; numbers beyond the columns in hybrid-36."""

    def __init__(self, topology: mdtraj.Topology):
        super().__init__(topology)
        self._letters = self._chain_letters()
        self._numbers = [write_hybrid36(row.number, 4) for row in self.residues]
        if None in self._numbers:
            place = self._numbers.index(None)
            self.losses.append(
                f"PDB has no place for the residue number {self.residues[place].number}; residues are "
                "renumbered from 1 (mmCIF keeps their numbers)"
            )
            self._numbers = [write_hybrid36(i + 1, 4) or "****" for i in range(len(self.residues))]

    def begin(self, file: BinaryIO, cell: np.ndarray | None) -> None:
        lines = []
        for count, (a, b) in enumerate(self.disulphides, start=1):
            ends = [self._identity(r)[4:] for r in (a, b)]
            lines.append(f"SSBOND {count % 1000:3d} CYS {ends[0]}    CYS {ends[1]}")
        if cell is not None:
            (lengths,), (angles,) = lengths_and_angles(cell[None])
            edges = "".join(f"{10 * edge:9.3f}" for edge in lengths)
            lines.append(
                f"CRYST1{edges}" + "".join(f"{a:7.2f}" for a in angles) + " P 1           1"
            )
        file.write("".join(f"{line:<80}\n" for line in lines).encode())

    def frame(
        self,
        file: BinaryIO,
        positions: np.ndarray,
        number: int,
        time: float,
        cell: np.ndarray | None,
        errors: np.ndarray | None = None,
    ) -> None:
        angstrom = np.round(positions.astype(np.float64) * 10, 3) + 0.0
        if not (PDB_RANGE[0] <= angstrom.min() and angstrom.max() <= PDB_RANGE[1]):
            raise OutputError(
                f"coordinates of {np.abs(angstrom).max() / 10:.0f} nm do not fit into the columns of a "
                "PDB file; write .cif, .xtc or .dcd"
            )
        file.write(f"MODEL     {(number + 1) % 10**8:4d}\n".encode())
        file.write((self._template % tuple(self._rows(angstrom, errors).ravel().tolist())).encode())
        file.write(b"ENDMDL\n")

    def end(self, file: BinaryIO) -> None:
        lines = []
        for atom, others in sorted(self._links.items()):
            for start in range(0, len(others), LINKED):
                ends = [atom, *sorted(others)[start : start + LINKED]]
                lines.append("CONECT" + "".join(map(self._serial, ends)) + "\n")
        file.write("".join(lines).encode() + b"END\n")

    @cached_property
    def _links(self) -> dict[int, list[int]]:
        """Atoms bonded to each: what readers do not know of disulphides and of residues named after their
        state.
        """
        found: dict[int, list[int]] = {}
        for first, second in self._bonds:
            usual = {first.residue.name, second.residue.name} <= RESIDUES.keys()
            if not usual or first.name == second.name == "SG":
                found.setdefault(first.index, []).append(second.index)
                found.setdefault(second.index, []).append(first.index)
        return found

    def _serial(self, atom: int) -> str:
        """The end of a chain counts as well."""
        number = atom + 1 + self.atoms[atom].residue.chain.index
        return write_hybrid36(number, 5) or "*****"

    @cached_property
    def _template(self) -> str:
        lines, serial = [], 0
        for _, atoms in groupby(self.atoms, lambda atom: atom.residue.chain.index):
            for atom in atoms:
                serial += 1
                identity = self._identity(atom.residue.index)
                element = "" if atom.element is None else atom.element.symbol
                element = "" if element == "VS" else element.upper()
                name = atom.name if len(atom.name) > 3 or len(element) > 1 else f" {atom.name}"
                start = f"ATOM  {write_hybrid36(serial, 5) or '*****'} {name[:4]:<4} {identity}   "
                rest = f"  1.00%6.2f          {element:>2}  \n"
                lines.append(start.replace("%", "%%") + "%8.3f%8.3f%8.3f" + rest)
            serial += 1
            lines.append(
                f"TER   {write_hybrid36(serial, 5) or '*****'}      {identity}\n".replace("%", "%%")
            )
        return "".join(lines)

    def _identity(self, residue: int) -> str:
        """Columns 18 to 27: name, chain, number, insertion code."""
        row = self.residues[residue]
        name = f"{row.name[:4]:<4}" if len(row.name) > 3 else f"{row.name:>3} "
        return f"{name}{self._letters[row.chain]}{self._numbers[residue]}{row.insertion[:1] or ' '}"

    def _chain_letters(self) -> list[str]:
        """One column for each chain: its own name, or a letter that no chain has."""
        long = sorted({name for name in self.chain_ids if len(name) > 1})
        if not long:
            return [name or " " for name in self.chain_ids]
        free = [letter for letter in LETTERS if letter not in self.chain_ids]
        free = free or list(LETTERS)
        given = {name: free[i % len(free)] for i, name in enumerate(long)}
        shown = ", ".join(f"{name} is {letter}" for name, letter in list(given.items())[:4])
        self.losses.append(
            f"PDB has one column for the name of a chain: {shown}{', …' if len(long) > 4 else ''} "
            "(mmCIF keeps the names)"
        )
        return [given.get(name, name) or " " for name in self.chain_ids]


class MmcifText(_Text):
    """One table of atoms, by label and by author, models after each other."""

    TAGS = (
        "group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id",
        "label_entity_id", "label_seq_id", "pdbx_PDB_ins_code", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy",
        "B_iso_or_equiv", "auth_seq_id", "auth_comp_id", "auth_asym_id", "auth_atom_id", "pdbx_PDB_model_num",
    )  # fmt: skip

    def begin(self, file: BinaryIO, cell: np.ndarray | None) -> None:
        lines = ["data_hpcbackmap", "#"]
        if cell is not None:
            (lengths,), (angles,) = lengths_and_angles(cell[None])
            for axis, edge in zip("abc", lengths, strict=True):
                lines.append(f"_cell.length_{axis} {10 * edge:.4f}")
            for axis, angle in zip(("alpha", "beta", "gamma"), angles, strict=True):
                lines.append(f"_cell.angle_{axis} {angle:.4f}")
            lines += ["_symmetry.space_group_name_H-M 'P 1'", "#"]
        if self.disulphides:
            lines += self._connections()
        lines += ["loop_", *(f"_atom_site.{tag}" for tag in self.TAGS)]
        file.write(("\n".join(lines) + "\n").encode())

    def frame(
        self,
        file: BinaryIO,
        positions: np.ndarray,
        number: int,
        time: float,
        cell: np.ndarray | None,
        errors: np.ndarray | None = None,
    ) -> None:
        serial, model = number * len(self.atoms), number + 1
        values = []
        for row in self._rows(positions.astype(np.float64) * 10, errors).tolist():
            serial += 1
            values += [serial, *row, model]
        file.write((self._template % tuple(values)).encode())

    @cached_property
    def _template(self) -> str:
        lines = []
        firsts: dict[int, int] = {}
        for atom in self.atoms:
            row = self.residues[atom.residue.index]
            first = firsts.setdefault(row.chain, atom.residue.index)
            element = (
                "" if atom.element is None or atom.element.symbol == "VS" else atom.element.symbol
            )
            label = _label(row.chain)
            name, residue = _quoted(atom.name), _quoted(row.name)
            before = (
                f"ATOM %d {element.upper() or '?'} {name} . {residue} {label} {row.chain + 1} "
                f"{atom.residue.index - first + 1} {row.insertion or '?'} "
            )
            chain = _quoted(self.chain_ids[row.chain]) or label
            after = f" {row.number} {residue} {chain} {name} %d\n"
            marked = [
                part.replace("%d", "\0").replace("%", "%%").replace("\0", "%d")
                for part in (before, after)
            ]
            lines.append(marked[0] + "%.4f %.4f %.4f 1.00 %.2f" + marked[1])
        return "".join(lines)

    def _connections(self) -> list[str]:
        tags = ["id", "conn_type_id"]
        tags += [
            f"{start}ptnr{i}_{tag}"
            for i in (1, 2)
            for start, tag in (
                ("", "auth_asym_id"), ("", "auth_comp_id"), ("", "auth_seq_id"), ("", "label_atom_id"),
                ("pdbx_", "PDB_ins_code"),
            )
        ]  # fmt: skip
        lines = ["loop_", *(f"_struct_conn.{tag}" for tag in tags)]
        for count, pair in enumerate(self.disulphides, start=1):
            ends = []
            for residue in pair:
                row = self.residues[residue]
                chain = _quoted(self.chain_ids[row.chain]) or _label(row.chain)
                ends += [chain, row.name, str(row.number), "SG", row.insertion or "?"]
            lines.append(f"disulf{count} disulf " + " ".join(ends))
        return [*lines, "#"]


class GroText(_Text):
    """Title with the time, atoms, box."""

    def __init__(self, topology: mdtraj.Topology):
        super().__init__(topology)
        if any(self.chain_ids):
            self.losses.append("GRO has no names of chains; write .cif or .pdb to keep them")
        if inserted := next((row for row in self.residues if row.insertion), None):
            self.losses.append(
                f"GRO has no insertion codes; residue {inserted.number}{inserted.insertion} is "
                f"{inserted.number} there, and others in the same way (write .cif or .pdb)"
            )

    def frame(
        self,
        file: BinaryIO,
        positions: np.ndarray,
        number: int,
        time: float,
        cell: np.ndarray | None,
        errors: np.ndarray | None = None,
    ) -> None:
        box = np.zeros((3, 3)) if cell is None else cell
        values = list(box.diagonal())
        off = [box[0, 1], box[0, 2], box[1, 0], box[1, 2], box[2, 0], box[2, 1]]
        values += off if np.abs(off).max() > 1e-6 else []
        file.write(f"hpcbackmap t= {time:.5f} step= {number}\n{len(self.atoms):5d}\n".encode())
        file.write((self._template % tuple(positions.astype(np.float64).ravel().tolist())).encode())
        file.write((" ".join(f"{value:9.5f}" for value in values) + "\n").encode())

    @cached_property
    def _template(self) -> str:
        lines = []
        for serial, atom in enumerate(self.atoms, start=1):
            row = self.residues[atom.residue.index]
            start = f"{_five(row.number):5d}{row.name[:5]:<5}{atom.name[:5]:>5}{_five(serial):5d}"
            lines.append(start.replace("%", "%%") + "%8.3f%8.3f%8.3f\n")
        return "".join(lines)


def structure_text(suffix: str, topology: mdtraj.Topology) -> _Text:
    """The writer of a format by its suffix: ``.pdb``, ``.cif``, ``.gro``."""
    return {".pdb": PdbText, ".cif": MmcifText, ".gro": GroText}[suffix](topology)


def _five(number: int) -> int:
    """GROMACS counts from 0 again when five columns are full."""
    return number if -10000 < number < 100000 else number % 100000


def _label(chain: int) -> str:
    """A, …, Z, AA, AB, …: labels of chains as mmCIF counts them."""
    text = ""
    chain += 1
    while chain:
        chain, digit = divmod(chain - 1, 26)
        text = LETTERS[digit] + text
    return text


def _quoted(text: str) -> str:
    """A value of mmCIF; empty stays empty."""
    if not text:
        return ""
    return gemmi.cif.quote(text)
