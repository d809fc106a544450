"""Van der Waals surfaces as MolProbity has them (Deis et al. 2013): radii, and bonds to the electron clouds of
hydrogens; nm.
"""

__all__ = [
    "AROMATIC",
    "BONDS",
    "HYDROGEN",
    "HYDROGEN_BOND",
    "POLAR_OR_AROMATIC",
    "RADII",
    "RINGS",
    "in_ring",
    "radius_of",
]

RADII = {"C": 0.170, "N": 0.155, "O": 0.140, "S": 0.180}
"""Of heavy atoms but carbonyl carbons."""
CARBONYL, HYDROGEN, POLAR_OR_AROMATIC = 0.165, 0.122, 0.105
"""Of carbonyl carbons, of hydrogens, and of hydrogens of N, O, S or an aromatic ring."""
CARBONYLS = {("ASP", "CG"), ("ASN", "CG"), ("GLU", "CD"), ("GLN", "CD")}
"""Those of side chains."""
BONDS = {"C": 0.097, "N": 0.086, "O": 0.084, "S": 0.120}
"""To a hydrogen, by its parent."""
AROMATIC = 0.093
"""To a hydrogen of an aromatic carbon."""
HYDROGEN_BOND = 0.06
"""By so much surfaces of a hydrogen bond may overlap before it counts."""
RINGS = ("PHE", "TYR", "TRP", "HIS")


def radius_of(residue: str, atom: str) -> float:
    """Of a heavy atom, by the names of its residue and its own."""
    carbonyl = atom == "C" or (residue, atom) in CARBONYLS
    return CARBONYL if carbonyl else RADII[atom[0]]


def in_ring(residue: str, atom: str) -> bool:
    """Whether hydrogens of this atom are those of an aromatic ring, or polar ones at it."""
    return residue in RINGS and atom not in ("N", "CA", "CB")
