"""Runs that share one output."""

from dataclasses import replace

import mdtraj
import numpy as np
import pytest
import torch
from calpha_campaign import example_calphas, ingested

from hpcbackmap.backmapping import driver
from hpcbackmap.backmapping.chain import Chains
from hpcbackmap.backmapping.source import read_coarse
from hpcbackmap.config.campaign import GenzprotConfig
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.mpi import LocalComm
from hpcbackmap.stages.build import build_stage
from hpcbackmap.store.export import export
from hpcbackmap.store.store import open_store


def test_a_run_that_comes_second_takes_the_sizes_of_the_first(example_dir, tmp_path, monkeypatch):
    """Tasks of a job array start together, each measures, and all but one find a plan that is not theirs."""
    campaign = ingested(example_calphas(example_dir), tmp_path, members=1, batch_frames=1)
    create = driver.create_output

    def after_another_run(campaign, plan, *where):
        create(campaign, replace(plan, shard_frames=plan.shard_frames + 1), *where)
        create(campaign, plan, *where)

    monkeypatch.setattr(driver, "create_output", after_another_run)
    found = driver.backmap(campaign, LocalComm(), part=(0, 1))
    assert (found["structures"], found["shards_missing"]) == (4, 0)


def test_frames_of_a_store_bring_their_box(example_dir, tmp_path):
    calpha = example_calphas(example_dir)
    calpha.unitcell_vectors = np.tile(np.diag([3.0, 4.0, 5.0]), (4, 1, 1))
    campaign = ingested(calpha, tmp_path, members=1)
    (system,) = (open_store(tmp_path / "frames.zarr").system(name) for name in ("s",))
    given = read_coarse(system, "ca", [0, 2]).given
    assert given.cells[0].tolist() == np.diag([3.0, 4.0, 5.0]).tolist()
    made = driver.backmap(campaign, LocalComm())
    assert made["structures"] == 4
    rows = open_store(made["output"]).system("s").read_cells_at([1, 3])
    assert rows.tolist() == [np.diag([3.0, 4.0, 5.0]).tolist()] * 2
    export(open_store(made["output"]), "fg", tmp_path / "made.dcd")
    found = mdtraj.load(str(tmp_path / "made.dcd"), top=str(tmp_path / "made_top.pdb"))
    np.testing.assert_allclose(found.unitcell_lengths, [[3.0, 4.0, 5.0]] * 4, atol=1e-5)


def test_chains_are_made_when_a_system_is_met():
    ladders = {
        name: build_ladder(topology_from_sequence([letters]), ["fg", "ca"])
        for name, letters in {"a": "ACDEF", "b": "GHIKLM"}.items()
    }
    stage = build_stage("ca-fg", GenzprotConfig(width=8, layers=1), list(ladders.values()), 0)
    described, describe = [], stage.describe
    stage.describe = lambda ladder: described.append(ladder) or describe(ladder)
    chains = Chains([stage], ladders.__getitem__, ladders, torch.device("cpu"))
    assert list(chains) == ["a", "b"]
    assert described == []
    assert chains["b"] is chains["b"]
    assert described == [ladders["b"]]


def test_a_molecule_that_does_not_fit_is_named_before_anything_is_made():
    fits = build_ladder(topology_from_sequence(["ACDEF"]), ["fg", "ca"])
    other = build_ladder(topology_from_sequence(["ACDEF"]), ["fg", "com"])
    stage = build_stage("ca-fg", GenzprotConfig(width=8, layers=1), [fits], 0)
    ladders = {"a": fits, "b": other}
    with pytest.raises(InputError, match="system b: "):
        Chains([stage], ladders.__getitem__, ladders, torch.device("cpu"))
