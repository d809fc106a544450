"""Start real trainings and read what they leave.

All runs train the beads-to-C-alpha stage of the example, small, on one store; without the denoiser that mends
its traces, whose fit takes longer than the training. Under ZeRO 3 `many_runs.py` has it.
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
from forked import Forked, rank_words

from hpcbackmap.config.load import load_campaign

STAGE = "ucg5-ca"
STEPS = 60
SETTINGS = [
    f"stages.{STAGE}.model={{kind: cgvae, width: 8, layers: 1, latent: 2, mended: false}}",
    f"stages.{STAGE}.train={{batch_size: 8, max_steps: {STEPS}, zero_stage: 2, warmup_steps: 5, "
    "validate_every: 15, validation_frames: 12, checkpoint_every: 10, log_every: 1}",
]
LAUNCH = str(Path(__file__).resolve().parents[2] / "launch" / "train.py")
DEEPSPEED = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_accelerators", "2"]
ALONE: list[str] = []
"""No launcher: one process, or ranks that tests start by hand."""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
TORCHRUN += ["--no_python"]


def start(
    launcher: list[str],
    example: list[str],
    folder: Path,
    *overrides: str,
    program: str = LAUNCH,
    **environ: str,
):
    """A running training. DeepSpeed's launcher starts Python itself; the ranks of others are forked."""
    words = [program, *example, "--stage", STAGE, f"workdir={folder}", *overrides]
    env = os.environ | {"OMP_NUM_THREADS": "1"} | environ
    if launcher is ALONE:
        return Forked(words, env)
    more = ["--master_port", str(free_port())] if launcher is DEEPSPEED else rank_words()
    return subprocess.Popen(
        [*launcher, *more, *words],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, code: int = 0, timeout: float = 120) -> str:
    output, _ = process.communicate(timeout=timeout)
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
    return {(it["kind"], it["step"]): it["loss"] for it in records(folder) if it["kind"] != "start"}


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


def start_ranks(example: list[str], folder: Path, environs: list[dict], *overrides: str) -> list:
    """Ranks without a launcher: one process for each environment."""
    return [start(ALONE, example, folder, *overrides, **each) for each in environs]


def by_hand(ranks: list[int], size: int, **environ: str) -> list[dict]:
    """Environments of ranks that find each other."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    return [{"RANK": str(rank), "LOCAL_RANK": str(rank)} | meeting | environ for rank in ranks]


def finish_two(
    example: list[str], folder: Path, *overrides: str, timeout: float = 300, **more
) -> str:
    """What two ranks say, one after the other."""
    ranks = [
        start(ALONE, example, folder, *overrides, **more, **each) for each in by_hand([0, 1], 2)
    ]
    return "".join([finish(rank, timeout=timeout) for rank in ranks])


def records(folder: Path, name: str = "metrics.jsonl") -> list[dict]:
    return [json.loads(line) for line in (stage_folder(folder) / name).read_text().splitlines()]
