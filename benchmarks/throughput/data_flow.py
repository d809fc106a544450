"""What the flow of data costs: as it was (read frame by frame, described at once, …) beside as it is.

    python benchmarks/throughput/data_flow.py FOLDER [--chains 40] [--residues 165]

FOLDER: a finished example campaign (its `frames.zarr` below `work/`, or given by its name). Prints a line for
each figure; times are the least of three, in CPU seconds of one thread unless they say otherwise.
"""

import argparse
import gc
import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import mdtraj
import numpy as np
import torch

from hpcbackmap.backmapping.chain import Chain, Chains
from hpcbackmap.config.campaign import GenzprotConfig
from hpcbackmap.protein.residues import RESIDUES
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.stages.build import build_stage
from hpcbackmap.stages.system import collate
from hpcbackmap.store import layout
from hpcbackmap.store.store import open_store
from hpcbackmap.trajectories.reader import read_frames

CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--chains", type=int, default=40)
    parser.add_argument("--residues", type=int, default=165)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = arguments.folder / "work" / "frames.zarr"
    validation(open_store(found if found.exists() else arguments.folder))
    many_chains(arguments.chains, arguments.residues)
    solvated()
    rounding()


def least(work: Callable[[], object], clock=time.process_time, rounds: int = 3) -> float:
    found = []
    for _ in range(rounds):
        gc.collect()
        begun = clock()
        work()
        found.append(clock() - begun)
    return min(found)


def show(what: str, before: float, now: float, unit: str = "s") -> None:
    ratio = f"{before / now:.1f} times less" if now > 0 else "nothing"
    print(f"{what:<62} {before:>9.4f} {now:>9.4f} {unit:<4} {ratio}", flush=True)


def validation(store) -> None:
    system = store.system(store.systems[0])
    frames = np.unique(np.linspace(0, system.n_frames - 1, 128).round().astype(int))

    def one_by_one():
        for level in store.resolutions[:2]:
            np.concatenate([system.read(level, int(i), int(i) + 1) for i in frames])

    def at_once():
        for level in store.resolutions[:2]:
            system.read_at(level, frames)

    show("validation: 128 frames, read one by one | by block", least(one_by_one), least(at_once))


def many_chains(count: int, residues: int) -> None:
    letters = "".join(template.letter for template in RESIDUES.values())
    random = np.random.default_rng(0)
    sequences = ["".join(random.choice(list(letters), residues)) for _ in range(count)]
    ladders = {
        str(k): build_ladder(topology_from_sequence([sequence]), ["fg", "ca"])
        for k, sequence in enumerate(sequences)
    }
    config = GenzprotConfig(width=32, layers=2)
    listed = list(ladders.values())
    stage = build_stage("ca-fg", config, listed[:1], 0)
    what = f"{count} chains of {residues} residues"
    described = [stage.describe(ladder) for ladder in listed]
    show(
        f"a stage for {what}: described | looked at",
        least(lambda: [stage.describe(ladder) for ladder in listed], rounds=1),
        least(lambda: build_stage("ca-fg", config, listed, 0), rounds=1),
    )
    one = listed[0]

    def first_of_many():
        return Chains([stage], ladders.__getitem__, ladders, CPU)["0"]

    show(
        f"driver, {what}, one met: all made | one",
        least(lambda: [Chain([stage], ladder, CPU) for ladder in listed], rounds=1),
        least(first_of_many, rounds=1),
    )
    assert one is ladders["0"]
    collate(described[:2])  # loads what it needs
    some, kept = described[:16], {}
    names = tuple(map(str, range(16)))

    def together():
        if names not in kept:
            kept[names] = collate(some)
        return kept[names]

    together()
    show(
        "16 chains as one: put together each step | kept",
        least(lambda: collate(some)),
        max(least(together), 1e-7),
    )


def solvated() -> None:
    """A protein of 300 atoms in 30,000 of water, 60 frames."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "water.xtc")
        random = np.random.default_rng(0)
        xyz = random.uniform(0, 7, (60, 30_300, 3)).astype(np.float32)
        with mdtraj.open(path, "w") as file:
            file.write(xyz)
        del xyz
        index = np.arange(300)

        class Top:
            n_atoms = 30_300

        def all_atoms():
            for positions, *_ in read_frames(path, Top, 0, 60):
                positions[:, index].sum()

        def chosen():
            for positions, *_ in read_frames(path, Top, 0, 60, atoms=index):
                positions.sum()

        show("300 of 30,300 atoms of 60 frames: all read | chosen", least(all_atoms), least(chosen))
        show("  most memory of arrays", held_mb(all_atoms), held_mb(chosen), "MB")


def held_mb(work: Callable[[], object]) -> float:
    """Most memory of arrays at a time."""
    tracemalloc.start()
    work()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most / 2**20


def rounding() -> None:
    positions = np.random.default_rng(0).uniform(-5, 5, (2000, 150, 3)).astype(np.float32)

    def thrice():
        values = layout.from_quanta(layout.to_quanta(positions))
        layout.to_quanta(values)
        layout.from_quanta(layout.to_quanta(values))

    def once():
        quanta = layout.to_quanta(positions)
        layout.from_quanta(quanta)
        layout.from_quanta(quanta)

    show(
        "0.9 million numbers of a quantised shard: rounded thrice | once",
        least(thrice),
        least(once),
    )


if __name__ == "__main__":
    main()
