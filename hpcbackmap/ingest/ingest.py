"""From trajectory files to a frame store.

Looked at first, written next to the final place, renamed when all frames are accounted for: a store that
has its name is whole. What an interrupted ingest has written stays, and the next one does the rest. Ranks
divide systems to look at, and shards to write.
"""

import logging
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from hpcbackmap.config.campaign import Campaign
from hpcbackmap.ingest.requested_store import (
    find_finished,
    from_structures,
    prepare,
    request_of,
)
from hpcbackmap.ingest.shard_records import (
    Unit,
    Written,
    WrittenUnits,
    all_units,
    only_ingest,
    record_folder,
)
from hpcbackmap.ingest.survey import SystemSurvey, survey_system
from hpcbackmap.ingest.write_shards import fill_units
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.errors import (
    ConfigError,
    HpcbackmapError,
    IncompleteError,
    InputError,
    OutputError,
    Stopped,
)
from hpcbackmap.runtime.files import flush, is_url, writing
from hpcbackmap.runtime.mpi import Comm, on_first_rank, raise_together
from hpcbackmap.runtime.progress import Progress
from hpcbackmap.runtime.stopping import StopSignals
from hpcbackmap.store.location import remove, size_of
from hpcbackmap.store.split import split_systems
from hpcbackmap.store.store import FrameStore, open_store
from hpcbackmap.trajectories.units import frame_bytes

__all__ = ["ingest"]

log = logging.getLogger(__name__)

LADDER_FRAMES = 200
"""Training frames that structure-based beads (blobs, cgae) are made from."""


def ingest(campaign: Campaign, comm: Comm) -> dict[str, Any]:
    """Read the campaign's trajectories into its frame store. Collective over ``comm``.

    Returns counts: systems, chains, residues, frames in the files and in the store, frames made whole, atoms
    left out of a frame by kind, bytes, compression (float32 positions to bytes on the disk); ``status`` is
    ``written`` or ``nothing to do`` (the store was there already).
    Raises InputError for unusable input, ConfigError if another campaign's store is in the way,
    OutputError if it cannot be written, ResourceError if another ingest is writing it, Stopped after a stop
    signal (what is written stays), IncompleteError if frames are unaccounted for.
    """
    place = campaign.store_place()
    names = [system.name for system in campaign.systems]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"systems: two are called {name!r}")
    surveys = _share(comm, campaign.systems, lambda system: survey_system(system, campaign.ladder))
    request = request_of(campaign, surveys)
    found = on_first_rank(comm, lambda: find_finished(place, request) is not None)
    if found:
        log.info("%s: nothing to do", place)
        return on_first_rank(comm, lambda: _summary(place, surveys, "nothing to do"))
    with ExitStack() as held:
        if not is_url(place):
            on_first_rank(comm, lambda: held.enter_context(only_ingest(Path(place))))
        _write_store(campaign, comm, place, surveys, request)
    return on_first_rank(comm, lambda: _summary(place, surveys, "written"))


def _write_store(
    campaign: Campaign, comm: Comm, place: str, surveys: list[SystemSurvey], request: dict[str, Any]
) -> None:
    partial = place if is_url(place) else place + ".partial"
    training = split_systems(surveys, campaign.split)["train"]
    ladders = _share(comm, surveys, lambda survey: _build_ladder(campaign, survey, training))
    on_first_rank(comm, lambda: prepare(campaign, partial, surveys, ladders, request))
    store = open_store(partial, incomplete_ok=True)
    try:
        parts = comm.gather(_fill(store, surveys, comm))
    except InputError:
        on_first_rank(comm, lambda: remove(partial))
        raise
    on_first_rank(comm, lambda: _finish(store, place, surveys, list(chain(*parts))))


def _fill(store: FrameStore, surveys: list[SystemSurvey], comm: Comm) -> list[tuple[Unit, Written]]:
    """Write what is missing, shared by the ranks; this rank's units, those of an earlier run that it found
    included.
    """
    units, records = all_units(store), WrittenUnits(store)
    found = [records.find(unit) for unit in units[comm.rank :: comm.size]]
    there = comm.bcast(comm.gather([written is not None for written in found]))
    missing = [unit for i, unit in enumerate(units) if not there[i % comm.size][i // comm.size]]
    done = [
        (unit, written)
        for unit, written in zip(units[comm.rank :: comm.size], found, strict=True)
        if written is not None
    ]
    mine = missing[
        comm.rank * len(missing) // comm.size : (comm.rank + 1) * len(missing) // comm.size
    ]
    earlier = comm.allreduce(sum(written.frames for _, written in done))
    if earlier:
        log.info("%s: %d frames are there from an earlier ingest", store.path, earlier)
    total = sum(survey.n_frames for survey in surveys)
    error: HpcbackmapError | None = None
    with (
        Progress(comm, total, "frames", earlier, bar=True) as progress,
        StopSignals() as stop,
    ):
        stops = comm.counter()  # one rank that is asked to stop stops all
        try:
            for unit, written in fill_units(store, surveys, mine):
                records.publish(unit, written)
                done.append((unit, written))
                progress.tell(written.frames)
                if stops.next(int(stop.received is not None)) or stop.received:
                    raise Stopped(
                        f"{store.path}: stopped on request; what is written stays, the same command continues"
                    )
        except OutputError as failure:
            error = OutputError(f"{failure}; what is written stays, the same command continues")
        except HpcbackmapError as failure:
            error = failure
        raise_together(comm, error)
        stops.free()
    return done


def _share(comm: Comm, items: list[Any], work: Callable[[Any], Any]) -> list[Any]:
    """``work(item)`` of every item, on all ranks; each rank does some."""
    mine, error = [], None
    try:
        mine = [work(item) for item in items[comm.rank :: comm.size]]
    except HpcbackmapError as failure:
        error = failure
    raise_together(comm, error)
    parts = comm.bcast(comm.gather(mine))
    return [parts[i % comm.size][i // comm.size] for i in range(len(items))]


def _build_ladder(campaign: Campaign, survey: SystemSurvey, training: list[Any]) -> Ladder:
    if survey.ladder is not None and len(survey.ladder.resolutions) == len(campaign.ladder):
        return survey.ladder
    if survey.resolution == "ca" and survey.ladder is None and campaign.ladder[1] != "ca":
        raise InputError(
            f"{survey.files[0].path}: C-alpha atoms only; that needs a ladder of fg, ca, …, "
            f"not fg, {campaign.ladder[1]}"
        )
    positions = None
    if from_structures(campaign):
        ranges = [part for part in training if part.system == survey.name]
        parts = [np.arange(part.start, part.stop) for part in ranges]
        frames = np.concatenate([np.arange(0), *parts])
        if len(frames) == 0:
            raise ConfigError(
                f"system {survey.name}: blobs and cgae are made from training frames, and the split leaves it "
                "none; use segments"
            )
        spread = np.unique(np.linspace(0, len(frames) - 1, LADDER_FRAMES).round().astype(int))
        pieces = [piece for i in frames[spread] for piece, *_ in survey.read(int(i), int(i) + 1)]
        positions = _as_atoms(survey, np.concatenate(pieces))
    return build_ladder(survey.topology, campaign.ladder, positions, campaign.seed)


def _as_atoms(survey: SystemSurvey, positions: np.ndarray) -> np.ndarray:
    """Heavy atoms [F, A, 3] that have the given means: every atom where its particle is."""
    if survey.ladder is not None:
        return positions[:, survey.ladder.composed(survey.resolution).bead]
    return positions[:, survey.topology.atom_residue] if survey.resolution == "ca" else positions


def _finish(
    store: FrameStore,
    place: str,
    surveys: list[SystemSurvey],
    done: list[tuple[Unit, Written]],
) -> None:
    expected = sum(survey.n_frames for survey in surveys)
    frames = sum(written.frames for _, written in done)
    checksums = {
        (name, 0 if unit.system is None else unit.number): digest
        for unit, written in done
        for name, digest in written.digests.items()
    }
    if frames != expected:
        raise IncompleteError(f"{place}: {frames} frames were written, the files hold {expected}")
    store.mark_complete(checksums, frames_made_whole=sum(written.mended for _, written in done))
    remove(record_folder(store.path))
    if is_url(place):
        return
    with writing(place):
        Path(store.path).rename(place)
        flush(Path(place).parent)


def _summary(place: str, surveys: list[SystemSurvey], status: str) -> dict[str, Any]:
    dropped: Counter[str] = Counter()
    for survey in surveys:
        dropped.update(survey.dropped)
    store = open_store(place)
    systems = [store.system(name) for name in store.systems]
    raw = sum(
        frame_bytes(sum(map(system.n_particles, store.resolutions))) * system.n_frames
        for system in systems
    )
    size = size_of(place)
    return {
        "status": status,
        "store": place,
        "systems": len(surveys),
        "chains": sum(len(survey.topology.chain_ids) for survey in surveys),
        "residues": sum(survey.topology.n_residues for survey in surveys),
        "frames_in": sum(file.n_frames for survey in surveys for file in survey.files),
        "frames_out": sum(survey.n_frames for survey in surveys),
        "frames_made_whole": store.attributes.get("frames_made_whole", 0),
        "dropped_atoms": dict(dropped),
        "bytes": size,
        "compression": round(raw / size, 2),
    }
