"""What an input was taken for: its molecule, and which of its particles is what.

Shapes: P particles of the file, R residues, n side-chain beads; positions in nm.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from hpcbackmap.protein.topology import Topology

__all__ = ["BACKBONE_SLOTS", "Particles", "Reading", "SideBeads"]

BACKBONE_SLOTS = ("N", "CA", "C", "O", "CB")
"""Columns of the site ``backbone``, which are the first slots of every residue."""


class ResidueRow(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def insertion(self) -> str: ...
    @property
    def chain(self) -> int: ...


class ChainRow(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def segment(self) -> str: ...


class Particles(Protocol):
    """What a file says of its particles: one row each, names as they stand there.

    residue: row in ``residues`` of each, int64 [P]. elements: empty where unknown. positions: of the first
    frame [P, 3]; None if there is none. cell: [3, 3] or None. disulphides: pairs of residue rows.
    """

    @property
    def names(self) -> Sequence[str]: ...
    @property
    def residue(self) -> np.ndarray: ...
    @property
    def residues(self) -> Sequence[ResidueRow]: ...
    @property
    def elements(self) -> Sequence[str]: ...
    @property
    def chains(self) -> Sequence[ChainRow]: ...
    @property
    def positions(self) -> np.ndarray | None: ...
    @property
    def cell(self) -> np.ndarray | None: ...
    @property
    def disulphides(self) -> Sequence[tuple[int, int]]: ...


@dataclass(frozen=True, eq=False)
class SideBeads:
    """Beads that a structure must reproduce.

    particles: file rows [n]. residue: whose they are [n]. shares: of each atom slot of that residue in the
    bead, float32 [n, MAX_ATOMS]. weights: mass of each bead, float32 [n]. tolerance: nm, standard deviation
    of a bead about the centre of its atoms.
    """

    particles: np.ndarray
    residue: np.ndarray
    shares: np.ndarray
    weights: np.ndarray
    tolerance: float


@dataclass(frozen=True, eq=False)
class Reading:
    """An input taken as ``representation``.

    sites: file rows by role. ``ca``, ``com``, ``bb`` or ``sc``, int64 [R]: the bead of each residue; beside
    ``com``, ``calpha``, bool [R]: residues whose bead is a C-alpha atom all the same. ``backbone``: N, CA, C, O
    and CB, int64 [R, 5], -1 for what a residue lacks. beads: side-chain beads. left_out: how many particles of
    which kind were not read. words: sentences for the user.
    """

    representation: str
    topology: Topology
    sites: dict[str, np.ndarray]
    beads: SideBeads | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)

    def known(self, positions: np.ndarray) -> np.ndarray | None:
        """Atoms that the output keeps, of ``positions`` [F, P, 3]: float32 [F, R, 5, 3], NaN where there is
        none.

        None where the input has C-alpha atoms at the most.
        """
        rows = self.sites.get("backbone")
        if rows is None:
            return None
        known = positions[:, np.maximum(rows, 0)].astype(np.float32)
        known[:, rows < 0] = np.nan
        return known

    def restraints(self, positions: np.ndarray) -> np.ndarray | None:
        """Positions of the side-chain beads, float32 [F, n, 3]; None where there are none."""
        if self.beads is None:
            return None
        return positions[:, self.beads.particles].astype(np.float32)
