"""What frames of a protein must be like before anything is made of them or judged by them.

Shapes: F frames, R residues; positions in nm. A message names the file and the first bad frame.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from hpcbackmap.protein.topology import Topology
from hpcbackmap.runtime.errors import InputError

__all__ = [
    "CALPHA_RANGE",
    "Links",
    "bonds_of",
    "require_bends",
    "require_bonds",
    "require_links",
    "require_numbers",
    "straight_at",
]

BOND_RANGE = (0.08, 0.30)
"""nm; heavy-atom bonds are 0.12 to 0.21, thermal motion included."""
CALPHA_RANGE = (0.25, 0.50)
"""Where the distance of neighbouring C-alpha atoms must lie, nm (trans 0.38, cis 0.29)."""
STRAIGHT = 5e-4
"""Sine of the bend below which three C-alpha atoms have no plane: what rounding in a PDB file leaves."""


def require_numbers(positions: np.ndarray, numbers: Sequence[int] | np.ndarray, path: str) -> None:
    """Refuse NaN and inf in ``positions`` [F, particles, 3]. numbers: of the frames in the file."""
    bad = ~np.isfinite(positions).all(axis=(1, 2))
    if bad.any():
        number = int(numbers[int(np.argmax(bad))])
        raise InputError(
            f"{path}: frame {number} has coordinates that are not numbers (NaN or inf)"
        )


@dataclass(frozen=True)
class Links:
    """Pairs of particles whose distance is known: bonds, or neighbours along a chain.

    pairs: int64 [L, 2]. low, high: nm, bounds of each pair [L]. label: name of a particle.
    """

    pairs: np.ndarray
    low: np.ndarray
    high: np.ndarray
    label: Callable[[int], str]

    def lengths(self, positions: np.ndarray) -> np.ndarray:
        """Distances [F, L] in positions [F, N, 3]."""
        first, second = self.pairs.T
        found: np.ndarray = np.linalg.norm(positions[:, first] - positions[:, second], axis=-1)
        return found

    def broken(self, positions: np.ndarray) -> np.ndarray:
        """Which distances are out of bounds, bool [F, L]."""
        lengths = self.lengths(positions)
        return (lengths < self.low) | (lengths > self.high)


def bonds_of(topology: Topology, coarse: bool) -> Links:
    """Bonds of all heavy atoms, or, with ``coarse``, neighbouring C-alpha atoms."""
    pairs = _calpha_pairs(topology) if coarse else topology.bonds
    low, high = CALPHA_RANGE if coarse else BOND_RANGE
    return Links(
        pairs,
        np.full(len(pairs), low),
        np.full(len(pairs), high),
        partial(_label, topology, coarse),
    )


def require_bonds(
    topology: Topology, positions: np.ndarray, numbers: Sequence[int], path: str
) -> None:
    """Refuse bonds that cannot be: another atom order, molecules cut by the periodic box.

    positions: of all heavy atoms or of the C-alpha atoms, [F, A or R, 3].
    """
    coarse = positions.shape[1] != topology.n_atoms
    require_links(bonds_of(topology, coarse), positions, numbers, path)


def require_links(
    links: Links, positions: np.ndarray, numbers: Sequence[int] | np.ndarray, path: str
) -> None:
    """Refuse positions [F, N, 3] of which a known distance is out of bounds."""
    wrong = links.broken(positions)
    if not wrong.any():
        return
    frame = int(np.argmax(wrong.any(axis=1)))
    link = int(np.argmax(wrong[frame]))
    a, b = (links.label(int(particle)) for particle in links.pairs[link])
    gap = links.lengths(positions[frame : frame + 1])[0, link]
    raise InputError(
        f"{path}: frame {numbers[frame]}: {a} and {b} are bonded, but {gap:.3g} nm apart; the order of atoms "
        "differs from the topology's, or the periodic box cuts the molecule (make it whole first)"
    )


def require_bends(
    topology: Topology, positions: np.ndarray, numbers: Sequence[int], path: str
) -> None:
    """Refuse C-alpha atoms [F, R, 3] of which three in a row lie on one line and so have no plane."""
    middle = straight_at(positions)
    if (middle < 0).all():
        return
    frame = int(np.argmax(middle >= 0))
    a, b, c = (topology.label(int(middle[frame]) + k) for k in (-1, 0, 1))
    raise InputError(
        f"{path}: frame {numbers[frame]}: the C-alpha atoms of {a}, {b} and {c} lie on one line, so their "
        "residues may be turned any way; take the frame out"
    )


def straight_at(positions: np.ndarray) -> np.ndarray:
    """The first residue of each frame whose C-alpha is in line with those beside it, int64 [F]; -1: none.

    positions: C-alpha atoms [F, R, 3], finite.
    """
    steps = np.diff(positions.astype(np.float64), axis=1)
    before, after = steps[:, :-1], steps[:, 1:]
    area = np.linalg.norm(np.cross(before, after), axis=-1)
    sides = np.linalg.norm(before, axis=-1) * np.linalg.norm(after, axis=-1)
    straight = area <= STRAIGHT * sides
    if straight.shape[1] == 0:
        return np.full(len(positions), -1)
    return np.where(straight.any(axis=1), straight.argmax(axis=1) + 1, -1)


def _calpha_pairs(topology: Topology) -> np.ndarray:
    second = np.flatnonzero(topology.bonded)
    return np.stack([second - 1, second], axis=1)


def _label(topology: Topology, coarse: bool, particle: int) -> str:
    if coarse:
        return topology.label(particle)
    residue = int(topology.atom_residue[particle])
    return f"{topology.label(residue)} {topology.atom_names[particle]}"
