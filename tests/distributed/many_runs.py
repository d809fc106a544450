"""Many short trainings, for one price of importing: ranks are forked from this process.

    python many_runs.py FOLDER all|some CAMPAIGN KEY=VALUE…

Leaves workdirs in FOLDER, and beside them what ranks saw: ``<name>.frames<rank>.jsonl`` (step, frames read),
``<name>.live.json`` (tag: loss terms of the live model) and ``<name>.error<rank>.json``.
"""

import json
import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "robustness"))

from forked_ranks import fork_ranks, import_all, wait

STAGE, ABOVE = "ucg5-ca", "ca-fg"
STEPS = 12
TRAIN = (
    f"batch_size: 12, accumulation: 2, max_steps: {STEPS}, warmup_steps: 5, validate_every: 4, "
    "validation_frames: 12, checkpoint_every: 4, log_every: 1"
)
WHOLE, SAME, FULL = "whole", "same", "full"
CHAINS = {0: (2, 1, 2, 3), 1: (2, 1), 2: (1, 2), 3: (2, 3)}
"""ZeRO stage: numbers of ranks, one after another, three steps each and the last one to the end."""
MENDED = 3
"""The ZeRO stage whose trainings fit the denoiser that mends traces; its weights are buffers of the stage."""
COMPLETE = dict.fromkeys(CHAINS, (2, 1, 2, 3))


def chains(which: str) -> dict[int, tuple]:
    return COMPLETE if which == "all" else CHAINS


def phases(which: str) -> list[tuple[int, list[tuple]]]:
    """Numbers of ranks, and their trainings in order: name, ZeRO stage, step to stop after."""
    first = [(f"{WHOLE}{zero}", zero, None) for zero in CHAINS]
    first += [(f"{SAME}{zero}", zero, 5) for zero in CHAINS]
    first += [(FULL, 2, None)]
    second = [(f"{SAME}{zero}", zero, None) for zero in CHAINS] + [(FULL, 2, None)]
    planned = [(2, first), (1, []), (2, second), (3, [])]
    for zero, worlds in chains(which).items():
        place = 0
        for turn, world in enumerate(worlds):
            while planned[place][0] != world:
                place += 1
            stop = None if turn == len(worlds) - 1 else 3 * (turn + 1)
            planned[place][1].append((f"chain{zero}", zero, stop))
    return planned


def run(campaign: str, overrides: list[str], folder: Path, tasks: list[tuple], rank: int) -> None:
    from hpcbackmap.config.load import load_campaign
    from hpcbackmap.runtime.errors import HpcbackmapError, Stopped
    from hpcbackmap.stages.cgvae import mending
    from hpcbackmap.training.trainer import train

    mending.JUDGED = 200  # residues: its fit costs more than a training
    watched = Watched(rank)
    for name, zero, stop in tasks:
        watched.place, watched.stop = folder / name, stop
        settings = [
            f"workdir={folder / name}",
            f"stages.{STAGE}.train={{{TRAIN}, zero_stage: {zero}}}",
            f"stages.{STAGE}.model.mended={str(zero == MENDED).lower()}",
        ]
        try:
            train(load_campaign(campaign, [*overrides, *settings]), STAGE)
        except Stopped:
            assert stop
        except HpcbackmapError as error:
            said = {"code": error.exit_code, "line": str(error)}
            folder.joinpath(f"{name}.error{rank}.json").write_text(json.dumps(said))


class Watched:
    """Notes what this rank reads and computes; stops after a step; fills a disk.

    place: workdir of the training that runs. stop: the step after which it is asked to stop.
    """

    def __init__(self, rank: int):
        from hpcbackmap.training import feed, run
        from hpcbackmap.training.checkpoints import saving

        self.rank, self.place, self.stop = rank, Path(), None
        self._wrap(feed.Feed, "inputs", self.note_frames)
        self._wrap(run.Run, "_agree", self.ask_to_stop)
        self._wrap(run.Run, "checkpoint", self.show_live_terms)
        self._wrap(saving._Writer, "save", self.save_on_full_disk)

    def _wrap(self, owner: type, name: str, instead) -> None:
        usual = getattr(owner, name)
        setattr(owner, name, lambda *args, **kwargs: instead(usual, *args, **kwargs))

    def beside(self, suffix: str) -> Path:
        return self.place.with_name(self.place.name + suffix)

    def note_frames(self, usual, feed, batch, key):
        if key.startswith("train/"):
            noted = [int(key.removeprefix("train/")), batch.frames.tolist()]
            with self.beside(f".frames{self.rank}.jsonl").open("a") as file:
                file.write(json.dumps(noted) + "\n")
        return usual(feed, batch, key)

    def ask_to_stop(self, usual, training, asked):
        return usual(training, asked or training.progress.step + 1 == self.stop)

    def show_live_terms(self, usual, training):
        usual(training)
        note_live_terms(training, self.beside(".live.json"))

    def save_on_full_disk(self, usual, writer, state_dict, path):
        """The disk of rank 1 is full once, in the second checkpoint."""
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        full = self.place.name == FULL and self.rank == 1 and "step_8" in str(path)
        if full and not self.beside(".error1.json").exists():
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            usual(writer, state_dict, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def note_live_terms(training, path: Path) -> None:
    """Loss terms of the first validation batch of rank 0, exactly. All ranks call it."""
    import torch

    inputs, _ = training.validation[0]
    training.engine.eval()
    with torch.no_grad():
        terms = training.engine(*inputs.arguments())
    training.engine.train()
    if training.world.rank == 0:
        noted = json.loads(path.read_text()) if path.exists() else {}
        noted[f"step_{training.progress.step}"] = {key: float(it) for key, it in terms.items()}
        path.write_text(json.dumps(noted))


def train_in_turn(campaign: str, overrides: list[str], workdir: Path, stages: list[str]) -> None:
    """Stages of one campaign, one after another, in this process."""
    from hpcbackmap.config.load import load_campaign
    from hpcbackmap.training.trainer import train

    few = [f"stages.{stage}.train.max_steps=4" for stage in (STAGE, ABOVE)]
    small = (
        f"stages.{ABOVE}.model={{kind: genzprot, width: 8, layers: 1, neighbours: 4, rounds: 1}}",
        f"stages.{ABOVE}.train.init_from=null",
    )
    resolved = load_campaign(campaign, [*overrides, *few, *small, f"workdir={workdir}"])
    for stage in stages:
        train(resolved, stage)


def main() -> None:
    folder, which, campaign, *overrides = sys.argv[1:]
    folder = Path(folder)
    import_all()
    log = folder / "log"
    for world, tasks in phases(which):
        ranks = fork_ranks(
            world, lambda rank, tasks=tasks: run(campaign, overrides, folder, tasks, rank), log
        )
        codes, _ = wait(ranks)
        if any(codes):
            sys.exit(f"{codes} with {world} ranks\n{log.read_text()}")
    orders = {"at once": None, "in order": [STAGE, ABOVE], "in the other order": [ABOVE, STAGE]}
    for name, stages in orders.items():
        started = [
            fork_ranks(
                1,
                lambda _, mine=mine, name=name: train_in_turn(
                    campaign, overrides, folder / name, mine
                ),
                log,
            )
            for mine in ([stages] if stages else [[STAGE], [ABOVE]])
        ]
        codes = [wait(ranks)[0] for ranks in started]
        if codes != [[0]] * len(started):
            sys.exit(f"{codes}, stages {name}\n{log.read_text()}")


if __name__ == "__main__":
    main()
