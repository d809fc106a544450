"""Flip bits, cut and lose files of a store, an artifact and a checkpoint, and count what is noticed.

    python benchmarks/robustness/flips.py [--tries N] [--seed S]

Every try damages a fresh copy in one way: a bit of a file flipped, a file cut to a part, a file lost, or, for
metadata, a number in it changed. It counts as *named* if verifying (store, checkpoint) or loading (artifact)
raises an error of the package; as *same* if it does not, and all that is read is what was written; as *wrong*
if other numbers are read without a word; as *traceback* for any other exception.
"""

import argparse
import json
import logging
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from hpcbackmap.config.campaign import CgvaeConfig, StoreConfig
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.errors import HpcbackmapError
from hpcbackmap.runtime.mpi import LocalComm
from hpcbackmap.stages.artifact import load_artifact, save_artifact
from hpcbackmap.stages.build import build_stage
from hpcbackmap.store.store import create_store, open_store
from hpcbackmap.store.verify import verify_store
from hpcbackmap.training.checkpoints.checkpoints import Checkpoints, Progress, verified_manifest
from hpcbackmap.training.checkpoints.saving import file_record
from hpcbackmap.training.checkpoints.state_files import read_state, write_state

FRAMES = 64
LADDER = ["fg", "ca", "ucg:3"]
WAYS = ("flip", "flip", "flip", "cut", "lose", "number")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tries", type=int, default=200, help="Of each kind of output.")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        for name, make, look in (
            ("store", make_store, contents_of_store),
            ("artifact", make_artifact, contents_of_artifact),
            ("checkpoint", make_checkpoint, contents_of_checkpoint),
        ):
            whole = make(Path(folder) / name)
            rng = np.random.default_rng(arguments.seed)
            found = attack(whole, look, arguments.tries, rng)
            print(json.dumps({"output": name, "tries": arguments.tries, **found}))


def attack(whole: Path, look: Callable, tries: int, rng: np.random.Generator) -> dict[str, int]:
    """Verdicts of so many damages of copies of ``whole``."""
    before, verdicts = look(whole), Counter(named=0, same=0, wrong=0, traceback=0)
    copy = whole.with_name("damaged") / whole.name
    for _ in range(tries):
        shutil.rmtree(copy.parent, ignore_errors=True)
        shutil.copytree(whole, copy)
        damage(copy, rng)
        try:
            verdicts["same" if look(copy) == before else "wrong"] += 1
        except HpcbackmapError:
            verdicts["named"] += 1
        except Exception:
            verdicts["traceback"] += 1
    return dict(verdicts)


def damage(folder: Path, rng: np.random.Generator) -> None:
    """One file, in one way."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    path = files[rng.integers(len(files))]
    data = bytearray(path.read_bytes())
    way = WAYS[rng.integers(len(WAYS))]
    if way == "lose":
        path.unlink()
        return
    if way == "cut":
        del data[rng.integers(len(data)) :]
    elif way == "number" and path.suffix == ".json":
        numbers = list(re.finditer(rb"\d+", bytes(data)))
        found = numbers[rng.integers(len(numbers))]
        data[found.start() : found.end()] = str(rng.choice([0, 1, 7, 99, 10**12])).encode()
    else:
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def make_store(path: Path) -> Path:
    ladder = build_ladder(topology_from_sequence(["ACDEFGHIKLMNPQRSTVWY"]), ["fg", "ca"])
    rng = np.random.default_rng(1)
    positions = rng.normal(size=(FRAMES, ladder.topology.n_atoms, 3)).astype(np.float32)
    levels = ladder.coarsen(positions)
    config = StoreConfig(quantise=True, chunk_mb=0.02)
    store = create_store(
        path, {"p": ladder}, {"p": FRAMES}, ["fg", "ca"], config, {}, shard_frames=16
    )
    for shard in range(store.system("p").n_shards):
        part = slice(16 * shard, 16 * shard + 16)
        store.system("p").write_shard(shard, {name: a[part] for name, a in levels.items()})
    store.mark_complete()
    return path


def contents_of_store(path: Path) -> object:
    content = verify_store(path, LocalComm())["content"]
    return content, open_store(path).system("p").ladder.digest


def make_artifact(path: Path) -> Path:
    ladder = build_ladder(topology_from_sequence(["ACDEFGHIK"]), LADDER)
    stage = build_stage("ucg3-ca", CgvaeConfig(width=16, layers=1), [ladder], 0)
    return save_artifact(stage, path, {"data": "none"})


def contents_of_artifact(path: Path) -> object:
    stage = load_artifact(path)
    weights = {name: value.tolist() for name, value in stage.state_dict().items()}
    return stage.config, stage.ladder.digest, weights


def make_checkpoint(path: Path) -> Path:
    kept = Checkpoints(path, {"stage": "ca-fg"}, frozenset())
    kept.prepare("step_3")
    file = path / "step_3" / "state.pt"
    write_state({"module": {"a": torch.arange(1000.0)}, "step": 3}, file)
    kept.publish("step_3", {file.name: file_record(file)}, Progress(step=3), 1, {"stage": "ca-fg"})
    return path / "step_3"


def contents_of_checkpoint(path: Path) -> object:
    manifest = verified_manifest(path)
    state = read_state(path / "state.pt")
    return manifest, state["module"]["a"].tolist(), state["step"]


if __name__ == "__main__":
    main()
