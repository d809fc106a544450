"""Which stored structure answers for which true frame."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from hpcbackmap.evaluation.reading import read_frames
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.store.split import FrameRange
from hpcbackmap.store.store import FrameStore

__all__ = ["Pairs", "pair_stores", "read_members", "require_held_out", "thin"]


class Pairs(NamedTuple):
    """One system: frame numbers in the truth's system [F]; rows of their members [F, M]."""

    system: str
    frames: np.ndarray
    rows: np.ndarray


def pair_stores(truth: FrameStore, generated: FrameStore) -> list[Pairs]:
    """Match a backmapped store to the truth by its observable ``source_frame``, system by system.

    Raises InputError if a system is another molecule or ladder, a frame does not exist in the
    truth, or frames have unequal numbers of members.
    """
    pairs = []
    for name in generated.systems:
        stored = generated.system(name)
        if name not in truth.systems:
            raise InputError(f"{generated.path}: {truth.path} has no system {name} to judge it by")
        original = truth.system(name)
        if stored.ladder.protonated(()).digest != original.ladder.protonated(()).digest:
            raise InputError(
                f"{generated.path}: system {name} has another sequence or ladder than in "
                f"{truth.path}"
            )
        source = np.asarray(
            stored.read_observable("source_frame", 0, stored.n_frames), dtype=np.int64
        )
        pairs.append(_pair(name, source - original.first_frame, original.n_frames, generated.path))
    return pairs


def _pair(system: str, source: np.ndarray, n_frames: int, path: str) -> Pairs:
    frames, counts = np.unique(source, return_counts=True)
    if not len(frames):
        raise InputError(f"{path}: system {system} has no backmapped frames; run backmap first")
    if frames[0] < 0 or frames[-1] >= n_frames:
        outside = frames[0] if frames[0] < 0 else frames[-1]
        raise InputError(f"{path}: source frame {outside} of system {system} is not in the truth")
    if counts.min() != counts.max():
        few = frames[counts.argmin()]
        raise InputError(
            f"{path}: frame {few} of system {system} has {counts.min()} members, others "
            f"{counts.max()}; finish the backmapping first"
        )
    rows = np.argsort(source, kind="stable").reshape(len(frames), -1)
    return Pairs(system, frames, rows)


def read_members(generated: FrameStore, pairs: Pairs, resolution: str) -> np.ndarray:
    """Positions of all members of the paired frames, [F, M, particles, 3]."""
    positions = read_frames(generated, pairs.system, resolution, pairs.rows.ravel())
    return positions.reshape(*pairs.rows.shape, *positions.shape[1:])


def require_held_out(pairs: list[Pairs], ranges: Iterable[FrameRange], path: str) -> None:
    """Raise InputError if a frame lies outside the test ranges."""
    for system, frames, _ in pairs:
        inside = np.zeros(len(frames), dtype=bool)
        for item in ranges:
            if item.system == system:
                inside |= (frames >= item.start) & (frames < item.stop)
        if not inside.all():
            raise InputError(
                f"{path}: {(~inside).sum()} of {len(frames)} frames of system {system} are not "
                f"held-out test frames (first: {frames[~inside][0]}); backmap the test frames of "
                "this campaign"
            )


def thin(pairs: list[Pairs], max_frames: int | None) -> list[Pairs]:
    """At most ``max_frames`` evenly spaced frames over all systems, at least one of each."""
    total = sum(len(item.frames) for item in pairs)
    if max_frames is None or total <= max_frames:
        return pairs
    thinned = []
    for system, frames, rows in pairs:
        share = max(1, len(frames) * max_frames // total)
        keep = np.linspace(0, len(frames) - 1, share).round().astype(np.int64)
        thinned.append(Pairs(system, frames[keep], rows[keep]))
    return thinned
