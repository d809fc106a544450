"""Disulphides: the two sulphurs turned about their CA-CB bonds until they are bonded.

Target values are those of small-molecule and protein structures (Engh & Huber 1991): S-S 2.03 A, CB-S-S 103.8
degrees, CB-S-S-CB near +90 or -90.

Shapes: S structures, A heavy atoms, G dihedrals; positions nm.
"""

import numpy as np

from hpcbackmap.protein.topology import Topology

__all__ = ["bonded_sulphurs", "close_disulphides"]

BONDED = (0.19, 0.22)
"""nm between the sulphurs of a disulphide."""
LENGTH, ANGLE = 0.203, np.deg2rad(103.8)
LENGTH_WIDTH, ANGLE_WIDTH = 0.004, np.deg2rad(10.0)
BENT = (0.0, 4.0, -4.0, 8.0, -8.0, 12.0, -12.0)
"""Degrees by which CA-CB-SG is opened where turning alone does not bring the sulphurs together."""
ROOM = 0.32
"""nm from a sulphur to atoms not bonded to it, below which it costs."""
STEPS = (5.0, 0.5)
"""Degrees between the dihedrals tried, first over the full turn, then about the best."""


def close_disulphides(topology: Topology, heavy: np.ndarray) -> np.ndarray:
    """Structures [S, A, 3], each by itself, with the sulphurs of ``topology.disulphides`` bonded where their CB
    atoms allow it; nothing but these sulphurs moves.
    """
    if not topology.disulphides:
        return heavy
    closed = heavy.copy()
    for pair in topology.disulphides:
        ends = [[topology.atom_index[r, a] for a in ("CA", "CB", "SG")] for r in pair]
        others = np.flatnonzero(~np.isin(topology.atom_residue, pair))
        for frame in np.flatnonzero(np.isfinite(heavy).all(axis=(1, 2))).tolist():
            placed = _closed(closed[frame].astype(np.float64), ends, others)
            if placed is not None:
                closed[frame, [end[2] for end in ends]] = placed
    return closed


def bonded_sulphurs(topology: Topology, heavy: np.ndarray) -> np.ndarray:
    """Whether each disulphide of each structure is closed, bool [S, pairs]."""
    pairs = np.array(topology.disulphides, dtype=np.int64).reshape(-1, 2)
    sites = np.array([[topology.atom_index[int(r), "SG"] for r in pair] for pair in pairs])
    sites = sites.reshape(-1, 2)
    length = np.linalg.norm(heavy[:, sites[:, 0]] - heavy[:, sites[:, 1]], axis=-1)
    found: np.ndarray = (length > BONDED[0]) & (length < BONDED[1])
    return found


def _closed(frame: np.ndarray, ends: list[list[int]], others: np.ndarray) -> np.ndarray | None:
    """The two sulphurs [2, 3], bonded; None where they cannot be."""
    betas = frame[[end[1] for end in ends]]
    near = frame[others]
    near = near[(np.square(near[:, None] - betas).sum(-1) < 0.55**2).any(-1)]
    for bent in BENT:
        centre, placed = np.zeros(2), np.zeros((2, 3))
        for number, step in enumerate(STEPS):
            reach = 180.0 if number == 0 else STEPS[0]
            degrees = np.arange(-reach, reach if number == 0 else reach + step, step)
            tried = [
                _turned(frame[end], np.deg2rad(middle + degrees), np.deg2rad(bent))
                for end, middle in zip(ends, centre, strict=True)
            ]
            cost = _cost(betas, tried, near)
            best = np.unravel_index(int(cost.argmin()), cost.shape)
            centre = centre + degrees[list(best)]
            placed = np.stack([tried[0][best[0]], tried[1][best[1]]])
        if BONDED[0] < np.linalg.norm(placed[0] - placed[1]) < BONDED[1]:
            return placed
    return None


def _turned(sites: np.ndarray, radians: np.ndarray, bent: float) -> np.ndarray:
    """The sulphur [G, 3] of CA, CB, SG [3, 3] turned about CA-CB, its angle opened by ``bent``."""
    alpha, beta, sulphur = sites
    axis = (beta - alpha) / np.linalg.norm(beta - alpha)
    bond = sulphur - beta
    length = np.linalg.norm(bond)
    angle = np.arccos(np.clip(bond @ axis / length, -1, 1)) - bent
    across = bond - (bond @ axis) * axis
    across /= np.linalg.norm(across)
    third = np.cross(axis, across)
    round_axis = np.cos(radians)[:, None] * across + np.sin(radians)[:, None] * third
    found: np.ndarray = beta + length * (np.cos(angle) * axis + np.sin(angle) * round_axis)
    return found


def _cost(betas: np.ndarray, tried: list[np.ndarray], near: np.ndarray) -> np.ndarray:
    """Of all pairs of dihedrals [G, G], in squares of standard deviations."""
    first, second = tried
    bond = second[None] - first[:, None]
    length = np.linalg.norm(bond, axis=-1)
    cost: np.ndarray = np.square((length - LENGTH) / LENGTH_WIDTH)
    across = []
    for at, sign, row in ((0, 1.0, first[:, None]), (1, -1.0, second[None])):
        arm = betas[at] - row
        cosine = sign * (arm * bond).sum(-1) / np.linalg.norm(arm, axis=-1) / length
        cost += np.square((np.arccos(np.clip(cosine, -1, 1)) - ANGLE) / ANGLE_WIDTH)
        across.append(np.cross(np.broadcast_to(arm, bond.shape), bond))
    product = (across[0] * across[1]).sum(-1)
    norms = np.linalg.norm(across[0], axis=-1) * np.linalg.norm(across[1], axis=-1)
    cost += 4 * np.square(product / norms.clip(1e-9))
    for axis, row in ((1, first), (0, second)):
        gaps = np.sqrt(np.square(row[:, None] - near).sum(-1))
        cost += np.expand_dims(np.square((ROOM - gaps).clip(0) / 0.03).sum(-1), axis)
    return cost
