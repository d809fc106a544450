"""Side chains see what the periodic box repeats, and nothing else changes."""

from itertools import product

import numpy as np
import pytest
import torch

from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.genzprot.images import pairs_of_images, surroundings
from hpcbackmap.stages.given import Given
from hpcbackmap.stages.noise import frame_noise

TILTED = np.array([[4.0, 0.0, 0.0], [1.2, 4.5, 0.0], [-0.9, 1.1, 5.0]])
STEPS = np.array(list(product(range(-4, 5), repeat=3)))


def distances(points: np.ndarray, others: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """To every image of every other point, [n, m, images]."""
    gap = others[None, :, None] + STEPS @ cell - points[:, None, None]
    return np.linalg.norm(gap, axis=-1)


def test_neighbours_and_pairs_are_those_of_all_images():
    rng = np.random.default_rng(0)
    grid = (np.array(list(product(range(3), repeat=3))) + rng.uniform(-0.2, 0.2, (27, 3))) / 3
    points = (
        grid + rng.integers(-1, 2, (27, 3))
    ) @ TILTED  # wider than the cell: molecules are whole
    whole = torch.from_numpy(points).float()
    near = torch.zeros(1, 27, 8, dtype=torch.int64)
    found = surroundings(
        whole[None], near, torch.ones_like(near, dtype=torch.bool), torch.from_numpy(TILTED)[None]
    )
    all_of_them = distances(points, points, TILTED)
    all_of_them[np.arange(27), np.arange(27), len(STEPS) // 2] = np.inf
    place = whole[found.near[0]] + found.shift[0]
    reached = (place - whole[:, None]).norm(dim=-1).numpy()
    np.testing.assert_allclose(reached, np.sort(all_of_them.reshape(27, -1))[:, :8], atol=1e-4)
    first, second = pairs_of_images(whole, torch.from_numpy(TILTED), 1.3)
    pairs = {frozenset(pair) for pair in zip(first.tolist(), second.tolist(), strict=True)}
    expected = {frozenset(pair) for pair in np.argwhere((all_of_them < 1.3).any(-1)).tolist()}
    assert pairs == expected


@pytest.fixture(scope="module")
def packed(data_dir):
    """Ubiquitin in a box that is 0.4 nm wider than its C-alpha atoms."""
    import mdtraj

    frame = mdtraj.load(str(data_dir / "ubiquitin" / "2k39_nmr.pdb.gz"), frame=0)
    topology, index, _ = topology_from_mdtraj(frame.topology, frame.xyz[0], "2k39")
    calpha = torch.from_numpy(frame.xyz[:, index][:, topology.ca_index])
    stage = load_artifact(shipped_artifact("ca-fg"))
    system = collate([stage.describe(build_ladder(topology, ["fg", "ca"]))])
    size = np.ptp(calpha[0].numpy(), axis=0) + 0.4
    return stage, system, calpha, torch.from_numpy(np.diag(size))[None].float()


def contacts(atoms: torch.Tensor, cell: torch.Tensor) -> int:
    """Atoms within 0.2 nm of an image of another."""
    points = atoms.double().numpy()
    steps = STEPS[np.abs(STEPS).max(1) == 1] @ cell[0].double().numpy()
    return sum(
        int((np.linalg.norm(points[:, None] - points - step, axis=-1) < 0.2).sum())
        for step in steps
    )


@pytest.mark.trains
def test_no_side_chain_runs_into_an_image(packed):
    stage, system, calpha, cell = packed
    draw = torch.from_numpy(frame_noise(0, stage.name, [0], 0, calpha.shape[1], stage.noise_width))
    blind, given = stage.mode(calpha, system), Given(cells=cell)
    assert contacts(blind[0], cell) > 0
    assert contacts(stage.mode(calpha, system, given)[0], cell) == 0
    assert contacts(stage.samples(calpha, system, [draw], given)[0][0], cell) == 0


@pytest.mark.trains
def test_a_box_without_images_near_changes_no_bit(packed):
    """Far walls, no box, and a box that is smaller than the molecule (nonsense in the file)."""
    stage, system, calpha, cell = packed
    blind = stage.mode(calpha, system)
    for other in (cell * 4, cell * 0, cell * 0.5):
        torch.testing.assert_close(
            stage.mode(calpha, system, Given(cells=other)), blind, rtol=0, atol=0
        )
    both = stage.mode(calpha.repeat(2, 1, 1), system, Given(cells=torch.cat([cell, cell * 4])))
    torch.testing.assert_close(
        both[1:], blind, rtol=0, atol=1e-5
    )  # of other shapes, so rounded anew
