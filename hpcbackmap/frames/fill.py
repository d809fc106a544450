"""Filling a frame store: pieces of trajectories in, coarsened, whole shards out."""

from collections.abc import Iterator

import numpy as np

from hpcbackmap.frames import layout
from hpcbackmap.frames.store import FrameStore
from hpcbackmap.frames.survey import SystemSurvey

__all__ = ["fill_shards"]


def fill_shards(
    store: FrameStore, surveys: list[SystemSurvey], rank: int, world: int
) -> Iterator[tuple[str, int]]:
    """Write this rank's share of the shards, each whole; yields what was written and its number of frames.

    The ranks divide the shards in contiguous runs, so that each reads its files once and in order.
    Raises InputError for frames that cannot be read, OutputError.
    """
    by_name = {survey.name: survey for survey in surveys}
    packs = store.packs
    packed = {name for pack in packs for name in pack}
    shards = [
        (name, shard)
        for name in store.systems
        if name not in packed
        for shard in range(store.system(name).n_shards)
    ]
    mine = shards[rank * len(shards) // world : (rank + 1) * len(shards) // world]
    for name in dict.fromkeys(name for name, _ in mine):
        numbers = [shard for owner, shard in mine if owner == name]
        system, size = store.system(name), store.system(name).shard_frames
        stop = min(system.n_frames, (numbers[-1] + 1) * size)
        levels = _levels(store, by_name[name], numbers[0] * size, stop)
        for shard, (positions, observables) in zip(numbers, _regroup(levels, size), strict=True):
            system.write_shard(shard, positions, observables)
            yield name, len(observables["step"])
    for pack in range(rank, len(packs), world):
        contents = {name: _whole_system(store, by_name[name]) for name in packs[pack]}
        positions = {name: content[0] for name, content in contents.items()}
        observables = {name: content[1] for name, content in contents.items()}
        store.write_pack(pack, positions, observables)
        yield f"pack {pack}", sum(len(values["step"]) for values in observables.values())


def _whole_system(store, survey: SystemSurvey) -> tuple[dict, dict]:
    levels = _levels(store, survey, 0, survey.n_frames)
    return next(_regroup(levels, survey.n_frames))


def _levels(store, survey, start: int, stop: int) -> Iterator[tuple[dict, dict]]:
    """Pieces of frames at every stored resolution, and their observables."""
    ladder = store.system(survey.name).ladder
    for positions, steps, times, _ in survey.read(start, stop):
        if store.attributes["quantised"]:
            positions = layout.from_quanta(layout.to_quanta(positions))
        levels = ladder.coarsen(positions, start=store.resolutions[0])
        yield levels, {"step": steps, "time": times}


def _regroup(pieces: Iterator[tuple[dict, dict]], size: int) -> Iterator[tuple[dict, dict]]:
    """The same frames in groups of ``size``; the last may be smaller."""
    held: list[tuple[dict, dict]] = []
    count = 0
    for piece in pieces:
        length, start = len(piece[1]["step"]), 0
        while start < length:
            stop = min(length, start + size - count)
            held.append(tuple({key: a[start:stop] for key, a in part.items()} for part in piece))
            count, start = count + stop - start, stop
            if count == size:
                yield _joined(held)
                held, count = [], 0
    if held:
        yield _joined(held)


def _joined(pieces: list[tuple[dict, dict]]) -> tuple[dict, dict]:
    return tuple(
        {key: np.concatenate([piece[part][key] for piece in pieces]) for key in pieces[0][part]}
        for part in (0, 1)
    )
