"""Filling a frame store: pieces of trajectories in, coarsened, whole shards out."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from hpcbackmap.ingest.shard_records import Unit, Written
from hpcbackmap.ingest.survey import SystemSurvey
from hpcbackmap.store import layout
from hpcbackmap.store.store import FrameStore

__all__ = ["fill_units"]

MENDED = "mended"
"""Kept with the observables of frames, and counted instead of stored."""


def fill_units(
    store: FrameStore, surveys: list[SystemSurvey], units: list[Unit]
) -> Iterator[tuple[Unit, Written]]:
    """Write these units, each whole, in their order; yields each when it is on the disk.

    Neighbouring shards of a system are read in one go.
    Raises InputError for frames that cannot be read, OutputError.
    """
    by_name = {survey.name: survey for survey in surveys}
    for run in _runs(units):
        name, first = run[0]
        if name is None:
            yield run[0], _fill_pack(store, by_name, first)
            continue
        system, size = store.system(name), store.system(name).shard_frames
        stop = min(system.n_frames, (run[-1].number + 1) * size)
        levels = _regroup(_levels(store, by_name[name], first * size, stop), size)
        for unit, (positions, observables) in zip(run, levels, strict=True):
            mended = int(observables.pop(MENDED).sum())
            digest = system.write_shard(unit.number, positions, observables)
            yield unit, Written(len(observables["step"]), mended, {name: digest})


def _runs(units: list[Unit]) -> list[list[Unit]]:
    """Shards that follow each other in one system together; every pack alone."""
    runs: list[list[Unit]] = []
    for unit in units:
        if unit.system is not None and runs and runs[-1][-1] == (unit.system, unit.number - 1):
            runs[-1].append(unit)
        else:
            runs.append([unit])
    return runs


def _fill_pack(store: FrameStore, by_name: dict[str, SystemSurvey], pack: int) -> Written:
    positions, observables, mended = {}, {}, 0
    for name in store.packs[pack]:
        levels = _levels(store, by_name[name], 0, by_name[name].n_frames)
        positions[name], observables[name] = next(_regroup(levels, by_name[name].n_frames))
        mended += int(observables[name].pop(MENDED).sum())
    digests = store.write_pack(pack, positions, observables)
    return Written(sum(len(values["step"]) for values in observables.values()), mended, digests)


def _levels(
    store: FrameStore, survey: SystemSurvey, start: int, stop: int
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Pieces of frames at every stored resolution, and their observables."""
    ladder = store.system(survey.name).ladder
    for piece in survey.read_pieces(start, stop):
        positions, finest = piece.positions, store.resolutions[0]
        if store.attributes["quantised"]:
            quanta = layout.to_quanta(positions)
            levels = ladder.coarsen(layout.from_quanta(quanta), start=finest) | {finest: quanta}
        else:
            levels = ladder.coarsen(positions, start=finest)
        known = {"step": piece.steps, "time": piece.times, MENDED: piece.mended}
        yield levels, known | layout.cell_columns(piece.cells, len(piece.steps))


def _regroup(
    pieces: Iterator[tuple[dict[str, Any], dict[str, Any]]], size: int
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The same frames in groups of ``size``; the last may be smaller."""
    held: list[tuple[dict[str, Any], dict[str, Any]]] = []
    count = 0
    for piece in pieces:
        length, start = len(piece[1]["step"]), 0
        while start < length:
            stop = min(length, start + size - count)
            levels, observables = (
                {key: a[start:stop] for key, a in part.items()} for part in piece
            )
            held.append((levels, observables))
            count, start = count + stop - start, stop
            if count == size:
                yield _joined(held)
                held, count = [], 0
    if held:
        yield _joined(held)


def _joined(
    pieces: list[tuple[dict[str, Any], dict[str, Any]]],
) -> tuple[dict[str, Any], dict[str, Any]]:
    levels, observables = (
        {key: np.concatenate([piece[part][key] for piece in pieces]) for key in pieces[0][part]}
        for part in (0, 1)
    )
    return levels, observables
