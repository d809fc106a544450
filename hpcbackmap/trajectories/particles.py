"""The particles of a file by the file's own names, and where they are.

Shapes: F frames, P particles, R residues; positions in nm.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

import mdtraj
import numpy as np

from hpcbackmap.protein.named_residues import NamedResidue, topology_from_residues
from hpcbackmap.protein.residue_kinds import modified_parent, residue_kind
from hpcbackmap.protein.residues import standard_atom_name, standard_residue_name
from hpcbackmap.protein.topology import Topology
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.trajectories.formats import NAMED_TEXT, text_file
from hpcbackmap.trajectories.molecules import ChainRow, ResidueRow
from hpcbackmap.trajectories.text import suffix_of

__all__ = ["SYMBOLS", "ChainRow", "Particles", "ResidueRow"]

SYMBOLS = {
    each.symbol.upper(): each
    for each in vars(mdtraj.element).values()
    if isinstance(each, mdtraj.element.Element) and each is not mdtraj.element.virtual
}


@dataclass(frozen=True)
class Particles:
    """The particles of a file in its order, by the file's own names.

    names, elements: one entry a particle; an element is empty where it is not known. residue: row of
    ``residues`` of each particle, int64 [P]; particles of a residue need not stand together.
    chains: one row a molecule.
    steps: distance of each residue from the one before it, nm, median of some frames, [R]; NaN where unknown.
    positions: float32 [P, 3], of the first frame; None if there is no frame. cell: [3, 3], rows are vectors, or
    None. disulphides: pairs of residues that the file calls bonded. words: what reading decided, to be said.
    """

    source: str
    names: list[str]
    residue: np.ndarray
    residues: list[ResidueRow]
    chains: list[ChainRow]
    elements: list[str]
    steps: np.ndarray
    positions: np.ndarray | None = None
    cell: np.ndarray | None = None
    disulphides: list[tuple[int, int]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    @property
    def n_atoms(self) -> int:
        return len(self.names)

    def members(self) -> list[np.ndarray]:
        """Particles of each residue, int64, in the order of the file."""
        order = np.argsort(self.residue, kind="stable")
        return np.split(
            order, np.cumsum(np.bincount(self.residue, minlength=len(self.residues)))[:-1]
        )

    def label(self, residue: int) -> str:
        """How messages name a residue: chain, name, number, insertion code (``A:GLY12``)."""
        row = self.residues[residue]
        chain = self.chains[row.chain].id.strip()
        return (
            f"{chain}:{row.name}{row.number}{row.insertion}"
            if chain
            else f"{row.name}{row.number}{row.insertion}"
        )

    def subset(self, index: np.ndarray) -> "Particles":
        """The particles ``index`` in that order; residues and chains that lose all of theirs go."""
        index = np.asarray(index, dtype=np.int64)
        kept, residue = np.unique(self.residue[index], return_inverse=True)
        rows = [self.residues[r] for r in kept]
        used, chain = np.unique([row.chain for row in rows], return_inverse=True)
        place = {int(r): i for i, r in enumerate(kept)}
        steps = self.steps[kept].copy()
        steps[1:][np.diff(kept) > 1] = np.nan
        return replace(
            self,
            names=[self.names[i] for i in index],
            elements=[self.elements[i] for i in index],
            residue=residue,
            residues=[row._replace(chain=int(c)) for row, c in zip(rows, chain, strict=True)],
            chains=[self.chains[c] for c in used],
            steps=steps,
            positions=None if self.positions is None else self.positions[index],
            disulphides=[
                (place[a], place[b]) for a, b in self.disulphides if a in place and b in place
            ],
        )

    def topology(self, positions: np.ndarray) -> tuple[Topology, np.ndarray, dict[str, int]]:
        """`topology_from_residues` of these particles; positions: [P, 3], nm."""
        residues = [
            NamedResidue(*row, [(self.names[i], self.elements[i], int(i)) for i in particles])
            for row, particles in zip(self.residues, self.members(), strict=True)
        ]
        ids = [chain.id for chain in self.chains]
        return topology_from_residues(residues, ids, positions, self.source, self.steps)

    def modified(self) -> list[str]:
        """Sentences about residues that are built as the ones that they were made from."""
        found: dict[str, list[str]] = {}
        for number, row in enumerate(self.residues):
            if parent := modified_parent(row.name):
                found.setdefault(f"{row.name} built as {parent}", []).append(self.label(number))
        return [
            f"{len(labels)} {what} ({', '.join(labels[:5])}{', …' if len(labels) > 5 else ''})"
            for what, labels in found.items()
        ]

    def kinds(self, index: np.ndarray) -> dict[str, int]:
        """How many of the particles ``index`` are of residues that are no amino acids, by kind and name."""
        counts: Counter[str] = Counter()
        for particle in index:
            name = self.residues[self.residue[particle]].name
            if (kind := residue_kind(name)) not in ("protein", "modified"):
                counts[f"{'other' if kind == 'unknown' else kind} {name}"] += 1
        return dict(counts)

    def require_same(self, path: str) -> None:
        """Refuse a text file whose particles have other names, or the same in another order."""
        if suffix_of(path) not in NAMED_TEXT or path == self.source:
            return
        rows = text_file(path).rows
        if rows.n_atoms != self.n_atoms:
            raise InputError(f"{path}: {rows.n_atoms} atoms, {self.source} has {self.n_atoms}")
        theirs = zip(rows.residue_names, rows.names, strict=True)
        for particle, (residue, name) in enumerate(theirs):
            row = int(self.residue[particle])
            own = self.residues[row].name
            if _standard(own, self.names[particle]) != _standard(residue, name):
                raise InputError(
                    f"{path}: atom {particle + 1} is {name} of {residue}{rows.numbers[particle]}, "
                    f"in the topology {self.source} it is {self.names[particle]} of {self.label(row)}"
                )

    def to_mdtraj(self) -> mdtraj.Topology:
        """For mdtraj's selections: the same particles in the same order (a residue in parts counts twice)."""
        top, chain, residue, last = mdtraj.Topology(), None, None, None
        for particle, row in enumerate(self.residue.tolist()):
            named = self.residues[row]
            if last is None or named.chain != self.residues[last].chain:
                chain = top.add_chain(self.chains[named.chain].id or None)
            if row != last:
                segment = self.chains[named.chain].segment
                residue = top.add_residue(named.name, chain, named.number, segment)
                residue.insertion = named.insertion
                last = row
            element = SYMBOLS.get(self.elements[particle].upper(), mdtraj.element.virtual)
            top.add_atom(self.names[particle], element, residue, particle + 1)
        return top


def _standard(residue: str, name: str) -> tuple[str, str]:
    standard = standard_residue_name(residue) or modified_parent(residue) or residue
    return standard, standard_atom_name(standard, name)
