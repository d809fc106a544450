"""Nearest residues, however they are found, and contacts among their atoms."""

import numpy as np
import pytest
import torch

from hpcbackmap.protein.residues import MAX_ATOMS, RESIDUES
from hpcbackmap.protein.side_chain import SIDE
from hpcbackmap.stages.genzprot.clashes import RADIUS, overlaps
from hpcbackmap.stages.genzprot.dense_atoms import AWAY, Scene
from hpcbackmap.stages.layers import geometry


def by_hand(points: np.ndarray, k: int) -> np.ndarray:
    """Sorted distances to the k nearest others [F, n, k]."""
    gap = np.linalg.norm(points[:, :, None] - points[:, None], axis=-1)
    gap[:, np.arange(gap.shape[1]), np.arange(gap.shape[1])] = np.inf
    return np.sort(gap, axis=-1)[..., :k]


@pytest.mark.parametrize(
    ("limit", "setting"), [("LARGE", 3), ("ENTRIES", 700), ("ENTRIES", 1 << 22)]
)
def test_nearest_beads_by_tree_in_parts_and_at_once(monkeypatch, limit, setting):
    monkeypatch.setattr(geometry, limit, setting)
    sizes, k = (60, 4, 41), 7
    rng = np.random.default_rng(0)
    points = rng.normal(size=(2, sum(sizes), 3))
    points[:, 10:13] = points[:, 9:10]
    grid = np.stack(np.meshgrid(*[np.arange(3.0)] * 3), -1).reshape(-1, 3)
    points[0, 64 : 64 + 27] = grid
    index, valid = geometry.nearest(torch.from_numpy(points), sizes, k)
    start = 0
    for size in sizes:
        take = min(k, size - 1)
        own = slice(start, start + size)
        found = index[:, own, :take].numpy()
        assert (found >= start).all()
        assert (found < start + size).all()
        assert (found != np.arange(start, start + size)[:, None]).all(), (
            "a bead is not its own neighbour"
        )
        assert all(len(set(row)) == take for row in found.reshape(-1, take))
        reached = np.stack([p[f] for p, f in zip(points, found, strict=True)])
        distances = np.linalg.norm(reached - points[:, own, None], axis=-1)
        np.testing.assert_allclose(distances, by_hand(points[:, own], take), atol=1e-12)
        assert valid[:, own, :take].all()
        assert not valid[:, own, take:].any()
        start += size


def test_tree_bears_positions_that_are_not_finite(monkeypatch):
    monkeypatch.setattr(geometry, "LARGE", 3)
    points = torch.full((1, 30, 3), torch.nan)
    index, _ = geometry.nearest(points, (30,), 5)
    assert (index != torch.arange(30).unsqueeze(-1)).all()


def test_overlaps_are_those_of_every_pair_of_atoms():
    rng = np.random.default_rng(1)
    residues, k = 12, 6
    kind = rng.integers(0, len(RESIDUES), residues)
    templates = [list(RESIDUES.values())[i] for i in kind]
    there = np.zeros((residues, MAX_ATOMS), dtype=bool)
    for row, template in zip(there, templates, strict=True):
        row[: len(template.atoms)] = True
    atoms = rng.uniform(0, 1.0, (2, residues, MAX_ATOMS, 3))
    near = np.stack([rng.permuted(np.delete(np.arange(residues), i))[:k] for i in range(residues)])
    valid = rng.random((residues, k)) < 0.7
    nobody = torch.zeros(residues, dtype=torch.int64)
    scene = Scene(
        torch.from_numpy(np.where(there[..., None], atoms, AWAY)),
        torch.from_numpy(near).expand(2, -1, -1),
        torch.from_numpy(valid).expand(2, -1, -1),
        torch.from_numpy(there),
        torch.from_numpy(kind),
        nobody,
        nobody,
    )
    frame, residue = (torch.from_numpy(x.ravel()) for x in np.indices((2, residues)))
    depth = overlaps(torch.from_numpy(atoms)[frame, residue], scene, frame, residue)
    expected = np.zeros((2, residues))
    for f, i in np.ndindex(2, residues):
        for j in near[i][valid[i]]:
            for a, name in list(enumerate(templates[i].atoms))[SIDE]:
                for b, other in enumerate(templates[j].atoms):
                    if name[0] == other[0] == "S":
                        continue
                    gap = np.linalg.norm(atoms[f, i, a] - atoms[f, j, b])
                    expected[f, i] += max(0.0, RADIUS[name[0]] + RADIUS[other[0]] - gap)
    assert (expected > 0).mean() > 0.5
    np.testing.assert_allclose(depth.view(2, -1).numpy(), expected, atol=1e-6)
