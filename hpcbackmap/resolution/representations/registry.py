"""The representations that are known: one row each.

A row says which particle of a residue is its site, which are side-chain beads and of what atoms, and how far
these may be off. To add one: a row here, a line in `detect.py` if its names do not tell, a line in
docs/inputs.md.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hpcbackmap.protein.residues import RESIDUES
from hpcbackmap.resolution.representations.bead_tables import (
    MARTINI2,
    MARTINI3,
    masses,
    residue_masses,
    side_chain_masses,
)

__all__ = ["REPRESENTATIONS", "Representation"]

SideTable = Callable[[str, str], np.ndarray | None]
"""Residue and name of a particle: its `masses`, None for a particle that is no side-chain bead."""


@dataclass(frozen=True)
class Representation:
    """site: role of the particle that places a residue: ``ca``, ``com``, ``bb``, ``sc`` or ``backbone``.

    meaning: as a sentence needs it. names: what the site is called; empty: anything, if it is alone in its
    residue. side: atoms of the other beads. tolerance: nm, of side-chain beads. site_restrains: the site is
    one of these itself.
    """

    site: str
    meaning: str
    names: tuple[str, ...] = ()
    side: SideTable | None = None
    tolerance: float = 0.02
    site_restrains: bool = False


def _numbered(table: dict[str, tuple[np.ndarray, ...]]) -> SideTable:
    """SC1, SC2, … of a force field; a lone SC1 that stands for several beads is found by `detect.py`."""

    def side(residue: str, name: str) -> np.ndarray | None:
        beads = table[residue]
        number = name[2:] if name.startswith("SC") else ""
        return (
            beads[int(number) - 1] if number.isdigit() and 0 < int(number) <= len(beads) else None
        )

    return side


def _side_centre(residue: str, name: str) -> np.ndarray | None:
    return side_chain_masses(residue) if name in SIDE_NAMES and residue != "GLY" else None


def _side_atom(residue: str, name: str) -> np.ndarray | None:
    return masses(residue, "CB") if name == "CB" and "CB" in RESIDUES[residue].atoms else None


def _residue_centre(residue: str, name: str) -> np.ndarray | None:
    return residue_masses(residue) if name in COM_NAMES else None


SIDE_NAMES = ("SC", "SC1", "CB", "SCM", "S", "SD", "R")
COM_NAMES = ("COM", "CM", "CG", "CMA")

REPRESENTATIONS = {
    "ca": Representation("ca", "C-alpha atoms", ("CA",)),
    "com": Representation(
        "com", "centres of mass of the residues", side=_residue_centre, site_restrains=True
    ),
    "bb": Representation("bb", "backbone beads (BB, centres of N, CA, C and O)", ("BB",)),
    "sc": Representation(
        "sc",
        "centres of mass of the side chains",
        SIDE_NAMES,
        side=_side_centre,
        site_restrains=True,
    ),
    "ca+sc": Representation(
        "ca", "C-alpha atoms and side-chain centres", ("CA",), side=_side_centre
    ),
    "ca+cb": Representation("ca", "C-alpha and C-beta atoms", ("CA",), side=_side_atom),
    "ca+com": Representation(
        "ca", "C-alpha atoms and centres of mass of the residues", ("CA",), side=_residue_centre
    ),
    "bb+sc": Representation(
        "bb", "backbone beads (BB) and one side-chain centre (SC1) each", ("BB",), side=_side_centre
    ),
    "martini2": Representation("bb", "beads of Martini 2", ("BB",), side=_numbered(MARTINI2)),
    "martini3": Representation("bb", "beads of Martini 3", ("BB",), side=_numbered(MARTINI3)),
    "backbone": Representation("backbone", "backbone atoms N, CA, C and O", ("CA",)),
}
