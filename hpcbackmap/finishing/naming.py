"""Names of residues and atoms as PDB version 3, AMBER, CHARMM or GROMACS have them."""

from pathlib import Path
from typing import TYPE_CHECKING

from hpcbackmap.runtime.errors import ConfigError

if TYPE_CHECKING:
    import mdtraj

    from hpcbackmap.protein.hydrogens import Hydrogens

__all__ = ["NAMES", "named_topology", "require_names"]

NAMES = ("pdb", "amber", "charmm", "gromacs")
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


def require_names(names: str, hydrogens: bool, output: Path | None) -> None:
    """Raises ConfigError for names that are not known, or that the output cannot hold."""
    if names not in NAMES:
        raise ConfigError(f"--names {names}: give {', '.join(NAMES)}")
    if names == "pdb":
        return
    if not hydrogens:
        raise ConfigError(
            f"--names {names}: names say which hydrogens a residue has; add --hydrogens"
        )
    if output is not None and output.suffix == ".zarr":
        raise ConfigError(
            f"--names {names}: {output} keeps no names, only what they follow from; write .pdb, .cif, .gro, "
            ".xtc or .dcd (the last two with a PDB file beside them)"
        )


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
