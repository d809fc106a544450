"""Static description of a molecule for the C-alpha to heavy-atom stage."""

import json
from functools import cache
from importlib import resources

import numpy as np

from hpcbackmap.protein.residues import BACKBONE, MAX_ATOMS, RESIDUE_INDEX, RESIDUES
from hpcbackmap.protein.topology import Topology
from hpcbackmap.protein.zmatrix import N_TORSIONS, Role, build_zmatrix
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.stages.system import Beads, Particles, Plain, Summed, System

__all__ = ["FLAGS", "ResidueSystem", "require_trace", "residue_system"]

FLAGS = 6
"""Per residue: bonded to the one before, to the one after, OXT, disulphide, zero of the plane, proline next."""

LIMIT = (0.006, 0.12, 0.30)
"""Largest learned deviation from the ideal distance (nm), angle and fixed dihedral (rad)."""
LINK_LIMIT = (0.003, 0.02, 0.30)
"""The same for C and N of a peptide link, whose angles keep the C-N bond."""
RING_LIMIT = (0.002, 0.015, 0.04)
"""The same inside aromatic rings, which these bounds keep closed."""
PROLINE_LIMIT = (0.003, 0.05, 0.12)
"""The same for the side chain of proline, so that its ring can close."""
AROMATIC = ("HIS", "PHE", "TRP", "TYR")


@cache
def _ideal_table() -> dict[str, list[float]]:
    found: dict[str, list[float]] = json.loads(
        resources.files("hpcbackmap.protein").joinpath("ideal.json").read_text()
    )
    return found


class ResidueSystem(System):
    """Index vectors, ideal geometry and flags of A heavy atoms in R residues.

    z_parent_index, z_grand_index, z_great_index, level, role [A]: the Z-matrix (`protein.zmatrix`). slot [A]:
    place in its residue. atom_index, atom_mask [R, MAX_ATOMS]: the reverse, CA where there is none.
    torsion_index, torsion_mask [R, N_TORSIONS]: atom that carries each torsion, and which there are.
    residue_type, chain, place [R]. bead_before, bead_after: residues that orient the frame; bead_previous,
    bead_next: beside it in the sequence; bead_third: the third C-alpha atom of its peptide plane, all [R].
    backbone [A]: also OXT. bonded, leads, proline [R]: bonded to the one before, to the one after, is proline.
    flags [R, FLAGS]. ideal, limit [A, 3]: distance (nm), angle and fixed dihedral (rad), and how far off they
    are learned. On the host: torsions, how many there are of each role, and moving, without those of prolines;
    rings of proline; levels, backbone atoms on each level of the Z-matrix.
    """

    z_parent_index: Particles
    z_grand_index: Particles
    z_great_index: Particles
    level: Plain
    role: Plain
    slot: Plain
    atom_index: Particles
    atom_mask: Plain
    torsion_index: Particles
    torsion_mask: Plain
    residue_type: Plain
    chain: Plain
    place: Plain
    bead_before: Beads
    bead_after: Beads
    bead_previous: Beads
    bead_next: Beads
    bead_third: Beads
    backbone: Plain
    bonded: Plain
    leads: Plain
    proline: Plain
    flags: Plain
    ideal: Plain
    limit: Plain
    torsions: Summed
    moving: Summed
    rings: Summed
    levels: Summed


def require_trace(ladder: Ladder, coarse: str) -> None:
    """Raises InputError if ``coarse`` is not the C-alpha trace of the heavy atoms."""
    if not ladder.is_calpha(coarse):
        raise InputError(
            f"{coarse}: a genzprot stage starts from the C-alpha atoms of the heavy atoms"
        )


def residue_system(ladder: Ladder, coarse: str) -> ResidueSystem:
    """Description of one molecule. Raises InputError as `require_trace`."""
    require_trace(ladder, coarse)
    topology = ladder.topology
    z = build_zmatrix(topology)
    atom_index, slot = _dense(topology)
    torsion_index, torsion_mask = _torsions(topology, z.role)
    n = topology.n_residues
    bonded = np.array(topology.bonded)
    leads = np.r_[bonded[1:], False]
    before, after = _frame_partners(n)
    tensors = {
        "z_parent_index": z.parent,
        "z_grand_index": z.grandparent,
        "z_great_index": z.great,
        "level": z.level,
        "role": z.role,
        "slot": slot,
        "bead_of": topology.atom_residue,
        "atom_index": np.where(atom_index < 0, topology.ca_index[:, None], atom_index),
        "atom_mask": atom_index >= 0,
        "torsion_index": torsion_index,
        "torsion_mask": torsion_mask,
        "residue_type": np.array([RESIDUE_INDEX[name] for name in topology.sequence]),
        "chain": np.array(topology.chain_index),
        "place": np.arange(n),
        "bead_before": before,
        "bead_after": after,
        "bead_previous": np.maximum(np.arange(n) - 1, 0),
        "bead_next": np.minimum(np.arange(n) + 1, n - 1),
        "bead_third": topology.atom_residue[z.great[torsion_index[:, Role.PLANE]]],
        "backbone": np.isin(topology.atom_names, (*BACKBONE, "OXT")),
        "bonded": bonded,
        "leads": leads,
        "proline": np.array([name == "PRO" for name in topology.sequence]),
        "flags": _flags(topology, bonded, leads),
        "ideal": _ideal(topology, z.role),
        "limit": _limits(topology, z.role),
    }  # fmt: skip
    backbone, moves = tensors["backbone"], torsion_mask & ~tensors["proline"][:, None]
    counts = {
        "torsions": torsion_mask.sum(0),
        "moving": moves.sum(0),
        "rings": [(z.role == Role.RING).sum()],
        "levels": np.bincount(z.level[backbone]),
    }
    whole = {key: tuple(int(number) for number in numbers) for key, numbers in counts.items()}
    return ResidueSystem.of_molecule(topology.n_atoms, n, **tensors, **whole)


def _dense(topology: Topology) -> tuple[np.ndarray, np.ndarray]:
    """Atom of each residue slot [R, MAX_ATOMS] (-1: none) and slot of each atom [A]; OXT is the last slot."""
    table = np.full((topology.n_residues, MAX_ATOMS), -1)
    slot = np.empty(topology.n_atoms, dtype=np.int64)
    for (residue, name), atom in topology.atom_index.items():
        order = RESIDUES[topology.sequence[residue]].atoms
        slot[atom] = MAX_ATOMS - 1 if name == "OXT" else order.index(name)
        table[residue, slot[atom]] = atom
    return table, slot


def _torsions(topology: Topology, role: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Atom that carries each rotatable torsion of a residue [R, N_TORSIONS], and which there are."""
    index = np.repeat(topology.ca_index[:, None], N_TORSIONS, axis=1)
    mask = np.zeros((topology.n_residues, N_TORSIONS), dtype=bool)
    for atom in np.flatnonzero(role < N_TORSIONS):
        residue = topology.atom_residue[atom]
        index[residue, role[atom]] = atom
        mask[residue, role[atom]] = True
    return index, mask


def _frame_partners(n: int) -> tuple[np.ndarray, np.ndarray]:
    before, after = np.arange(n) - 1, np.arange(n) + 1
    before[0], after[0] = 2, 1
    before[-1], after[-1] = n - 3, n - 2
    return before, after


def _flags(topology: Topology, bonded: np.ndarray, leads: np.ndarray) -> np.ndarray:
    bridged = np.zeros(topology.n_residues, dtype=bool)
    bridged[[i for pair in topology.disulphides for i in pair]] = True
    proline = np.array([name == "PRO" for name in topology.sequence])
    columns = [
        bonded,
        leads,
        np.array(topology.has_oxt),
        bridged,
        bonded & leads,
        np.r_[proline[1:], False],
    ]
    return np.stack(columns, 1).astype(np.float32)


def _ideal(topology: Topology, role: np.ndarray) -> np.ndarray:
    """Ideal distance, angle, dihedral of each atom, float32 [A, 3]; 0 for C-alpha."""
    table = _ideal_table()
    rows = np.zeros((topology.n_atoms, 3), dtype=np.float32)
    for atom, name in enumerate(topology.atom_names):
        if role[atom] != Role.CALPHA:
            residue = topology.sequence[topology.atom_residue[atom]]
            key = f"{name} {Role(role[atom]).name}"
            rows[atom] = table.get(f"{residue} {key}", table[f"* {key}"])
    return rows


def _limits(topology: Topology, role: np.ndarray) -> np.ndarray:
    """Largest learned deviations of each atom, float32 [A, 3]."""
    rows = np.tile(np.array(LIMIT, dtype=np.float32), (topology.n_atoms, 1))
    rows[(role == Role.PLANE) | (role == Role.LINK_N)] = LINK_LIMIT
    for atom, name in enumerate(topology.atom_names):
        residue = topology.sequence[topology.atom_residue[atom]]
        if residue in AROMATIC and role[atom] == Role.FIXED and name not in ("CB", "OXT"):
            rows[atom] = RING_LIMIT
        elif residue == "PRO" and name in ("CB", "CG", "CD"):
            rows[atom] = PROLINE_LIMIT
    return rows
