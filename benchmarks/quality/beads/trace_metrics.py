"""Figures of merit of C-alpha traces; shapes: F frames, M members, N residues; nm in, Å out."""

import numpy as np

from hpcbackmap.metrics.rmsd import aligned_rmsd

THRESHOLDS = np.array([0.05, 0.1, 0.2, 0.4])
RADIUS = 1.5
"""lDDT (Mariani et al. 2013): tolerances and inclusion radius, nm."""


def figures(members: np.ndarray, truth: np.ndarray, cis: np.ndarray) -> dict[str, float]:
    """Means over frames for members [M, F, N, 3] of truth [F, N, 3]; cis: which links [N - 1] are cis."""
    flat = members.astype(np.float64)
    truth = truth.astype(np.float64)
    apart = np.array([aligned_rmsd(member, truth) for member in flat])
    row = {
        "rmsd_angstrom": float(10 * apart.mean()),
        "best_rmsd_angstrom": float(10 * apart.min(0).mean()),
        "lddt": float(np.mean([lddt(member, truth) for member in flat])),
        "bad_links_percent": 100 * float(np.mean([bad_links(member, cis) for member in flat])),
        "clashing_residues_percent": 100 * float(np.mean([clashing(member) for member in flat])),
    }
    if len(members) > 1:
        row["spread_ratio"] = spread_ratio(flat, truth)
    return row


def lddt(positions: np.ndarray, truth: np.ndarray) -> float:
    """Mean over frames and residues of the share of kept distances below 1.5 nm, C-alpha only."""
    scores = []
    for x, y in zip(positions, truth, strict=True):
        there, here = _distances(y), _distances(x)
        near = (there < RADIUS) & ~np.eye(len(y), dtype=bool)
        kept = (np.abs(here - there)[..., None] < THRESHOLDS).mean(-1)
        scores.append(((kept * near).sum(1) / np.maximum(near.sum(1), 1)).mean())
    return float(np.mean(scores))


def bad_links(positions: np.ndarray, cis: np.ndarray) -> float:
    """Share of C-alpha links more than 0.02 nm from 0.38 nm (trans) or 0.295 nm (cis)."""
    length = np.linalg.norm(np.diff(positions, axis=1), axis=-1)
    return float((np.abs(length - np.where(cis, 0.295, 0.38)) > 0.02).mean())


def clashing(positions: np.ndarray) -> float:
    """Share of residues with a C-alpha closer than 0.37 nm that is not their neighbour."""
    shares = []
    for x in positions:
        gap = _distances(x)
        place = np.arange(len(x))
        gap[np.abs(place[:, None] - place) < 2] = np.inf
        shares.append((gap.min(1) < 0.37).mean())
    return float(np.mean(shares))


def spread_ratio(members: np.ndarray, truth: np.ndarray) -> float:
    """Spread of the members over the error of their mean: 1 where members are distributed as the truth.

    Both as root mean square; the expected error of a mean of M members is sqrt(1 + 1/M) spreads.
    """
    count, mean = len(members), members.mean(0)
    spread = ((members - mean) ** 2).sum(-1).mean() * count / (count - 1)
    error = ((truth - mean) ** 2).sum(-1).mean()
    return float(np.sqrt(spread * (1 + 1 / count) / error))


def _distances(x: np.ndarray) -> np.ndarray:
    return np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))
