"""Which atom is placed from which: the Z-matrix of a whole system, anchored at its C-alpha trace.

Between two bonded residues i, i+1 the peptide plane hangs on the C-alpha pair: C(i) from CA(i), CA(i+1) and
one more C-alpha (its dihedral is the rotation of the plane about the C-alpha axis), N(i+1) from CA(i+1),
CA(i) and C(i), O(i) from C(i). At open ends N, C and O rotate about the backbone bonds instead. Side chains
follow the residue templates. C-alpha atoms are given, never placed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from hpcbackmap.protein.residues import RESIDUES
from hpcbackmap.protein.topology import Topology
from hpcbackmap.runtime.errors import InputError

__all__ = ["Role", "ZMatrix", "build_zmatrix"]


class Role(IntEnum):
    """What the dihedral of an atom is. `PLANE` to `END_O` are rotatable torsions, one per residue each."""

    PLANE = 0
    CHI1 = 1
    CHI2 = 2
    CHI3 = 3
    CHI4 = 4
    START_N = 5
    END_C = 6
    END_O = 7
    LINK_N = 8
    LINK_O = 9
    FIXED = 10
    RING = 11
    CALPHA = 12


N_TORSIONS = 8
"""Rotatable roles, `Role.PLANE` to `Role.END_O`."""


@dataclass(frozen=True)
class ZMatrix:
    """Rows per atom, in topology order; all int64 [A].

    parent, grandparent, great: atom indices (C-alpha rows refer to themselves). level: atoms of one level
    depend on lower levels only; C-alpha is 0. role: `Role` of the dihedral.
    """

    parent: np.ndarray
    grandparent: np.ndarray
    great: np.ndarray
    level: np.ndarray
    role: np.ndarray


Place = Callable[[int, str, int, int, int, Role], None]
"""Takes residue, atom, parent, grandparent, great-grandparent and role."""


def build_zmatrix(topology: Topology) -> ZMatrix:
    """Z-matrix of a system. Raises InputError for fewer than three residues: they have no orientation."""
    if topology.n_residues < 3:
        raise InputError(
            f"{topology.label(0)}: {topology.n_residues} residue(s) only; three C-alpha atoms at least "
            "are needed to place the others"
        )
    index = topology.atom_index
    rows: dict[int, tuple[int, int, int, int]] = {}

    def place(
        residue: int, atom: str, parent: int, grandparent: int, great: int, role: Role
    ) -> None:
        rows[index[residue, atom]] = (parent, grandparent, great, int(role))

    for i in range(topology.n_residues):
        _place_backbone(topology, i, index, place)
        for row in RESIDUES[topology.sequence[i]].placements:
            role = Role(row.chi) if row.chi else Role.FIXED
            if (topology.sequence[i], row.atom) == ("PRO", "CD"):
                role = Role.RING
            parent, grandparent, great = (
                index[i, name] for name in (row.parent, row.grandparent, row.great)
            )
            place(i, row.atom, parent, grandparent, great, role)
    for ca in topology.ca_index:
        rows[int(ca)] = (int(ca), int(ca), int(ca), int(Role.CALPHA))
    table = np.array([rows[a] for a in range(topology.n_atoms)], dtype=np.int64)
    return ZMatrix(
        parent=table[:, 0],
        grandparent=table[:, 1],
        great=table[:, 2],
        level=_levels(table),
        role=table[:, 3],
    )


def _place_backbone(
    topology: Topology, i: int, index: dict[tuple[int, str], int], place: Place
) -> None:
    ca = topology.ca_index
    last = topology.n_residues - 1
    follows = topology.bonded[i]
    leads = i < last and topology.bonded[i + 1]
    if leads:
        place(i, "C", ca[i], ca[i + 1], ca[_third(topology, i)], Role.PLANE)
        place(i + 1, "N", ca[i + 1], ca[i], index[i, "C"], Role.LINK_N)
        place(i, "O", index[i, "C"], ca[i], index[i + 1, "N"], Role.LINK_O)
    if not follows:
        if leads:
            place(i, "N", ca[i], index[i, "C"], ca[i + 1], Role.START_N)
        else:
            near = [j for j in (i - 1, i + 1, i - 2, i + 2) if 0 <= j <= last]
            place(i, "N", ca[i], ca[near[0]], ca[near[1]], Role.START_N)
    if not leads:
        before = ca[i - 1] if i > 0 else ca[i + 1]
        place(i, "C", ca[i], index[i, "N"], before, Role.END_C)
        place(i, "O", index[i, "C"], ca[i], index[i, "N"], Role.END_O)
    if topology.has_oxt[i]:
        place(i, "OXT", index[i, "C"], ca[i], index[i, "O"], Role.FIXED)


def _third(topology: Topology, i: int) -> int:
    """C-alpha that gives the plane of link i, i+1 its zero: the residue before, else the one after."""
    last = topology.n_residues - 1
    if topology.bonded[i]:
        return i - 1
    if i + 2 <= last and topology.bonded[i + 2]:
        return i + 2
    return i + 2 if i + 2 <= last else i - 1


def _levels(table: np.ndarray) -> np.ndarray:
    level = np.where(table[:, 3] == Role.CALPHA, 0, -1)
    while (level < 0).any():
        anchors = level[table[:, :3]]
        ready = (level < 0) & (anchors >= 0).all(1)
        level[ready] = anchors[ready].max(1) + 1
    return level
