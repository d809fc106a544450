r"""One step against several for proteins never seen, from the same beads and with the same training time.

    export HPCBACKMAP_DATA=...
    python benchmarks/quality/kstep_unseen/kstep_unseen.py FOLDER [--minutes 10] > record.md

From beads of 10 residues: one step (to heavy atoms), two (to C-alpha atoms, to heavy atoms), three (to beads of
5, to C-alpha atoms, to heavy atoms). From beads of 20: one, two, and four (by beads of 10 and of 5). Every rung
has a network of its own, from scratch, with an equal share of the ladder's CPU time. Unseen: test chains of
static_more, evenly chosen. A rung whose budget is the same is trained once; the same command goes on where it
was stopped. Leaves FOLDER/kstep-unseen.json and FOLDER/kstep-unseen.png and prints the tables as Markdown.
"""

import argparse
import json
import logging
import os
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from chains import Chain, load_chains, unseen_chains
from judged import judge_chain
from nested import ROADS, rungs_of
from paired import gaps_of, table_of
from train_rung import load_rung, train_in_process
from unseen_plot import plot
from unseen_record import markdown

from hpcbackmap.runtime.allocator import keep_freed_memory

log = logging.getLogger("kstep_unseen")

LEAST = 60
"""Residues of a chain that is judged: three beads of 20."""
NAME = "kstep-unseen"


def main() -> None:
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    if "HPCBACKMAP_DATA" not in os.environ:
        sys.exit("set HPCBACKMAP_DATA to the folder of the protein chains")
    keep_freed_memory()
    torch.set_num_threads(1)
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    settings = _settings(folder, arguments)
    cache = folder / "chains.npz"
    if not cache.exists():
        load_chains(cache, arguments.training_chains)
    record: dict = {"settings": settings, "tops": {}}
    chosen = unseen_chains(LEAST, arguments.chains)
    for top in arguments.beads:
        roads = [road for road in ROADS if road.startswith(f"{top}-")]
        costs = {road: train(folder, road, arguments.minutes, cache) for road in roads}
        record["training_chains"] = costs[roads[0]][0]["chains"]
        if not arguments.train_only:
            judged = judge_all(folder, top, roads, chosen, arguments)
            record["tops"][str(top)] = summary(judged, costs)
    if not arguments.train_only:
        (folder / f"{NAME}.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
        plot(record, folder / f"{NAME}.png")
        print(markdown(record, [f"{NAME}.png"]))


def train(folder: Path, road: str, minutes: float, cache: Path) -> list[dict]:
    """Costs of the rungs of a ladder, from the top down."""
    top, found = int(road.split("-")[0]), []
    for coarse, fine in rungs_of(road):
        log.info("%s: %s-%s", road, coarse, fine)
        where = rung_folder(folder, road, coarse, fine, minutes)
        seconds = 60 * minutes / len(rungs_of(road))
        found.append(train_in_process(where, coarse, fine, top, seconds, cache))
    return found


def rung_folder(folder: Path, road: str, coarse: str, fine: str, minutes: float) -> Path:
    """Where a rung is trained; the same for ladders that give it the same budget and the same beads."""
    seconds = 60 * minutes / len(rungs_of(road))
    of = "" if (coarse, fine) == ("ca", "fg") else f"-of-{road.split('-')[0]}"
    return folder / "rungs" / f"{coarse}-{fine}{of}-{seconds:.0f}s"


def judge_all(
    folder: Path, top: int, roads: list[str], chosen: list[Chain], arguments: argparse.Namespace
) -> list[dict]:
    """What `judge_chain` finds for each chain; chains that are done are not judged again."""
    stages = {
        road: [
            load_rung(rung_folder(folder, road, *rung, arguments.minutes), *rung)
            for rung in rungs_of(road)
        ]
        for road in roads
    }
    whole = [i for i, chain in enumerate(chosen) if all(chain.topology.bonded[1:])]
    places = np.linspace(0, len(whole) - 1, min(arguments.energies, len(whole))).round()
    relaxed = {whole[int(i)] for i in places}
    of = f"{top}-{len(chosen)}x{arguments.members}-{arguments.energies}"
    found = []
    for number, chain in enumerate(chosen):
        path = folder / "judged" / of / f"{number:03d}-{chain.name}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            energy = number in relaxed
            rows = judge_chain(chain, top, stages, number, arguments.members, energy)
            path.write_text(json.dumps(rows, allow_nan=False))
            log.info("beads of %d: %d of %d chains", top, number + 1, len(chosen))
        found.append(json.loads(path.read_text()))
    return found


def summary(judged: list[dict], costs: dict[str, list[dict]]) -> dict:
    base = next(road for road, rungs in costs.items() if len(rungs) == 1)
    return {
        "chains": len(judged),
        "costs": costs,
        "table": table_of(judged),
        "gaps": gaps_of(judged, base),
        "nats": {
            road: {
                name.removeprefix("nats_"): float(
                    np.mean([chain[road][name][0] for chain in judged])
                )
                for name in judged[0][road]
                if name.startswith("nats_")
            }
            for road in costs
        },
    }


def _settings(folder: Path, arguments: argparse.Namespace) -> dict:
    """What is run; exits where the folder was begun with other trainings."""
    settings = {key: getattr(arguments, key) for key in ("minutes", "training_chains")}
    path = folder / "settings.json"
    if path.exists() and json.loads(path.read_text()) != settings:
        sys.exit(f"{path}: begun with other settings; take another folder")
    path.write_text(json.dumps(settings))
    return settings | {key: getattr(arguments, key) for key in ("chains", "members", "energies")}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0, help="CPU time per ladder")
    parser.add_argument("--beads", type=int, nargs="+", choices=(10, 20), default=[10, 20])
    parser.add_argument("--chains", type=int, default=24, help="unseen chains")
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--energies", type=int, default=6, help="chains that are relaxed")
    parser.add_argument("--training-chains", type=int, help="at most so many, to try it")
    parser.add_argument("--train-only", action="store_true", help="do not judge yet")
    return parser.parse_args()


if __name__ == "__main__":
    main()
