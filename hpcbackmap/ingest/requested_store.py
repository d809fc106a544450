"""What a store is asked to hold, and the store that holds it already, in part, or is begun.

A finished store, or what an interrupted ingest has left, counts only for the request that it was made for.
"""

import json
import logging
from pathlib import Path
from typing import Any

from hpcbackmap.config.campaign import Campaign
from hpcbackmap.ingest.shard_records import begin_records, record_folder
from hpcbackmap.ingest.survey import SystemSurvey
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.errors import ConfigError, HpcbackmapError, InputError
from hpcbackmap.runtime.files import is_url, sha256_of, writing
from hpcbackmap.runtime.versions import versions
from hpcbackmap.store.layout import CELL
from hpcbackmap.store.location import exists, remove
from hpcbackmap.store.store import FrameStore, create_store, open_store

__all__ = ["find_finished", "from_structures", "prepare", "request_of"]

log = logging.getLogger(__name__)

MADE_BY = ("hpcbackmap", "mdtraj", "numpy", "zarr")
"""Libraries that decide the bits of a store."""


def request_of(campaign: Campaign, surveys: list[SystemSurvey]) -> dict[str, Any]:
    """Everything that decides what the store will hold. Files count by content, not by place."""
    request: dict[str, Any] = {
        "ladder": [_without_place(spec) for spec in campaign.ladder],
        "store": campaign.store.model_dump(include={"chunk_mb", "shard_mb", "quantise"}),
        "systems": [
            {
                "name": system.name,
                "selection": system.selection,
                "stride": system.stride,
                "topology": survey.topology_sha256,
                "files": {file.name: file.sha256 for file in survey.files},
                **_beads(survey),
            }
            for system, survey in zip(campaign.systems, surveys, strict=True)
        ],
    }
    if from_structures(campaign):
        request |= {"split": campaign.split.model_dump(), "seed": campaign.seed}
    found: dict[str, Any] = json.loads(json.dumps(request))
    return found


def _beads(survey: SystemSurvey) -> dict[str, Any]:
    """Of a system of beads: what they are, and the file particle of each."""
    if survey.ladder is None:
        return {}
    return {
        "resolution": survey.resolution,
        "ladder": survey.ladder.digest,
        "beads": survey.index.tolist(),
    }


def _without_place(spec: str) -> str:
    if not spec.startswith("file:"):
        return spec
    try:
        return "file:" + sha256_of(spec[5:])
    except OSError as error:
        raise InputError(f"{spec[5:]}: {error.strerror}") from None


def from_structures(campaign: Campaign) -> bool:
    """Whether beads of the ladder are made from training frames."""
    return any(spec.endswith((":blobs", ":cgae")) for spec in campaign.ladder)


def find_finished(place: str, request: dict[str, Any]) -> FrameStore | None:
    """The store that this request would make, if it exists. Refuses to touch anything else at its place but an
    unfinished store at a URL, where ingest writes in place.
    """
    if not exists(place):
        return None
    store = open_store(place, incomplete_ok=is_url(place))
    if not store.complete:
        return None
    before = store.attributes["provenance"].get("request", {})
    changed = [key for key in request.keys() | before.keys() if request.get(key) != before.get(key)]
    if changed:
        raise ConfigError(
            f"{place}: made from other input or settings (differs in: {', '.join(sorted(changed))}); "
            "remove it, or give store.path another name"
        )
    return store


def prepare(
    campaign: Campaign,
    partial: str,
    surveys: list[SystemSurvey],
    ladders: list[Ladder],
    request: dict[str, Any],
) -> None:
    """An empty store for this request at ``partial``, or what an interrupted ingest has left of it there."""
    _require_one_resolution(surveys)
    if exists(partial):
        if _continues(partial, ladders, request):
            log.info("%s: an earlier ingest was interrupted; continuing", partial)
            return
        if is_url(partial) and exists(record_folder(partial)):
            raise ConfigError(  # there are no locks, it may be at work
                f"{partial}: there is an unfinished store of other input, settings or library versions; if no "
                "ingest of it runs, remove it, or give store.path another name"
            )
        log.info("%s: removed, an ingest of other input was interrupted", partial)
        remove(partial)
    if is_url(partial):
        _create(campaign, partial, surveys, ladders, request)
        begin_records(partial)
        return
    new = partial + ".new"
    remove(new)
    try:
        _create(campaign, new, surveys, ladders, request)
        begin_records(new)
        with writing(partial):
            Path(new).rename(partial)
    except HpcbackmapError:
        remove(new)
        raise


def _require_one_resolution(surveys: list[SystemSurvey]) -> None:
    coarse = [survey for survey in surveys if survey.resolution != "fg"]
    if not coarse or len({survey.resolution for survey in surveys}) == 1:
        return
    first = coarse[0]
    held = "C-alpha atoms only" if first.resolution == "ca" else f"{first.resolution} only"
    raise InputError(f"system {first.name} has {held}, others do not; ingest them into two stores")


def _continues(partial: str, ladders: list[Ladder], request: dict[str, Any]) -> bool:
    """Whether an unfinished store was begun for the same request, by this version."""
    try:
        store = open_store(partial, incomplete_ok=True)
        before = store.attributes["provenance"]
        return (
            exists(record_folder(partial))
            and before.get("request") == request
            and before.get("versions") == versions(*MADE_BY)
            and [store.system(name).ladder.digest for name in store.systems]
            == [ladder.digest for ladder in ladders]
        )
    except (InputError, KeyError):
        return False


def _create(
    campaign: Campaign,
    path: str,
    surveys: list[SystemSurvey],
    ladders: list[Ladder],
    request: dict[str, Any],
) -> None:
    provenance = {
        "request": request,
        "dropped_atoms": {survey.name: survey.dropped for survey in surveys},
        "versions": versions(*MADE_BY),
    }
    resolutions = campaign.resolutions()
    create_store(
        path,
        {survey.name: ladder for survey, ladder in zip(surveys, ladders, strict=True)},
        {survey.name: survey.n_frames for survey in surveys},
        resolutions[resolutions.index(surveys[0].resolution) :],
        campaign.store,
        provenance,
        observables={"step": "int64", "time": "float64"}
        | (dict.fromkeys(CELL, "float32") if any(survey.periodic for survey in surveys) else {}),
        sources={survey.name: survey.sources for survey in surveys},
        packed=True,
    )
