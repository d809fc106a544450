"""Hydrogens of the standard residues: names (PDB version 3), parents, how each is placed, and their order.

Like heavy atoms they are never stored as names: sequence, ends, disulphides and protonation states fix them.
Written structures have the heavy atoms of each residue, then its hydrogens.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hpcbackmap.protein.topology import Topology

if TYPE_CHECKING:
    import mdtraj

__all__ = ["HYDROGENS", "SIDE_CHAIN_HYDROGENS", "Group", "Hydrogens", "hydrogens_of"]

HYDROGENS = "hydrogens"
"""What stores call the positions of hydrogens, which stand beside those of heavy atoms."""

# names kind parent neighbours; of ch2 the neighbours stand so that the first hydrogen has the lower number
SIDE_CHAIN_HYDROGENS = {
    "ALA": "HB1,HB2,HB3 ch3 CB CA N",
    "ARG": "HB2,HB3 ch2 CB CA CG/HG2,HG3 ch2 CG CB CD/HD2,HD3 ch2 CD CG NE/HE sp2 NE CD CZ/"
    "HH11,HH12 nh2 NH1 CZ NE/HH21,HH22 nh2 NH2 CZ NE",
    "ASN": "HB2,HB3 ch2 CB CA CG/HD21,HD22 nh2 ND2 CG CB",
    "ASP": "HB2,HB3 ch2 CB CA CG",
    "CYS": "HB2,HB3 ch2 CB CA SG/HG sh SG CB CA",
    "GLN": "HB2,HB3 ch2 CB CA CG/HG2,HG3 ch2 CG CB CD/HE21,HE22 nh2 NE2 CD CG",
    "GLU": "HB2,HB3 ch2 CB CA CG/HG2,HG3 ch2 CG CB CD",
    "GLY": "",
    "HIS": "HB2,HB3 ch2 CB CA CG/HD1 sp2 ND1 CG CE1/HD2 sp2 CD2 CG NE2/"
    "HE1 sp2 CE1 ND1 NE2/HE2 sp2 NE2 CD2 CE1",
    "ILE": "HB ch CB CA CG1 CG2/HG12,HG13 ch2 CG1 CB CD1/HG21,HG22,HG23 ch3 CG2 CB CA/"
    "HD11,HD12,HD13 ch3 CD1 CG1 CB",
    "LEU": "HB2,HB3 ch2 CB CA CG/HG ch CG CB CD1 CD2/HD11,HD12,HD13 ch3 CD1 CG CB/HD21,HD22,HD23 ch3 CD2 CG CB",
    "LYS": "HB2,HB3 ch2 CB CA CG/HG2,HG3 ch2 CG CB CD/HD2,HD3 ch2 CD CG CE/HE2,HE3 ch2 CE CD NZ/"
    "HZ1,HZ2,HZ3 nh3 NZ CE CD",
    "MET": "HB2,HB3 ch2 CB CA CG/HG2,HG3 ch2 CG CB SD/HE1,HE2,HE3 ch3 CE SD CG",
    "PHE": "HB2,HB3 ch2 CB CA CG/HD1 sp2 CD1 CG CE1/HD2 sp2 CD2 CG CE2/HE1 sp2 CE1 CD1 CZ/"
    "HE2 sp2 CE2 CD2 CZ/HZ sp2 CZ CE1 CE2",
    "PRO": "HB2,HB3 ch2 CB CA CG/HG2,HG3 ch2 CG CB CD/HD2,HD3 ch2 CD CG N",
    "SER": "HB2,HB3 ch2 CB CA OG/HG oh OG CB CA",
    "THR": "HB ch CB CA OG1 CG2/HG1 oh OG1 CB CA/HG21,HG22,HG23 ch3 CG2 CB CA",
    "TRP": "HB2,HB3 ch2 CB CA CG/HD1 sp2 CD1 CG NE1/HE1 sp2 NE1 CD1 CE2/HE3 sp2 CE3 CD2 CZ3/"
    "HZ2 sp2 CZ2 CE2 CH2/HZ3 sp2 CZ3 CE3 CH2/HH2 sp2 CH2 CZ2 CZ3",
    "TYR": "HB2,HB3 ch2 CB CA CG/HD1 sp2 CD1 CG CE1/HD2 sp2 CD2 CG CE2/HE1 sp2 CE1 CD1 CZ/"
    "HE2 sp2 CE2 CD2 CZ/HH phenol OH CZ CE1",
    "VAL": "HB ch CB CA CG1 CG2/HG11,HG12,HG13 ch3 CG1 CB CA/HG21,HG22,HG23 ch3 CG2 CB CA",
}
_ADDED = {"ASH": "HD2 acid OD2 CG OD1", "GLH": "HE2 acid OE2 CD OE1"}
_LEFT_OUT = {"HID": "HE2", "HIE": "HD1", "CYM": "HG", "CYX": "HG", "LYN": "HZ1"}


class Group(NamedTuple):
    """Hydrogens on one atom. kind: how they are placed (`finishing/place.py`). atoms: parent, then what it is
    placed by, indices of heavy atoms.
    """

    residue: int
    names: tuple[str, ...]
    kind: str
    atoms: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Hydrogens:
    """Of one molecule, H hydrogens. groups: in order. order: of the atoms as they are written, among heavy
    atoms followed by hydrogens, int64 [A + H].
    """

    topology: Topology
    groups: tuple[Group, ...]
    names: tuple[str, ...]
    residue: np.ndarray
    parent: np.ndarray
    order: np.ndarray

    def joined(self, heavy: np.ndarray, hydrogens: np.ndarray) -> np.ndarray:
        """All atoms [..., A + H, 3] as they are written, of heavy atoms and hydrogens."""
        return np.concatenate([heavy, hydrogens], axis=-2)[..., self.order, :]

    def state(self, residue: int) -> str:
        """AMBER name of a residue's protonation state."""
        return residue_state(self.topology, residue)

    def to_mdtraj(self) -> "mdtraj.Topology":
        """mdtraj topology of all atoms as they are written."""
        import mdtraj

        heavy = self.topology.to_mdtraj()
        atoms = [*heavy.atoms]
        whole = mdtraj.Topology()
        residues = []
        for chain in heavy.chains:
            added = whole.add_chain()
            added.chain_id = chain.chain_id
            for old in chain.residues:
                residue = whole.add_residue(old.name, added, resSeq=old.resSeq)
                residue.insertion = getattr(old, "insertion", "")
                residues.append(residue)
        placed = {}
        for place in self.order.tolist():
            if place < len(atoms):
                old = atoms[place]
                placed[place] = whole.add_atom(old.name, old.element, residues[old.residue.index])
                continue
            hydrogen = place - len(atoms)
            owner = residues[self.residue[hydrogen]]
            placed[place] = whole.add_atom(self.names[hydrogen], mdtraj.element.hydrogen, owner)
        for first, second in heavy.bonds:
            whole.add_bond(placed[first.index], placed[second.index])
        for hydrogen, parent in enumerate(self.parent.tolist()):
            whole.add_bond(placed[parent], placed[len(atoms) + hydrogen])
        return whole


@lru_cache(maxsize=8)
def hydrogens_of(topology: Topology) -> Hydrogens:
    """The hydrogens of a molecule in the states that ``topology.protonation`` names."""
    groups = [
        group for residue in range(topology.n_residues) for group in _groups(topology, residue)
    ]
    residue = np.array([g.residue for g in groups for _ in g.names], dtype=np.int64)
    parent = np.array([g.atoms[0] for g in groups for _ in g.names], dtype=np.int64)
    owner = np.concatenate([topology.atom_residue, residue])
    return Hydrogens(
        topology,
        tuple(groups),
        tuple(name for group in groups for name in group.names),
        residue,
        parent,
        np.argsort(owner, kind="stable"),
    )


def residue_state(topology: Topology, residue: int) -> str:
    if any(residue in pair for pair in topology.disulphides):
        return "CYX"
    given = topology.protonation[residue] if topology.protonation else ""
    name = topology.sequence[residue]
    return given or ("HIE" if name == "HIS" else name)


def _groups(topology: Topology, residue: int) -> list[Group]:
    index, name = topology.atom_index, topology.sequence[residue]
    state = residue_state(topology, residue)
    rows = "/".join(
        filter(
            None, [_backbone(topology, residue), SIDE_CHAIN_HYDROGENS[name], _ADDED.get(state, "")]
        )
    )
    found = []
    for row in rows.split("/"):
        names, kind, *atoms = row.split()
        kept = tuple(word for word in names.split(",") if word != _LEFT_OUT.get(state))
        if kept:
            places = tuple(
                index[residue - 1, "C"] if atom == "-C" else index[residue, atom] for atom in atoms
            )
            found.append(Group(residue, kept, kind, places))
    return found


def _backbone(topology: Topology, residue: int) -> str:
    """Of N and CA. A residue behind a break in its chain has an amide hydrogen, as inside."""
    name = topology.sequence[residue]
    alpha = "HA2,HA3 ch2 CA N C" if name == "GLY" else "HA ch CA N C CB"
    if topology.bonded[residue]:
        return alpha if name == "PRO" else f"H sp2 N -C CA/{alpha}"
    first = residue == 0 or topology.chain_index[residue] != topology.chain_index[residue - 1]
    if name == "PRO":
        return f"H2,H3 ch2 N CD CA/{alpha}" if first else alpha
    return f"H1,H2,H3 nh3 N CA C/{alpha}" if first else f"H amide N CA C/{alpha}"
