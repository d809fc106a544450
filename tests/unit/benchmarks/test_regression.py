"""Closed-form regressions from beads, and the closed-form parts of the one-molecule stage."""

import itertools

import numpy as np
import pytest
import torch
from regression import REGRESSIONS, KernelRidge, Ridge, time_blocks

from hpcbackmap.metrics.rmsd import superpose
from hpcbackmap.stages.cgvae.linear import PENALTIES, folds, held_out, ridge
from hpcbackmap.stages.cgvae.superposition import mean_frame, superposed, turned


def molecule(frames, seed=0, noise=0.0):
    """Beads [F, 6, 3] that vary along three smooth directions, and fine [F, 12, 3] linear in them, turned."""
    rng = np.random.default_rng(seed)
    base, modes = np.random.default_rng(9).normal(size=(6, 3)), np.random.default_rng(8)
    modes = 0.1 * modes.normal(size=(3, 6, 3))
    lift = np.random.default_rng(7).normal(size=(12, 6))
    lift /= lift.sum(1, keepdims=True)
    shape = base + np.einsum("fk,kbx->fbx", rng.normal(size=(frames, 3)), modes)
    fine = lift @ shape + noise * rng.normal(size=(frames, 12, 3))
    return shape, fine


def rotated(arrays, seed):
    rng = np.random.default_rng(seed)
    turns = np.linalg.qr(rng.normal(size=(len(arrays[0]), 3, 3)))[0]
    turns = turns * np.linalg.det(turns)[:, None, None]
    shift = rng.normal(size=(len(turns), 1, 3))
    return [x @ turns + shift for x in arrays]


@pytest.mark.parametrize("kind", REGRESSIONS)
def test_answers_follow_the_input_rigidly(kind):
    beads, fine = molecule(40)
    model = kind().fit(beads, fine)
    asked, _ = molecule(5, seed=1)
    plain = model.predict(asked)
    moved, expected = rotated([asked, plain], 2)
    np.testing.assert_allclose(model.predict(moved), expected, atol=1e-8)


def test_ridge_finds_what_is_linear_and_beats_the_nearest_frame():
    train, fine = rotated(molecule(60), 3)
    asked, truth = molecule(20, seed=1)
    model = Ridge().fit(train, fine)
    assert np.abs(model.predict(asked) - truth).max() < 0.02
    nearest = KernelRidge().fit(train, fine).predict(asked)
    assert np.abs(nearest - truth).mean() < 0.05


def test_ridge_is_the_normal_equations():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(30, 2))
    inputs = torch.from_numpy(np.c_[x, np.ones(30)])
    weights = ridge(inputs, torch.from_numpy(y), 0.5).numpy()
    centred = x - x.mean(0)
    damping = 0.5 * (centred**2).sum(0).mean()
    slope = np.linalg.solve(centred.T @ centred + damping * np.eye(4), centred.T @ (y - y.mean(0)))
    np.testing.assert_allclose(weights[:4], slope, atol=1e-9)
    np.testing.assert_allclose(weights[4], y.mean(0) - x.mean(0) @ slope, atol=1e-9)


def test_held_out_predictions_come_from_the_other_folds():
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(np.c_[rng.normal(size=(24, 3)), np.ones(24)])
    targets = torch.from_numpy(rng.normal(size=(24, 2)))
    fold = torch.arange(24) % 4
    found = held_out(inputs, targets, fold)
    for row, penalty in zip(found, PENALTIES, strict=True):
        rest = fold != 2
        weights = ridge(inputs[rest], targets[rest], penalty)
        torch.testing.assert_close(row[~rest], inputs[~rest] @ weights)


def test_strength_is_chosen_by_blocks_not_by_random_frames():
    """Each block has its own offset: frames of one block are alike, and only whole blocks tell how wrong."""
    rng = np.random.default_rng(0)
    beads, fine = molecule(80, noise=0.0)
    blocks = time_blocks(80, 4)
    offset = 0.3 * rng.normal(size=(4, 12, 3))[blocks]
    marked = beads + 0.02 * rng.normal(size=(4, 6, 3))[blocks]
    by_block = Ridge().fit(marked, fine + offset, blocks)
    by_frame = Ridge().fit(marked, fine + offset, np.arange(80))
    assert by_block.penalty > by_frame.penalty


def test_folds_are_blocks_along_the_main_motion():
    generator = torch.Generator().manual_seed(0)
    place = torch.rand(40, generator=generator)
    positions = torch.randn(1, 5, 3, generator=generator) * place[:, None, None]
    fold = folds(positions, 4)
    edges = [place[fold == k] for k in fold.unique()]
    edges.sort(key=lambda x: float(x.min()))
    assert len(edges) == 4
    for low, high in itertools.pairwise(edges):
        assert float(low.max()) < float(high.min())


def test_a_fit_needs_two_frames():
    beads, fine = molecule(1)
    with pytest.raises(ValueError, match="two frames"):
        Ridge().fit(beads, fine)


def test_superposition_agrees_with_the_judge_and_never_mirrors():
    beads, _ = molecule(6)
    (moved,) = rotated([beads], 4)
    reference = mean_frame(torch.from_numpy(moved))
    ours = superposed(torch.from_numpy(moved), reference).numpy()
    expected = superpose(moved, reference.numpy()[None])
    expected = expected - expected.mean(1, keepdims=True)
    np.testing.assert_allclose(ours, expected, atol=1e-8)
    mirrored = torch.from_numpy(moved * [1, 1, -1])
    weight = torch.rand(2, 6, generator=torch.Generator().manual_seed(0)).double()
    turns = turned(mirrored, reference, weight)
    torch.testing.assert_close(torch.linalg.det(turns), torch.ones(6, 2).double())
