"""Totals by block, the bootstrap over them, and memory that does not grow with the frames."""

import pickle

import numpy as np
import pytest
from judged_campaign import load_example, make_campaign

from hpcbackmap.evaluation import campaign as evaluation
from hpcbackmap.evaluation.bootstrap import MAX_BLOCKS, Totals, block_numbers, summarise
from hpcbackmap.evaluation.pairing import Pairs
from hpcbackmap.metrics.registry import METRICS, metric
from hpcbackmap.metrics.rotamers import STATES
from hpcbackmap.runtime.mpi import LocalComm


def summary(name, rows, blocks, bootstrap=300, seed=1):
    totals = Totals((metric(name),))
    totals.add({name: rows}, "a", np.asarray(blocks))
    return summarise(totals, int(blocks[-1]) + 1, bootstrap, seed)[name]


def test_blocks_do_not_cross_files_and_are_about_the_root_of_the_frames_long():
    frames = np.arange(10, 140)
    first, second = block_numbers([frames, np.arange(9)], [[(0, 110), (110, 200)], [(0, 9)]])
    assert (np.diff(first) >= 0).all()
    assert set(np.diff(first)) == {0, 1}
    assert not set(first[frames < 110]) & set(first[frames >= 110])
    assert np.bincount(first)[0] == 10
    assert second[0] == first[-1] + 1
    assert second[-1] - second[0] == 2


def test_there_are_never_more_blocks_than_the_cap():
    singles = [np.zeros(1, dtype=int)] * 1777
    numbers = np.concatenate(block_numbers(singles, [[(0, 1)]] * 1777))
    assert len(set(numbers)) == MAX_BLOCKS
    assert numbers[0] == 0
    assert np.bincount(numbers).max() - np.bincount(numbers).min() <= 1
    (long,) = block_numbers([np.arange(10**6)], [[(0, 10**6)]])
    assert len(set(long)) <= MAX_BLOCKS


def test_the_value_does_not_depend_on_the_blocks():
    rng = np.random.default_rng(0)
    rows = {
        "rmsd_angstrom": rng.normal(3, 1, (60, 2)),
        "bead_error_max_angstrom": rng.exponential(1, (60, 2)),
        "diversity": rng.exponential(1, (60, 2)),
        "spread_ratio": rng.exponential(1, (60, 2)),
        "chi1_jsd_nats": rng.integers(0, 4, (60, 72)).astype(float),
        "rotamer_tvd": rng.integers(0, 4, (60, 2 * 7 * STATES)).astype(float),
    }
    rows["rmsd_angstrom"][3, 1] = np.nan
    for name, entries in rows.items():
        expected = metric(name).reduce(entries)
        for blocks in (np.arange(60), np.arange(60) // 7, np.zeros(60, dtype=int)):
            assert summary(name, entries, blocks)["value"] == pytest.approx(expected), name
    known = rows["rmsd_angstrom"][np.isfinite(rows["rmsd_angstrom"])]
    whole = summary("rmsd_angstrom", rows["rmsd_angstrom"], np.arange(60))
    assert whole["value"] == pytest.approx(known.mean())
    assert whole["n"] == 119
    assert whole["std"] == pytest.approx(known.std())
    assert whole["unit"] == "Å"
    assert summary("bead_error_max_angstrom", rows["bead_error_max_angstrom"], np.arange(60))[
        "value"
    ] == pytest.approx(rows["bead_error_max_angstrom"].max())


def test_the_interval_is_right_for_independent_frames():
    rows = np.random.default_rng(3).normal(5, 1, (400, 1))
    found = summary("rmsd_angstrom", rows, np.arange(400))
    assert found == summary("rmsd_angstrom", rows, np.arange(400))
    assert found != summary("rmsd_angstrom", rows, np.arange(400), seed=2)
    low, high = found["interval_95"]
    assert low < found["value"] < high
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.25)
    assert summary("rmsd_angstrom", rows, np.zeros(400, dtype=int))["interval_95"] is None
    nothing = summary("rmsd_angstrom", np.full((4, 1), np.nan), np.arange(4))
    assert nothing == {"value": None, "unit": "Å", "std": None, "interval_95": None, "n": 0}


def test_the_interval_covers_where_frames_resemble_their_neighbours():
    """Autocorrelated means: intervals of single frames are far too narrow, those of blocks are not."""
    rng = np.random.default_rng(4)
    n, memory, inside = 900, 0.8, {"frames": 0, "blocks": 0}
    for _ in range(60):
        noise, series = rng.normal(size=n), np.zeros(n)
        for i in range(1, n):
            series[i] = memory * series[i - 1] + noise[i]
        (blocks,) = block_numbers([np.arange(n)], [[(0, n)]])
        for kind, own in (("frames", np.arange(n)), ("blocks", blocks)):
            low, high = summary("rmsd_angstrom", series[:, None], own, 100)["interval_95"]
            inside[kind] += low <= 0 <= high
    assert inside["frames"] < 42 < 48 <= inside["blocks"]


def test_systems_are_not_mixed_where_residues_count():
    item = metric("rotamer_tvd")
    right, wrong = np.zeros((1, 2 * 3 * STATES)), np.zeros((1, 2 * 1 * STATES))
    right.reshape(2, 3, STATES)[:, :, 4] = 1
    wrong.reshape(2, 1, STATES)[[0, 1], 0, [2, 3]] = 1
    totals = Totals((item,))
    totals.add({item.name: right}, "a", np.array([0]))
    totals.add({item.name: wrong}, "b", np.array([1]))
    found = summarise(totals, 2, 200, 0)[item.name]
    assert found["value"] == pytest.approx(1 / 4), "mean over the four residues"
    # A resample may hold one system only: 0 or 1, and .25 for both; on average .375, so .125 too high.
    assert found["interval_95"] == pytest.approx([0, 0.875], abs=0.05)


def test_the_interval_of_a_divergence_contains_it():
    """Histograms of few angles: resamples lie above the value, all of them where the truth is near."""
    rng = np.random.default_rng(5)
    for _ in range(10):
        angles = rng.integers(0, 36, (30, 2, 20))
        rows = np.stack([[np.bincount(a, minlength=36) for a in frame] for frame in angles])
        found = summary("phi_jsd_nats", rows.reshape(30, -1).astype(float), np.arange(30))
        low, high = found["interval_95"]
        assert 0 <= low < found["value"] < high


def test_memory_is_bounded_by_blocks_not_frames(example_dir):
    topology, positions = load_example(example_dir, frames=4)
    from hpcbackmap.metrics.judge import judge

    rows = judge(topology, positions, positions[:, None])

    def size(repeats):
        totals = Totals(METRICS)
        for k in range(repeats):
            totals.add(rows, "a", np.full(4, k % 3))
        return len(pickle.dumps(totals.blocks))

    assert size(300) == size(3)


def test_shares_of_ranks_hold_whole_blocks(monkeypatch, tmp_path, example_dir):
    topology, positions = load_example(example_dir)
    campaign = make_campaign(tmp_path, topology, positions, lambda truth, member: truth)
    monkeypatch.setattr(evaluation, "BLOCK_BYTES", 12 * topology.n_atoms * 2 * 3)
    sources = evaluation.open_sources(campaign)
    frames = np.arange(35)
    system = sources.pairs[0].system
    pairs = [Pairs(system, frames, np.stack([frames, frames], 1))]
    shares = evaluation._shares(sources._replace(pairs=pairs))
    together = [np.concatenate([piece.pairs.frames for piece in share]) for share in shares]
    np.testing.assert_array_equal(np.concatenate(together), frames)
    owners = {}
    for number, share in enumerate(shares):
        for piece in share:
            assert len(piece.pairs.frames) <= 3
            for block in piece.blocks:
                assert owners.setdefault(int(block), number) == number
    assert len(shares) == len(owners) == 7


def test_pieces_do_not_change_the_numbers(monkeypatch, tmp_path, example_dir):
    topology, positions = load_example(example_dir)

    def noisy(truth, member):
        return truth + np.random.default_rng(member).normal(0, 0.02, truth.shape)

    campaign = make_campaign(tmp_path, topology, positions, noisy)
    whole = evaluation.evaluate_campaign(campaign, LocalComm())
    monkeypatch.setattr(evaluation, "BLOCK_BYTES", 1)
    parts = evaluation.evaluate_campaign(campaign, LocalComm())
    for first, second in zip(whole["rows"], parts["rows"], strict=True):
        for name, found in first["metrics"].items():
            assert second["metrics"][name]["value"] == pytest.approx(found["value"], nan_ok=True)
    assert whole["bootstrap_blocks"] == 4
