"""The trivial answers that a backmapping has to beat, from the same beads.

None sees the truth of the frame it answers for, and the nearest frame comes from training ranges
only. `regression` has the closed-form ones; `close_trace` gives any answer the geometry that a stage has.
"""

import numpy as np

from hpcbackmap.evaluation.reading import read_blocks, read_frames
from hpcbackmap.metrics.rmsd import pairwise_rmsd, superpose
from hpcbackmap.protein.residues import CIS_BORDER
from hpcbackmap.protein.topology import Topology
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.store.split import FrameRange
from hpcbackmap.store.store import FrameStore

__all__ = [
    "bead_centre",
    "cis_links",
    "close_trace",
    "nearest_training_frame",
    "nearest_training_frames",
]

BLOCK = 1024
"""Training frames compared at once."""


def bead_centre(ladder: Ladder, beads: np.ndarray) -> np.ndarray:
    """Every heavy atom at the centre of its coarsest bead: [F, A, 3] from beads [F, B, 3]."""
    return beads[:, ladder.composed(ladder.resolutions[-1]).bead]


def nearest_training_frame(
    store: FrameStore, ranges: list[FrameRange], system: str, beads: np.ndarray
) -> np.ndarray:
    """Heavy atoms [F, A, 3] of the nearest training frames, superposed by beads on ``beads``."""
    frames = nearest_training_frames(store, ranges, system, beads)
    template = read_frames(store, system, "fg", frames)
    ladder = store.system(system).ladder
    template_beads = ladder.coarsen(template)[ladder.resolutions[-1]]
    return superpose(template, beads, template_beads, beads)


def nearest_training_frames(
    store: FrameStore, ranges: list[FrameRange], system: str, beads: np.ndarray
) -> np.ndarray:
    """Frame of the system with the smallest superposed bead RMSD to each of ``beads``: [F].

    beads: [F, B, 3]. ranges: the training `FrameRange`s of this system.
    """
    coarsest = store.system(system).ladder.resolutions[-1]
    best = np.full(len(beads), np.inf)
    nearest = np.full(len(beads), -1, dtype=np.int64)
    for item in ranges:
        for start, block in read_blocks(store, system, coarsest, item.start, item.stop, BLOCK):
            distance = pairwise_rmsd(beads, block)
            winner = distance.argmin(1)
            smallest = distance[np.arange(len(beads)), winner]
            better = smallest < best
            best[better], nearest[better] = smallest[better], start + winner[better]
    return nearest


def cis_links(topology: Topology, calpha: np.ndarray) -> np.ndarray:
    """Whether the link to the residue before is cis in most frames: bool [R]; calpha [F, R, 3]."""
    length = np.linalg.norm(np.diff(calpha, axis=1), axis=-1)
    cis = np.median(length, axis=0) < CIS_BORDER
    found: np.ndarray = np.append(False, cis) & np.array(topology.bonded)
    return found


def close_trace(
    ladder: Ladder, calpha: np.ndarray, beads: np.ndarray, cis: np.ndarray
) -> np.ndarray:
    """C-alpha traces [F, R, 3] moved onto their beads [F, B, 3], then closed as a stage closes its own.

    ladder: with ``ca`` right above the beads. cis: links [R] (see `cis_links`).
    """
    import torch

    from hpcbackmap.stages.base import collate
    from hpcbackmap.stages.layers.bead_system import bead_system
    from hpcbackmap.stages.layers.close_trace import close_calpha

    coarse = ladder.resolutions[ladder.index("ca") + 1]
    mapping = ladder.mapping(coarse)
    met = calpha + (beads - mapping.apply(calpha))[:, mapping.bead]
    system = collate([bead_system(ladder, "ca", coarse)])
    links = torch.from_numpy(cis)[system.bond_index[:, 1]]
    with torch.no_grad():
        return close_calpha(torch.from_numpy(met).float(), system, links).numpy()
