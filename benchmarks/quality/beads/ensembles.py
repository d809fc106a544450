"""Ensembles of the data folder as C-alpha traces, and the splits of the one-protein tables."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import mdtraj
import numpy as np

from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.protein.topology import Topology

ADK = ("adk_dims_a", "adk_dims_b", "adk_dims_c", "adk_dims_d", "adk_tmd")
OTHERS = {
    "trp-cage": ("trpcage_tc5b/tc5b_md.xtc", "trpcage_tc5b/tc5b_md_top.pdb"),
    "p38": ("p38/p38_md.xtc", "p38/p38_md_top.pdb"),
    "ubiquitin": ("ubiquitin/2k39_nmr.pdb.gz", None),
}
HELD_OUT = 0.3
"""Last share of the frames of an ensemble without paths that is the test set."""


@dataclass(frozen=True)
class Split:
    """Heavy atoms float32 [F, A, 3] (nm); blocks [F]: path of each training frame, if there are paths."""

    name: str
    topology: Topology
    train: np.ndarray
    test: np.ndarray
    blocks: np.ndarray | None


def data_folder() -> Path:
    if "HPCBACKMAP_DATA" not in os.environ:
        sys.exit("set HPCBACKMAP_DATA to the folder of the ensembles")
    return Path(os.environ["HPCBACKMAP_DATA"])


def read(trajectory: str, top: str | None) -> tuple[Topology, np.ndarray]:
    folder = data_folder()
    options = {"top": str(folder / top)} if top else {}
    frames = mdtraj.load(str(folder / trajectory), **options)
    topology, index, _ = topology_from_mdtraj(frames.topology, frames.xyz[0], trajectory)
    return topology, frames.xyz[:, index]


def splits() -> dict[str, Split]:
    """AdK by path, to the far end of the paths and from targeted MD; the others by blocks of time."""
    paths = {}
    for name in ADK:
        file = f"adenylate_kinase/{name}"
        topology, paths[name[4:]] = read(f"{file}.xtc", f"{file}_top.pdb")
    a, b, c, d, tmd = (paths[name[4:]] for name in ADK)
    found = [
        _of_paths("adk by path", topology, [a, b, c, tmd], d),
        _of_paths(
            "adk extrapolation",
            topology,
            [x[: int(0.6 * len(x))] for x in (a, b, c)],
            d[int(0.7 * len(d)) :],
        ),
        _of_paths("adk tmd to dims", topology, [tmd], d),
    ]
    for name, files in OTHERS.items():
        topology, frames = read(*files)
        border = int((1 - HELD_OUT) * len(frames))
        found.append(Split(name, topology, frames[:border], frames[border:], None))
    return {split.name: split for split in found}


def _of_paths(name: str, topology: Topology, train: list[np.ndarray], test: np.ndarray) -> Split:
    blocks = np.repeat(np.arange(len(train)), [len(path) for path in train])
    return Split(name, topology, np.concatenate(train), test, blocks if len(train) > 1 else None)
