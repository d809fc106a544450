"""The frames that a report shows: a sample of those that were judged, system by system."""

from typing import NamedTuple

import numpy as np

from hpcbackmap.evaluation.baselines import bead_centre
from hpcbackmap.evaluation.campaign import Sources
from hpcbackmap.evaluation.pairing import Pairs, read_members, thin
from hpcbackmap.evaluation.reading import read_frames
from hpcbackmap.metrics.radius_of_gyration import radius_of_gyration
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.trajectories.units import frame_bytes

__all__ = ["SHOWN_FRAMES", "Shown", "collect"]

SHOWN_FRAMES = 100
"""Most frames of one system in the figures; the tables come from all that were judged."""
ERROR = "expected_error"
SHOWN_BYTES = 64e6
"""Coordinates of the members of one system in memory."""


class Shown(NamedTuple):
    """Frames of one system in the figures; nm.

    frames: numbers of the frames in their system [F]. truth [F, A, 3], members [F, M, A, 3].
    baselines: answers [F, A, 3] by row name of `record.LABELS`.
    pictured: index of the frame in the pictures. levels: its first member at every resolution that
    is stored, and its input beads. errors: expected error of each residue of the members [F, M, R], where the
    store has them.
    """

    ladder: Ladder
    system: str
    frames: np.ndarray
    truth: np.ndarray
    members: np.ndarray
    baselines: dict[str, np.ndarray]
    pictured: int
    levels: dict[str, np.ndarray]
    errors: np.ndarray | None = None


def collect(sources: Sources, pairs: Pairs) -> Shown | None:
    """Evenly spaced frames of one system without those that were given up; None if none is left."""
    ladder = sources.truth.system(pairs.system).ladder
    cost = frame_bytes(pairs.rows.shape[1] * ladder.topology.n_atoms)
    pairs = thin([pairs], int(np.clip(SHOWN_BYTES // cost, 1, SHOWN_FRAMES)))[0]
    members = read_members(sources.generated, pairs, "fg")
    whole = np.isfinite(members).all((1, 2, 3))
    if not whole.any():
        return None
    frames, rows, members = pairs.frames[whole], pairs.rows[whole], members[whole]
    coarsest = ladder.resolutions[-1]
    truth = read_frames(sources.truth, pairs.system, "fg", frames)
    beads = read_frames(sources.truth, pairs.system, coarsest, frames)
    baselines = {"bead_centre": bead_centre(ladder, beads)}
    nearest = sources.nearest(pairs.system, beads)
    if nearest is not None:
        baselines["nearest_training_frame"] = nearest
    pictured = _typical(ladder, truth)
    levels = {
        name: read_frames(sources.generated, pairs.system, name, rows[pictured, :1])[0]
        for name in ladder.resolutions[:-1]
        if name in sources.generated.resolutions
    }
    levels[coarsest] = beads[pictured]
    errors = _expected_errors(sources, pairs.system, rows)
    return Shown(ladder, pairs.system, frames, truth, members, baselines, pictured, levels, errors)


def _expected_errors(sources: Sources, system: str, rows: np.ndarray) -> np.ndarray | None:
    """Of the members in ``rows`` [F, M] of the backmapped store, nm [F, M, R]."""
    stored = sources.generated.system(system)
    if ERROR not in stored.residue_values:
        return None
    found = []
    for members in rows:
        first = int(members.min())
        found.append(stored.read_of_residues(ERROR, first, int(members.max()) + 1)[members - first])
    return np.stack(found)


def _typical(ladder: Ladder, truth: np.ndarray) -> int:
    """The frame of median size: neither the best nor the worst answer is picked for the picture."""
    size = radius_of_gyration(ladder.topology, truth)
    return int(np.argsort(size)[len(size) // 2])
