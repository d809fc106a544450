"""What backbone atoms of an input must be like to be kept: bonded, and those of L-residues.

Shapes: F frames, P particles, R residues; positions nm.
"""

import numpy as np

from hpcbackmap.protein.chirality import FLAT
from hpcbackmap.resolution.representations.reading import BACKBONE_SLOTS, Reading

__all__ = ["impossible_backbone"]

BONDS = ((0, 1, 0), (1, 2, 0), (2, 3, 0), (1, 4, 0), (2, 0, 1))
"""Columns of `BACKBONE_SLOTS` that are bonded; the second of the same residue (0) or of the next (1)."""
BOND = (0.10, 0.20)
"""nm; these bonds are 0.123 to 0.153 long."""
INSTEAD = "--representation ca takes the C-alpha atoms alone"


def impossible_backbone(reading: Reading, particles: np.ndarray) -> dict[int, str]:
    """Why backbone atoms of frames [F, P, 3] cannot be kept, by place."""
    rows = reading.sites.get("backbone")
    if rows is None:
        return {}
    places = particles[:, np.maximum(rows, 0)].astype(np.float64)
    reasons = _other_hand(reading, rows, places)
    for bond in BONDS:
        reasons |= _no_bond(reading, rows, places, *bond)
    return reasons


def _no_bond(
    reading: Reading, rows: np.ndarray, places: np.ndarray, one: int, other: int, ahead: int
) -> dict[int, str]:
    """Of backbone atoms [F, R, 5, 3], of which ``rows`` [R, 5] are there, a bond that is none."""
    there = (rows[:, one] >= 0) & (np.roll(rows[:, other], -ahead) >= 0)
    if ahead:
        there &= np.roll(reading.topology.bonded, -1)
    gap = np.roll(places[:, :, other], -ahead, axis=1) - places[:, :, one]
    lengths = np.linalg.norm(gap, axis=-1)
    wrong = there & ((lengths < BOND[0]) | (lengths > BOND[1]))
    reasons = {}
    for place in np.flatnonzero(wrong.any(axis=1)).tolist():
        residue = int(np.argmax(wrong[place]))
        a, b = (reading.topology.label(residue + k) for k in (0, ahead))
        reasons[place] = (
            f"{BACKBONE_SLOTS[one]} of {a} and {BACKBONE_SLOTS[other]} of {b} are bonded but "
            f"{lengths[place, residue]:.3g} nm apart, not {BOND[0]:.2f} to {BOND[1]:.2f} "
            f"({int(wrong[place].sum())} such bonds); {INSTEAD}"
        )
    return reasons


def _other_hand(reading: Reading, rows: np.ndarray, places: np.ndarray) -> dict[int, str]:
    """Of backbone atoms [F, R, 5, 3], of which ``rows`` [R, 5] are there, residues that are D."""
    n, c, cb = (places[:, :, slot] - places[:, :, 1] for slot in (0, 2, 4))
    volume = (n * np.cross(c, cb)).sum(-1)
    known = (rows >= 0)[:, [0, 1, 2, 4]].all(axis=1)
    wrong = known & (volume <= -FLAT)
    return {
        place: f"N, C and CB of {reading.topology.label(int(np.argmax(wrong[place])))} stand as in a D-residue "
        f"({int(wrong[place].sum())} of {int(known.sum())} residues; all of them: a mirror image), only "
        f"L-residues are built; {INSTEAD}"
        for place in np.flatnonzero(wrong.any(axis=1)).tolist()
    }
