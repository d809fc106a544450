"""Which heavy atoms a coarse-grained bead is the centre of, by force field and residue.

Martini 2 after Monticelli et al. 2008 and de Jong et al. 2013 (version 2.2), Martini 3 after Souza et al. 2021;
backbone beads are centres of N, CA, C and O, in the alanine of Martini 2 of CB as well. A bead is the centre
of mass of its atoms; hydrogens are left out, as everywhere here.
"""

from functools import cache

import numpy as np

from hpcbackmap.protein.residues import BACKBONE, ELEMENT_MASS, MAX_ATOMS, RESIDUES

__all__ = [
    "MARTINI2",
    "MARTINI3",
    "backbone_masses",
    "martini2_backbone_masses",
    "masses",
    "residue_masses",
    "side_chain_masses",
]

_COMMON = {
    "ARG": "CB CG CD/NE CZ NH1 NH2",
    "ASN": "CB CG OD1 ND2",
    "ASP": "CB CG OD1 OD2",
    "CYS": "CB SG",
    "GLN": "CB CG CD OE1 NE2",
    "GLU": "CB CG CD OE1 OE2",
    "GLY": "",
    "HIS": "CB CG/CD2 NE2/ND1 CE1",
    "ILE": "CB CG1 CG2 CD1",
    "LEU": "CB CG CD1 CD2",
    "LYS": "CB CG CD/CE NZ",
    "MET": "CB CG SD CE",
    "PRO": "CB CG CD",
    "SER": "CB OG",
    "THR": "CB OG1 CG2",
    "VAL": "CB CG1 CG2",
}
_MARTINI2 = {
    **_COMMON,
    "ALA": "",
    "PHE": "CB CG CD1/CD2 CE2/CE1 CZ",
    "TRP": "CB CG CD2/CD1 NE1 CE2/CE3 CZ3/CZ2 CH2",
    "TYR": "CB CG CD1/CD2 CE2/CE1 CZ OH",
}
_MARTINI3 = {
    **_COMMON,
    "ALA": "CB",
    "PHE": "CB CG CD1*.3333 CD2*.3333/CD1*.6667 CE1 CZ*.5/CD2*.6667 CE2 CZ*.5",
    "TRP": "CB CG/CD1 NE1/CE2 CD2/CE3 CZ3/CZ2 CH2",
    "TYR": "CB CG/CD1 CE1/CD2 CE2/CZ OH",
}


def masses(residue: str, atoms: str | tuple[str, ...]) -> np.ndarray:
    """Mass with which each atom slot of a residue counts for the bead of ``atoms``, g/mol, float32 [MAX_ATOMS].

    atoms: names, a name with ``*x`` counting by x only; those that the residue lacks are passed over.
    """
    row = np.zeros(MAX_ATOMS, dtype=np.float32)
    order = RESIDUES[residue].atoms
    for item in atoms.split() if isinstance(atoms, str) else atoms:
        name, _, part = item.partition("*")
        if name in order:
            row[order.index(name)] = ELEMENT_MASS[name[0]] * float(part or 1)
    return row


def _table(text: dict[str, str]) -> dict[str, tuple[np.ndarray, ...]]:
    return {
        residue: tuple(masses(residue, bead) for bead in filter(None, beads.split("/")))
        for residue, beads in text.items()
    }


MARTINI2 = _table(_MARTINI2)
MARTINI3 = _table(_MARTINI3)
"""`masses` of the side-chain beads SC1, SC2, … of each residue."""


@cache
def backbone_masses(residue: str) -> np.ndarray:
    """Of the backbone bead: N, CA, C and O."""
    return masses(residue, BACKBONE)


@cache
def martini2_backbone_masses(residue: str) -> np.ndarray:
    """Of the backbone bead of Martini 2."""
    return masses(residue, BACKBONE + (("CB",) if residue == "ALA" else ()))


@cache
def side_chain_masses(residue: str) -> np.ndarray:
    """Of the centre of a side chain; of glycine, which has none, its C-alpha."""
    return masses(residue, RESIDUES[residue].atoms[len(BACKBONE) :] or ("CA",))


@cache
def residue_masses(residue: str) -> np.ndarray:
    """Of the centre of mass of a residue."""
    return masses(residue, RESIDUES[residue].atoms)
