"""The topology beside a trajectory whose format names no atoms."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcbackmap.runtime.errors import ConfigError, InputError

if TYPE_CHECKING:
    import mdtraj

__all__ = ["names_same_atoms", "topology_beside"]

NEED_TOPOLOGY = (".xtc", ".dcd")


def topology_beside(output: Path) -> Path | None:
    """``NAME_top.pdb`` of ``NAME.xtc`` or ``NAME.dcd``; None of formats that name atoms."""
    if output.suffix in NEED_TOPOLOGY:
        return output.with_name(f"{output.stem}_top.pdb")
    return None


def names_same_atoms(path: Path, topology: "mdtraj.Topology", more: bool = False) -> bool:
    """Whether a file is there that names the atoms of ``topology`` (of mdtraj).

    more: it may name further atoms of its residues, and further residues after them; names are not looked at.
    Raises ConfigError if it names others.
    """
    from hpcbackmap.trajectories.read_particles import load_topology

    if not path.exists():
        return False
    try:
        found = load_topology(str(path))
    except InputError:
        found = None
    if found is None or not (_same_residues if more else _same_atoms)(found, topology):
        raise ConfigError(
            f"{path}: there is another topology of this name; choose another --output, or --force to replace it"
        )
    return True


def _same_atoms(found: "mdtraj.Topology", topology: "mdtraj.Topology") -> bool:
    return [*map(_name, found.atoms)] == [*map(_name, topology.atoms)]


def _same_residues(found: "mdtraj.Topology", topology: "mdtraj.Topology") -> bool:
    there, wanted = (
        [(residue.chain.index, residue.resSeq % 10000) for residue in each.residues]
        for each in (found, topology)
    )
    return there[: len(wanted)] == wanted


def _name(atom: "mdtraj.core.topology.Atom") -> tuple[Any, ...]:
    residue = atom.residue
    return residue.chain.index, residue.resSeq % 10000, residue.name, atom.name  # four PDB columns
