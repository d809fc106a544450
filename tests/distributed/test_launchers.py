"""Every launcher trains the same stage to the same losses; ranks that cannot meet say why."""

import csv
import os
import shutil
import sys
from pathlib import Path

import pytest
from runs import (
    STAGE,
    TORCHRUN,
    alone,
    by_hand,
    curve,
    finish,
    records,
    stage_folder,
    start,
    start_ranks,
)

from hpcbackmap import __version__

MPIRUN = shutil.which("mpirun", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def as_srun(n_ranks: int) -> list[dict]:
    """What srun gives to the tasks of a step, each on a node of its own."""
    step = {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": str(n_ranks),
        "SLURM_STEP_NUM_TASKS": str(n_ranks),
        "SLURM_LOCALID": "0",
    }
    return [
        step | {"SLURM_PROCID": str(rank), "SLURMD_NODENAME": f"node{rank}"}
        for rank in range(n_ranks)
    ]


def test_torchrun_trains_to_the_bits_of_deepspeed(example, undisturbed, tmp_path):
    finish(start(TORCHRUN, example, tmp_path))
    assert curve(tmp_path) == undisturbed
    assert records(tmp_path)[0]["launcher"] == "torchrun"


@pytest.mark.skipif(MPIRUN is None, reason="no mpirun")
def test_mpirun_trains_to_the_bits_of_deepspeed(example, undisturbed, tmp_path):
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    launcher = [MPIRUN, *root, "--oversubscribe", "-n", "2"]
    finish(start(launcher, example, tmp_path))
    assert curve(tmp_path) == undisturbed
    assert records(tmp_path)[0]["launcher"] == "Open MPI"


def test_srun_trains_to_the_bits_of_deepspeed(example, undisturbed, tmp_path):
    """And the first lines and records tell who trained, where, with what."""
    lead, other = [finish(rank) for rank in start_ranks(example, tmp_path, as_srun(2))]
    assert curve(tmp_path) == undisturbed

    assert f"hpcbackmap {__version__}" in lead
    assert "2 rank(s) by Slurm on node0, node1, cpu, 1 thread(s) each, ZeRO 2, fp32" in lead
    assert "ZeRO 2" not in other
    for rank in range(2):
        name = "metrics.jsonl" if rank == 0 else "metrics.rank1.jsonl"
        first = records(tmp_path, name)[0]
        assert first["kind"] == "start"
        assert (first["node"], first["rank"], first["world"]) == (f"node{rank}", rank, 2)
        assert first["time"].endswith("+00:00")
        assert first["libraries"].keys() == {"torch", "deepspeed", "torch_geometric"}

    with (stage_folder(tmp_path) / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = {(row["kind"], int(row["step"])): float(row["loss"]) for row in rows}
    assert table == undisturbed
    assert len(rows) == len(undisturbed)
    for row in rows:
        elbo = float(row["log_likelihood"]) - float(row["kl"])
        assert float(row["elbo"]) == pytest.approx(elbo, abs=1e-9)
    last = next(row for row in reversed(rows) if row["kind"] == "train")
    per_frame = float(last["particles_per_second"]) / float(last["frames_per_second"])
    assert per_frame == pytest.approx(20)  # C-alpha atoms of the example
    assert int(last["skipped"]) == 0
    assert 0 <= float(last["data_wait"]) <= 1
    assert float(last["peak_memory_mb"]) > 50


def test_world_sizes_agree(example, tmp_path):
    """The same global batch on 1, 2 and 3 ranks: sums in another order, so another rounding."""
    from hpcbackmap.training.trainer import train

    same = [f"stages.{STAGE}.train.{it}" for it in ("batch_size=6", "max_steps=20")]
    train(alone(example, tmp_path / "1", *same), STAGE)
    expected = curve(tmp_path / "1")
    for size in (2, 3):
        folder = tmp_path / str(size)
        for rank in start_ranks(example, folder, by_hand(list(range(size)), size), *same):
            finish(rank)
        found = curve(folder)
        assert found.keys() == expected.keys()
        for (
            key
        ) in expected:  # 1e-6: a rounding of float32 in the terms, where they cancel in the loss
            assert found[key] == pytest.approx(expected[key], rel=1e-6, abs=1e-6), (size, key)


def test_missing_rank_ends_the_others_with_its_name(example, tmp_path):
    meeting = by_hand([0, 2], 3, HPCBACKMAP_MEETING_SECONDS="12")
    same = f"stages.{STAGE}.train.batch_size=6"
    for rank in start_ranks(example, tmp_path, meeting, same):
        output = finish(rank, code=5)
        assert "rank 1 of 3 did not come to 127.0.0.1:" in output
        assert "(ranks 0, 2 did)" in output
        assert "Traceback" not in output
    assert not stage_folder(tmp_path).exists()
