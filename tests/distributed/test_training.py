"""Training under real launchers: same curve after kill, damage, stop and on other ranks and ZeRO stages.

All runs train the beads-to-C-alpha stage of the example, small, on one store.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from hpcbackmap.config import load_campaign
from hpcbackmap.errors import ConfigError, HpcbackmapError, ResourceError

STAGE = "ucg5-ca"
STEPS = 90
SETTINGS = [
    f"stages.{STAGE}.model={{kind: cgvae, width: 8, layers: 1, latent: 2}}",
    f"stages.{STAGE}.train={{batch_size: 8, max_steps: {STEPS}, zero_stage: 2, warmup_steps: 5, "
    "validate_every: 15, validation_frames: 12, checkpoint_every: 10, log_every: 1}",
]
LAUNCH = str(Path(__file__).resolve().parents[2] / "launch" / "train.py")
DEEPSPEED = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_accelerators", "2"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture(scope="module")
def example(tmp_path_factory, example_dir) -> list[str]:
    """Campaign file and overrides, the frames ingested."""
    from hpcbackmap.frames.ingest import ingest
    from hpcbackmap.mpi import LocalComm

    folder = tmp_path_factory.mktemp("example")
    for name in ("campaign.yaml", "trpcage.xtc", "trpcage_top.pdb"):
        shutil.copy(example_dir / name, folder)
    arguments = [str(folder / "campaign.yaml"), *SETTINGS, f"store.path={folder / 'frames.zarr'}"]
    ingest(load_campaign(arguments[0], arguments[1:]), LocalComm())
    return arguments


@pytest.fixture(scope="module")
def undisturbed(example, tmp_path_factory) -> dict:
    """Curve of two ranks under the deepspeed launcher."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(start(DEEPSPEED, example, folder))
    return curve(folder)


def start(launcher: list[str], example: list[str], folder: Path, *overrides: str, **environ: str):
    port = ["--master_port", str(free_port())] if launcher is DEEPSPEED else []
    return subprocess.Popen(
        [*launcher, *port, LAUNCH, *example, "--stage", STAGE, f"workdir={folder}", *overrides],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, code: int = 0) -> str:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == code, output
    return output


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def stage_folder(folder: Path) -> Path:
    return folder / "stages" / STAGE


def curve(folder: Path) -> dict:
    """Loss by (kind, step)."""
    lines = (stage_folder(folder) / "metrics.jsonl").read_text().splitlines()
    return {(record["kind"], record["step"]): record["loss"] for record in map(json.loads, lines)}


def wait_for(path: Path, process) -> None:
    deadline = time.monotonic() + 100
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


def kill_tree(process) -> None:
    """Kill -9: launcher and ranks."""
    for one in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        one.kill()
    process.communicate()


def alone(example: list[str], folder: Path, *overrides: str):
    """The campaign for one process, here."""
    return load_campaign(example[0], [*example[1:], f"workdir={folder}", *overrides])


def assert_close(found: dict, expected: dict, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(
        [found[key] for key in expected], list(expected.values()), rtol=tolerance, atol=tolerance
    )


def test_killed_run_continues_the_undisturbed_curve(example, undisturbed, tmp_path):
    assert len(undisturbed) == STEPS + STEPS // 15
    run = start(DEEPSPEED, example, tmp_path)
    checkpoints = stage_folder(tmp_path) / "checkpoints"
    wait_for(checkpoints / "step_20" / "manifest.json", run)
    kill_tree(run)
    assert not (stage_folder(tmp_path) / "done.json").exists()
    last = max(int(path.parent.name[5:]) for path in checkpoints.glob("step_*/manifest.json"))
    half = checkpoints / f"step_{last}" / "mp_rank_00_model_states.pt"
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])

    output = finish(start(DEEPSPEED, example, tmp_path))
    assert f"checkpoint step_{last} is damaged (mp_rank_00_model_states.pt has" in output
    assert f"continuing after step {last - 10}" in output
    assert curve(tmp_path) == undisturbed
    assert (stage_folder(tmp_path) / "artifact" / "model.safetensors").exists()


def test_stop_signal_to_one_rank_stops_all_and_another_number_of_ranks_continues(
    example, undisturbed, tmp_path
):
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    ranks = [
        start([sys.executable], example, tmp_path, RANK=str(rank), LOCAL_RANK=str(rank), **meeting)
        for rank in range(2)
    ]
    wait_for(stage_folder(tmp_path) / "checkpoints" / "step_10" / "manifest.json", ranks[0])
    ranks[1].send_signal(signal.SIGUSR1)
    outputs = [finish(rank, code=75) for rank in ranks]
    assert "the same command continues" in outputs[0]

    output = finish(start([sys.executable], example, tmp_path))
    assert "checkpoint of 2 ranks, reshaped for 1" in output
    assert_close(curve(tmp_path), undisturbed, 1e-4)


def test_zero_stages_agree(example, undisturbed, tmp_path):
    finish(start(TORCHRUN, example, tmp_path, f"stages.{STAGE}.train.zero_stage=0"))
    assert_close(curve(tmp_path), undisturbed, 1e-5)


def test_finished_training(example, tmp_path):
    """Its artifact holds the best weights, a rerun does nothing, other settings are refused."""
    from safetensors.torch import load_file

    from hpcbackmap.stages.artifact import load_artifact
    from hpcbackmap.training.trainer import train

    short = f"stages.{STAGE}.train.max_steps=4"
    result = train(alone(example, tmp_path, short), STAGE)
    assert result["steps"] == 4
    assert result["best_step"] == 4
    assert np.isfinite(result["validation"]["log_likelihood"])
    folder = stage_folder(tmp_path)
    weights = load_file(folder / "checkpoints" / "best_4.safetensors")
    exported = load_artifact(folder / "artifact").state_dict()
    assert exported.keys() == weights.keys()
    assert all((exported[name] == weights[name]).all() for name in weights)

    before = (folder / "done.json").stat().st_mtime_ns
    assert train(alone(example, tmp_path, short), STAGE) == result
    assert (folder / "done.json").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match=r"train.seed was 0, is 1; remove the folder"):
        train(alone(example, tmp_path, short, f"stages.{STAGE}.train.seed=1"), STAGE)


def test_training_that_diverges_ends_with_a_reason(example, tmp_path):
    from hpcbackmap.training.trainer import train

    absurd = f"stages.{STAGE}.train.learning_rate=1.0e30"
    with pytest.raises(
        HpcbackmapError, match=r"no finite \w+ in 21 batches in a row .* lower stages"
    ):
        train(alone(example, tmp_path, absurd), STAGE)


def test_folder_in_use_is_refused(example, tmp_path):
    from hpcbackmap.training.lock import only_training
    from hpcbackmap.training.ranks import World
    from hpcbackmap.training.trainer import train

    with (
        only_training(stage_folder(tmp_path), World(0, 1, 0, "single process")),
        pytest.raises(ResourceError, match="is being trained by process"),
    ):
        train(alone(example, tmp_path), STAGE)


def test_batch_that_does_not_fit_the_ranks_ends_before_they_meet(example, tmp_path, monkeypatch):
    from hpcbackmap.training.trainer import train

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match=r"train.batch_size=8 cannot be shared by 3 rank\(s\)"):
        train(alone(example, tmp_path), STAGE)
    assert not stage_folder(tmp_path).exists()
