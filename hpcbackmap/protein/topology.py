"""A protein system as this package sees it, and its way in from and out to mdtraj.

Atoms are never stored: sequence, chains, breaks and terminal oxygens fix them, residue by residue,
in the order of the residue templates (PDB order, OXT last).
"""

import hashlib
import json
import string
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from hpcbackmap.protein.residues import (
    ELEMENT_MASS,
    RESIDUES,
    standard_atom_name,
    standard_residue_name,
)
from hpcbackmap.runtime.errors import InputError

__all__ = ["Topology", "topology_from_mdtraj", "topology_from_sequence"]

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

    All residue fields have one entry per residue (R); ``chain_ids`` has one per chain.

    sequence: standard three-letter names. chain_index: chain of each residue.
    residue_numbers: numbers as in the source file. bonded: residue i has a peptide bond to i-1.
    has_oxt: residue i carries OXT. disulphides: pairs of residue indices.
    """

    sequence: tuple[str, ...]
    chain_index: tuple[int, ...]
    chain_ids: tuple[str, ...]
    residue_numbers: tuple[int, ...]
    bonded: tuple[bool, ...]
    has_oxt: tuple[bool, ...]
    disulphides: tuple[tuple[int, int], ...] = ()

    @property
    def n_residues(self) -> int:
        return len(self.sequence)

    @property
    def n_atoms(self) -> int:
        return len(self.atom_names)

    @cached_property
    def atom_names(self) -> tuple[str, ...]:
        """Heavy-atom names, [A]."""
        names = []
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
        chain = self.chain_ids[self.chain_index[residue]]
        return f"{chain}:{self.sequence[residue]}{self.residue_numbers[residue]}"

    def to_dict(self) -> dict:
        """JSON-ready description; `from_dict` restores it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict) -> "Topology":
        fields = {key: tuple(value) for key, value in record.items()}
        fields["disulphides"] = tuple((int(i), int(j)) for i, j in fields.get("disulphides", ()))
        return cls(**fields)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the description: two systems with one digest have the same atoms in the same order."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def _distinct_numbers(self) -> list[int]:
        """Residue numbers; a chain that repeats one (10, 10A) is counted on from its first residue.

        Files without insertion codes would join residues of one number.
        """
        numbers = np.array(self.residue_numbers)
        for chain in range(len(self.chain_ids)):
            own = np.flatnonzero(np.array(self.chain_index) == chain)
            if len(np.unique(numbers[own])) < len(own):
                numbers[own] = numbers[own[0]] + np.arange(len(own))
        return numbers.tolist()

    def to_mdtraj(self, atoms: str = "fg"):
        """mdtraj topology of all heavy atoms (``fg``) or of the C-alpha atoms alone (``ca``)."""
        import mdtraj

        top = mdtraj.Topology()
        chains = [top.add_chain() for _ in self.chain_ids]
        for chain, chain_id in zip(chains, self.chain_ids, strict=True):
            chain.chain_id = chain_id
        residues = [
            top.add_residue(name, chains[chain], resSeq=number)
            for name, chain, number in zip(
                self.sequence, self.chain_index, self._distinct_numbers(), strict=True
            )
        ]
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


def topology_from_mdtraj(
    top, positions: np.ndarray, source: str
) -> tuple[Topology, np.ndarray, dict]:
    """Heavy-atom system of an mdtraj topology and one frame of coordinates.

    positions: [atoms in file, 3], nm; decides chain breaks and disulphides.
    source: file name for messages.
    Returns the topology, the file index of each of its atoms (int64 [A]; coordinates in our order are
    ``positions[index]``), and the number of file atoms left out, by kind.
    A file with C-alpha atoms only gives the topology that its sequence implies, an index of C-alpha
    atoms ([R]), and OXT at every chain end.
    Raises InputError that names the residue for an unknown residue, a missing or a superfluous atom.
    """
    residues, dropped = _read_residues(top, source)
    if not residues:
        raise InputError(f"{source}: no protein residues")
    ca_only = all(set(atoms) == {"CA"} for _, _, atoms in residues)
    sequence = tuple(name for _, name, _ in residues)
    chain_of = [residue.chain.index for residue, _, _ in residues]
    used = sorted(set(chain_of))
    chain_index = tuple(used.index(c) for c in chain_of)
    last = [
        i == len(residues) - 1 or chain_index[i + 1] != chain_index[i] for i in range(len(residues))
    ]
    if not ca_only:
        _require_all_atoms(residues, source)
    oxt = tuple(last) if ca_only else tuple("OXT" in atoms for _, _, atoms in residues)
    topology = Topology(
        sequence=sequence,
        chain_index=chain_index,
        chain_ids=_chain_ids(top, used),
        residue_numbers=tuple(int(residue.resSeq) for residue, _, _ in residues),
        bonded=_bonded([atoms for _, _, atoms in residues], chain_index, positions, ca_only),
        has_oxt=oxt,
        disulphides=() if ca_only else _disulphides(residues, positions),
    )
    names = ("CA",) if ca_only else None
    index = [
        atoms[name]
        for (_, residue, atoms), has_oxt in zip(residues, oxt, strict=True)
        for name in names or RESIDUES[residue].atoms + (("OXT",) if has_oxt else ())
    ]
    return topology, np.array(index, dtype=np.int64), dict(dropped)


def _read_residues(top, source):
    residues, dropped = [], Counter()
    for residue in top.residues:
        name = standard_residue_name(residue.name)
        if name is None:
            if _is_solvent(residue):
                dropped[f"solvent or ion {residue.name}"] += residue.n_atoms
                continue
            raise InputError(
                f"{source}: unknown residue {residue.name}{residue.resSeq} in chain {residue.chain.index}; "
                "leave it out with an atom selection or rename it to its standard parent"
            )
        atoms = {}
        for atom in residue.atoms:
            if atom.element is not None and atom.element.symbol in ("H", "VS"):
                dropped["hydrogen" if atom.element.symbol == "H" else "virtual site"] += 1
                continue
            atom_name = standard_atom_name(name, atom.name)
            if atom_name in atoms or atom_name not in RESIDUES[name].atoms + ("OXT",):
                raise InputError(
                    f"{source}: residue {name}{residue.resSeq} has an unexpected atom {atom.name}; "
                    "expected " + " ".join(RESIDUES[name].atoms) + " (OXT)"
                )
            atoms[atom_name] = atom.index
        residues.append((residue, name, atoms))
    return residues, dropped


def _is_solvent(residue) -> bool:
    """Water or a single ion; a residue of one carbon atom CA is a coarse-grained one."""
    if residue.is_water or residue.n_atoms != 1:
        return residue.is_water
    (atom,) = residue.atoms
    return atom.name.strip() != "CA" or (atom.element is not None and atom.element.symbol == "Ca")


def _require_all_atoms(residues, source) -> None:
    for residue, name, atoms in residues:
        missing = [atom for atom in RESIDUES[name].atoms if atom not in atoms]
        if missing:
            raise InputError(
                f"{source}: residue {name}{residue.resSeq} in chain {residue.chain.index} lacks "
                f"heavy atom(s) {' '.join(missing)}; complete the model or leave the residue out"
            )


def _chain_ids(top, used) -> tuple[str, ...]:
    return tuple(str(getattr(top.chain(c), "chain_id", None) or _letter(c)) for c in used)


def _letter(chain: int) -> str:
    """Name of a chain that has none, no two alike: A to Z, a to z, 0 to 9 as PDB files take them, then AA, …"""
    if chain < len(LETTERS):
        return LETTERS[chain]
    first, second = divmod(chain - len(LETTERS), 26)
    return _letter(first) + LETTERS[second]


def _bonded(atoms, chain_index, positions, ca_only) -> tuple[bool, ...]:
    tail, head, limit = ("CA", "CA", CALPHA_BREAK) if ca_only else ("C", "N", PEPTIDE_BREAK)
    bonded = [False]
    for i in range(1, len(atoms)):
        distance = np.linalg.norm(positions[atoms[i][head]] - positions[atoms[i - 1][tail]])
        bonded.append(bool(chain_index[i] == chain_index[i - 1] and distance < limit))
    return tuple(bonded)


def _disulphides(residues, positions) -> tuple[tuple[int, int], ...]:
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
