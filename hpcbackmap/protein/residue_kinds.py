"""What a residue's name says: a standard residue, a modified one and its parent, or what else it is."""

from functools import cache
from typing import TYPE_CHECKING

from hpcbackmap.protein.residues import RESIDUES, standard_residue_name

if TYPE_CHECKING:
    import gemmi

__all__ = ["CAPS", "SMALL", "modified_parent", "residue_kind", "sirah_parent"]

CAPS = {"ACE", "NME", "NMA", "NH2", "NHE", "FOR", "NAC", "CT3", "ACEY", "NTER", "CTER"}
"""Groups that close the ends of a chain."""
WATER = {"HOH", "WAT", "SOL", "H2O", "DOD", "TIP", "TIP3", "TIP3P", "TP3", "TIP4", "TIP4P", "T4P", "TIP5",
         "SPC", "SPCE", "OPC", "W", "WN", "PW", "WF", "SW", "TW"}  # fmt: skip
IONS = {"NA", "NA+", "SOD", "CL", "CL-", "CLA", "K", "K+", "POT", "MG", "MG2", "CA", "CAL", "CA2", "ZN",
        "ZN2", "MN", "FE", "FE2", "CU", "CU1", "CO", "NI", "CD", "HG", "LI", "RB", "CS", "CES", "BA",
        "BR", "IOD", "F", "ION", "TNA", "TCL"}  # fmt: skip
LIPIDS = {
    "CHOL",
    "CHL1",
    "CLR",
    "CHL",
    "PA",
    "PC",
    "PE",
    "OL",
    "CDL",
    "CDL2",
    "SDS",
    "DPC",
    "LPS",
    "LDA",
    "OLC",
}
LIPID_HEADS = ("PC", "PE", "PS", "PG", "PA", "PI", "SM")
NUCLEIC = {"ADE", "CYT", "GUA", "THY", "URA"}
SUGARS = {"AGLC", "BGLC", "BGLCNA", "AGAL", "BGAL", "AMAN", "BMAN", "AFUC", "ANE5AC", "BGLCN"}
DNA = {name + end for name in ("DA", "DC", "DG", "DT", "DU") for end in ("", "3", "5", "N")}
RNA = {
    name + end
    for name in ("A", "C", "G", "U", "RA", "RC", "RG", "RU")
    for end in ("", "3", "5", "N")
}
SMALL = {"water", "ion"}

_PARENTS = {"SEC": "CYS", "PYL": "LYS", "S1P": "SER", "S2P": "SER", "SP1": "SER", "SP2": "SER", "T1P": "THR",
            "T2P": "THR", "TP1": "THR", "TP2": "THR", "Y1P": "TYR", "Y2P": "TYR", "THP1": "THR", "HYPP": "PRO",
            "CYSP": "CYS", "CYSG": "CYS", "CYSF": "CYS", "CYF": "CYS", "GLYM": "GLY"}  # fmt: skip
"""Modified residues of force fields, and those that gemmi's table gives a letter of their own."""


_SIRAH = {
    "sHd": "HIS",
    "sHe": "HIS",
    "sX": "CYS",
    "sDh": "ASP",
    "sEh": "GLU",
    "sBp": "SER",
    "sTp": "THR",
}
"""Names of SIRAH that are not ``s`` and the letter of the residue."""


@cache
def sirah_parent(name: str) -> str | None:
    """The standard residue that a name of SIRAH (``sK``, ``sHe``, at the ends ``nK`` and ``cK``) stands for."""
    name = name.strip()
    if name in _SIRAH:
        return _SIRAH[name]
    if len(name) == 2 and name[0] in "snc" and name[1].isupper():
        return next((parent for parent, row in RESIDUES.items() if row.letter == name[1]), None)
    return None


@cache
def residue_kind(name: str) -> str:
    """``protein``, ``modified``, ``cap``, ``water``, ``ion``, ``DNA``, ``RNA``, ``lipid``, ``sugar``,
    ``ligand``, ``D-residue`` or ``unknown``.

    Names of one letter are RNA here; in a file of beads they may be residues.
    """
    if sirah_parent(name):
        return "protein"
    name = name.strip().upper()
    if standard_residue_name(name):
        return "protein"
    for kind, names in (
        ("cap", CAPS), ("water", WATER), ("ion", IONS), ("DNA", DNA), ("RNA", RNA), ("lipid", LIPIDS),
        ("sugar", SUGARS),
    ):  # fmt: skip
        if name in names:
            return kind
    if name in NUCLEIC:
        return "RNA" if name == "URA" else "DNA"
    if len(name) == 4 and name.endswith(LIPID_HEADS):
        return "lipid"
    if modified_parent(name):
        return "modified"
    return _tabulated_kind(name)


@cache
def modified_parent(name: str) -> str | None:
    """The standard residue that a modified one (SEP, HYP, …) was made from; None if no table knows it."""
    name = name.strip().upper()
    if standard_residue_name(name):
        return None
    if name in _PARENTS:
        return _PARENTS[name]
    found = _tabulated(name)
    if found.kind.name not in ("AA", "PAA", "MAA") or not found.one_letter_code.islower():
        return None
    letter = found.one_letter_code.upper()
    return next((parent for parent, row in RESIDUES.items() if row.letter == letter), None)


def _tabulated_kind(name: str) -> str:
    found = _tabulated(name)
    if not found.found() or name == "UNK":
        return "unknown"
    kinds = {
        "AAD": "D-residue",
        "RNA": "RNA",
        "DNA": "DNA",
        "HOH": "water",
        "PYR": "sugar",
        "KET": "sugar",
    }
    kinds |= {"AA": "unknown", "PAA": "unknown", "MAA": "unknown"}
    return kinds.get(found.kind.name, "ligand")


def _tabulated(name: str) -> "gemmi.ResidueInfo":
    import gemmi

    return gemmi.find_tabulated_residue(name)
