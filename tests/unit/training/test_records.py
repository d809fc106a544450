"""What a run records, over restarts."""

import csv
import itertools
import json
from types import SimpleNamespace

import pytest
import torch

from hpcbackmap.config.campaign import Campaign, TrainConfig
from hpcbackmap.training.checkpoints.checkpoints import Progress
from hpcbackmap.training.ranks.world import World
from hpcbackmap.training.records import metrics, start
from hpcbackmap.training.records.metrics import Recorder

VALUES = {"loss": 1.5, "log_likelihood": 40.0, "kl": 3.0}


@pytest.fixture
def record(tmp_path):
    """A function: start after a step, record training up to another, validate there."""

    def run(first: int, last: int, rank: int = 0):
        train = TrainConfig(max_steps=10)
        world = World(rank, 2, rank, "torchrun")
        recorder = Recorder(tmp_path, world, train, Progress(step=first), {"node": f"n{first}"})
        for step in range(first + 1, last + 1):
            recorder.count(4, 80, 0.0)
            recorder.training(step, float(step), VALUES | {"gradient_norm": float("inf")})
        recorder.validation(last, VALUES | {"active_units": 1.0}, True)
        recorder.close()

    return run


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("rank", [0, 1])
def test_restart_drops_what_came_after_the_checkpoint_but_no_start(record, tmp_path, rank):
    record(0, 3, rank)
    path = tmp_path / ("metrics.jsonl" if rank == 0 else "metrics.rank1.jsonl")
    with path.open("a") as file:
        file.write('{"kind": "train", "st')  # killed while writing
    record(2, 4, rank)
    kinds = [(it["kind"], it["step"]) for it in lines(path)]
    assert kinds == [
        ("start", 0), ("train", 1), ("train", 2), ("start", 2), ("train", 3), ("train", 4),
        ("validation", 4),
    ]  # fmt: skip
    assert [it["node"] for it in lines(path) if it["kind"] == "start"] == ["n0", "n2"]
    assert (tmp_path / "metrics.csv").exists() == (rank == 0)


def test_table_has_the_same_rows_and_columns_of_all_kinds(record, tmp_path):
    record(0, 3)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("train,4,1.")  # killed while writing
    record(2, 4)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    told = [it for it in lines(tmp_path / "metrics.jsonl") if it["kind"] != "start"]
    assert [{key: text for key, text in row.items() if text} for row in rows] == [
        {key: str(value) for key, value in it.items()} for it in told
    ]
    assert rows[-1]["active_units"] == "1.0"
    assert rows[0]["active_units"] == ""
    assert rows[0]["elbo"] == "37.0"


def test_rates_are_those_of_all_ranks(record, tmp_path, monkeypatch):
    seconds = itertools.count()
    monkeypatch.setattr(metrics, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    record(0, 1)
    step = lines(tmp_path / "metrics.jsonl")[1]
    assert step["frames_per_second"] == 2 * 4
    assert step["particles_per_second"] == 2 * 80
    assert "gradient_norm" not in step  # JSON has no infinity


def test_git_is_asked_by_one_rank(monkeypatch, tmp_path):
    """A thousand ranks would read one folder of a shared file system at once."""
    asked = []
    monkeypatch.setattr(start, "_commit", lambda: asked.append(1) or "abc")
    campaign = Campaign(
        name="x",
        ladder=["fg", "ca"],
        systems=[{"name": "x", "trajectories": ["x"]}],
        stages={"ca-fg": {"model": {"kind": "genzprot"}}},
    )
    records = [
        start.start_record(campaign, "ca-fg", World(rank, 3, rank, "x"), torch.device("cpu"))
        for rank in range(3)
    ]
    assert [record["commit"] for record in records] == ["abc", None, None]
    assert len(asked) == 1
