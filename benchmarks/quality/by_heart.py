r"""One protein by heart: adenylate kinase from its true C-alpha trace after so many CPU seconds of training.

    HPCBACKMAP_DATA=FOLDER python benchmarks/quality/by_heart.py WORK [--seconds 0 15 30 120] [--no-bias]

Trains on four transition paths and judges the fifth, `adk_dims_d`: one answer and members of the shipped stage
(0 seconds) and of stages that begin with it and learn features and a bias of torsions for every residue
(``per_system: true``; ``--no-bias``: features alone). Seconds are of the fit in closed form and the trainer's
loop, one core. Prints a Markdown record.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import torch
import yaml
from heavy_atoms import OWN, SHOWN, cell, judge_set, read

from hpcbackmap.config.load import load_campaign
from hpcbackmap.ingest.ingest import ingest
from hpcbackmap.metrics.judge import METRICS
from hpcbackmap.runtime.mpi import get_comm
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.artifact import load_artifact

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent / "kstep"))
from header import header
from training import train_in_process

PATHS = ("dims_a", "dims_b", "dims_c", "dims_d", "tmd")
HELD_OUT = "adk_dims_d"
FRAMES = 24
TRAIN = {
    "batch_size": 4,
    "learning_rate": 2e-3,
    "warmup_steps": 10,
    "max_steps": 10**6,
    "validate_every": 10**6,
    "checkpoint_every": 10**6,
    "init_from": "shipped",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--data", type=Path, default=os.environ.get("HPCBACKMAP_DATA"))
    parser.add_argument("--seconds", type=float, nargs="+", default=[0, 15, 30, 120])
    parser.add_argument("--no-bias", action="store_true")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("say where the data are: --data FOLDER, or HPCBACKMAP_DATA")
    data = Path(arguments.data).resolve()
    torch.set_num_threads(1)
    truth = [read([data / "adenylate_kinase" / HELD_OUT], FRAMES)]
    found = {}
    for seconds in arguments.seconds:
        artifact, cost = trained(arguments.work.resolve(), data, seconds, not arguments.no_bias)
        rows = judge_set(load_artifact(artifact), None, truth, OWN)["rows"]
        for name in OWN:
            found[f"{seconds:g} s, {name}"] = rows[name]
        found["truth"] = rows["truth"]
        print(seconds, json.dumps(cost), file=sys.stderr, flush=True)
    print("\n".join([*header("One protein by heart"), *table(found)]))


def trained(work: Path, data: Path, seconds: float, bias: bool) -> tuple[Path, dict]:
    """Artifact after so many CPU seconds, and what they cost."""
    if not seconds:
        return shipped_artifact(), {}
    folder = work / f"{seconds:g}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "campaign.yaml"
    path.write_text(yaml.safe_dump(campaign(data, folder, seconds, bias)))
    ingest(load_campaign(path), get_comm())
    cost = train_in_process(path, "ca-fg")
    return folder / "stages" / "ca-fg" / "artifact", cost


def campaign(data: Path, folder: Path, seconds: float, bias: bool) -> dict:
    files = data / "adenylate_kinase"
    return {
        "name": "by-heart",
        "workdir": str(folder),
        "ladder": ["fg", "ca"],
        "systems": [
            {
                "name": "adk",
                "trajectories": [str(files / f"adk_{path}.xtc") for path in PATHS],
                "topology": str(files / "adk_dims_a_top.pdb"),
            }
        ],
        "split": {"by": "source", "test_names": [HELD_OUT], "validation": 0},
        "stages": {
            "ca-fg": {
                "model": {"kind": "genzprot", "per_system": True, "torsion_bias": bias},
                "train": {**TRAIN, "max_minutes": seconds / 60},
            }
        },
    }


def table(found: dict) -> list[str]:
    lines = ["| | " + " | ".join(found) + " |", "|---" * (len(found) + 1) + "|"]
    for item in METRICS:
        if item.name in SHOWN:
            cells = [cell(row.get(item.name), item.digits) for row in found.values()]
            lines.append(f"| {item.label} | " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    main()
