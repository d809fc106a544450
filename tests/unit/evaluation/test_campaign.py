"""The judge: every measure against a planted defect or an independent calculation."""

import json

import mdtraj
import numpy as np
import pytest
from judged_campaign import judged, load_example, make_campaign

from hpcbackmap.evaluation.baselines import nearest_training_frames
from hpcbackmap.evaluation.campaign import (
    evaluate_campaign,
    evaluate_files,
    five_figures,
    open_sources,
)
from hpcbackmap.evaluation.files import evaluate_structures
from hpcbackmap.evaluation.record import find_row, validation_lines
from hpcbackmap.metrics.close_pairs import pair_keys, pairs_within_two_bonds
from hpcbackmap.metrics.divergence import ANGLE_BINS, angle_counts, jensen_shannon
from hpcbackmap.metrics.judge import METRICS, judge, metric
from hpcbackmap.metrics.radius_of_gyration import radius_of_gyration
from hpcbackmap.metrics.rmsd import aligned_rmsd, pairwise_rmsd, rmsd
from hpcbackmap.protein.torsions import dihedrals, torsion_atoms
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.errors import InputError, OutputError
from hpcbackmap.runtime.mpi import LocalComm

TURN = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


@pytest.fixture(scope="module")
def example(example_dir):
    return load_example(example_dir)


def as_mdtraj(topology, positions):
    return mdtraj.Trajectory(positions, topology.to_mdtraj())


def test_rmsd_agrees_with_mdtraj_and_never_mirrors(topology, positions):
    mobile, target = positions[:6], positions[[0] * 6]
    expected = mdtraj.rmsd(as_mdtraj(topology, mobile), as_mdtraj(topology, target[:1]))
    np.testing.assert_allclose(aligned_rmsd(mobile, target), expected, atol=1e-5)
    np.testing.assert_allclose(pairwise_rmsd(mobile, target[:1])[:, 0], expected, atol=1e-5)

    moved = mobile @ TURN + [3.0, -2.0, 1.0]
    assert aligned_rmsd(moved, mobile).max() < 1e-6
    np.testing.assert_allclose(rmsd(mobile + [0.3, 0.0, 0.4], mobile), 0.5, rtol=1e-5)
    mirrored = mobile * [1, 1, -1]
    assert aligned_rmsd(mirrored, mobile).min() > 0.1
    assert pairwise_rmsd(mirrored, mobile).min() > 0.1


def test_rmsd_of_backbone_and_side_chains_by_hand(topology, positions):
    truth = positions[:1]
    tips = [i for i, name in enumerate(topology.atom_names) if name in ("CZ", "NZ")]
    moved = truth.copy()
    moved[:, tips] += [0.0, 0.0, 0.2]
    values = judged(topology, truth, moved)
    side = [name not in ("N", "CA", "C", "O", "OXT") for name in topology.atom_names]
    assert values["rmsd_backbone_angstrom"] == 0
    expected = 2 * np.sqrt(len(tips) / sum(side))
    assert values["rmsd_side_chain_angstrom"] == pytest.approx(expected, rel=1e-4)


def test_torsions_agree_with_mdtraj(topology, positions):
    trajectory = as_mdtraj(topology, positions)
    for kind, compute in (
        ("phi", mdtraj.compute_phi),
        ("psi", mdtraj.compute_psi),
        ("omega", mdtraj.compute_omega),
        ("chi1", mdtraj.compute_chi1),
    ):
        atoms, _ = torsion_atoms(topology, kind)
        theirs_atoms, theirs = compute(trajectory)
        order = np.lexsort(theirs_atoms.T[::-1])
        ours = dihedrals(positions, atoms)[:, np.lexsort(atoms.T[::-1])]
        np.testing.assert_array_equal(np.sort(atoms.ravel()), np.sort(theirs_atoms.ravel()))
        turn = np.angle(np.exp(1j * (ours - theirs[:, order])))
        np.testing.assert_allclose(turn, 0, atol=2e-3)


def test_radius_of_gyration_is_the_spread_of_all_pairs(topology, positions):
    share = topology.masses / topology.masses.sum()
    squares = ((positions[:, :, None] - positions[:, None]) ** 2).sum(-1)
    expected = np.sqrt(np.einsum("fij,i,j->f", squares, share, share) / 2)
    np.testing.assert_allclose(radius_of_gyration(topology, positions), expected, rtol=1e-5)
    unweighted = mdtraj.compute_rg(as_mdtraj(topology, positions))
    np.testing.assert_allclose(expected, unweighted, rtol=0.02)


def test_the_truth_itself_has_no_error(topology, positions):
    values = judged(topology, positions, positions)
    compared = {m.name for m in METRICS if m.compares and m.name in values}
    whole = ("lddt", "lddt_ca", "bond_fraction_auc")
    complete = (
        "bond_graph_exact_percent", "contacts_recovered_percent", "secondary_structure_percent",
        "helix_recovered_percent", "chi1_right_percent", "chi12_right_percent",
    )  # fmt: skip
    perfect = dict.fromkeys(whole, 1.0) | dict.fromkeys(complete, 100.0)
    for name in compared:
        assert values[name] == pytest.approx(perfect.get(name, 0.0), abs=1e-5), name
    for name in (
        "d_residues_percent",
        "cis_peptide_bonds_per_structure",
        "clashes_per_100_residues",
    ):
        assert values[name] == 0


def test_a_broken_and_a_false_bond_cancel_only_in_the_net_count(topology, positions):
    truth = positions[:1]
    n_bonds = len(topology.bonds)
    tip = topology.atom_index[topology.sequence.index("LYS"), "NZ"]
    away = truth.copy()
    away[0, tip] += [20.0, 0.0, 0.0]
    values = judged(topology, truth, away)
    assert values["bond_graph_ged"] == pytest.approx(1 / n_bonds)
    assert values["bond_graph_net_ratio"] == pytest.approx(1 / n_bonds)
    assert values["bonds_off_percent"] == pytest.approx(100 / n_bonds)

    outermost = np.linalg.norm(truth[0] - truth[0].mean(0), axis=1).argmax()
    outward = truth[0, outermost] - truth[0].mean(0)
    away[0, tip] = truth[0, outermost] + 0.15 * outward / np.linalg.norm(outward)
    values = judged(topology, truth, away)
    assert values["bond_graph_ged"] >= 2 / n_bonds
    assert values["bond_graph_net_ratio"] < values["bond_graph_ged"]


def test_a_planted_clash_is_counted_once_and_bonded_atoms_never(topology, positions):
    truth = positions[:1]
    tip = topology.atom_index[topology.sequence.index("LYS"), "NZ"]
    outermost = max(
        (
            i
            for i in range(topology.n_atoms)
            if topology.atom_residue[i] != topology.atom_residue[tip]
        ),
        key=lambda i: np.linalg.norm(truth[0, i] - truth[0].mean(0)),
    )
    outward = truth[0, outermost] - truth[0].mean(0)
    for gap, severe in ((0.11, 1), (0.13, 0)):
        clashing = truth.copy()
        clashing[0, tip] = truth[0, outermost] + gap * outward / np.linalg.norm(outward)
        rows = judge(topology, truth, clashing[:, None])
        n = topology.n_residues
        count = rows["clashes_severe_per_100_residues"][0, 0] * n / 100
        assert count == pytest.approx(severe)
        share = rows["residues_clashing_severe_percent"][0, 0]
        assert share == pytest.approx(100 * 2 * severe / n)
        assert rows["clashes_per_100_residues"][0, 0] * n / 100 >= 1 - 1e-9


def test_atoms_up_to_two_bonds_apart_do_not_clash(topology):
    near = pairs_within_two_bonds(topology)
    index = topology.atom_index

    def apart(first, second):
        pair = np.array([sorted((index[first], index[second]))])
        return not np.isin(pair_keys(pair, topology.n_atoms), near)[0]

    assert not apart((4, "N"), (4, "CA"))
    assert not apart((4, "N"), (4, "C"))
    assert not apart((4, "CA"), (5, "N"))
    assert apart((4, "N"), (4, "O"))
    assert apart((4, "CA"), (5, "CA"))


def test_mirrored_residues_are_d(topology, positions):
    truth = positions[:3]
    assert judged(topology, truth, truth * [1, 1, -1])["d_residues_percent"] == 100
    assert judged(topology, truth, truth * [1, 1, -1])["cb_inverted_percent"] == 100
    index = topology.atom_index
    residue = topology.sequence.index("ASP")
    one = truth.copy()
    ca, n, c, cb = (one[:, index[residue, name]] for name in ("CA", "N", "C", "CB"))
    normal = np.cross(n - ca, c - ca)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    height = ((cb - ca) * normal).sum(-1, keepdims=True)
    one[:, index[residue, "CB"]] = cb - 2 * height * normal
    chiral = sum(name != "GLY" for name in topology.sequence)
    assert judged(topology, truth, one)["d_residues_percent"] == pytest.approx(100 / chiral)


def test_a_turned_and_a_stretched_peptide_bond(topology, positions):
    truth = positions[:1]
    links = sum(topology.bonded)
    residue = 10
    carbon = truth[0, topology.atom_index[residue - 1, "C"]]
    nitrogen = truth[0, topology.atom_index[residue, "N"]]
    axis = (nitrogen - carbon) / np.linalg.norm(nitrogen - carbon)
    after = topology.atom_residue >= residue
    cis = truth.copy()
    from_carbon = truth[0, after] - carbon
    cis[0, after] = carbon + 2 * (from_carbon @ axis)[:, None] * axis - from_carbon  # half a turn
    values = judged(topology, truth, cis)
    assert values["cis_peptide_bonds_per_structure"] == 1
    assert values["omega_nonplanar_percent"] == pytest.approx(100 / links)
    assert values["peptide_bonds_off_percent"] == 0
    assert values["ca_ca_off_percent"] == pytest.approx(100 / links)

    stretched = truth.copy()
    stretched[0, after] += 0.025 * axis
    values = judged(topology, truth, stretched)
    assert values["peptide_bonds_off_percent"] == pytest.approx(100 / links)
    assert values["cis_peptide_bonds_per_structure"] == 0


def test_jensen_shannon_known_values():
    first, second = np.zeros(ANGLE_BINS), np.zeros(ANGLE_BINS)
    first[0], second[1] = 5, 3
    assert jensen_shannon(first, second) == pytest.approx(np.log(2))
    assert jensen_shannon(first, 7 * first) == 0
    both = first / 5 + second / 3
    expected = 0.5 * np.log(4 / 3) + 0.25 * np.log(2 / 3) + 0.25 * np.log(2)
    assert jensen_shannon(first, both) == pytest.approx(expected)
    counts = angle_counts(np.array([[np.pi, -np.pi, np.nan, 0.01]]))
    assert counts[0, 0] == 2
    assert counts[0, ANGLE_BINS // 2] == 1
    assert counts.sum() == 3


def test_bead_error_is_the_displacement_of_the_worst_bead(topology, positions):
    ladder = build_ladder(topology, ["fg", "ca", "ucg:5"])
    beads = ladder.coarsen(positions[:2])["ucg5"]
    moved = positions[:2].copy()
    first_bead = ladder.mappings[1].bead == 0
    moved[1, topology.ca_index[first_bead]] += [0.0, 0.03, 0.04]
    rows = judge(topology, positions[:2], moved[:, None], ladder, beads)
    np.testing.assert_allclose(rows["bead_error_angstrom"][:, 0], [0, 0.5], atol=1e-5)


def test_bead_centres_have_no_handedness_and_no_torsions(topology, positions):
    ladder = build_ladder(topology, ["fg", "ca", "ucg:5"])
    beads = ladder.coarsen(positions)["ucg5"]
    collapsed = beads[:, ladder.composed("ucg5").bead]
    values = judged(topology, positions, collapsed, ladder=ladder, beads=beads)
    assert values["flat_residues_percent"] == 100
    assert np.isnan(values["d_residues_percent"])
    assert np.isnan(values["phi_jsd_nats"])
    assert values["bead_error_angstrom"] < 1e-4
    assert values["peptide_bonds_off_percent"] > 50


def test_diversity_is_one_for_copies_and_zero_for_draws_like_the_truth(topology, positions):
    rng = np.random.default_rng(0)
    truth = positions[:8]
    noise = rng.normal(0, 0.01, (4, *truth.shape))
    copies = np.repeat((truth + noise[0])[:, None], 3, axis=1)
    rows = judge(topology, truth, copies)
    assert metric("diversity").reduce(rows["diversity"]) == pytest.approx(1, abs=1e-4)
    exchangeable = np.moveaxis(truth + noise[1:], 0, 1)
    rows = judge(topology, truth + noise[0], exchangeable)
    assert metric("diversity").reduce(rows["diversity"]) == pytest.approx(0, abs=0.03)


def noisy(truth, member):
    rng = np.random.default_rng(member)
    return truth + rng.normal(0, 0.02, truth.shape)


def test_campaign_is_judged_beside_its_baselines(tmp_path, topology, positions):
    campaign = make_campaign(tmp_path, topology, positions, noisy)
    record = evaluate_campaign(campaign, LocalComm())
    assert record == json.loads((tmp_path / "metrics.json").read_text())
    assert [row["row"] for row in record["rows"]] == [
        "model", "nearest_training_frame", "bead_centre", "truth",
    ]  # fmt: skip
    assert record["what"] == record["rows"][0]["what"] == "prior samples, held-out frames"
    assert record["n_frames"] == {"trpcage": 8}
    assert record["members"] == 2

    model = find_row(record["rows"], "model")["metrics"]
    assert model["rmsd_angstrom"]["value"] == pytest.approx(0.2 * np.sqrt(3), rel=0.03)
    low, high = model["rmsd_angstrom"]["interval_95"]
    assert low <= model["rmsd_angstrom"]["value"] <= high
    nearest = find_row(record["rows"], "nearest_training_frame")["metrics"]
    assert nearest["bond_graph_ged"]["value"] < 0.01
    assert nearest["rmsd_aligned_angstrom"]["value"] > 0.2, "a test frame answered for itself"
    assert (
        find_row(record["rungs"][0]["rows"], "model")["metrics"]["rmsd_aligned_angstrom"]["value"]
        > 0
    )
    assert len(five_figures(record)) == 5
    assert "ours" in str(five_figures(record)[0])


def test_a_perfect_answer_scores_perfectly(tmp_path, topology, positions):
    campaign = make_campaign(tmp_path, topology, positions, lambda truth, member: truth)
    model = find_row(evaluate_campaign(campaign, LocalComm())["rows"], "model")["metrics"]
    for name in ("rmsd_angstrom", "bond_graph_ged", "ramachandran_jsd_nats", "bead_error_angstrom"):
        assert model[name]["value"] == pytest.approx(0, abs=1e-4), name


def test_nearest_frame_is_a_training_frame_and_the_best_one(tmp_path, topology, positions):
    campaign = make_campaign(tmp_path, topology, positions, noisy)
    sources = open_sources(campaign)
    ladder = sources.truth.system("trpcage").ladder
    beads = ladder.coarsen(positions)["ucg5"]
    nearest = nearest_training_frames(sources.own, sources.ranges["train"], "trpcage", beads)
    trained = range(sources.ranges["train"][0].stop)
    assert set(nearest) <= set(trained)
    np.testing.assert_array_equal(nearest[: len(trained)], trained)
    distances = pairwise_rmsd(beads, beads[: len(trained)])
    np.testing.assert_array_equal(nearest, distances.argmin(1))


def test_frames_that_were_trained_on_are_refused(tmp_path, topology, positions):
    campaign = make_campaign(tmp_path, topology, positions, noisy, source=[3, 39])
    with pytest.raises(
        InputError, match=r"1 of 2 frames of system trpcage are not held-out.*first: 3"
    ):
        evaluate_campaign(campaign, LocalComm())
    assert not (tmp_path / "metrics.json").exists()


def test_frames_that_were_given_up_are_left_out_and_counted(tmp_path, topology, positions):
    def broken(truth, member):
        answer = noisy(truth, member)
        answer[1] = np.nan
        return answer

    record = evaluate_campaign(make_campaign(tmp_path, topology, positions, broken), LocalComm())
    assert record["n_frames_given_up"] == 1
    model = find_row(record["rows"], "model")["metrics"]
    assert model["rmsd_angstrom"]["value"] == pytest.approx(0.2 * np.sqrt(3), rel=0.03)


def test_metrics_that_cannot_be_written_leave_nothing(tmp_path, topology, positions):
    campaign = make_campaign(tmp_path, topology, positions, noisy)
    (tmp_path / "metrics.json").mkdir()
    with pytest.raises(OutputError, match=r"metrics\.json: Is a directory"):
        evaluate_campaign(campaign, LocalComm())
    assert not list(tmp_path.glob(".metrics*"))


@pytest.fixture(scope="module")
def files(tmp_path_factory, topology, positions):
    """truth.pdb, and a good answer with its atoms in another order."""
    folder = tmp_path_factory.mktemp("files")
    truth = as_mdtraj(topology, positions[:4])
    truth.save(str(folder / "truth.pdb"))
    shuffled = mdtraj.Topology()
    chain, order = shuffled.add_chain(), []
    for residue in truth.topology.residues:
        added = shuffled.add_residue(residue.name, chain, resSeq=residue.resSeq)
        for atom in reversed(list(residue.atoms)):
            shuffled.add_atom(atom.name, atom.element, added)
            order.append(atom.index)
    mdtraj.Trajectory(truth.xyz[:, order], shuffled).save(str(folder / "shuffled.pdb"))
    return folder


def test_atoms_are_matched_by_name_not_by_order(files):
    record = evaluate_files(files / "truth.pdb", files / "shuffled.pdb")
    generated = find_row(record["rows"], "model")["metrics"]
    assert generated["rmsd_angstrom"]["value"] < 1e-4
    assert generated["bonds_off_percent"]["value"] == 0
    assert find_row(record["rows"], "truth")
    assert record["n_frames"] == 4


def test_members_of_one_file_and_of_several_are_judged_alike(files, topology, positions, tmp_path):
    noise = 0.03 * np.random.default_rng(0).normal(size=(4, 2, topology.n_atoms, 3))
    members = positions[:4, None] + noise
    paths = [tmp_path / f"member{m}.pdb" for m in range(2)]
    for m, path in enumerate(paths):
        as_mdtraj(topology, members[:, m]).save(str(path))
    as_mdtraj(topology, members.reshape(8, -1, 3)).save(str(tmp_path / "both.pdb"))
    several = evaluate_files(files / "truth.pdb", paths)
    one = evaluate_files(files / "truth.pdb", tmp_path / "both.pdb")
    assert several["rows"] == one["rows"]
    assert several["members"] == one["members"] == 2
    spread = find_row(one["rows"], "model")["metrics"]["spread_ratio"]["value"]
    assert spread is not None
    assert "diversity" in find_row(one["rows"], "model")["metrics"]


def test_members_are_found_by_the_name_of_the_run_with_their_topology(
    files, topology, positions, tmp_path
):
    for member in (1, 2):
        as_mdtraj(topology, positions[:4]).save(str(tmp_path / f"made_{member}.xtc"))
    as_mdtraj(topology, positions[:1]).save(str(tmp_path / "made_top.pdb"))
    record = evaluate_files(files / "truth.pdb", tmp_path / "made.xtc")
    assert record["members"] == 2
    lines = validation_lines(record)
    assert any(line.startswith("Rotamer outliers (%)") and "members" in line for line in lines)
    alone = evaluate_structures(tmp_path / "made.xtc")
    assert [row["label"] for row in alone["rows"]] == ["made_1.xtc", "made_2.xtc"]


def test_structures_alone_have_what_needs_no_truth(files):
    alone = evaluate_structures(files / "truth.pdb")
    beside = evaluate_files(files / "truth.pdb", files / "truth.pdb")
    (row,) = alone["rows"]
    assert row["metrics"] == find_row(beside["rows"], "truth")["metrics"]
    assert {"clashscore", "rotamer_outliers_percent"} <= row["metrics"].keys()


def test_files_that_do_not_match_say_what_differs(files, topology, positions):
    truth = as_mdtraj(topology, positions[:4])

    def save(name, trajectory):
        trajectory.save(str(files / name))
        return files / name

    with pytest.raises(InputError, match=r"short\.pdb has 3 frames, .*truth\.pdb has 4"):
        evaluate_files(files / "truth.pdb", save("short.pdb", truth[:3]))
    fewer = truth.atom_slice(truth.topology.select("resid 0 to 18"))
    with pytest.raises(InputError, match=r"has 19 residues, .* has 20"):
        evaluate_files(files / "truth.pdb", save("fewer.pdb", fewer))
    headless = truth.atom_slice(truth.topology.select("not name OXT"))
    with pytest.raises(InputError, match=r"terminal oxygens \(OXT\), first at residue 20: A:SER20"):
        evaluate_files(files / "truth.pdb", save("headless.pdb", headless))
    mutant = (files / "truth.pdb").read_text().replace("SER A  14", "CYS A  14")
    (files / "mutant.pdb").write_text(mutant.replace(" OG  CYS", " SG  CYS"))
    with pytest.raises(InputError, match="sequence, first at residue 14: A:CYS14 and A:SER14"):
        evaluate_files(files / "truth.pdb", files / "mutant.pdb")
    with pytest.raises(InputError, match=r"nothing\.pdb: no such file"):
        evaluate_files(files / "truth.pdb", files / "nothing.pdb")


@pytest.mark.parametrize(
    ("suffix", "factor", "guess"),
    [
        ("pdb", 10, "ten times too large: .pdb is in Angstrom; divide them by ten"),
        ("dcd", 0.1, "seems to be in nm; convert it to Angstrom"),
        ("xtc", 10, "seems to be in Angstrom; convert it to nm"),
        ("xtc", 0.1, "ten times too small: .xtc is in nm; multiply them by ten"),
    ],
)
def test_wrong_units_are_told_by_the_unit_of_the_format(
    files, topology, positions, suffix, factor, guess
):
    path = files / f"scaled.{suffix}"
    as_mdtraj(topology, factor * positions[:4]).save(str(path))
    with pytest.raises(InputError, match=rf"scaled\.{suffix}: bonds are ten times off: .*{guess}"):
        evaluate_files(files / "truth.pdb", path, generated_top=files / "truth.pdb")
