"""Names of residues and atoms as PDB version 3, AMBER, CHARMM or GROMACS have them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mdtraj

    from hpcbackmap.protein.hydrogens import Hydrogens

__all__ = ["named_topology"]

RESIDUES = {
    "pdb": {},
    "amber": {state: state for state in ("HID", "HIE", "HIP", "ASH", "GLH", "LYN", "CYM", "CYX")},
    "charmm": {"HID": "HSD", "HIE": "HSE", "HIP": "HSP", "ASH": "ASPP", "GLH": "GLUP", "LYN": "LSN",
               "CYM": "CYM"},
    "gromacs": {"HID": "HISD", "HIE": "HISE", "HIP": "HISH", "ASH": "ASPH", "GLH": "GLUH", "LYN": "LYSN",
                "CYM": "CYM", "CYX": "CYS2"},
}  # fmt: skip
"""Names of protonation states; what is not there keeps its usual one. Those of GROMACS are what `pdb2gmx` takes
with all of its force fields (``aminoacids.r2b``).
"""
OLD_NUMBERS = {"HA3": "HA1", "HB3": "HB1", "HG3": "HG1", "HD3": "HD1", "HE3": "HE1", "HG13": "HG11"}
"""Of the two hydrogens of a CH2, as CHARMM and the topologies of GROMACS count: 1 and 2."""
ILE = {"CD1": "CD", "HD11": "HD1", "HD12": "HD2", "HD13": "HD3"}
CHARMM_ENDS = {"H1": "HT1", "H2": "HT2", "H3": "HT3", "O": "OT1", "OXT": "OT2"}
CHARMM = {("CYS", "HG"): "HG1", ("SER", "HG"): "HG1"}


def named_topology(hydrogens: "Hydrogens", names: str) -> "mdtraj.Topology":
    """The topology of all atoms with the names of a force field."""
    topology = hydrogens.to_mdtraj()
    if names == "pdb":
        return topology
    for residue in topology.residues:
        usual = residue.name
        atoms = {atom.name: atom for atom in residue.atoms}
        pairs = {name: _atom(usual, name, frozenset(atoms), names) for name in atoms}
        for name, atom in atoms.items():
            atom.name = pairs[name]
        residue.name = RESIDUES[names].get(hydrogens.state(residue.index), usual)
    return topology


def _atom(residue: str, name: str, there: frozenset[str], names: str) -> str:
    if names == "amber":
        return name
    if residue == "ILE" and name in ILE:
        return ILE[name]
    two = name[:-1] + "2"
    if name in OLD_NUMBERS and two in there and name[:-1] + "1" not in there:
        return OLD_NUMBERS[name]
    return name if names == "gromacs" else _charmm(residue, name, there)


def _charmm(residue: str, name: str, there: frozenset[str]) -> str:
    if name == "H":
        return "HN"
    if residue == "PRO" and name in ("H2", "H3"):
        return {"H2": "HN1", "H3": "HN2"}[name]
    if name in ("O", "OXT") and "OXT" not in there:
        return name
    return CHARMM_ENDS.get(name) or CHARMM.get((residue, name), name)
