"""Baselines with the closing projection, and what is judged at the C-alpha rung."""

import numpy as np
import pytest

from hpcbackmap.evaluation.baselines import cis_links, close_trace
from hpcbackmap.evaluation.intermediate import judge_rung
from hpcbackmap.metrics.judge import judge
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from tests.unit.judged_campaign import LADDER, load_example


@pytest.fixture(scope="module")
def example():
    from tests.conftest import REPOSITORY

    topology, positions = load_example(REPOSITORY / "examples" / "trpcage", frames=6)
    return build_ladder(topology, LADDER), positions.astype(np.float32)


def test_a_closed_trace_lies_on_its_beads_with_whole_bonds(example):
    ladder, positions = example
    levels = ladder.coarsen(positions)
    noise = np.random.default_rng(0).normal(0, 0.05, levels["ca"].shape).astype(np.float32)
    cis = np.zeros(ladder.topology.n_residues, dtype=bool)
    closed = close_trace(ladder, levels["ca"] + noise + 0.2, levels["ucg5"], cis)
    np.testing.assert_allclose(ladder.coarsen(closed, "ca")["ucg5"], levels["ucg5"], atol=1e-5)
    lengths = np.linalg.norm(np.diff(closed, axis=1), axis=-1)
    assert np.abs(lengths - 0.38).max() < 0.02
    raw = np.linalg.norm(np.diff(levels["ca"] + noise, axis=1), axis=-1)
    assert np.abs(raw - 0.38).max() > 0.1


def test_a_link_that_is_cis_in_training_is_closed_as_cis(example):
    ladder, positions = example
    levels = ladder.coarsen(positions)
    cis = np.zeros(ladder.topology.n_residues, dtype=bool)
    cis[7] = True
    closed = close_trace(ladder, levels["ca"], levels["ucg5"], cis)
    lengths = np.linalg.norm(np.diff(closed, axis=1), axis=-1)
    assert np.abs(lengths[:, 6] - 0.295).max() < 0.02
    assert np.abs(np.delete(lengths, 6, axis=1) - 0.38).max() < 0.02


def test_cis_links_are_those_that_are_short_in_most_frames():
    topology = topology_from_sequence(["GPGP", "GG"])
    calpha = np.zeros((3, 6, 3))
    calpha[:, :, 0] = np.cumsum([0, 0.38, 0.295, 0.38, 0.2, 0.38])
    calpha[0, 2:, 0] += 0.085
    assert cis_links(topology, calpha).tolist() == [False, False, True, False, False, False]


def test_the_calpha_rung_is_judged_as_the_judge_judges_the_same_traces(example):
    ladder, positions = example
    members = np.stack([positions[::-1], np.roll(positions, 1, axis=0)], axis=1)
    levels = ladder.coarsen(positions)
    made = members[:, :, ladder.topology.ca_index]
    rows = judge_rung(ladder, "ca", levels["ca"], made, levels["ucg5"])
    whole = judge(ladder.topology, positions, members, ladder, levels["ucg5"])
    for name in ("lddt_ca", "ca_ca_error_angstrom", "ca_ca_off_percent"):
        np.testing.assert_allclose(rows[name], whole[name], rtol=1e-6)
    middle = made.mean(1)
    variance = ((made[:, 0] - made[:, 1]) ** 2).sum(-1).mean(-1) / 2
    expected = np.stack([1.5 * variance, ((levels["ca"] - middle) ** 2).sum(-1).mean(-1)], axis=1)
    np.testing.assert_allclose(rows["spread_ratio"], expected, rtol=1e-4)
    assert (rows["crps_angstrom"] > 0).all()
