"""C-alpha atoms from other beads, and the closing of traces."""

import numpy as np
import pytest
from as_beads import read
from lysozyme import load_adenylate_kinase, load_lysozyme

from hpcbackmap.backmapping.trace_rules import measure_rules
from hpcbackmap.stages.calpha.closing import IDEAL, POSSIBLE
from hpcbackmap.stages.calpha.trace import calpha_trace, lasting_cis, to_calpha

BOND_NOISE = 0.018 / 2**0.5


@pytest.fixture(scope="module")
def protein(data_dir):
    return load_lysozyme(data_dir)


def errors(protein, calpha: np.ndarray) -> np.ndarray:
    """nm, [F, R]."""
    return np.linalg.norm(calpha - protein.positions[:, protein.topology.ca_index], axis=-1)


@pytest.mark.parametrize(
    ("name", "limit"),
    [("com", 0.040), ("bb", 0.030), ("martini3", 0.026), ("martini2", 0.026), ("sc", 0.060)],
)
def test_beads_become_calpha_atoms(protein, name, limit):
    """Root mean square error below ``limit``, a third of what the beads are off as C-alpha atoms."""
    reading, positions = read(protein, name)
    trace = calpha_trace(reading, positions)
    assert np.sqrt(np.square(errors(protein, trace.calpha)).mean()) < limit
    links = np.linalg.norm(np.diff(trace.calpha, axis=1), axis=-1)
    assert (links > IDEAL.trans[0] - 1e-3).all()
    assert (links < IDEAL.trans[1] + 1e-3).all()


def test_a_turned_input_gives_a_turned_trace_and_a_frame_does_not_depend_on_the_others(protein):
    reading, positions = read(protein, "com")
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    moved = (positions @ turn.T + [3.0, -20.0, 7.0]).astype(np.float32)
    together = to_calpha(reading, positions)
    np.testing.assert_allclose(
        to_calpha(reading, moved), together @ turn.T + [3.0, -20.0, 7.0], atol=2e-4
    )
    alone = [to_calpha(reading, positions[k : k + 1])[0] for k in range(len(positions))]
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_calpha_atoms_of_md_are_left_where_they_are(protein):
    reading, positions = read(protein, "ca")
    trace = calpha_trace(reading, positions)
    links = np.linalg.norm(np.diff(positions, axis=1), axis=-1)
    np.testing.assert_array_equal(trace.cis[:, 1:], links < 0.34)
    assert trace.cis.any()
    out = (links > POSSIBLE.trans[1]) | ((links < POSSIBLE.trans[0]) & ~trace.cis[:, 1:])
    np.testing.assert_array_equal(trace.moved[:, 1:] > 1e-4, out | np.roll(out, -1, 1))
    assert trace.moved.max() < 0.003


def test_a_trace_that_fluctuates_is_closed_nearer_to_the_truth_and_keeps_its_cis_links(protein):
    """Bonds of 0.380 ± 0.018 nm; one link before proline is made cis first."""
    reading, positions = read(protein, "ca")
    place = [i for i, name in enumerate(protein.topology.sequence) if name == "PRO"][1]
    step = positions[:, place] - positions[:, place - 1]
    length = np.linalg.norm(step, axis=-1, keepdims=True)
    positions = positions.copy()
    positions[:, place:] += ((0.295 / length - 1) * step)[:, None]
    noise = np.random.default_rng(1).normal(0, BOND_NOISE, positions.shape)
    trace = calpha_trace(reading, (positions + noise).astype(np.float32))
    true_links = np.linalg.norm(np.diff(positions, axis=1), axis=-1)
    assert trace.cis[:, place].all()
    assert not trace.cis[:, 1:][true_links > 0.34].any()
    links = np.linalg.norm(np.diff(trace.calpha, axis=1), axis=-1)
    low = np.where(trace.cis[:, 1:], IDEAL.cis[0], IDEAL.trans[0])
    high = np.where(trace.cis[:, 1:], IDEAL.cis[1], IDEAL.trans[1])
    assert (links > low - 1e-3).all()
    assert (links < high + 1e-3).all()
    before = np.square(noise).sum(-1).mean()
    after = np.square(trace.calpha - positions).sum(-1).mean()
    assert after < 0.8 * before
    np.testing.assert_allclose(
        trace.moved, np.linalg.norm(trace.calpha - positions - noise, axis=-1), atol=1e-4
    )


def test_links_of_a_jittering_trace_are_cis_where_the_whole_input_is(protein):
    """Of one frame with noise of 0.4 Å a bond none can be told; the median of twelve tells the true ones."""
    _, still = read(protein, "ca")
    true_cis = np.flatnonzero(np.linalg.norm(np.diff(still[1], axis=0), axis=-1) < 0.34) + 1
    assert len(true_cis)
    noise = np.random.default_rng(2).normal(0, 0.03, (12, *still.shape[1:]))
    frames = (still[1:2] + noise).astype(np.float32)
    assert measure_rules(protein.topology, "ca", frames).cis == tuple(true_cis)
    assert measure_rules(protein.topology, "ca", frames[:1]).cis == ()
    assert measure_rules(protein.topology, "ca", still).cis is None
    reading, _ = read(protein, "ca")
    rules = measure_rules(protein.topology, "ca", frames)
    trace = calpha_trace(reading, frames, rules.scatter, rules.cis)
    links = np.linalg.norm(np.diff(trace.calpha, axis=1), axis=-1)
    np.testing.assert_array_equal(np.flatnonzero((links < 0.34).all(0)) + 1, true_cis)
    np.testing.assert_array_equal(np.flatnonzero((links < 0.34).any(0)) + 1, true_cis)


@pytest.mark.parametrize("name", ["com", "bb", "martini3", "martini2"])
def test_cis_prolines_are_told_from_beads(data_dir, name):
    """Of frames and of all together, with and without the noise of a simulation."""
    kinase = load_adenylate_kinase(data_dir)
    reading, positions = read(kinase, name)
    proline = np.array(kinase.topology.sequence) == "PRO"
    true_cis = [kinase.topology.residue_numbers.index(87)]
    assert proline[true_cis].all()
    noise = np.random.default_rng(3).normal(0, BOND_NOISE, positions.shape)
    for frames in (positions, (positions + noise).astype(np.float32)):
        lasting = lasting_cis(reading, frames)
        assert lasting == tuple(true_cis), "of ten prolines"
        trace = calpha_trace(reading, frames, cis_throughout=lasting)
        links = np.linalg.norm(np.diff(trace.calpha, axis=1), axis=-1)
        np.testing.assert_array_equal(np.flatnonzero((links < 0.34).all(0)) + 1, true_cis)
        assert calpha_trace(reading, frames).cis[:, ~proline].sum() == 0


def test_an_impossible_link_of_a_steady_trace_is_closed_alone(protein):
    reading, positions = read(protein, "ca")
    positions = positions[:1].copy()
    positions[:, 100:] += 0.1 * (positions[:, 100] - positions[:, 99])[:, None]
    trace = calpha_trace(reading, positions)
    assert set(np.flatnonzero(trace.moved[0] > 1e-4)) <= set(range(97, 103))
    assert np.linalg.norm(trace.calpha[0, 100] - trace.calpha[0, 99]) < POSSIBLE.trans[1] + 1e-3


def test_known_backbones_are_not_closed(protein):
    reading, positions = read(protein, "backbone")
    stretched = (positions * 1.1).astype(np.float32)
    trace = calpha_trace(reading, stretched)
    np.testing.assert_array_equal(trace.calpha, stretched[:, reading.sites["backbone"][:, 1]])
    assert not trace.moved.any()
