"""The finer measures of the judge against brute force, closed forms and planted defects."""

from itertools import combinations

import mdtraj
import numpy as np
import pytest
from judged_campaign import judged, load_example

from hpcbackmap.metrics import lddt as lddt_module
from hpcbackmap.metrics.bonds import bond_fraction_auc
from hpcbackmap.metrics.cbeta import cbeta_deviations
from hpcbackmap.metrics.close_pairs import close_atoms, count_pairs, pairs_within_two_bonds
from hpcbackmap.metrics.divergence import angle_counts, jensen_shannon, plane_counts
from hpcbackmap.metrics.diversity import crps, spread_and_error
from hpcbackmap.metrics.judge import judge
from hpcbackmap.metrics.lddt import lddt
from hpcbackmap.metrics.reference_forms import (
    interaction_pairs,
    interaction_score,
    steric_pair_ratio,
)
from hpcbackmap.metrics.registry import METRICS, metric
from hpcbackmap.metrics.rings import pierced_rings, ring_atoms
from hpcbackmap.metrics.rotamers import STATES, rotamer_rows, rotamer_states
from hpcbackmap.metrics.secondary import secondary_structure


@pytest.fixture(scope="module")
def example(example_dir):
    return load_example(example_dir, frames=12)


def turned(points, begin, end, degrees):
    """``points`` [..., 3] turned about the axis from ``begin`` to ``end``."""
    axis = (end - begin) / np.linalg.norm(end - begin)
    angle, arm = np.deg2rad(degrees), points - end
    along = (arm @ axis)[..., None] * axis
    across = np.cross(axis, arm)
    return end + along + np.cos(angle) * (arm - along) + np.sin(angle) * across


def with_turned_chi(topology, positions, residue, axis, moving, degrees):
    """The atoms ``moving`` of a residue turned about the bond ``axis``, in every frame."""
    index, changed = topology.atom_index, positions.copy()
    atoms = [index[residue, name] for name in moving.split()]
    for frame in changed:
        begin, end = (frame[index[residue, name]].copy() for name in axis.split())
        frame[atoms] = turned(frame[atoms], begin, end, degrees)
    return changed


def swapped(topology, positions, residue, *pairs):
    changed = positions.copy()
    for first, second in pairs:
        a, b = topology.atom_index[residue, first], topology.atom_index[residue, second]
        changed[:, [a, b]] = changed[:, [b, a]]
    return changed


def lddt_by_hand(truth, model, residue):
    kept = total = 0
    for i, j in combinations(range(len(truth)), 2):
        distance = np.linalg.norm(truth[i] - truth[j])
        if residue[i] != residue[j] and distance < 1.5:
            off = abs(np.linalg.norm(model[i] - model[j]) - distance)
            kept += sum(off < limit for limit in (0.05, 0.1, 0.2, 0.4))
            total += 4
    return kept / total


def test_lddt_is_the_share_of_kept_distances(topology, positions, monkeypatch):
    truth = positions[0]
    members = positions[[3, 7]] @ np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]]) + 5
    residue = topology.atom_residue
    expected = [lddt_by_hand(truth, member, residue) for member in members]
    np.testing.assert_allclose(lddt(truth, members, residue), expected, rtol=1e-9)
    monkeypatch.setattr(lddt_module, "CHUNK", 20)
    np.testing.assert_allclose(lddt(truth, members, residue), expected, rtol=1e-9)
    assert max(expected) < 0.95
    mirrored = positions[:1] * [1, 1, -1]
    assert lddt(truth, mirrored, residue)[0] == pytest.approx(1), "distances do not see the hand"


def test_lddt_of_a_distant_copy_counts_only_near_pairs():
    truth = np.array([[0, 0, 0], [1, 0, 0], [1.4, 0, 0], [9, 0, 0]], dtype=float)
    model = truth + [[0, 0, 0], [0, 0, 0], [0.15, 0, 0], [0, 0, 5]]
    assert lddt(truth, model[None], np.arange(4))[0] == pytest.approx((4 + 2 + 2) / 12)
    assert np.isnan(lddt(truth[[0, 3]], model[None, [0, 3]], np.arange(2))[0])


def test_names_of_equivalent_atoms_do_not_matter_to_lddt(topology, positions):
    tyrosine, aspartate = topology.sequence.index("TYR"), topology.sequence.index("ASP")
    named = swapped(topology, positions, tyrosine, ("CD1", "CD2"), ("CE1", "CE2"))
    named = swapped(topology, named, aspartate, ("OD1", "OD2"))
    values = judged(topology, positions, named)
    assert values["lddt"] == pytest.approx(1)
    assert values["rmsd_angstrom"] > 0.1
    leucine = topology.sequence.index("LEU")
    wrong = swapped(topology, positions, leucine, ("CD1", "CD2"))
    assert judged(topology, positions, wrong)["lddt"] < 0.999


def test_secondary_structure_agrees_with_mdtraj_and_notices_a_lost_helix(topology, positions):
    expected = mdtraj.compute_dssp(mdtraj.Trajectory(positions, topology.to_mdtraj()))
    states = secondary_structure(topology, positions)
    np.testing.assert_array_equal(states, expected)
    assert (states == "H").mean() > 0.1
    apart = positions + topology.atom_residue[:, None] * np.array([1.0, 0, 0])
    values = judged(topology, positions, apart.astype(np.float32))
    assert values["helix_recovered_percent"] == 0
    assert values["secondary_structure_percent"] == pytest.approx(100 * (states == "C").mean())


def test_cbeta_deviation(topology, positions):
    built = positions.copy()
    index = topology.atom_index
    residues = [i for i, name in enumerate(topology.sequence) if name not in ("GLY", "PRO")]
    for i in residues:
        n, ca, c = (positions[:, index[i, name]] for name in ("N", "CA", "C"))
        b, c = ca - n, c - ca
        cross = 10 * np.cross(b, c)  # the products are in nm^2, the factors for angstrom
        built[:, index[i, "CB"]] = ca - 0.58273431 * cross + 0.56802827 * b - 0.54067466 * c
    deviation = cbeta_deviations(topology, built)
    prolines = [name == "PRO" for name in topology.sequence if name != "GLY"]
    assert deviation[:, np.logical_not(prolines)].max() < 0.02
    shifted = positions.copy()
    atom = index[5, "CB"]
    shifted[:, atom] += 0.06 * np.array([1, 0, 0])
    before, after = (judged(topology, positions[:1], p[:1]) for p in (positions, shifted))
    assert before["cb_deviation_angstrom"] < 0.25
    number = sum(name != "GLY" for name in topology.sequence)
    added = after["cb_deviation_outliers_percent"] - before["cb_deviation_outliers_percent"]
    assert added == pytest.approx(100 / number, rel=1e-6)


def test_a_bond_through_a_ring_is_found_and_one_beside_it_is_not(topology, positions):
    index = topology.atom_index
    lysine = topology.sequence.index("LYS")
    pierced = positions[:1].copy()
    tryptophan = topology.sequence.index("TRP")
    rings = ring_atoms(topology)
    (ring,) = rings[(topology.atom_residue[rings[:, 0]] == tryptophan) & (rings[:, 5] >= 0)]
    assert pierced_rings(topology, positions).max() == 0
    corners = pierced[0, ring]
    centre = corners.mean(0)
    normal = np.cross(corners[0] - centre, corners[1] - centre)
    normal /= np.linalg.norm(normal)
    tip = [index[lysine, "CE"], index[lysine, "NZ"]]
    pierced[0, tip] = centre + np.outer([0.08, -0.07], normal)
    assert pierced_rings(topology, pierced)[0] == 1
    assert judged(topology, positions[:1], pierced)["pierced_rings_per_structure"] == 1
    above = pierced.copy()
    above[0, tip] = centre + np.outer([0.2, 0.05], normal)
    assert pierced_rings(topology, above)[0] == 0, "the bond ends before the plane of the ring"
    beside = pierced.copy()
    outward = corners[0] - centre
    beside[0, tip] += 1.3 * outward
    assert pierced_rings(topology, beside)[0] == 0


def test_chi_within_40_degrees(topology, positions):
    sequence = topology.sequence
    with_chi1 = sum(name not in ("ALA", "GLY") for name in sequence)
    with_chi2 = sum(
        name not in ("ALA", "CYS", "GLY", "PRO", "SER", "THR", "VAL") for name in sequence
    )
    tyrosine, tryptophan = sequence.index("TYR"), sequence.index("TRP")
    ring = "CD1 CD2 CE1 CE2 CZ OH"
    for degrees, right in ((30, True), (50, False), (180, True), (215, True), (240, False)):
        made = with_turned_chi(topology, positions, tyrosine, "CB CG", ring, degrees)
        values = judged(topology, positions, made)
        assert values["chi1_right_percent"] == pytest.approx(100)
        expected = 100 * (with_chi2 - (not right)) / with_chi2
        assert values["chi12_right_percent"] == pytest.approx(expected), degrees
    indole = "CD1 CD2 NE1 CE2 CE3 CZ2 CZ3 CH2"
    made = with_turned_chi(topology, positions, tryptophan, "CB CG", indole, 180)
    values = judged(topology, positions, made)
    assert values["chi12_right_percent"] == pytest.approx(100 * (with_chi2 - 1) / with_chi2)
    made = with_turned_chi(topology, positions, tryptophan, "CA CB", "CG " + indole, -60)
    values = judged(topology, positions, made)
    assert values["chi1_right_percent"] == pytest.approx(100 * (with_chi1 - 1) / with_chi1)


def test_half_a_turn_of_a_symmetric_side_chain_is_no_divergence(topology, positions):
    aspartate = topology.sequence.index("ASP")
    flipped = swapped(topology, positions, aspartate, ("OD1", "OD2"))
    assert judged(topology, positions, flipped)["chi2_jsd_nats"] < 0.02
    glutamine = topology.sequence.index("GLN")
    flipped = with_turned_chi(topology, positions, glutamine, "CG CD", "OE1 NE2", 180)
    assert judged(topology, positions, flipped)["chi3_jsd_nats"] > 0.1


def test_rotamer_populations_by_residue(topology, positions):
    states = rotamer_states(topology, positions)
    chi1 = np.rad2deg(mdtraj.compute_chi1(mdtraj.Trajectory(positions, topology.to_mdtraj()))[1])
    first = (chi1 % 360 // 120).astype(int)
    order = [i for i, name in enumerate(topology.sequence) if name not in ("ALA", "GLY")]
    alone = rotamer_states(topology, positions, chi2=False)
    assert sorted(map(tuple, alone.T)) == sorted(map(tuple, first.T))
    leucine = order.index(topology.sequence.index("LEU"))
    assert (states[:, leucine] // 3 == alone[:, leucine]).all()

    truth = np.array([[0, 4], [3, -1]])  # two frames, two residues; one torsion is undefined
    members = np.array([[[0, 4], [0, 5]], [[0, 5], [3, 5]]])
    rows = rotamer_rows(members, truth)
    assert rows.shape == (2, 2 * 2 * STATES)
    # residue 0: {0: 3/4, 3: 1/4} against halves; residue 1: {4: 1/4, 5: 3/4} against {4: 1}
    assert metric("rotamer_tvd").reduce(rows) == pytest.approx((0.25 + 0.75) / 2)
    rows = judge(topology, positions, positions[:, None])
    assert metric("rotamer_tvd").reduce(rows["rotamer_tvd"]) == 0


def test_joint_ramachandran_sees_what_its_halves_do_not():
    low, high = -1.0, 2.0
    phi, psi = np.array([[low, high]]), np.array([[low, high]])
    crossed = np.array([[high, low]])
    np.testing.assert_array_equal(angle_counts(psi), angle_counts(crossed))
    planes = plane_counts(phi, psi)[0], plane_counts(phi, crossed)[0]
    assert jensen_shannon(*planes) == pytest.approx(np.log(2))
    assert plane_counts(np.array([[np.nan, low]]), phi).sum() == 1


def test_contact_map_by_hand(topology, positions):
    truth, made = positions[:1], positions[6:7] * np.float32(1.1)
    trace = {name: p[0, topology.ca_index] for name, p in (("truth", truth), ("made", made))}
    found = {
        name: {
            (i, j)
            for i, j in combinations(range(len(points)), 2)
            if j - i >= 3 and np.linalg.norm(points[i] - points[j]) < 0.8
        }
        for name, points in trace.items()
    }
    shared = len(found["truth"] & found["made"])
    values = judged(topology, truth, made)
    assert 0 < shared < len(found["truth"])
    assert values["contacts_recovered_percent"] == pytest.approx(100 * shared / len(found["truth"]))
    false = 100 * (1 - shared / len(found["made"]))
    assert values["contacts_false_percent"] == pytest.approx(false)


def test_pair_ratios_by_brute_force(topology, positions):
    truth = positions[0]
    made = (truth - truth.mean(0)) * np.float32(0.35)
    near = set(pairs_within_two_bonds(topology))
    n, counts = topology.n_atoms, dict.fromkeys(("within", "severe", "near", "close"), 0)
    for i, j in combinations(range(n), 2):
        if i * n + j in near:
            continue
        distance, true = np.linalg.norm(made[i] - made[j]), np.linalg.norm(truth[i] - truth[j])
        counts["within"] += distance < 0.5
        counts["severe"] += distance < 0.12
        counts["near"] += true < 0.9
        counts["close"] += true < 0.9 and distance < 0.12
    assert counts["severe"] > 0
    values = judged(topology, truth[None], made[None])
    expected = 100 * counts["severe"] / counts["within"]
    assert values["clashing_pairs_severe_percent"] == pytest.approx(expected, rel=1e-3)
    index, links = topology.atom_index, range(1, topology.n_residues)
    across = [np.linalg.norm(made[index[i, "N"]] - made[index[i - 1, "O"]]) < 0.12 for i in links]
    expected = counts["close"] / counts["near"] + np.mean(across)
    ratio = steric_pair_ratio(
        topology, made, close_atoms(made, 0.3), truth, count_pairs(truth, 0.9),
        pairs_within_two_bonds(topology),
    )  # fmt: skip
    assert ratio == pytest.approx(expected, rel=1e-3)
    assert values["steric_pairs_reference_percent"] == pytest.approx(100 * expected, rel=1e-3)


def test_reference_form_of_clashing_residues_leaves_out_the_next_residue(topology, positions):
    index = topology.atom_index
    lysine = topology.sequence.index("LYS")
    n = topology.n_residues
    for target, expected in (((lysine - 1, "O"), 0), ((lysine + 6, "O"), 2)):
        made = positions[:1].copy()
        goal = made[0, index[target]]
        outward = goal - made[0, index[target[0], "C"]]
        made[0, index[lysine, "NZ"]] = goal + 0.1 * outward / np.linalg.norm(outward)
        values = judged(topology, positions[:1], made)
        share = values["residues_clashing_reference_percent"]
        assert share * n / 100 == pytest.approx(expected)
        assert values["residues_clashing_severe_percent"] * n / 100 == pytest.approx(2)


def test_interaction_score_by_hand(topology, positions):
    truth = positions[0]
    elements, names, residue = topology.elements, topology.atom_names, topology.atom_residue
    expected = {
        (i, j)
        for i, j in combinations(range(topology.n_atoms), 2)
        if elements[i] in "NOS" and elements[j] in "NOS" and abs(residue[i] - residue[j]) > 1
        and {names[i], names[j]} - {"N", "CA", "C", "O"}
        and 0.093 < np.linalg.norm(truth[i] - truth[j]) <= 0.33
    }  # fmt: skip
    pairs = interaction_pairs(topology, truth)
    assert {tuple(pair) for pair in pairs[0]} == expected
    assert expected
    assert interaction_score(pairs, truth) == 0
    i, j = next(iter(sorted(expected)))
    lost = (np.array([[i, j]]), pairs[1][:0])
    made = truth.copy()
    made[j] = made[i] + [0, 0.7, 0]
    assert interaction_score(lost, made) == pytest.approx(0.3)
    stacked = np.array([[[0, 1], [2, 3]]])
    rings = np.array([[-0.1, 0, 0], [0.1, 0, 0], [-0.1, 0.8, 0], [0.1, 0.8, 0]])
    assert interaction_score((lost[0][:0], stacked), rings) == pytest.approx(0.2)
    assert np.isnan(interaction_score((lost[0][:0], stacked[:0]), rings))


def test_spread_of_draws_like_the_truth_is_calibrated():
    rng = np.random.default_rng(0)
    draws = rng.normal(0, 0.1, (40, 5, 30, 3))
    truth = rng.normal(0, 0.1, (40, 30, 3))
    ratio = metric("spread_ratio").reduce
    assert ratio(spread_and_error(draws, truth)) == pytest.approx(1, abs=0.03)
    assert ratio(spread_and_error(2 * draws, truth)) > 1.2
    assert ratio(spread_and_error(0.1 * draws, truth)) < 0.15
    assert ratio(spread_and_error(np.repeat(draws[:, :1], 5, 1), truth)) < 1e-9


def test_crps_is_its_definition_and_best_for_the_right_spread():
    rng = np.random.default_rng(1)
    draws, truth = rng.normal(0, 0.1, (30, 6, 20, 3)), rng.normal(0, 0.1, (30, 20, 3))
    apart = np.mean([np.abs(draws[:, i] - draws[:, j]) for i in range(6) for j in range(6)], axis=0)
    expected = np.abs(draws - truth[:, None]).mean(1) - 0.5 * apart * 6 / 5
    np.testing.assert_allclose(crps(draws, truth), expected.mean((1, 2)), rtol=1e-6)
    scores = [crps(scale * draws, truth).mean() for scale in (0.2, 1, 3)]
    assert scores[1] == min(scores)
    assert scores[1] == pytest.approx(0.1 / np.sqrt(np.pi), rel=0.05)


def test_bond_auc_is_the_area_under_the_share_within_a_tolerance():
    rng = np.random.default_rng(2)
    truth = rng.uniform(0.12, 0.16, (3, 50))
    made = truth * rng.normal(1, 0.1, truth.shape)
    tolerances = np.linspace(0, 0.2, 4001)
    share = (np.abs(made / truth - 1)[..., None] <= tolerances).mean(1)
    np.testing.assert_allclose(bond_fraction_auc(made, truth), share.mean(-1), atol=1e-3)


def test_labels_name_the_unit_of_their_metric():
    for item in METRICS:
        for unit in ("Å", "%", "nats"):
            assert item.label.endswith(f"({unit})") == (item.unit == unit), item.name
    assert len({item.name for item in METRICS}) == len(METRICS)
