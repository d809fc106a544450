"""Local frames, neighbours and the invariant features that the stages see.

Everything here is invariant to rotation and translation but not to reflection: positions enter as
components in right-handed local frames. Shapes: F frames, B beads, K neighbours; positions in nm.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hpcbackmap.protein import neighbours
from hpcbackmap.protein.residues import TRANS

__all__ = [
    "chain_shape",
    "edge_features",
    "gather",
    "local_frames",
    "nearest",
    "pairs_within",
    "radial_basis",
]

LARGE = 300
"""Beads of a molecule beyond which neighbours come from a k-d tree (on a CPU)."""
EXACT = "donot_use_mm_for_euclid_dist"
"""By differences: by products, distances near a cutoff come out on either side of it."""
APART = 1e5
"""How far groups are moved from one another, nm; more than any molecule is long."""
ENTRIES = 1 << 22
"""Distances held at a time, which bounds the memory."""


def local_frames(positions: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Right-handed frames [F, B, 3, 3] (rows are axes) from positions [F, B, 3].

    The first axis points to bead ``after``, the second lies in the plane of ``before``; int64 [B] both.
    """
    first = normalize(positions[:, after] - positions, dim=-1)
    towards = positions[:, before] - positions
    second = normalize(towards - (towards * first).sum(-1, keepdim=True) * first, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-2)


def nearest(positions: Tensor, sizes: tuple[int, ...], k: int) -> tuple[Tensor, Tensor]:
    """The k nearest beads of the same system: indices [F, B, K] and a validity mask [F, B, K].

    sizes: beads of each system, in order. Small systems are padded; every bead of a system with
    two or more beads has at least one neighbour, whatever the distances.
    """
    found, valid = [], []
    start = 0
    for size in sizes:
        take = min(k, size - 1)
        index = _nearest(positions[:, start : start + size].detach(), take) + start
        own = torch.arange(start, start + size, device=index.device).view(1, -1, 1)
        pad = own.expand(len(index), size, k - take)
        found.append(torch.cat([index, pad], -1))
        valid.append(torch.arange(k, device=index.device).lt(take).expand(len(index), size, k))
        start += size
    return torch.cat(found, 1), torch.cat(valid, 1)


def _nearest(points: Tensor, k: int) -> Tensor:
    """The k nearest others of each of ``points`` [F, n, 3], nearest first: int64 [F, n, k]."""
    frames, count, _ = points.shape
    if count > LARGE and points.device.type == "cpu":
        return torch.stack([_nearest_by_tree(frame, k) for frame in points])
    rows = max(1, ENTRIES // (frames * count))
    parts = []
    for first in range(0, count, rows):
        some = points[:, first : first + rows]
        gap = torch.cdist(some, points, compute_mode=EXACT)
        gap.diagonal(first, 1, 2).fill_(torch.inf)
        parts.append(gap.topk(k, dim=-1, largest=False).indices)
    return torch.cat(parts, 1)


def _nearest_by_tree(points: Tensor, k: int) -> Tensor:
    """The same for one frame [n, 3], in n log n."""
    from scipy.spatial import cKDTree

    finite = points.nan_to_num(0.0, 0.0, 0.0).numpy()
    found = torch.from_numpy(cKDTree(finite).query(finite, k + 1)[1])
    itself = found == torch.arange(len(found)).unsqueeze(-1)
    return found.gather(-1, itself.byte().argsort(dim=-1, stable=True))[:, :k]


def pairs_within(points: Tensor, group: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Pairs of ``points`` [n, 3] of one ``group`` [n] closer than ``radius``: each once, in any order."""
    if points.device.type == "cpu":
        apart = points.double().nan_to_num(0.0, 0.0, 0.0)
        apart[:, 0] += APART * group
        first, second = torch.from_numpy(neighbours.pairs_within(apart.numpy(), radius)).T
        return first, second
    rows, parts = max(1, ENTRIES // len(points)), []
    for start in range(0, len(points), rows):
        some = slice(start, start + rows)
        gap = torch.cdist(points[some], points, compute_mode=EXACT)
        close = (gap < radius) & (group[some, None] == group)
        first, second = torch.nonzero(close.triu(start + 1), as_tuple=True)
        parts.append(torch.stack([first + start, second]))
    first, second = torch.cat(parts, 1)
    return first, second


def gather(values: Tensor, index: Tensor) -> Tensor:
    """``values`` [F, B, ...] at ``index`` [F, B, K]: [F, B, K, ...]."""
    frames, beads = values.shape[:2]
    first = beads * torch.arange(frames, device=values.device).view(-1, 1, 1)
    chosen = values.flatten(0, 1).index_select(0, (index + first).flatten())
    return chosen.view(*index.shape, *values.shape[2:])


def radial_basis(distance: Tensor, reach: float, count: int) -> Tensor:
    """Gaussians evenly spaced on [0, reach] nm: [..., count]."""
    centres = torch.linspace(0, reach, count, device=distance.device, dtype=distance.dtype)
    return torch.exp(-0.5 * ((distance.unsqueeze(-1) - centres) * (count / reach)).square())


EDGE_BASIS = 16
EDGE_FEATURES = EDGE_BASIS + 3 + 3 + 9 + 1


def edge_features(positions: Tensor, frames: Tensor, index: Tensor, reach: float) -> Tensor:
    """Invariants of each neighbour pair: [F, B, K, EDGE_FEATURES].

    Radial basis up to ``reach`` nm, the distance itself in units of ``reach``, direction of the neighbour
    in the own frame and of the bead in the neighbour's frame, relative rotation of the two frames.
    """
    gap = gather(positions, index) - positions.unsqueeze(2)
    distance = gap.norm(dim=-1)
    unit = gap / distance.unsqueeze(-1).clamp_min(1e-6)
    others = gather(frames, index)
    return torch.cat(
        [
            radial_basis(distance, reach, EDGE_BASIS),
            distance.unsqueeze(-1) / reach,
            torch.einsum("fbij,fbkj->fbki", frames, unit),
            -torch.einsum("fbkij,fbkj->fbki", others, unit),
            torch.einsum("fbij,fbklj->fbkil", frames, others).flatten(-2),
        ],
        dim=-1,
    )


CHAIN_FEATURES = 10


def chain_shape(positions: Tensor, before: Tensor, after: Tensor, reach: float) -> Tensor:
    """Invariants of each bead's place in its chain: [F, B, CHAIN_FEATURES].

    Distances to ``before`` and ``after`` and between them, the angle at the bead, and the torsions of the
    two stretches (before's before … after) as cosine and sine.
    """
    back, ahead = positions[:, before] - positions, positions[:, after] - positions
    lengths = torch.stack([back.norm(dim=-1), ahead.norm(dim=-1), (ahead - back).norm(dim=-1)], -1)
    cosine = (normalize(back, dim=-1) * normalize(ahead, dim=-1)).sum(-1, keepdim=True)
    features = [lengths / reach, (lengths[..., :2] - TRANS).clamp(-0.2, 0.2) * 10, cosine]
    for first, second in ((before, after), (after, before)):
        a, b, c, d = (
            positions[:, first[first]],
            positions[:, first],
            positions,
            positions[:, second],
        )
        n1 = torch.linalg.cross(b - a, c - b)
        n2 = torch.linalg.cross(c - b, d - c)
        scale = (n1.norm(dim=-1) * n2.norm(dim=-1)).clamp_min(1e-6)
        sine = (torch.linalg.cross(n1, n2) * normalize(c - b, dim=-1)).sum(-1) / scale
        features.append(torch.stack([(n1 * n2).sum(-1) / scale, sine], -1))
    return torch.cat(features, -1)
