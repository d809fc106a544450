"""The steps of a campaign, in order, and which of them are done.

A step is done when its output is whole, was made with the settings that the campaign has now, and is not
older than what it was made from. The commands check more; this is the quick answer that reads no frames.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcbackmap.backmapping.planning import settled_plan
from hpcbackmap.config.campaign import Campaign
from hpcbackmap.config.conversion import current_identity
from hpcbackmap.runtime.differences import first_difference
from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.runtime.files import read_regular
from hpcbackmap.runtime.parsing import json_value
from hpcbackmap.store.store import FrameStore, open_store
from hpcbackmap.training.identity import WATCHING, settled_identity

__all__ = ["Step", "campaign_steps"]

LEFT_OUT = ("finish", "reference", "coherence")
"""Keys that a plan has only where they were asked for."""


@dataclass(frozen=True)
class Step:
    """name: ``ingest``, ``train ca-fg``, ``backmap``, ``evaluate``, ``likelihood`` or ``report``.

    arguments: of the `hpcbackmap` command, the campaign file left out.
    """

    name: str
    arguments: tuple[str, ...]
    done: bool


def campaign_steps(campaign: Campaign) -> list[Step]:
    """All steps in order. Stages that the campaign brings as artifacts are not trained."""
    to_train = [name for name, stage in campaign.stages.items() if stage.artifact is None]
    ingested = _ingested(campaign)
    trained = {name: _trained(campaign, name) for name in to_train}
    backmapped = _after(_backmapped(campaign), list(trained.values()))
    evaluated = _after(_written(campaign, "metrics.json"), [backmapped])
    likelihood = _after(_written(campaign, "elbo.json"), [ingested, *trained.values()])
    reported = _after(_modified(campaign.path("report.html")), [evaluated, likelihood])
    return [
        Step("ingest", ("ingest",), ingested is not None),
        *(
            Step(f"train {name}", ("train", "--stage", name), finished is not None)
            for name, finished in trained.items()
        ),
        Step("backmap", ("backmap",), backmapped is not None),
        Step("evaluate", ("evaluate",), evaluated is not None),
        Step("likelihood", ("evaluate", "--elbo"), likelihood is not None),
        Step("report", ("report",), reported is not None),
    ]


# Each of these returns when a step finished (seconds since the epoch), or None where it has to run.


def _ingested(campaign: Campaign) -> float | None:
    store = _complete_store(campaign.store_place())
    if store is not None and "://" in store.path:
        return 0.0
    return None if store is None else _modified(Path(store.path) / "zarr.json")


def _trained(campaign: Campaign, stage: str) -> float | None:
    path, store = (
        campaign.path(f"stages/{stage}/done.json"),
        _complete_store(campaign.store_place()),
    )
    before = _read(path).get("identity")
    if store is None or not isinstance(before, dict):
        return None
    try:
        wanted = settled_identity(campaign, stage, store)
    except InputError:
        return None
    before = current_identity(before)
    same = first_difference({key: before.get(key) for key in wanted}, wanted, WATCHING) is None
    return _modified(path) if same else None


def _backmapped(campaign: Campaign) -> float | None:
    store = _complete_store(campaign.path(campaign.backmap.output))
    if store is None:
        return None
    plan = store.attributes.get("provenance", {}).get("plan", {})
    try:
        source = open_store(campaign.backmap.input or campaign.store_place())
        wanted = settled_plan(campaign, source)
    except (ConfigError, InputError):
        return None
    same = all(plan.get(key) == wanted.get(key) for key in {*wanted, *LEFT_OUT})
    return _modified(Path(store.path) / "zarr.json") if same else None


def _written(campaign: Campaign, name: str) -> float | None:
    path = campaign.path(name)
    same = _read(path).get("campaign_digest") == campaign.digest()
    return _modified(path) if same else None


def _read(path: Path) -> dict[str, Any]:
    """A JSON record; empty where there is none that can be read, so that its step runs again."""
    try:
        record = json_value(read_regular(path))
    except (InputError, OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _complete_store(path: str | Path) -> FrameStore | None:
    try:
        return open_store(path)
    except InputError:
        return None


def _modified(path: Path) -> float | None:
    return path.stat().st_mtime if path.exists() else None


def _after(finished: float | None, sources: list[float | None]) -> float | None:
    """``finished``, or None if a source is missing or newer."""
    if finished is None or any(source is None or source > finished for source in sources):
        return None
    return finished
