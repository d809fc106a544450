"""Kill a training again and again: it must end with the artifact of the run that nobody disturbed.

    python benchmarks/kill_training.py FOLDER [--every 10] > record.md

Trains a small beads-to-C-alpha stage of the 20-residue example on two CPU ranks (ZeRO 2). One rank or both
get SIGKILL at the points of `FAULTS`: between two operations of a step, of saving, publishing and rotating
checkpoints, of a start and of the end, or in the middle of a file. The same command then starts again. At the
end weights and losses are compared bit for bit. ``--every`` n: only every n-th point.

Ranks are forked from this process, which has imported everything: 45 starts would else be 45 imports.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "trpcage"
STAGE = "ucg5-ca"
STEPS = 160
LONGEST = 60.0
"""Seconds that a rank may live on after the other one is killed."""


@dataclass(frozen=True)
class Fault:
    """SIGKILL before, after or half through the ``call``-th call of a function of ``POINTS``.

    caller: the rank that comes there. all: kill both.
    """

    point: str
    when: str
    call: int = 1
    caller: int = 0
    all: bool = False

    def __str__(self) -> str:
        who = "both" if self.all else f"rank {self.caller}"
        return f"{self.when} {self.point}, call {self.call}: {who}"


FAULTS = [
    # the first steps, before any checkpoint
    Fault("forward", "before", call=3, caller=1),
    Fault("optimiser step", "after", call=2),
    # best weights, while validation still improves
    Fault("weights file", "half through", all=True),
    Fault("weights file", "after"),
    Fault("weights renamed", "after", all=True),
    # saving
    Fault("prepare", "before", all=True),
    Fault("prepare", "after"),
    Fault("file of a rank", "before", caller=1),
    Fault("file of a rank", "half through", caller=1),
    Fault("file of a rank", "half through", all=True),
    Fault("file of a rank", "half through", call=2),
    Fault("file of a rank", "after", call=2, all=True),
    Fault("ranks report files", "before", caller=1),
    Fault("ranks report files", "after"),
    # publishing
    Fault("JSON text", "half through", call=2, all=True),
    Fault("JSON text", "after", call=2),
    Fault("manifest or pointer", "before"),
    Fault("manifest or pointer", "after", all=True),
    Fault("manifest or pointer", "before", call=2),
    Fault("manifest or pointer", "after", call=2, all=True),
    Fault("publish", "before", caller=0),
    # rotating
    Fault("rotate", "before", all=True),
    Fault("manifest removed", "before"),
    Fault("manifest removed", "after", all=True),
    Fault("folder removed", "half through"),
    Fault("folder removed", "half through", all=True),
    Fault("folder removed", "after"),
    Fault("rotate", "after", all=True),
    Fault("publish", "after"),
    # steps in between
    Fault("forward", "after", call=6, all=True),
    Fault("optimiser step", "before", call=4, caller=1),
    Fault("agreement", "before", call=7),
    Fault("agreement", "after", call=3, caller=1),
    Fault("metrics line", "half through", call=6, all=True),
    Fault("metrics line", "after", call=4),
    Fault("validation", "before", caller=1),
    Fault("validation", "after", all=True),
    # starting
    Fault("newest checkpoint", "after"),
    Fault("checkpoint loaded", "before", caller=1),
    Fault("checkpoint loaded", "after", all=True),
    Fault("metrics reopened", "before"),
    Fault("metrics reopened", "after", caller=1),
    # ending
    Fault("artifact", "before", all=True),
    Fault("artifact file", "half through"),
    Fault("artifact", "after", all=True),
    Fault("done", "before"),
    Fault("done", "after", caller=0),
]


def points() -> dict[str, tuple]:
    """Name: owner of a function, its name there, and how to do half of it."""
    import safetensors.torch

    from hpcbackmap.training import checkpoints, metrics, publish, run, saving

    return {
        "forward": (run.Run, "_forward", None),
        "optimiser step": (run, "apply_gradients", None),
        "agreement": (run.Run, "_agree", None),
        "metrics line": (metrics.Recorder, "_write_line", half_line),
        "metrics reopened": (metrics, "_open_up_to", None),
        "validation": (run, "validate", None),
        "weights file": (publish, "save_file", half_file),
        "weights renamed": (run, "save_weights", None),
        "prepare": (checkpoints.Checkpoints, "prepare", None),
        "file of a rank": (saving._Writer, "save", half_file),
        "ranks report files": (saving, "_gathered", None),
        "publish": (checkpoints.Checkpoints, "publish", None),
        "JSON text": (json, "dump", half_json),
        "manifest or pointer": (checkpoints, "write_json", None),
        "rotate": (checkpoints.Checkpoints, "_prune", None),
        "manifest removed": (Path, "unlink", None),
        "folder removed": (shutil, "rmtree", half_tree),
        "newest checkpoint": (checkpoints.Checkpoints, "newest", None),
        "checkpoint loaded": (run, "load_engine", None),
        "artifact": (publish, "save_artifact", None),
        "artifact file": (safetensors.torch, "save_file", half_file),
        "done": (publish, "write_json", None),
    }


def half_line(_, recorder, record) -> None:
    text = json.dumps(record)
    recorder._file.write(text[: len(text) // 2])
    recorder._file.flush()


def half_file(whole: Callable, *args, **kwargs) -> None:
    whole(*args, **kwargs)
    path = kwargs.get("path", args[-1])
    os.truncate(path, os.path.getsize(path) // 2)


def half_json(_, record, file, **style) -> None:
    text = json.dumps(record, **style)
    file.write(text[: len(text) // 2])
    file.flush()


def half_tree(_, folder, *args, **kwargs) -> None:
    for path in sorted(Path(folder).rglob("*.pt"))[::2]:
        os.unlink(path)


def install(fault: Fault, rank: int) -> None:
    """Make this rank kill itself, or both, at the fault's point."""
    if rank != fault.caller:
        return
    owner, name, half = points()[fault.point]
    whole = getattr(owner, name)
    calls = 0

    def deadly(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls != fault.call:
            return whole(*args, **kwargs)
        if fault.when == "after":
            whole(*args, **kwargs)
        elif fault.when == "half through":
            half(whole, *args, **kwargs)
        if fault.all:
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, deadly)


def fork_ranks(size: int, action: Callable[[int], None], log: Path) -> list[int]:
    """Process numbers of ``size`` ranks that run ``action(rank)``, in one process group, and append to a log.

    They find each other as under torchrun. A process that forks must not have trained itself.
    """
    port, ranks = _free_port(), []
    for rank in range(size):
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, ranks[0] if ranks else 0)
            _become(rank, size, port, log)
            _call(action, rank)
        try:
            os.setpgid(pid, ranks[0] if ranks else pid)
        except (PermissionError, ProcessLookupError):  # it has done so, or is gone
            pass
        ranks.append(pid)
    return ranks


def _become(rank: int, size: int, port: int, log: Path) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)


def _call(action: Callable[[int], None], rank: int) -> None:
    import traceback

    code = 1
    try:
        action(rank)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait(ranks: list[int]) -> tuple[list[int], float]:
    """Exit codes, minus the signal where there was one, and seconds between the first end and the last.

    What outlives the first by `LONGEST` is killed.
    """
    codes: dict[int, int] = {}
    first = None
    while len(codes) < len(ranks):
        for pid in ranks:
            if pid not in codes and (ended := os.waitpid(pid, os.WNOHANG))[0]:
                codes[pid] = os.waitstatus_to_exitcode(ended[1])
                first = first or time.monotonic()
        if first and time.monotonic() - first > LONGEST:
            os.killpg(ranks[0], signal.SIGKILL)
        time.sleep(0.01)
    return [codes[pid] for pid in ranks], time.monotonic() - first


def import_all() -> None:
    """Everything that a rank imports, on the CPU, without starting a thread."""
    os.environ.update(DS_ACCELERATOR="cpu", CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1")
    import deepspeed.ops
    import torch.utils.tensorboard  # noqa: F401

    import hpcbackmap.frames.ingest
    import hpcbackmap.training.trainer  # noqa: F401

    torch.set_num_threads(1)


def prepare(folder: Path, steps: int) -> list[str]:
    """The example's frames, ingested; the arguments of a training of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("campaign.yaml", "trpcage.xtc", "trpcage_top.pdb"):
        shutil.copy(EXAMPLE / name, folder)
    arguments = [
        str(folder / "campaign.yaml"),
        f"store.path={folder / 'frames.zarr'}",
        f"stages.{STAGE}.model={{kind: cgvae, width: 8, layers: 1, latent: 2}}",
        f"stages.{STAGE}.train={{batch_size: 8, max_steps: {steps}, zero_stage: 2, warmup_steps: 5, "
        "validate_every: 4, validation_frames: 8, checkpoint_every: 4, log_every: 1}",
    ]
    subprocess.run([sys.executable, "-m", "hpcbackmap", "ingest", *arguments], check=True, stdout=2)
    return arguments


def train(arguments: list[str], workdir: Path, fault: Fault | None = None) -> Callable[[int], None]:
    """What a rank does."""

    def action(rank: int) -> None:
        from hpcbackmap.cli import main

        if fault:
            install(fault, rank)
        main(["train", *arguments, f"workdir={workdir}", "--stage", STAGE])

    return action


def curve(folder: Path, name: str = "metrics.jsonl") -> list[tuple]:
    """(kind, step, loss) of every record but those of starts, in the order of the file."""
    records = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    return [(it["kind"], it["step"], it["loss"]) for it in records if it["kind"] != "start"]


def weights_hash(folder: Path) -> str:
    return hashlib.sha256((folder / "artifact" / "model.safetensors").read_bytes()).hexdigest()


def whole_step(folder: Path) -> int:
    """Step of the newest whole checkpoint, 0 if there is none; raises if one that counts is damaged."""
    from hpcbackmap.training.checkpoints import last_published, verified_manifest

    tag = last_published(folder / "checkpoints")
    return verified_manifest(folder / "checkpoints" / tag)["progress"]["step"] if tag else 0


def kill_at(fault: Fault, arguments: list[str], folder: Path) -> dict:
    """Start, be killed at the fault; what happened."""
    stage, log = folder / "killed" / "stages" / STAGE, folder / "killed.log"
    before = whole_step(stage)
    codes, lapse = wait(fork_ranks(2, train(arguments, folder / "killed", fault), log))
    killed = [0, 1] if fault.all else [fault.caller]
    found = {
        "fault": str(fault),
        "codes": codes,
        "seconds": lapse,
        "before": before,
        "after": whole_step(stage),
    }
    print(found, file=sys.stderr, flush=True)
    survivors = [code for rank, code in enumerate(codes) if rank not in killed]
    finished = (stage / "done.json").exists()
    found["good"] = (
        all(codes[rank] == -signal.SIGKILL for rank in killed)
        and all(code == (0 if finished else 5) or finished for code in survivors)
        and found["after"] >= before
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th point")
    chosen = parser.parse_args()
    folder, began = chosen.folder.resolve(), time.monotonic()
    arguments = prepare(folder, STEPS)
    import_all()
    codes, _ = wait(fork_ranks(2, train(arguments, folder / "whole"), folder / "whole.log"))
    if codes != [0, 0]:
        sys.exit(f"the undisturbed run failed; see {folder / 'whole.log'}")
    kills = [kill_at(fault, arguments, folder) for fault in FAULTS[:: chosen.every]]
    codes, _ = wait(fork_ranks(2, train(arguments, folder / "killed"), folder / "killed.log"))
    whole, killed = (folder / name / "stages" / STAGE for name in ("whole", "killed"))
    checks = {
        "every kill came where it should, survivors ended by themselves with exit code 5, and no whole "
        "checkpoint was lost": all(kill["good"] for kill in kills),
        "the last start ended with 0": codes == [0, 0],
        "same SHA-256 of the artifact's weights": weights_hash(killed) == weights_hash(whole),
        "every step once in metrics.jsonl of both ranks, losses equal to the last bit": all(
            curve(killed, name) == curve(whole, name)
            for name in ("metrics.jsonl", "metrics.rank1.jsonl")
        ),
    }
    print("\n".join(report(kills, checks, time.monotonic() - began)))
    sys.exit(0 if all(checks.values()) else 1)


def report(kills: list[dict], checks: dict[str, bool], seconds: float) -> list[str]:
    import deepspeed
    import torch

    from hpcbackmap import __version__

    survivors = [kill["seconds"] for kill in kills if 5 in kill["codes"]]
    return [
        f"{len(kills)} kills, {STEPS} steps, {seconds:.0f} s; hpcbackmap {__version__}, torch "
        f"{torch.__version__}, deepspeed {deepspeed.__version__}, {platform.machine()}, {os.cpu_count()} cores.",
        f"A rank that lost the other one ended after {max(survivors, default=0):.1f} s at most.",
        "",
        *(f"- {name}: {'yes' if good else 'NO'}" for name, good in checks.items()),
        "",
        "| SIGKILL | exit codes of the ranks | newest whole checkpoint before, after |",
        "|---|---|---|",
        *(
            f"| {kill['fault']} | {kill['codes'][0]}, {kill['codes'][1]} | {kill['before']}, {kill['after']} |"
            for kill in kills
        ),
    ]


if __name__ == "__main__":
    main()
