"""Nothing is lost: resumed trainings repeat the undisturbed one, on any number of ranks, whatever broke."""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import torch
from forked import Forked
from many_runs import CHAINS, COMPLETE, FULL, SAME, STEPS, WHOLE
from runs import (
    STAGE,
    TORCHRUN,
    alone,
    assert_close,
    curve,
    finish,
    records,
    stage_folder,
    start,
    wait_for,
)

from hpcbackmap.cli.app import main
from hpcbackmap.runtime.errors import ConfigError, InputError, OutputError

HERE = Path(__file__).parent
KILLS = HERE.parents[1] / "benchmarks" / "robustness" / "kill_training.py"


@pytest.fixture(scope="module")
def many(example, tmp_path_factory) -> Path:
    return run_many("some", example, tmp_path_factory.mktemp("many"))


def run_many(which: str, example: list[str], folder: Path) -> Path:
    words = [HERE / "many_runs.py", folder, which, *example]
    finish(Forked(words, os.environ), timeout=550)
    return folder


def frames(folder: Path, name: str) -> list[list[int]]:
    """Frames of every step over all ranks and micro-batches, sorted."""
    steps: dict[int, list[int]] = {}
    for path in sorted(folder.glob(f"{name}.frames*.jsonl")):
        for line in path.read_text().splitlines():
            step, read = json.loads(line)
            steps.setdefault(step, []).extend(read)
    assert sorted(steps) == list(range(STEPS))
    return [sorted(steps[step]) for step in range(STEPS)]


@pytest.mark.parametrize("zero", CHAINS)
def test_resumed_on_as_many_ranks_it_is_the_undisturbed_run_bit_for_bit(many, zero):
    whole, same = many / f"{WHOLE}{zero}", many / f"{SAME}{zero}"
    assert [it["step"] for it in records(same) if it["kind"] == "start"] == [0, 5]
    assert curve(same) == curve(whole)
    assert len(curve(same)) == STEPS + STEPS // 4
    assert weights(same) == weights(whole)
    assert frames(many, same.name) == frames(many, whole.name)


def weights(folder: Path, stage: str = STAGE) -> bytes:
    return (folder / "stages" / stage / "artifact" / "model.safetensors").read_bytes()


def assert_same_road(folder: Path, zero: int, worlds: tuple[int, ...]) -> None:
    """Other numbers of ranks read the same frames, each once, to nearly the same losses."""
    chain = folder / f"chain{zero}"
    starts = [(it["world"], it["step"]) for it in records(chain) if it["kind"] == "start"]
    assert starts == [(world, 3 * turn) for turn, world in enumerate(worlds)]
    assert frames(folder, chain.name) == frames(folder, f"{WHOLE}{zero}")
    assert_close(curve(chain), curve(folder / f"{WHOLE}{zero}"), 1e-4)


@pytest.mark.parametrize("zero", CHAINS)
def test_resumed_on_other_numbers_of_ranks_it_reads_each_frame_once(many, zero):
    assert_same_road(many, zero, CHAINS[zero])


@pytest.mark.slow
def test_every_zero_stage_takes_every_change_of_ranks(example, tmp_path):
    run_many("all", example, tmp_path)
    for zero, worlds in COMPLETE.items():
        assert_same_road(tmp_path, zero, worlds)


def test_full_disk_on_one_rank_ends_all_and_the_checkpoint_before_is_whole(many):
    found = [json.loads((many / f"{FULL}.error{rank}.json").read_text()) for rank in range(2)]
    assert found[0] == found[1]
    assert found[0]["code"] == OutputError.exit_code
    assert re.search(
        r"checkpoints/step_8: rank 1: .*; checkpoint step_4 is whole, the same command continues",
        found[0]["line"],
    )
    assert [it["step"] for it in records(many / FULL) if it["kind"] == "start"] == [0, 4]
    assert curve(many / FULL) == curve(many / f"{WHOLE}2")


@pytest.mark.parametrize("zero", CHAINS)
def test_artifact_of_a_checkpoint_computes_what_the_live_model_did(many, example, tmp_path, zero):
    from hpcbackmap.stages.artifact import load_artifact

    checkpoints = stage_folder(many / f"{WHOLE}{zero}") / "checkpoints"
    live = json.loads((many / f"{WHOLE}{zero}.live.json").read_text())
    inputs = first_validation_batch(alone(example, tmp_path), n_frames=12, batch_size=3)
    for tag in ("step_8", "step_12"):
        with pytest.raises(SystemExit) as end:
            main(["artifact", str(checkpoints / tag), "-o", str(tmp_path / tag)])
        assert end.value.code == 0
        stage = load_artifact(tmp_path / tag)
        with torch.no_grad():
            terms = stage.loss(*inputs.arguments())
        assert {key: float(value) for key, value in terms.items()} == live[tag]
        assert f"Weights after step {tag[5:]}" in (tmp_path / tag / "MODEL_CARD.md").read_text()


def first_validation_batch(campaign, n_frames: int, batch_size: int):
    """As the training makes it."""
    from hpcbackmap.stages.build import build_stage
    from hpcbackmap.store.split import split_frames
    from hpcbackmap.store.store import open_store
    from hpcbackmap.training.feed import Feed

    store = open_store(campaign.path(campaign.store.path))
    ladders = [store.system(name).ladder for name in store.systems]
    stage = build_stage(STAGE, campaign.stages[STAGE].model, ladders, seed=0)
    feed = Feed(store, stage, 0, torch.device("cpu"))
    ranges = split_frames(store, campaign.split)["validation"]
    return next(feed.fixed(ranges, n_frames, batch_size, "validation"))


def test_artifact_is_made_of_whole_checkpoints_only(many, tmp_path, capsys):
    broken = shutil.copytree(
        stage_folder(many / f"{WHOLE}2") / "checkpoints" / "step_8", tmp_path / "step_8"
    )
    (broken / "mp_rank_00_model_states.pt").unlink()

    def refused(output: Path, code: int) -> str:
        with pytest.raises(SystemExit) as end:
            main(["artifact", str(broken), "-o", str(output)])
        assert end.value.code == code
        return capsys.readouterr().err

    made = tmp_path / "made"
    assert "mp_rank_00_model_states.pt is missing" in refused(made, InputError.exit_code)
    (broken / "manifest.json").unlink()
    assert "no manifest.json: not a checkpoint" in refused(made, InputError.exit_code)
    assert not made.exists()
    assert f"{tmp_path}: exists already" in refused(tmp_path, OutputError.exit_code)


def test_stages_need_nothing_of_each_other(many):
    """At the same time, one after the other, or the other way round: the same artifacts."""
    for stage in (STAGE, "ca-fg"):
        assert weights(many / "at once", stage) == weights(many / "in order", stage)
        assert weights(many / "at once", stage) == weights(many / "in the other order", stage)


def test_folder_of_another_campaign_and_half_a_folder_are_refused(many, example, tmp_path):
    from hpcbackmap.training.trainer import train

    copy = stage_folder(tmp_path) / "checkpoints"
    shutil.copytree(stage_folder(many / f"{SAME}1") / "checkpoints", copy)
    same = [
        f"stages.{STAGE}.train.{it}" for it in ("batch_size=12", "accumulation=2", "zero_stage=1")
    ]
    with pytest.raises(
        ConfigError, match=r"step_12: checkpoint of another training, train.seed was 0, is 7"
    ):
        train(alone(example, tmp_path, *same, f"stages.{STAGE}.train.seed=7"), STAGE)
    for path in copy.glob("step_*/zero_pp_rank_1_*"):
        path.unlink()
    with pytest.raises(InputError, match="no intact checkpoint is left"):
        train(alone(example, tmp_path, *same), STAGE)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if done.returncode:
        pytest.skip(f"may not mount a file system: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk_during_a_save(example, small_disk, monkeypatch):
    from hpcbackmap.training.checkpoints.checkpoints import Checkpoints
    from hpcbackmap.training.trainer import train

    ballast = small_disk / "ballast"

    def fill_up(self, tag):
        prepare(self, tag)
        if tag == "step_4":
            free = shutil.disk_usage(small_disk).free
            ballast.write_bytes(b"\0" * (free - 16384))

    prepare = Checkpoints.prepare
    monkeypatch.setattr(Checkpoints, "prepare", fill_up)
    short = [f"stages.{STAGE}.train.{it}" for it in ("max_steps=4", "checkpoint_every=2")]
    campaign = alone(example, small_disk, *short)
    with pytest.raises(
        OutputError, match=r"step_4: .*; checkpoint step_2 is whole, the same command"
    ):
        train(campaign, STAGE)
    assert not (stage_folder(small_disk) / "checkpoints" / "step_4").exists()
    ballast.unlink()
    monkeypatch.setattr(Checkpoints, "prepare", prepare)
    assert train(campaign, STAGE)["steps"] == 4


def test_rank_that_loses_the_other_says_so_and_ends(example, tmp_path):
    run = start(TORCHRUN, example, tmp_path, f"stages.{STAGE}.train.max_steps=100000")
    wait_for(stage_folder(tmp_path) / "checkpoints" / "step_10" / "manifest.json", run)
    second = next(
        child
        for child in psutil.Process(run.pid).children(recursive=True)
        if child.environ().get("RANK") == "1"
    )
    second.kill()
    began = time.monotonic()
    output, _ = run.communicate(timeout=60)
    assert time.monotonic() - began < 40, "the launcher's own patience is 30 s"
    assert run.returncode == 1
    assert re.search(
        r"hpcbackmap: error: another rank has ended or does not answer, see its log; checkpoint "
        r"step_\d+ is whole, the same command continues after it",
        output,
    )
    assert "trainer.py" not in output, "no traceback"


def test_killed_where_it_hurts_it_ends_with_the_same_weights(tmp_path):
    """Four of the points of the benchmark, which has them all."""
    words = [KILLS, tmp_path, "--every", "12", "--steps", "40"]
    assert "4 kills" in finish(Forked(words, os.environ), timeout=300)
