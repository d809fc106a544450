"""What a minimiser must leave as it was: handedness, peptide planes, bonds."""

import numpy as np

from hpcbackmap.protein.chirality import CBETA, FLAT, chiral_volumes
from hpcbackmap.protein.topology import Topology
from hpcbackmap.protein.torsions import PLANAR, omega_angles

__all__ = ["fault"]

STRETCHED = 0.03
"""nm by which a bond may differ from its length in the force field."""


def fault(
    topology: Topology,
    heavy: np.ndarray,
    relaxed: np.ndarray,
    names: list[tuple[int, str]],
    bonds: np.ndarray,
    off: np.ndarray,
) -> str | None:
    """What the relaxed positions [A, 3] have wrong that those before had right, in words; None: nothing.

    names: residue and name of every atom. bonds [B, 2] of them, off [B]: by how many nm after it.
    """
    worst = int(np.abs(off).argmax())
    if abs(off[worst]) > STRETCHED:
        (residue, first), (_, second) = (names[atom] for atom in bonds[worst].tolist())
        return (
            f"{topology.label(residue)} {first}-{second} would be {10 * off[worst]:+.2f} A off its "
            "length"
        )
    both = np.stack([heavy, relaxed])
    for centre in ("CA", "CB"):
        before, after = chiral_volumes(topology, both, centre)
        turned = np.flatnonzero((before > FLAT) & (after < FLAT))
        if len(turned):
            return f"{_residue(topology, centre, int(turned[0]))} would lose its handedness at {centre}"
    before, after = omega_angles(topology, both)
    flipped = (np.abs(before) < np.pi / 2) != (np.abs(after) < np.pi / 2)
    bent = (np.abs(before) >= PLANAR) & (np.abs(after) < PLANAR)
    wrong = np.flatnonzero(flipped | bent)
    if len(wrong):
        residue = int(np.flatnonzero(topology.bonded)[wrong[0]])
        degrees = np.rad2deg([before[wrong[0]], after[wrong[0]]])
        return (
            f"the peptide plane before {topology.label(residue)} would turn from {degrees[0]:.0f} to "
            f"{degrees[1]:.0f} degrees"
        )
    return None


def _residue(topology: Topology, centre: str, number: int) -> str:
    """The residue of the number-th centre of `chiral_volumes`."""
    has = [
        i
        for i, name in enumerate(topology.sequence)
        if (name in CBETA if centre == "CB" else name != "GLY")
    ]
    return topology.label(has[number])
