"""Whether two versions of the package give the same bits, from trajectory to evaluation.

    python benchmarks/robustness/same_as.py FOLDER > before.json
    python benchmarks/robustness/same_as.py FOLDER --against before.json    # with the other

Runs the example campaign with 50 training steps a stage by the command line of the package that Python finds
(PYTHONPATH chooses it), in FOLDER, which must be new. The record: SHA-256 of the backmapped frames and of a
trajectory backmapped by the shipped stage, the loss of each training step, and the evaluation.
Exit code 1 where they part.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "trpcage"
STAGES = ("ucg5-ca", "ca-fg")
STEPS = 50
MADE_ANEW = {"versions", "campaign_digest", "stores", "seconds", "time"}
"""Keys of a record that name the run rather than its result."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--against", type=Path, help="Record of the other version.")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True)
    found = run_campaign(arguments.folder)
    print(json.dumps(found, indent=1, sort_keys=True))
    if arguments.against:
        before = json.loads(arguments.against.read_text())
        parted = sorted(key for key in before.keys() | found if before.get(key) != found.get(key))
        print("same bits" if not parted else f"differ in: {', '.join(parted)}", file=sys.stderr)
        sys.exit(bool(parted))


def run_campaign(folder: Path) -> dict:
    campaign = str(EXAMPLE / "campaign.yaml")
    settings = [f"workdir={folder.resolve() / 'work'}"]
    for stage in STAGES:
        settings += [
            f"stages.{stage}.train.{key}"
            for key in (f"max_steps={STEPS}", "max_minutes=null", "log_every=1")
        ]
    command("ingest", campaign, *settings)
    for stage in STAGES:
        command("train", campaign, *settings, "--stage", stage)
    command("backmap", campaign, *settings, "backmap.frames=0:64", "backmap.shard_frames=16")
    command("evaluate", campaign, *settings)
    atoms = folder / "atoms.xtc"
    top = EXAMPLE / "trpcage_top.pdb"
    source = EXAMPLE / "trpcage.xtc"
    command("backmap", source, "--top", top, "-o", atoms, "--members", "1")
    work = folder / "work"
    return {
        "backmapped": json.loads(command("verify", work / "backmapped.zarr", "--json"))["content"],
        "trajectory": hashlib.sha256(atoms.read_bytes()).hexdigest(),
        "losses": {stage: losses(work / "stages" / stage / "metrics.jsonl") for stage in STAGES},
        "evaluation": results(json.loads((work / "metrics.json").read_text())),
    }


def command(*words) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "hpcbackmap", *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def losses(path: Path) -> list[float]:
    records = map(json.loads, path.read_text().splitlines())
    return [record["loss"] for record in records if record["kind"] == "train"]


def results(record):
    """A record without what names the run."""
    if isinstance(record, dict):
        return {key: results(value) for key, value in record.items() if key not in MADE_ANEW}
    return [results(item) for item in record] if isinstance(record, list) else record


if __name__ == "__main__":
    main()
