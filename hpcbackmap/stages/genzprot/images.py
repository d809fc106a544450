"""Periodic images: residues around a residue, and atoms around an atom, wherever the box repeats them.

Shapes: F frames, R residues, K neighbour residues, n points; positions nm, rows of a cell are its vectors.
"""

from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Box", "Surroundings", "pairs_of_images", "surroundings"]

REACH = 2.0
"""nm; images of residues that are farther from each other change nothing."""
TOUCHING = 0.30
"""nm; C-alpha atoms that are nearer to an image than this lie in a box that is not that of the molecules."""
SAME = 1e-6


class Box(NamedTuple):
    """cell and inverse of each frame, [F, 3, 3]; zeros where a frame has none."""

    cell: Tensor
    inverse: Tensor

    def shift(self, gap: Tensor, frame: Tensor) -> Tensor:
        """What makes vectors [n, ..., 3] of frames [n] those to the nearest image.

        Right for images that are nearer than half the box is wide.
        """
        turns = torch.einsum("n...i,nij->n...j", gap, self.inverse[frame]).round()
        return -torch.einsum("n...i,nij->n...j", turns, self.cell[frame])


class Surroundings(NamedTuple):
    """near: nearest residues [F, R, K], one may be there in several images; valid: which count. shift: what
    brings each neighbour to its image, [F, R, K, 3].
    """

    near: Tensor
    valid: Tensor
    shift: Tensor
    box: Box


def surroundings(
    coarse: Tensor, near: Tensor, valid: Tensor, cells: Tensor | None
) -> Surroundings | None:
    """Neighbours with images, from those without; None if no image is near in any frame.

    coarse: C-alpha atoms [F, R, 3]; near, valid [F, R, K]: nearest of one molecule or system. cells: [F, 3, 3],
    zeros where a frame has none, or None. A frame keeps ``near`` if no image is among its neighbours, or if
    one touches.
    """
    if cells is None:
        return None
    near, valid = near.clone(), valid.clone()
    shift = coarse.new_zeros(*near.shape, 3)
    cell = torch.zeros_like(cells)
    for frame, (points, here) in enumerate(
        zip(coarse.double().cpu().numpy(), cells.double().cpu().numpy(), strict=True)
    ):
        found = _images_near(points, here, near.shape[-1]) if _is_cell(here) else None
        if found is not None:
            for row, values in zip((near, valid, shift), found, strict=True):
                row[frame] = torch.from_numpy(values).to(row)
            cell[frame] = cells[frame]
    if not cell.any():
        return None
    inverse = torch.zeros_like(cell)
    periodic = cell.flatten(1).any(1)
    inverse[periodic] = torch.linalg.inv(cell[periodic].double()).to(inverse)
    return Surroundings(near, valid, shift, Box(cell.to(coarse), inverse.to(coarse)))


def pairs_of_images(points: Tensor, cell: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Pairs of ``points`` [n, 3] closer than ``radius`` in some image, in both orders where an image is one."""
    from scipy.spatial import cKDTree

    spots = points.double().nan_to_num(0.0, 0.0, 0.0).cpu().numpy()
    images, owner, _ = _with_images(spots, cell.double().cpu().numpy(), radius)
    pairs = cKDTree(images).query_pairs(radius, output_type="ndarray")
    pairs = pairs[(pairs < len(spots)).any(1)]
    first, second = torch.from_numpy(owner[pairs]).to(points.device).T
    return first, second


def _is_cell(cell: np.ndarray) -> bool:
    return bool(np.isfinite(cell).all() and abs(np.linalg.det(cell)) > SAME)


def _images_near(
    points: np.ndarray, cell: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """near, valid [R, K] and shift [R, K, 3] of one frame, or None where it is as good without images."""
    from scipy.spatial import cKDTree

    if not np.isfinite(points).all():
        return None
    count = len(points)
    images, owner, moved = _with_images(points, cell, REACH)
    take = min(k, len(images) - 1)
    if take < 1:
        return None
    distance, found = cKDTree(images).query(images[:count], take + 1)
    itself = found == np.arange(count)[:, None]
    order = np.argsort(itself, axis=1, kind="stable")[:, :take]
    distance, found = (np.take_along_axis(x, order, axis=1) for x in (distance, found))
    shift = moved[found] - moved[:count, None]
    across = np.abs(shift).max(-1) > SAME
    if not (across & (distance < REACH)).any() or distance[across].min() < TOUCHING:
        return None
    near = np.tile(np.arange(count)[:, None], (1, k))
    near[:, :take] = owner[found]
    valid = np.broadcast_to(np.arange(k) < take, near.shape)
    wide = np.zeros((count, k, 3))
    wide[:, :take] = shift
    return near, valid.copy(), wide


def _with_images(
    points: np.ndarray, cell: np.ndarray, reach: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points [n, 3] wrapped into the cell, then their images within ``reach`` of it.

    Positions, whose they are, and what each was moved by.
    """
    inverse = np.linalg.inv(cell)
    turns = -np.floor(points @ inverse)
    inside = points @ inverse + turns
    margin = reach * np.linalg.norm(inverse, axis=0)
    steps = np.arange(-1, 2) if (margin < 1).all() else np.arange(-2, 3)
    lattice = np.array([step for step in product(steps, repeat=3) if any(step)])
    places = inside + lattice[:, None]
    kept = ((places > -margin) & (places < 1 + margin)).all(-1)
    which, owner = np.nonzero(kept)
    turned = np.concatenate([turns, turns[owner] + lattice[which]])
    owner = np.concatenate([np.arange(len(points)), owner])
    moved = turned @ cell
    return points[owner] + moved, owner, moved
