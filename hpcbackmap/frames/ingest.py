"""From trajectory files to a frame store.

Looked at first, written next to the final place, renamed when all frames are accounted for: a store that
has its name is whole. Ranks divide systems to look at, and shards to write.
"""

import hashlib
import json
import logging
import shutil
from collections import Counter
from pathlib import Path

import mdtraj
import numpy as np
import zarr

from hpcbackmap import __version__
from hpcbackmap.config import Campaign
from hpcbackmap.errors import ConfigError, HpcbackmapError, IncompleteError, InputError
from hpcbackmap.frames.fill import fill_shards
from hpcbackmap.frames.shards import flush, writing
from hpcbackmap.frames.split import split_systems
from hpcbackmap.frames.store import FrameStore, create_store, open_store
from hpcbackmap.frames.survey import SystemSurvey, survey_system
from hpcbackmap.mpi import on_first_rank, raise_together
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.resolution.ladder import Ladder

__all__ = ["ingest"]

log = logging.getLogger(__name__)

LADDER_FRAMES = 200
"""Training frames that structure-based beads (blobs, cgae) are made from."""


def ingest(campaign: Campaign, comm) -> dict:
    """Read the campaign's trajectories into its frame store. Collective over ``comm``.

    Returns counts: systems, chains, residues, frames in the files and in the store, atoms left out of a
    frame by kind, bytes; ``status`` is ``written`` or ``nothing to do`` (the store was there already).
    Raises InputError for unusable input, ConfigError if another campaign's store is in the way,
    OutputError if it cannot be written, IncompleteError if frames are unaccounted for.
    """
    path = campaign.path(campaign.store.path)
    names = [system.name for system in campaign.systems]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"systems: two are called {name!r}")
    surveys = _share(comm, campaign.systems, survey_system)
    request = _request(campaign, surveys)
    found = on_first_rank(comm, lambda: _find_finished(path, request) is not None)
    if found:
        log.info("%s: nothing to do", path)
        return on_first_rank(comm, lambda: _summary(path, surveys, "nothing to do"))
    return _write_store(campaign, comm, path, surveys, request)


def _write_store(campaign, comm, path: Path, surveys: list[SystemSurvey], request: dict) -> dict:
    partial = path.with_name(path.name + ".partial")
    training = split_systems(surveys, campaign.split)["train"]
    ladders = _share(comm, surveys, lambda survey: _build_ladder(campaign, survey, training))
    try:
        on_first_rank(comm, lambda: _create(campaign, partial, surveys, ladders, request))
        store, written, error = open_store(partial, incomplete_ok=True), 0, None
        try:
            for names, count in fill_shards(store, surveys, comm.rank, comm.size):
                written += count
                log.info("%s: %d of %d frames", names, written, sum(s.n_frames for s in surveys))
        except HpcbackmapError as failure:
            error = failure
        raise_together(comm, error)
        written = comm.allreduce(written)
        on_first_rank(comm, lambda: _finish(store, path, surveys, written))
    except HpcbackmapError:
        if comm.rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    return on_first_rank(comm, lambda: _summary(path, surveys, "written"))


def _share(comm, items: list, work) -> list:
    """``work(item)`` of every item, on all ranks; each rank does some."""
    mine, error = [], None
    try:
        mine = [work(item) for item in items[comm.rank :: comm.size]]
    except HpcbackmapError as failure:
        error = failure
    raise_together(comm, error)
    parts = comm.bcast(comm.gather(mine))
    return [parts[i % comm.size][i // comm.size] for i in range(len(items))]


def _request(campaign: Campaign, surveys: list[SystemSurvey]) -> dict:
    """Everything that decides what the store will hold. Files count by content, not by place."""
    request = {
        "ladder": [_without_place(spec) for spec in campaign.ladder],
        "store": campaign.store.model_dump(include={"chunk_mb", "shard_mb", "quantise"}),
        "systems": [
            {
                "name": system.name,
                "selection": system.selection,
                "stride": system.stride,
                "topology": survey.topology_sha256,
                "files": {file.name: file.sha256 for file in survey.files},
            }
            for system, survey in zip(campaign.systems, surveys, strict=True)
        ],
    }
    if _from_structures(campaign):
        request |= {"split": campaign.split.model_dump(), "seed": campaign.seed}
    return json.loads(json.dumps(request))


def _without_place(spec: str) -> str:
    if not spec.startswith("file:"):
        return spec
    try:
        return "file:" + hashlib.sha256(Path(spec[5:]).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{spec[5:]}: {error.strerror}") from None


def _from_structures(campaign: Campaign) -> bool:
    return any(spec.endswith((":blobs", ":cgae")) for spec in campaign.ladder)


def _find_finished(path: Path, request: dict) -> FrameStore | None:
    """The store that this request would make, if it exists. Refuses to touch anything else at its place."""
    if not path.exists():
        return None
    store = open_store(path)
    before = store.attributes["provenance"].get("request", {})
    changed = [key for key in request.keys() | before.keys() if request.get(key) != before.get(key)]
    if changed:
        raise ConfigError(
            f"{path}: made from other input or settings (differs in: {', '.join(sorted(changed))}); "
            "remove it, or give store.path another name"
        )
    return store


def _build_ladder(campaign: Campaign, survey: SystemSurvey, training: list) -> Ladder:
    if survey.coarse and campaign.ladder[1] != "ca":
        raise InputError(
            f"{survey.files[0].path}: C-alpha atoms only; that needs a ladder of fg, ca, …, "
            f"not fg, {campaign.ladder[1]}"
        )
    positions = None
    if _from_structures(campaign):
        ranges = [part for part in training if part.system == survey.name]
        frames = np.concatenate([np.arange(part.start, part.stop) for part in ranges] or [[]])
        if len(frames) == 0:
            raise ConfigError(
                f"system {survey.name}: blobs and cgae are made from training frames, and the split leaves it "
                "none; use segments"
            )
        spread = np.unique(np.linspace(0, len(frames) - 1, LADDER_FRAMES).round().astype(int))
        pieces = [piece for i in frames[spread] for piece, *_ in survey.read(int(i), int(i) + 1)]
        positions = np.concatenate(pieces)
        if survey.coarse:
            positions = positions[:, survey.topology.atom_residue]
    return build_ladder(survey.topology, campaign.ladder, positions, campaign.seed)


def _create(campaign, partial: Path, surveys, ladders, request) -> None:
    coarse = [survey for survey in surveys if survey.coarse]
    if coarse and len(coarse) < len(surveys):
        raise InputError(
            f"system {coarse[0].name} has C-alpha atoms only, others have all; ingest them into two stores"
        )
    if partial.exists():
        log.info("%s: removed, an earlier ingest was interrupted", partial)
        with writing(partial):
            shutil.rmtree(partial)
    provenance = {
        "request": request,
        "dropped_atoms": {survey.name: survey.dropped for survey in surveys},
        "versions": {
            "hpcbackmap": __version__,
            "mdtraj": mdtraj.__version__,
            "numpy": np.__version__,
            "zarr": zarr.__version__,
        },
    }
    create_store(
        partial,
        {survey.name: ladder for survey, ladder in zip(surveys, ladders, strict=True)},
        {survey.name: survey.n_frames for survey in surveys},
        campaign.resolutions()[1 if coarse else 0 :],
        campaign.store,
        provenance,
        observables={"step": "int64", "time": "float64"},
        sources={survey.name: survey.sources for survey in surveys},
        packed=True,
    )


def _finish(store: FrameStore, path: Path, surveys: list[SystemSurvey], written: int) -> None:
    expected = sum(survey.n_frames for survey in surveys)
    if written != expected:
        raise IncompleteError(f"{path}: {written} frames were written, the files hold {expected}")
    store.mark_complete()
    with writing(path):
        Path(store.path).rename(path)
        flush(path.parent)


def _summary(path: Path, surveys: list[SystemSurvey], status: str) -> dict:
    dropped = Counter()
    for survey in surveys:
        dropped.update(survey.dropped)
    return {
        "status": status,
        "store": str(path),
        "systems": len(surveys),
        "chains": sum(len(survey.topology.chain_ids) for survey in surveys),
        "residues": sum(survey.topology.n_residues for survey in surveys),
        "frames_in": sum(file.n_frames for survey in surveys for file in survey.files),
        "frames_out": sum(survey.n_frames for survey in surveys),
        "dropped_atoms": dict(dropped),
        "bytes": sum(item.stat().st_size for item in path.rglob("*") if item.is_file()),
    }
