"""Ladders of benchmarks/quality/kstep_unseen: equal beads and budgets, exact densities, paired gaps."""

import math
from importlib import import_module

import numpy as np
import pytest
import torch

from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.ladder_volume import ladder_log_volume
from tests.conftest import REPOSITORY

SEQUENCE = ("MKTAYIAKQRWQISFVKSHFGSPDLNECYH" * 3)[:77]


@pytest.fixture(autouse=True)
def unseen(monkeypatch):
    """Import a module of the benchmark by name."""
    for folder in ("quality/kstep", "quality/kstep_unseen", "recipes"):
        monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks" / folder))
    return import_module


@pytest.fixture
def chain(unseen):
    topology = topology_from_sequence([SEQUENCE])
    rng = np.random.default_rng(0)
    trace = np.cumsum(rng.normal(size=(len(SEQUENCE), 3)) * 0.22, 0)
    atoms = trace[topology.atom_residue] + 0.1 * rng.normal(size=(topology.n_atoms, 3))
    return unseen("chains").Chain("x", "c", topology, atoms.astype(np.float32))


@pytest.mark.parametrize("top", [10, 20])
def test_ladders_from_the_same_beads_open_the_same_directions(unseen, chain, top):
    nested = unseen("nested")
    beads, freedom = [], []
    for road, names in nested.ROADS.items():
        if not road.startswith(str(top)):
            continue
        ladder = nested.ladder_of(chain.topology, top, names)
        levels = ladder.coarsen(chain.atoms)
        beads.append(levels[names[-1]])
        rungs = [(levels[fine], levels[coarse]) for coarse, fine in nested.rungs_of(road)]
        assert len(rungs) == int(road[-1])
        freedom.append(sum(3 * (len(fine) - len(coarse)) for fine, coarse in rungs))
    for other in beads[1:]:
        np.testing.assert_allclose(other, beads[0], atol=1e-6)
    assert len(set(freedom)) == 1


def test_rungs_share_a_training_only_where_budget_and_beads_are_the_same(unseen, tmp_path):
    main, nested = unseen("kstep_unseen"), unseen("nested")
    seen = {}
    for road in nested.ROADS:
        rungs = nested.rungs_of(road)
        for rung in rungs:
            where = main.rung_folder(tmp_path, road, *rung, minutes=10)
            seconds = 600 / len(rungs)
            assert seen.setdefault(where, (rung, seconds))[1] == seconds
    assert len(seen) == sum(len(nested.rungs_of(road)) for road in nested.ROADS) - 1


def test_atoms_at_once_keep_beads_order_and_handedness(unseen, chain):
    rungs, nested = unseen("rungs"), unseen("nested")
    torch.manual_seed(0)
    stage = rungs.new_stage("ucg10", "fg").eval()
    fine, coarse, system = rungs.describe(stage, chain, 10)
    again = stage.placed(fine[:, :, 1], stage.seen(fine, system), system)[:, system.there]
    np.testing.assert_allclose(again[0], chain.atoms, atol=1e-5)

    stage.calibrate(fine, coarse, system)
    noise = torch.randn(1, coarse.shape[1], stage.noise_width)
    turn = torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    with torch.no_grad():
        made, turned, mirrored = (
            stage.samples(x, system, [noise])[0] for x in (coarse, coarse @ turn, -coarse)
        )
    ladder = nested.ladder_of(chain.topology, 10, ("fg", "ucg10"))
    np.testing.assert_allclose(ladder.coarsen(made.numpy())["ucg10"], coarse, atol=1e-4)
    np.testing.assert_allclose(turned, made @ turn, atol=1e-3)
    assert (mirrored + made).abs().max() > 0.01


def test_halves_keep_their_beads_and_are_counted_in_the_free_directions(unseen, chain):
    rungs, nested = unseen("rungs"), unseen("nested")
    torch.manual_seed(0)
    stage = rungs.new_stage("ucg10", "ucg5").eval()
    described = rungs.describe(stage, chain, 10)
    ladder = nested.ladder_of(chain.topology, 10, ("fg", "ca", "ucg5", "ucg10"))
    _, coarse, system = described
    noise = torch.randn(1, coarse.shape[1], stage.noise_width)
    with torch.no_grad():
        made = stage.samples(coarse, system, [noise])[0]
        best = stage.log_weight(made, coarse, system, noise)
        log_spread = stage.network.spread(stage.network.context(coarse, system), system)
    np.testing.assert_allclose(ladder.mappings[2].apply(made.numpy()), coarse, atol=1e-5)
    expected = -3 * (log_spread + 0.5 * math.log(2 * math.pi)).sum()
    torch.testing.assert_close(best.sum(), expected, rtol=1e-4, atol=1e-2)
    fine, coarse, system = ([x, x] for x in described)
    twice = stage.log_weight(
        torch.cat(fine, 1), torch.cat(coarse, 1), collate(system), torch.cat([noise, noise], 1)
    )
    torch.testing.assert_close(twice[0, 0], twice[0, 1])


def test_nats_of_two_rungs_are_those_of_their_product(unseen, chain, monkeypatch):
    """A Gaussian of halves times one of the trace is a Gaussian of the trace, whatever lies between."""
    roads, nested = unseen("roads"), unseen("nested")
    ladder = nested.ladder_of(chain.topology, 10, nested.ROADS["10-3"])
    halves, trace = ladder.mappings[2], ladder.mappings[1]
    levels = ladder.coarsen(chain.atoms.astype(np.float64))
    beads, x5, ca = (levels[name] for name in ("ucg10", "ucg5", "ca"))
    sizes = np.bincount(trace.bead)
    whole = np.sum((ca - beads[halves.bead[trace.bead]]) ** 2)
    inside = np.sum((ca - x5[trace.bead]) ** 2)
    between = np.sum(sizes[:, None] * (x5 - beads[halves.bead]) ** 2)
    np.testing.assert_allclose(whole, inside + between)
    free = 3 * (len(ca) - len(beads))
    direct = -0.5 * whole - 0.5 * free * math.log(2 * math.pi)
    first = -0.5 * inside - 1.5 * (len(ca) - len(x5)) * math.log(2 * math.pi)
    # the halves of a bead are normal with variances 1 / sizes, given that their mean is the bead
    second = 0.0
    for bead in range(len(beads)):
        own = np.flatnonzero(halves.bead == bead)
        n = sizes[own].sum()
        direction = np.array([n / sizes[own][0], -n / sizes[own][1]])
        along = direction / np.linalg.norm(direction)
        variance = 1 / (sizes[own] * along**2).sum()
        gap = along @ (x5[own] - beads[bead])
        second += (-0.5 * gap**2 / variance - 0.5 * math.log(2 * math.pi * variance)).sum()
    total = first + second - ladder_log_volume(ladder).sum()
    np.testing.assert_allclose(total, direct)

    class Fixed:
        elbo_noise = 1

        def __init__(self, name, nats):
            self.name, self.nats = name, nats

        def log_weight(self, *_):
            return torch.tensor([[self.nats]])

    monkeypatch.setattr(roads, "describe", lambda *_: (None, torch.zeros(1, 3, 3), None))
    stages = [Fixed("ucg10-ucg5", second), Fixed("ucg5-ca", first), Fixed("ca-fg", 0.0)]
    found = roads.nats_of(stages, chain, "10-3", 0)
    np.testing.assert_allclose(found["elbo"], direct / len(ca), rtol=1e-5)


def test_gaps_are_of_the_same_chains_and_skip_what_is_missing(unseen):
    paired = unseen("paired")
    rng = np.random.default_rng(0)
    chains = [
        {
            "10-1": {"lddt": [level, level], "cpu_ms": [1.0]},
            "10-2": {"lddt": [level + 1, level + 3], "cpu_ms": [1.0]},
            "truth": {},
        }
        for level in rng.normal(size=40) * 10
    ]
    chains[3]["10-1"]["lddt"] = [None, None]
    gap = paired.gaps_of(chains, "10-1")["10-2"]["lddt"]
    np.testing.assert_allclose(gap, (2, 2, 2), atol=1e-9)
    assert "10-1" not in paired.gaps_of(chains, "10-1")
    table = paired.table_of(chains)
    assert table["10-2"]["lddt"].high - table["10-2"]["lddt"].low > 1


def test_a_folder_of_other_settings_is_refused(unseen, tmp_path, monkeypatch):
    main = unseen("kstep_unseen")
    monkeypatch.setenv("HPCBACKMAP_DATA", str(tmp_path))
    (tmp_path / "settings.json").write_text("{}")
    monkeypatch.setattr("sys.argv", ["kstep_unseen.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="other settings"):
        main.main()
