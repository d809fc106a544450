"""The 20 standard residues: heavy atoms, bonds, and how each atom is placed.

Side chains are bonded-parent Z-matrices: an atom is placed from the atom it is bonded to (parent),
a grandparent and a great-grandparent. The first atom beyond a rotatable bond carries the torsion
``chi``; further atoms on the same parent are placed by an improper dihedral to the first one, so
branches stay tetrahedral or planar, and aromatic rings close, whatever the torsion.
"""

from dataclasses import dataclass

__all__ = [
    "BACKBONE",
    "CIS",
    "CIS_BORDER",
    "ELEMENT_MASS",
    "MAX_ATOMS",
    "RESIDUES",
    "RESIDUE_INDEX",
    "TRANS",
    "Placement",
    "ResidueTemplate",
    "standard_atom_name",
    "standard_residue_name",
]

BACKBONE = ("N", "CA", "C", "O")
MAX_ATOMS = 15
"""Heavy atoms of the largest residue (tryptophan, 14) plus OXT."""

TRANS, CIS, CIS_BORDER = 0.38, 0.295, 0.34
"""nm; C-alpha distance of trans and of cis peptide links, and below what a link is taken for cis."""
ELEMENT_MASS = {"C": 12.011, "N": 14.007, "O": 15.999, "S": 32.06}
"""Standard atomic weights, g/mol (IUPAC 2021, abridged)."""


@dataclass(frozen=True)
class Placement:
    """One Z-matrix row. ``chi`` is 1 to 4 for a rotatable torsion, 0 for a fixed or improper dihedral."""

    atom: str
    parent: str
    grandparent: str
    great: str
    chi: int = 0


@dataclass(frozen=True)
class ResidueTemplate:
    """One residue type: ``atoms`` in PDB order without OXT, ``bonds`` inside the residue."""

    name: str
    letter: str
    atoms: tuple[str, ...]
    bonds: tuple[tuple[str, str], ...]
    placements: tuple[Placement, ...]


# atom parent grandparent great-grandparent [chi]; in PDB atom order
_SIDE_CHAINS = {
    ("GLY", "G"): "",
    ("ALA", "A"): "CB CA N C",
    (
        "ARG",
        "R",
    ): "CB CA N C/CG CB CA N 1/CD CG CB CA 2/NE CD CG CB 3/CZ NE CD CG 4/NH1 CZ NE CD/NH2 CZ NE NH1",
    ("ASN", "N"): "CB CA N C/CG CB CA N 1/OD1 CG CB CA 2/ND2 CG CB OD1",
    ("ASP", "D"): "CB CA N C/CG CB CA N 1/OD1 CG CB CA 2/OD2 CG CB OD1",
    ("CYS", "C"): "CB CA N C/SG CB CA N 1",
    ("GLN", "Q"): "CB CA N C/CG CB CA N 1/CD CG CB CA 2/OE1 CD CG CB 3/NE2 CD CG OE1",
    ("GLU", "E"): "CB CA N C/CG CB CA N 1/CD CG CB CA 2/OE1 CD CG CB 3/OE2 CD CG OE1",
    (
        "HIS",
        "H",
    ): "CB CA N C/CG CB CA N 1/ND1 CG CB CA 2/CD2 CG CB ND1/CE1 ND1 CG CD2/NE2 CD2 CG ND1",
    ("ILE", "I"): "CB CA N C/CG1 CB CA N 1/CG2 CB CA CG1/CD1 CG1 CB CA 2",
    ("LEU", "L"): "CB CA N C/CG CB CA N 1/CD1 CG CB CA 2/CD2 CG CB CD1",
    ("LYS", "K"): "CB CA N C/CG CB CA N 1/CD CG CB CA 2/CE CD CG CB 3/NZ CE CD CG 4",
    ("MET", "M"): "CB CA N C/CG CB CA N 1/SD CG CB CA 2/CE SD CG CB 3",
    (
        "PHE",
        "F",
    ): "CB CA N C/CG CB CA N 1/CD1 CG CB CA 2/CD2 CG CB CD1/CE1 CD1 CG CD2/CE2 CD2 CG CD1/CZ CE1 CD1 CG",
    ("PRO", "P"): "CB CA N C/CG CB CA N 1/CD N CA CB",
    ("SER", "S"): "CB CA N C/OG CB CA N 1",
    ("THR", "T"): "CB CA N C/OG1 CB CA N 1/CG2 CB CA OG1",
    (
        "TRP",
        "W",
    ): "CB CA N C/CG CB CA N 1/CD1 CG CB CA 2/CD2 CG CB CD1/NE1 CD1 CG CD2/CE2 CD2 CG CD1/"
    "CE3 CD2 CG CE2/CZ2 CE2 CD2 CE3/CZ3 CE3 CD2 CE2/CH2 CZ2 CE2 CD2",
    (
        "TYR",
        "Y",
    ): "CB CA N C/CG CB CA N 1/CD1 CG CB CA 2/CD2 CG CB CD1/CE1 CD1 CG CD2/CE2 CD2 CG CD1/"
    "CZ CE1 CD1 CG/OH CZ CE1 CD1",
    ("VAL", "V"): "CB CA N C/CG1 CB CA N 1/CG2 CB CA CG1",
}

_RING_CLOSURES = {
    "HIS": (("CE1", "NE2"),),
    "PHE": (("CE2", "CZ"),),
    "PRO": (("CG", "CD"),),
    "TRP": (("NE1", "CE2"), ("CZ3", "CH2")),
    "TYR": (("CE2", "CZ"),),
}


def _template(name: str, letter: str, text: str) -> ResidueTemplate:
    placements = []
    for row in filter(None, text.split("/")):
        atom, parent, grandparent, great, *chi = row.split()
        placements.append(Placement(atom, parent, grandparent, great, int(chi[0]) if chi else 0))
    atoms = BACKBONE + tuple(row.atom for row in placements)
    bonds: tuple[tuple[str, str], ...] = (("N", "CA"), ("CA", "C"), ("C", "O"))
    bonds += tuple((row.parent, row.atom) for row in placements) + _RING_CLOSURES.get(name, ())
    return ResidueTemplate(name, letter, atoms, bonds, tuple(placements))


RESIDUES = {
    name: _template(name, letter, text) for (name, letter), text in sorted(_SIDE_CHAINS.items())
}
RESIDUE_INDEX = {name: index for index, name in enumerate(RESIDUES)}

_RESIDUE_VARIANTS = {
    "HID": "HIS", "HIE": "HIS", "HIP": "HIS", "HSD": "HIS", "HSE": "HIS", "HSP": "HIS", "HISD": "HIS",
    "HISE": "HIS", "HISH": "HIS", "HISB": "HIS", "HISA": "HIS", "CYX": "CYS", "CYM": "CYS", "CYS2": "CYS",
    "ASH": "ASP", "ASPP": "ASP", "ASPH": "ASP", "GLH": "GLU", "GLUP": "GLU", "GLUH": "GLU",
    "LYN": "LYS", "LSN": "LYS", "LYSH": "LYS", "ARGN": "ARG",
}  # fmt: skip


def standard_residue_name(name: str) -> str | None:
    """The standard three-letter name of a protonation, terminal or force-field variant, else None.

    AMBER terminal names (``NALA``, ``CHIE``) are understood; for modified residues see `residue_kinds`.
    """
    name = name.strip().upper()
    for candidate in (name, name[1:] if len(name) == 4 and name[0] in "NC" else ""):
        candidate = _RESIDUE_VARIANTS.get(candidate, candidate)
        if candidate in RESIDUES:
            return candidate
    return None


_TERMINAL_OXYGENS = {
    "OT1": "O", "OC1": "O", "O1": "O", "OT": "OXT", "OT2": "OXT", "OC2": "OXT", "O2": "OXT", "O\"": "OXT",
}  # fmt: skip


def standard_atom_name(residue: str, atom: str) -> str:
    """PDB heavy-atom name of a CHARMM, GROMACS or AMBER variant (``residue`` is a standard name)."""
    atom = atom.strip().upper()
    if residue == "ILE" and atom == "CD":
        return "CD1"
    if residue == "MET" and atom == "SE":
        return "SD"
    return _TERMINAL_OXYGENS.get(atom, atom)
