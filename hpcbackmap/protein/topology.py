"""A protein system as this package sees it, and its way out to mdtraj. `named_residues.py` is the way in.

Atoms are never stored: sequence, chains, breaks and terminal oxygens fix them, residue by residue,
in the order of the residue templates (PDB order, OXT last).
"""

import hashlib
import json
import string
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcbackmap.protein.residues import ELEMENT_MASS, RESIDUES
from hpcbackmap.runtime.errors import InputError

if TYPE_CHECKING:
    import mdtraj

__all__ = ["Topology", "named_chains", "topology_from_sequence"]

LETTERS = string.ascii_uppercase + string.ascii_lowercase + string.digits


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


def named_chains(chain_ids: Iterable[str]) -> tuple[str, ...]:
    """The names of chains, with a letter for each that has none."""
    return tuple(name or _letter(number) for number, name in enumerate(chain_ids))


def _letter(chain: int) -> str:
    """Name of a chain that has none, no two alike: A to Z, a to z, 0 to 9 as PDB files take them, then AA, …"""
    if chain < len(LETTERS):
        return LETTERS[chain]
    first, second = divmod(chain - len(LETTERS), 26)
    return _letter(first) + LETTERS[second]
