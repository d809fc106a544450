"""Kill a training again and again: it must end with the artifact of the run that nobody disturbed.

    python benchmarks/robustness/kill_training.py FOLDER [--every 12 --steps 40] > record.md

Trains a small beads-to-C-alpha stage of the 20-residue example on two CPU ranks (ZeRO 2). One rank or both
get SIGKILL at the points of `FAULTS`: between two operations of a step, of saving, publishing and rotating
checkpoints, of a start and of the end, or in the middle of a file. The same command then starts again. At the
end weights and losses are compared bit for bit. ``--every`` n: only every n-th point.

Ranks are forked from this process, which has imported everything: 50 starts would else be 50 imports.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from forked_ranks import fork_ranks, import_all, wait

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from header import header

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "trpcage"
STAGE = "ucg5-ca"
STEPS = 160


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
    # the second save: there is a checkpoint already
    Fault("prepare", "before", call=2, all=True),
    Fault("prepare", "after", call=2),
    Fault("file of a rank", "before", call=2, caller=1),
    Fault("file of a rank", "half through", call=2, caller=1),
    Fault("file of a rank", "half through", call=3, all=True),
    Fault("file of a rank", "half through", call=4),
    Fault("file of a rank", "after", call=4, all=True),
    Fault("ranks report files", "before", call=2, caller=1),
    Fault("ranks report files", "after", call=2),
    # publishing it
    Fault("publish", "before", call=2),
    Fault("manifest", "before", call=3, all=True),
    Fault("manifest", "half through", call=3),
    Fault("manifest's rename", "half through", call=3, all=True),
    Fault("manifest", "after", call=3),
    Fault("pointer", "half through", call=4, all=True),
    Fault("pointer", "after", call=4),
    # rotating
    Fault("rotation", "before", all=True),
    Fault("removal", "before", call=2),
    Fault("removal of the manifest", "half through", call=2, all=True),
    Fault("removal", "half through", call=2),
    Fault("removal", "half through", call=2, all=True),
    Fault("removal", "after", call=2),
    Fault("rotation", "after", all=True),
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
    Fault("record of the end", "before"),
    Fault("record of the end", "after"),
]


def points() -> dict[str, tuple]:
    """Name: owner of a function, its name there, and how to do half of it."""
    import safetensors.torch

    from hpcbackmap.training import run
    from hpcbackmap.training.checkpoints import checkpoints, publish, saving
    from hpcbackmap.training.records import metrics

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
        "manifest": (checkpoints, "write_json", half_json),
        "manifest's rename": (checkpoints, "write_json", unnamed_json),
        "pointer": (checkpoints, "write_json", half_json),
        "rotation": (checkpoints.Checkpoints, "_prune", None),
        "removal of the manifest": (checkpoints.Checkpoints, "discard", half_removal),
        "removal": (checkpoints.Checkpoints, "discard", most_of_removal),
        "newest checkpoint": (checkpoints.Checkpoints, "newest", None),
        "checkpoint loaded": (run, "load_engine", None),
        "artifact": (publish, "save_artifact", None),
        "artifact file": (safetensors.torch, "save_file", half_file),
        "record of the end": (publish, "write_json", None),
    }


def half_line(_, recorder, record) -> None:
    text = json.dumps(record)
    recorder._file.write(text[: len(text) // 2])
    recorder._file.flush()


def half_file(whole: Callable, *args, **kwargs) -> None:
    whole(*args, **kwargs)
    path = kwargs.get("path", args[-1])
    os.truncate(path, os.path.getsize(path) // 2)


def half_json(_, path, record) -> None:
    unnamed_json(_, path, record)
    half_file(lambda path: None, path.with_name(path.name + ".part"))


def unnamed_json(_, path, record) -> None:
    path.with_name(path.name + ".part").write_text(json.dumps(record, indent=1))


def half_removal(_, checkpoints, tag) -> None:
    (checkpoints.folder / tag / "manifest.json").unlink(missing_ok=True)


def most_of_removal(_, checkpoints, tag) -> None:
    half_removal(_, checkpoints, tag)
    for path in sorted((checkpoints.folder / tag).glob("*.pt"))[::2]:
        path.unlink()


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


def prepare(folder: Path, steps: int) -> list[str]:
    """The example's frames, ingested; the arguments of a training of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("campaign.yaml", "trpcage.xtc", "trpcage_top.pdb"):
        shutil.copy(EXAMPLE / name, folder)
    arguments = [
        str(folder / "campaign.yaml"),
        f"store.path={folder / 'frames.zarr'}",
        f"stages.{STAGE}.model={{kind: cgvae, width: 8, layers: 1, latent: 2, mended: false}}",
        f"stages.{STAGE}.train={{batch_size: 8, max_steps: {steps}, zero_stage: 2, warmup_steps: 5, "
        "validate_every: 4, validation_frames: 8, checkpoint_every: 4, log_every: 1}",
    ]
    subprocess.run([sys.executable, "-m", "hpcbackmap", "ingest", *arguments], check=True, stdout=2)
    return arguments


def train(arguments: list[str], workdir: Path, fault: Fault | None = None) -> Callable[[int], None]:
    """What a rank does."""

    def action(rank: int) -> None:
        from hpcbackmap.cli.app import main

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
    from hpcbackmap.training.checkpoints.checkpoints import last_published, verified_manifest

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
        and all(code == 5 or (code == 0 and finished) for code in survivors)
        and found["after"] >= before
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th point")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the training")
    chosen = parser.parse_args()
    folder, began = chosen.folder.resolve(), time.monotonic()
    arguments = prepare(folder, chosen.steps)
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
    about = f"{len(kills)} kills, {chosen.steps} steps, {time.monotonic() - began:.0f} s"
    print("\n".join(report(about, kills, checks)))
    sys.exit(0 if all(checks.values()) else 1)


def report(about: str, kills: list[dict], checks: dict[str, bool]) -> list[str]:
    survivors = [kill["seconds"] for kill in kills if 5 in kill["codes"]]
    return [
        *header("Trainings killed"),
        f"{about}.",
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
