"""A protein system as this package sees it, and its way in from and out to mdtraj.

Atoms are never stored: sequence, chains, breaks and terminal oxygens fix them, residue by residue,
in the order of the residue templates (PDB order, OXT last).
"""

import hashlib
import json
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hpcbackmap.protein.residue_kinds import modified_parent, residue_kind
from hpcbackmap.protein.residues import (
    ELEMENT_MASS,
    RESIDUES,
    standard_atom_name,
    standard_residue_name,
)
from hpcbackmap.runtime.errors import InputError

if TYPE_CHECKING:
    import mdtraj

__all__ = [
    "NamedResidue",
    "Topology",
    "named_chains",
    "topology_from_mdtraj",
    "topology_from_residues",
    "topology_from_sequence",
]

PEPTIDE_BREAK = 0.20
"""C-N distance (nm) above which two residues of a chain are not bonded; the bond is 0.133 nm."""
CALPHA_BREAK = 0.45
"""CA-CA distance (nm) used instead where only C-alpha positions are known; trans is 0.38 nm."""
LETTERS = string.ascii_uppercase + string.ascii_lowercase + string.digits
DISULPHIDE = 0.25
"""SG-SG distance (nm) below which two cysteines are bonded; the bond is 0.205 nm."""


@dataclass(frozen=True)
class Topology:
    """Heavy atoms of one protein system.

    All residue fields have one entry per residue (R); ``chain_ids`` has one per chain and may repeat.

    sequence: standard three-letter names. chain_index: chain of each residue.
    residue_numbers: numbers as in the source file. bonded: residue i has a peptide bond to i-1.
    has_oxt: residue i carries OXT. disulphides: pairs of residue indices. insertion_codes: letters behind the
    numbers (82A), empty where no residue has one. protonation: of a structure with hydrogens, the AMBER name of
    each residue's state (HID, ASH, …), empty where it is the usual one; () without hydrogens.
    """

    sequence: tuple[str, ...]
    chain_index: tuple[int, ...]
    chain_ids: tuple[str, ...]
    residue_numbers: tuple[int, ...]
    bonded: tuple[bool, ...]
    has_oxt: tuple[bool, ...]
    disulphides: tuple[tuple[int, int], ...] = ()
    insertion_codes: tuple[str, ...] = ()
    protonation: tuple[str, ...] = ()

    @property
    def n_residues(self) -> int:
        return len(self.sequence)

    @property
    def n_atoms(self) -> int:
        return len(self.atom_names)

    @cached_property
    def atom_names(self) -> tuple[str, ...]:
        """Heavy-atom names, [A]."""
        names: list[str] = []
        for residue, oxt in zip(self.sequence, self.has_oxt, strict=True):
            names += RESIDUES[residue].atoms + (("OXT",) if oxt else ())
        return tuple(names)

    @cached_property
    def atom_residue(self) -> np.ndarray:
        """Residue index of each atom, int64 [A]."""
        counts = [
            len(RESIDUES[name].atoms) + oxt
            for name, oxt in zip(self.sequence, self.has_oxt, strict=True)
        ]
        return np.repeat(np.arange(self.n_residues), counts)

    @cached_property
    def elements(self) -> tuple[str, ...]:
        """Element symbol of each atom, [A] (standard residues: the first letter of the name)."""
        return tuple(name[0] for name in self.atom_names)

    @cached_property
    def masses(self) -> np.ndarray:
        """Atomic masses, g/mol, float64 [A]."""
        return np.array([ELEMENT_MASS[element] for element in self.elements])

    @cached_property
    def atom_index(self) -> dict[tuple[int, str], int]:
        """(residue index, atom name) to atom index."""
        return {
            (int(residue), name): index
            for index, (residue, name) in enumerate(
                zip(self.atom_residue, self.atom_names, strict=True)
            )
        }

    @cached_property
    def ca_index(self) -> np.ndarray:
        """Atom index of each C-alpha, int64 [R]."""
        return np.array([self.atom_index[i, "CA"] for i in range(self.n_residues)], dtype=np.int64)

    @cached_property
    def bonds(self) -> np.ndarray:
        """Covalent bonds between heavy atoms: inside residues, peptide and disulphide; int64 [B, 2]."""
        index = self.atom_index
        pairs = []
        for i, name in enumerate(self.sequence):
            pairs += [(index[i, a], index[i, b]) for a, b in RESIDUES[name].bonds]
            if self.has_oxt[i]:
                pairs.append((index[i, "C"], index[i, "OXT"]))
            if self.bonded[i]:
                pairs.append((index[i - 1, "C"], index[i, "N"]))
        pairs += [(index[i, "SG"], index[j, "SG"]) for i, j in self.disulphides]
        return np.array(sorted(tuple(sorted(pair)) for pair in pairs), dtype=np.int64).reshape(
            -1, 2
        )

    def label(self, residue: int) -> str:
        """How messages name a residue: chain, name, number (``A:GLY12``)."""
        chain = self.chain_ids[self.chain_index[residue]].strip()
        name = f"{self.sequence[residue]}{self.residue_numbers[residue]}{self.insertion(residue)}"
        return f"{chain}:{name}" if chain else name

    def insertion(self, residue: int) -> str:
        return self.insertion_codes[residue] if self.insertion_codes else ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready description; `from_dict` restores it."""
        record = asdict(self)
        for key in ("insertion_codes", "protonation"):
            if not record[key]:
                del record[key]
        return record

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "Topology":
        fields = {key: tuple(value) for key, value in record.items()}
        fields["disulphides"] = tuple((int(i), int(j)) for i, j in fields.get("disulphides", ()))
        return cls(**fields)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the description: two systems with one digest have the same atoms in the same order."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    @cached_property
    def distinct_numbers(self) -> tuple[int, ...]:
        """Residue numbers; a chain that repeats one without an insertion code is counted on from its first
        residue: readers of files would join residues of one number.
        """
        numbers = np.array(self.residue_numbers)
        chains = np.array(self.chain_index)
        for chain in range(len(self.chain_ids)):
            own = np.flatnonzero(chains == chain)
            known = {(int(numbers[i]), self.insertion(int(i))) for i in own}
            if len(known) < len(own):
                numbers[own] = numbers[own[0]] + np.arange(len(own))
        return tuple(numbers.tolist())

    def to_mdtraj(self, atoms: str = "fg") -> "mdtraj.Topology":
        """mdtraj topology of all heavy atoms (``fg``) or of the C-alpha atoms alone (``ca``)."""
        import mdtraj

        top = mdtraj.Topology()
        chains = [top.add_chain() for _ in self.chain_ids]
        for chain, chain_id in zip(chains, self.chain_ids, strict=True):
            chain.chain_id = chain_id
        residues = [
            top.add_residue(name, chains[chain], resSeq=number)
            for name, chain, number in zip(
                self.sequence, self.chain_index, self.distinct_numbers, strict=True
            )
        ]
        for i, residue in enumerate(residues):
            residue.insertion = self.insertion(i)
        keep = self.ca_index if atoms == "ca" else range(self.n_atoms)
        added = {}
        for a in keep:
            element = mdtraj.element.get_by_symbol(self.elements[a])
            added[a] = top.add_atom(self.atom_names[a], element, residues[self.atom_residue[a]])
        if atoms == "ca":
            for i in range(1, self.n_residues):
                if self.bonded[i]:
                    top.add_bond(added[self.ca_index[i - 1]], added[self.ca_index[i]])
        else:
            for a, b in self.bonds:
                top.add_bond(added[int(a)], added[int(b)])
        return top


def topology_from_sequence(sequence: list[str], chain_ids: list[str] | None = None) -> Topology:
    """One unbroken chain per entry of ``sequence`` (one-letter strings), OXT at every chain end."""
    letters = {template.letter: name for name, template in RESIDUES.items()}
    names, chains, numbers, bonded, oxt = [], [], [], [], []
    for c, chain in enumerate(sequence):
        for i, letter in enumerate(chain):
            if letter not in letters:
                raise InputError(
                    f"sequence {c + 1}, position {i + 1}: {letter!r} is no standard residue"
                )
            names.append(letters[letter])
            chains.append(c)
            numbers.append(i + 1)
            bonded.append(i > 0)
            oxt.append(i == len(chain) - 1)
    ids = tuple(chain_ids or map(_letter, range(len(sequence))))
    return Topology(tuple(names), tuple(chains), ids, tuple(numbers), tuple(bonded), tuple(oxt))


class NamedResidue(NamedTuple):
    """A residue by the names of a file. chain: row of its molecule. atoms: name, element (empty: not known) and
    file index of each.
    """

    name: str
    number: int
    insertion: str
    chain: int
    atoms: list[tuple[str, str, int]]


def topology_from_mdtraj(
    top: "mdtraj.Topology", positions: np.ndarray, source: str
) -> tuple[Topology, np.ndarray, dict[str, Any]]:
    """`topology_from_residues` of an mdtraj topology."""
    residues = [
        NamedResidue(
            residue.name,
            int(residue.resSeq),
            getattr(residue, "insertion", ""),
            residue.chain.index,
            [
                (atom.name, "" if atom.element is None else atom.element.symbol, atom.index)
                for atom in residue.atoms
            ],
        )
        for residue in top.residues
    ]
    chain_ids = [str(getattr(chain, "chain_id", None) or "") for chain in top.chains]
    return topology_from_residues(residues, chain_ids, positions, source)


def topology_from_residues(
    residues: list[NamedResidue],
    chain_ids: list[str],
    positions: np.ndarray,
    source: str,
    steps: np.ndarray | None = None,
) -> tuple[Topology, np.ndarray, dict[str, Any]]:
    """Heavy-atom system of the residues of a file and one frame of coordinates.

    chain_ids: of each chain row, empty where it has none. positions: [atoms in file, 3], nm; decides chain
    breaks and disulphides. source: file name for messages. steps: distance of each residue from the
    one before it, instead of that in ``positions`` for C-alpha atoms.
    Returns the topology, the file index of each of its atoms (int64 [A]; coordinates in our order are
    ``positions[index]``), and the number of file atoms left out, by kind.
    A file with C-alpha atoms only gives the topology that its sequence implies, an index of C-alpha
    atoms ([R]), and OXT at every chain end.
    Raises InputError that names the residue for an unknown residue, a missing or a superfluous atom.
    """
    found, dropped = _read_residues(residues, chain_ids, source)
    if not found:
        raise InputError(f"{source}: no protein residues")
    ca_only = all(set(atoms) == {"CA"} for _, _, atoms in found)
    rows = [residues[place] for place, _, _ in found]
    used = sorted({row.chain for row in rows})
    place = {chain: number for number, chain in enumerate(used)}
    chain_index = tuple(place[row.chain] for row in rows)
    last = [i == len(rows) - 1 or chain_index[i + 1] != chain_index[i] for i in range(len(rows))]
    if not ca_only:
        _require_all_atoms(found, residues, chain_ids, source)
    oxt = tuple(last) if ca_only else tuple("OXT" in atoms for _, _, atoms in found)
    atoms_of = [atoms for _, _, atoms in found]
    known = None
    if steps is not None and ca_only:
        beside = np.diff([at for at, _, _ in found], prepend=-2) == 1
        known = np.where(beside, steps[[at for at, _, _ in found]], np.nan)
    insertions = tuple(row.insertion for row in rows)
    topology = Topology(
        sequence=tuple(name for _, name, _ in found),
        chain_index=chain_index,
        chain_ids=named_chains(chain_ids[c] for c in used),
        residue_numbers=tuple(row.number for row in rows),
        bonded=_bonded(atoms_of, chain_index, positions, ca_only, known),
        has_oxt=oxt,
        disulphides=() if ca_only else _disulphides(found, positions),
        insertion_codes=insertions if any(insertions) else (),
    )
    names = ("CA",) if ca_only else None
    index = [
        atoms[name]
        for (_, residue, atoms), has_oxt in zip(found, oxt, strict=True)
        for name in names or RESIDUES[residue].atoms + (("OXT",) if has_oxt else ())
    ]
    return topology, np.array(index, dtype=np.int64), dict(dropped)


def _read_residues(
    residues: Sequence[NamedResidue], chain_ids: Sequence[str], source: str
) -> tuple[list[tuple[int, str, dict[str, Any]]], dict[str, Any]]:
    """(place in ``residues``, standard name, atoms by name) of those of protein, and what is left out."""
    found: list[tuple[int, str, dict[str, Any]]] = []
    dropped: Counter[str] = Counter()
    for place, residue in enumerate(residues):
        parent = modified_parent(residue.name)
        name = standard_residue_name(residue.name) or parent
        if name is None or _is_calcium(residue):
            dropped[_left_out(residue, chain_ids, source)] += len(residue.atoms)
            continue
        atoms = {}
        for file_name, element, index in residue.atoms:
            if element in ("H", "D", "VS"):
                dropped["virtual site" if element == "VS" else "hydrogen"] += 1
                continue
            atom = standard_atom_name(name, file_name)
            expected = RESIDUES[name].atoms + ("OXT",)
            if parent and atom not in expected:
                dropped[f"atoms that make {residue.name} of {parent}"] += 1
                continue
            if atom in atoms or atom not in expected:
                raise InputError(
                    f"{source}: residue {name}{residue.number}{residue.insertion} has an unexpected atom "
                    f"{file_name}; expected " + " ".join(RESIDUES[name].atoms) + " (OXT)"
                )
            atoms[atom] = index
        found.append((place, name, atoms))
    return found, dropped


def _is_calcium(residue: NamedResidue) -> bool:
    return len(residue.atoms) == 1 and residue.atoms[0][1] == "Ca"


def _left_out(residue: NamedResidue, chain_ids: Sequence[str], source: str) -> str:
    """What a residue that is no amino acid is. Raises InputError for one that may be an unknown amino acid."""
    kind = residue_kind(residue.name)
    names = {name.strip().upper() for name, _, _ in residue.atoms}
    if kind in ("unknown", "D-residue") and "CA" in names and not _is_calcium(residue):
        what = "a D-residue" if kind == "D-residue" else "unknown residue"
        chain = chain_ids[residue.chain].strip() or residue.chain
        raise InputError(
            f"{source}: {what} {residue.name}{residue.number}{residue.insertion} in chain {chain}; leave it "
            "out with an atom selection or rename it to its standard parent"
        )
    if len(residue.atoms) == 1 and kind == "unknown":
        kind = "solvent or ion"
    return f"{'other' if kind == 'unknown' else kind} {residue.name}"


def _require_all_atoms(
    found: list[tuple[int, str, dict[str, Any]]],
    residues: Sequence[NamedResidue],
    chain_ids: Sequence[str],
    source: str,
) -> None:
    for place, name, atoms in found:
        residue = residues[place]
        missing = [atom for atom in RESIDUES[name].atoms if atom not in atoms]
        if missing:
            chain = chain_ids[residue.chain].strip() or residue.chain
            raise InputError(
                f"{source}: residue {name}{residue.number}{residue.insertion} in chain {chain} lacks heavy "
                f"atom(s) {' '.join(missing)}; complete the model or leave the residue out"
            )


def named_chains(chain_ids: Iterable[str]) -> tuple[str, ...]:
    """The names of chains, with a letter for each that has none."""
    return tuple(name or _letter(number) for number, name in enumerate(chain_ids))


def _letter(chain: int) -> str:
    """Name of a chain that has none, no two alike: A to Z, a to z, 0 to 9 as PDB files take them, then AA, …"""
    if chain < len(LETTERS):
        return LETTERS[chain]
    first, second = divmod(chain - len(LETTERS), 26)
    return _letter(first) + LETTERS[second]


def _bonded(
    atoms: Sequence[dict[str, Any]],
    chain_index: Sequence[int],
    positions: np.ndarray,
    ca_only: bool,
    steps: np.ndarray | None,
) -> tuple[bool, ...]:
    tail, head, limit = ("CA", "CA", CALPHA_BREAK) if ca_only else ("C", "N", PEPTIDE_BREAK)
    bonded = [False]
    for i in range(1, len(atoms)):
        distance = np.linalg.norm(positions[atoms[i][head]] - positions[atoms[i - 1][tail]])
        if steps is not None and np.isfinite(steps[i]):
            distance = steps[i]
        bonded.append(bool(chain_index[i] == chain_index[i - 1] and distance < limit))
    return tuple(bonded)


def _disulphides(
    residues: list[tuple[int, str, dict[str, Any]]], positions: np.ndarray
) -> tuple[tuple[int, int], ...]:
    """Pairs of cysteines within reach, the nearest first, each cysteine in one pair; ascending."""
    cysteines = [i for i, (_, name, _) in enumerate(residues) if name == "CYS"]
    near = []
    for k, i in enumerate(cysteines):
        for j in cysteines[k + 1 :]:
            gap = positions[residues[i][2]["SG"]] - positions[residues[j][2]["SG"]]
            if np.linalg.norm(gap) < DISULPHIDE:
                near.append((float(np.linalg.norm(gap)), i, j))
    pairs: list[tuple[int, int]] = []
    for _, i, j in sorted(near):
        if not {i, j} & {residue for pair in pairs for residue in pair}:
            pairs.append((i, j))
    return tuple(sorted(pairs))
