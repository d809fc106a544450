"""Side-chain torsions: right within 40 degrees, and populations of rotamers residue by residue."""

import numpy as np

from hpcbackmap.protein.topology import Topology
from hpcbackmap.protein.torsions import angle_between, dihedrals, is_symmetric, torsion_atoms

__all__ = ["STATES", "chi_right", "rotamer_rows", "rotamer_states", "total_variation"]

TOLERANCE = np.deg2rad(40)
STATES = 9
"""Rotamers of a residue: g+, t, g- of chi1, times those of chi2 where chi2 turns a tetrahedral carbon."""
TETRAHEDRAL_CHI2 = {"ARG", "GLN", "GLU", "ILE", "LEU", "LYS", "MET"}


def chi_right(
    topology: Topology, generated: np.ndarray, truth: np.ndarray
) -> dict[str, np.ndarray]:
    """Share of residues with chi1, and with chi1 and chi2, within 40 degrees of the truth, [F].

    generated and truth: [F, A, 3]. Keys ``chi1`` and ``chi12`` (residues that have both); NaN where
    there are none. chi2 of PHE, TYR and ASP is compared modulo half a turn; an undefined generated
    angle is wrong.
    """
    right, residues = {}, {}
    for kind in ("chi1", "chi2"):
        atoms, residues[kind] = torsion_atoms(topology, kind)
        symmetric = is_symmetric(topology, kind, residues[kind])
        apart = angle_between(dihedrals(generated, atoms), dihedrals(truth, atoms), symmetric)
        right[kind] = apart <= TOLERANCE
    first = right["chi1"][:, np.isin(residues["chi1"], residues["chi2"])]
    return {"chi1": _share(right["chi1"]), "chi12": _share(first & right["chi2"])}


def _share(right: np.ndarray) -> np.ndarray:
    return right.mean(-1) if right.shape[1] else np.full(len(right), np.nan)


def rotamer_states(topology: Topology, positions: np.ndarray, chi2: bool = True) -> np.ndarray:
    """Rotamer of each residue with a chi1, 0 to `STATES` - 1, -1 where undefined: int8 [F, residues].

    g+ is [0, 120), t [120, 240), g- [240, 360) degrees. Without ``chi2``, chi1 alone decides.
    """
    atoms, residues = torsion_atoms(topology, "chi1")
    states = _third(dihedrals(positions, atoms))
    if chi2:
        atoms, owners = torsion_atoms(topology, "chi2")
        turning = np.array([topology.sequence[i] in TETRAHEDRAL_CHI2 for i in owners], dtype=bool)
        second = _third(dihedrals(positions, atoms[turning]))
        columns = np.searchsorted(residues, owners[turning])
        first = states[:, columns]
        states[:, columns] = np.where((first < 0) | (second < 0), -1, 3 * first + second)
    return states


def _third(angles: np.ndarray) -> np.ndarray:
    known = np.isfinite(angles)
    turn = np.where(known, angles, 0.0) % (2 * np.pi)
    return np.where(known, np.minimum(turn // (2 * np.pi / 3), 2), -1).astype(np.int8)


def rotamer_rows(generated: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Counts of states, float32 [F, 2 * residues * STATES]: of the members, then of the truth.

    generated: states [F, M, residues]; truth: [F, residues]; see `rotamer_states`.
    """
    counts = np.stack([_counts(generated), _counts(truth[:, None])], axis=1)
    return counts.reshape(len(truth), -1)


def _counts(states: np.ndarray) -> np.ndarray:
    """[F, residues, STATES] from [F, M, residues]."""
    found: np.ndarray = (states[..., None] == np.arange(STATES)).sum(1, dtype=np.float32)
    return found


def total_variation(totals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum over residues of the total variation distance of the two populations, and their number.

    totals [..., 2 * residues * STATES] as `rotamer_rows` gives them; residues without a count in
    either half are left out.
    """
    counts = totals.reshape(*totals.shape[:-1], 2, -1, STATES)
    number = counts.sum(-1, keepdims=True)
    shares = counts / np.where(number > 0, number, 1)
    distance = 0.5 * np.abs(shares[..., 0, :, :] - shares[..., 1, :, :]).sum(-1)
    seen = (number[..., 0] > 0).all(-2)
    return np.where(seen, distance, 0.0).sum(-1), seen.sum(-1)
