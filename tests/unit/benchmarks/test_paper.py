"""Ladders compared in benchmarks/quality/kstep: equal inputs, equal budgets, nothing computed twice."""

import time
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest

from hpcbackmap.config.campaign import Campaign
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from tests.conftest import REPOSITORY
from tests.unit.judged_campaign import load_example


@pytest.fixture
def paper(monkeypatch):
    """Import a module of the benchmark by name."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks" / "quality" / "kstep"))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    return import_module


@pytest.mark.parametrize(
    ("protein", "beads"), [("ped00151", 5), ("adk", 20), ("adk", 50), ("p38", 10)]
)
def test_all_ladders_start_from_the_same_beads_with_the_same_budget(
    paper, tmp_path, protein, beads
):
    ladders = paper("ladders")
    chosen = ladders.PROTEINS[protein]
    topology = topology_from_sequence([("ACDEFGHIKL" * 40)[: chosen.residues]])
    mappings, budgets = [], []
    for steps in ladders.STEPS:
        campaign = ladders.make_campaign(chosen, tmp_path, tmp_path, beads, steps, seconds=60)
        ladder = build_ladder(topology, campaign.ladder)
        assert len(ladder.resolutions) == steps + 1
        mappings.append(ladder.composed(ladder.resolutions[-1]))
        budgets.append(sum(stage.train.max_minutes for stage in campaign.stages.values()))
    assert mappings[0].n_coarse == beads
    for other in mappings[1:]:
        np.testing.assert_array_equal(other.bead, mappings[0].bead)
        np.testing.assert_allclose(other.weight, mappings[0].weight, rtol=0, atol=1e-12)
    np.testing.assert_allclose(budgets, 1.0)


def test_pieces_that_lie_in_two_beads_are_refused(paper, tmp_path):
    ladders = paper("ladders")
    with pytest.raises(ValueError, match="do not nest"):
        ladders.write_bead_mapping(tmp_path / "map.yaml", 46, 7, 5)


def test_the_clock_of_a_training_stands_still_while_the_process_waits(paper):
    clock = paper("training").CpuClock()
    before = clock.monotonic()
    time.sleep(0.3)
    assert clock.monotonic() - before < 0.1
    work(0.2)
    assert clock.monotonic() - before >= 0.2


def test_what_is_charged_is_taken_off_the_first_reading_alone(paper):
    clock = paper("training").CpuClock()
    clock.charge(work)(0.2)
    began = time.process_time()
    assert began - 0.3 < clock.monotonic() <= began - 0.15
    assert clock.monotonic() >= began


def work(seconds):
    """Use so much CPU time."""
    begun = time.process_time()
    while time.process_time() - begun < seconds:
        pass


@pytest.mark.trains
def test_a_training_ends_with_its_cpu_budget_and_is_not_repeated(paper, tmp_path, example_dir):
    ladders, training = paper("ladders"), paper("training")
    campaign = Campaign(
        name="short",
        workdir=str(tmp_path),
        ladder=["fg", "ca", "ucg:5"],
        systems=[
            {
                "name": "trpcage",
                "topology": str(example_dir / "trpcage_top.pdb"),
                "trajectories": [str(example_dir / "trpcage.xtc")],
                "stride": 10,
            }
        ],
        stages={
            "ucg5-ca": {
                "model": {"kind": "cgvae", "width": 8, "layers": 1, "mended": False},
                "train": {"max_minutes": 2 / 60, "max_steps": 10**9, "batch_size": 4},
            }
        },
    )
    from hpcbackmap.ingest.ingest import ingest
    from hpcbackmap.runtime.mpi import get_comm

    ingest(campaign, get_comm())
    cost = training.train_in_process(ladders.write_campaign(campaign), "ucg5-ca")
    assert 2.0 <= cost["budget_cpu_seconds"] < 4.0
    assert cost["budget_cpu_seconds"] < cost["cpu_seconds"]
    assert cost["steps"] > 1
    assert cost["frames_seen"] == 4 * cost["steps"]
    assert cost["peak_mb"] >= cost["libraries_peak_mb"] > 50
    (tmp_path / "campaign.yaml").unlink()
    assert training.train_in_process(tmp_path / "campaign.yaml", "ucg5-ca") == cost


def test_a_stage_from_shipped_weights_has_the_same_budget_and_learns_by_heart(paper, tmp_path):
    ladders = paper("ladders")
    chosen = ladders.PROTEINS["adk"]
    scratch, shipped = (
        ladders.make_campaign(chosen, tmp_path, tmp_path, 10, 2, 30, shipped=each).stages["ca-fg"]
        for each in (False, True)
    )
    assert shipped.train.max_minutes == scratch.train.max_minutes
    assert shipped.model.per_system
    assert shipped.train.init_from
    assert not scratch.train.init_from


def test_rows_that_exist_are_not_computed_again(paper, tmp_path, monkeypatch):
    kstep = paper("kstep")
    case = SimpleNamespace(
        protein=SimpleNamespace(name="x", residues=10),
        beads=5,
        frames=[1, 2],
        training_frames=[0],
        budget=SimpleNamespace(folder=tmp_path),
    )
    computed = []

    def compute(case, name):
        computed.append(name)
        if name == "ridge":
            raise KeyboardInterrupt
        return {"answer": name}

    monkeypatch.setattr(kstep, "compute_row", compute)
    with pytest.raises(KeyboardInterrupt):
        kstep._case_record(case)
    done = computed[:-1]
    monkeypatch.setattr(kstep, "compute_row", lambda case, name: {"answer": "new"})
    rows = kstep._case_record(case)["rows"]
    assert done
    assert [rows[name]["answer"] for name in done] == done
    assert {row["answer"] for name, row in rows.items() if name not in done} == {"new"}


def test_tables_show_what_is_missing_as_missing(paper):
    record = paper("record")
    row = {
        "metrics": {"a": {"value": 1.23456, "interval_95": [1.0, 2.0]}, "b": {"value": None}},
        "energy": "skipped: no openmm",
    }
    shown = [record.cell(row, *at) for at in (("metrics", "a"), ("metrics", "b"), ("energy", "m"))]
    assert shown == ["1.23 [1, 2]", "–", "–"]


@pytest.fixture(scope="module")
def example():
    """Topology and three frames; skips without OpenMM."""
    pytest.importorskip("openmm", reason="OpenMM comes with the examples extra")
    return load_example(REPOSITORY / "examples" / "trpcage", frames=3)


class TestRelaxation:
    """Energies after a restrained minimisation."""

    @pytest.fixture
    def relaxation(self, paper, example):
        return paper("relaxation").Relaxation(example[0], example[1][0])

    def test_a_planted_clash_costs_energy_and_a_rotation_does_not(self, relaxation, example):
        topology, positions = example
        truth = positions[1].astype(np.float64)
        turned = truth @ np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]) + 1.0
        clash = truth.copy()
        far = [topology.atom_index[i, "CB"] for i in (0, 17)]
        clash[far[0]] = clash[far[1]] + 0.03
        energies = relaxation.energies(np.stack([truth, turned, clash]))
        assert abs(energies[1] - energies[0]) < 0.02 * abs(energies[0]) + 20
        assert energies[2] > energies[0] + 500

    def test_coinciding_atoms_are_reported_as_no_number(self, relaxation, example):
        collapsed = np.zeros((1, example[0].n_atoms, 3))
        assert np.isnan(relaxation.energies(collapsed)).all()

    def test_an_added_terminal_oxygen_mirrors_the_other(self, paper):
        relaxation = paper("relaxation")
        topology = topology_from_sequence(["AG"])
        whole = np.random.default_rng(0).normal(size=(1, topology.n_atoms, 3))
        bare = relaxation.replace(topology, has_oxt=(False, False))
        heavy = whole[
            :, [whole_i for key, whole_i in topology.atom_index.items() if key[1] != "OXT"]
        ]
        filled = relaxation.add_terminal_oxygens(bare, heavy)[0]
        ca, c, o, oxt = (filled[topology.atom_index[1, name]] for name in ("CA", "C", "O", "OXT"))
        np.testing.assert_allclose(np.linalg.norm(oxt - c), np.linalg.norm(o - c))
        np.testing.assert_allclose((oxt - c) @ (ca - c), (o - c) @ (ca - c))
        assert abs(np.linalg.det([ca - c, o - c, oxt - c])) < 1e-9
        assert np.linalg.norm(oxt - o) > 0.1


def test_kstep_without_data_says_what_to_set(paper, monkeypatch, tmp_path):
    monkeypatch.delenv("HPCBACKMAP_DATA", raising=False)
    monkeypatch.setattr("sys.argv", ["kstep.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="HPCBACKMAP_DATA"):
        paper("kstep").main()
    assert not list(tmp_path.iterdir())
