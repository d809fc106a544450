"""Stages on ranks of their own against the plain chain: the same bits, and how fast.

    python benchmarks/throughput/driver/pipeline.py FOLDER [--members 8] [--turns 3] > record.md

The frames of the 20-residue example from five beads, through C-alpha to heavy atoms: the first stage as it
starts in closed form, the second as shipped. Each rank has a core of its own.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import yaml
from measure import EXAMPLE, run

from hpcbackmap.runtime.mpi import LocalComm
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.store.verify import verify_store

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from header import header

RUNS = {
    "1 rank": (1, []),
    "2 ranks": (2, []),
    "2 ranks, --pipeline 1,1": (2, ["--pipeline", "1,1"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--cores", type=int, nargs=2, default=(0, 1))
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    prepare(folder, arguments.members)
    rates: dict[str, list[float]] = {name: [] for name in RUNS}
    digests = {}
    for _ in range(arguments.turns):
        for number, (name, (ranks, options)) in enumerate(RUNS.items()):
            output = folder / f"run{number}.zarr"
            shutil.rmtree(output, ignore_errors=True)
            found = run(folder, ranks, [f"backmap.output={output.name}", *options], arguments.cores)
            seconds = max(sum(map(busy, journal)) for journal in found["journals"])
            rates[name].append(found["rows"] / seconds)
            digests[name] = verify_store(output, LocalComm())["content"]
    print("\n".join([*header("Pipeline of stages"), *lines(rates, digests)]))


def prepare(folder: Path, members: int) -> None:
    """A campaign whose input and artifacts are there."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "name": "pipeline",
        "workdir": str(folder),
        "ladder": ["fg", "ca", "ucg:5"],
        "systems": [
            {
                "name": "example",
                "topology": str(EXAMPLE / "trpcage_top.pdb"),
                "trajectories": [str(EXAMPLE / "trpcage.xtc")],
            }
        ],
        "stages": {
            "ca-fg": {"model": {"kind": "genzprot"}, "artifact": str(shipped_artifact())},
            "ucg5-ca": {
                "model": {"kind": "cgvae"},
                "train": {"max_steps": 1, "batch_size": 32},
            },
        },
        "backmap": {
            "input": str(folder / "frames.zarr"),
            "members": members,
            "batch_frames": 64,
            "shard_frames": 256,
        },
    }
    campaign = folder / "campaign.yaml"
    campaign.write_text(yaml.safe_dump(record))
    for command in (["ingest"], ["train", "--stage", "ucg5-ca"]):
        whole = [sys.executable, "-m", "hpcbackmap", command[0], str(campaign), *command[1:]]
        subprocess.run(whole, check=True, capture_output=True)


def busy(entry: dict) -> float:
    return sum(entry["seconds"].values())


def lines(rates: dict[str, list[float]], digests: dict[str, str]) -> list[str]:
    shown = [
        "| run | structures/s | against 1 rank | SHA-256 of the output |",
        "|---|---|---|---|",
    ]
    alone = rates["1 rank"]
    for name, values in rates.items():
        ratio = statistics.median(value / one for value, one in zip(values, alone, strict=True))
        shown.append(
            f"| {name} | {statistics.median(values):.0f} | {ratio:.2f} | {digests[name][:16]} |"
        )
    return shown


if __name__ == "__main__":
    main()
