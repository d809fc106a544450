"""Which steps of a campaign are done, and what undoes them."""

import json
import os

import numpy as np
import pytest
from judged_campaign import LADDER, load_example, write_store

from hpcbackmap.backmapping.driver import backmap
from hpcbackmap.cluster.steps import campaign_steps
from hpcbackmap.config.campaign import Campaign, CgvaeConfig, GenzprotConfig
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.mpi import LocalComm
from hpcbackmap.stages.artifact import save_artifact
from hpcbackmap.stages.build import build_stage
from hpcbackmap.store.store import open_store

MODELS = {
    "ca-fg": GenzprotConfig(width=8, layers=1, neighbours=4),
    "ucg5-ca": CgvaeConfig(width=8, layers=1, latent=2),
}


@pytest.fixture(scope="module")
def folder(example_dir, tmp_path_factory):
    """A store, two stages trained in no time, and what backmapping made of the held-out frames."""
    folder = tmp_path_factory.mktemp("steps")
    topology, positions = load_example(example_dir, 20)
    ladder = build_ladder(topology, LADDER)
    write_store(folder / "frames.zarr", ladder, positions, ["fg", "ca", "ucg5"], {}, {})
    write_store(folder / "other.zarr", ladder, positions[:4], ["fg", "ca", "ucg5"], {"x": 1}, {})
    for name, model in MODELS.items():
        stage = build_stage(name, model, [ladder], 0)
        levels = ladder.coarsen(positions.astype(np.float32))
        save_artifact(stage, folder / "stages" / name / "artifact", {})
        assert stage.fine in levels
    backmap(campaign(folder), LocalComm())
    return folder


def campaign(folder, **sections) -> Campaign:
    return Campaign(
        name="judged",
        workdir=str(folder),
        ladder=LADDER,
        systems=[{"name": "trpcage", "trajectories": ["unused.xtc"]}],
        stages={name: {"model": model.model_dump()} for name, model in MODELS.items()},
        **sections,
    )


def done(given: Campaign) -> dict[str, bool]:
    """Of the trainings and of backmapping; trainings are recorded as they were asked for by `campaign`."""
    from hpcbackmap.training.identity import training_identity

    folder = given.path("")
    store = open_store(folder / "frames.zarr")
    for name in MODELS:
        record = {"identity": training_identity(campaign(folder), name, store), "result": {}}
        path = folder / "stages" / name / "done.json"
        path.write_text(json.dumps(record))
        os.utime(path, (1e9, 1e9))
    return {step.name: step.done for step in campaign_steps(given)}


def test_what_is_asked_for_is_done(folder):
    found = done(campaign(folder))
    assert found["train ca-fg"]
    assert found["train ucg5-ca"]
    assert found["backmap"]


@pytest.mark.parametrize(
    "changed",
    [
        {"frames": "0:2"},
        {"keep": ["fg"]},
        {"input": "other.zarr"},
        {"start": "ca"},
        {"batch_frames": 2},
        {"shard_frames": 3},
        {"members": 2},
        {"seed": 1},
        {"coherence": 3},
    ],
)
def test_another_backmapping_is_not_done(folder, changed):
    if "input" in changed:
        changed = {"input": str(folder / changed["input"])}
    assert not done(campaign(folder, backmap=changed))["backmap"]


def test_what_is_no_longer_asked_for_is_not_done(folder, tmp_path):
    for name in ("frames.zarr", "stages"):
        (tmp_path / name).symlink_to(folder / name)
    coherent = campaign(tmp_path, backmap={"coherence": 3})
    backmap(coherent, LocalComm())
    assert done(coherent)["backmap"]
    assert not done(campaign(tmp_path))["backmap"]


def test_another_stage_undoes_its_backmapping(folder):
    path = folder / "stages" / "ca-fg" / "artifact" / "config.json"
    before = path.read_text()
    path.write_text(before + " ")
    try:
        assert not done(campaign(folder))["backmap"]
    finally:
        path.write_text(before)


@pytest.mark.parametrize(
    "changed",
    [
        {"split": {"validation": 0.2}},
        {"store": {"path": "other.zarr"}},
        {"store": {"budget_mb": 7}},
    ],
)
def test_another_training_is_not_done(folder, changed):
    assert not done(campaign(folder, **changed))["train ca-fg"]


def test_settings_that_only_watch_leave_a_training_done(folder):
    given = campaign(folder)
    stages = {
        name: stage.model_copy(
            update={"train": stage.train.model_copy(update={"log_every": 3, "checkpoint_every": 9})}
        )
        for name, stage in given.stages.items()
    }
    assert done(given.model_copy(update={"stages": stages}))["train ca-fg"]


def test_a_stage_that_started_from_other_weights_is_not_done(folder):
    given = campaign(folder)
    train = given.stages["ca-fg"].train.model_copy(
        update={"init_from": str(folder / "stages/ca-fg/artifact")}
    )
    stages = given.stages | {"ca-fg": given.stages["ca-fg"].model_copy(update={"train": train})}
    found = done(given.model_copy(update={"stages": stages}))
    assert not found["train ca-fg"]
    assert found["train ucg5-ca"]
