"""What a campaign would run and what is done; what a store or an artifact holds."""

import math
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcbackmap.cluster.steps import campaign_steps
from hpcbackmap.config.campaign import Campaign
from hpcbackmap.runtime.errors import InputError

if TYPE_CHECKING:
    from hpcbackmap.store.store import FrameStore

__all__ = ["describe_campaign", "describe_folder", "describe_store"]


def describe_campaign(campaign: Campaign) -> dict[str, Any]:
    """Systems, stages, backmapping and steps of a campaign; runs and writes nothing.

    Sizes that only the frame store knows are left out until it exists.
    """
    steps = campaign_steps(campaign)
    store = None
    if steps[0].done:
        from hpcbackmap.store.store import open_store

        store = open_store(campaign.store_place())
    described = {
        "campaign": campaign.name,
        "workdir": campaign.workdir,
        "ladder": " <- ".join(campaign.resolutions()),
        "systems": _store_systems(store) if store else _planned_systems(campaign),
        "stages": {name: _stage(campaign, name, store) for name in campaign.stages},
    }
    if store:
        described["split"] = _split(campaign, store)
        described["backmap"] = _backmapping(campaign, store)
    described["done"] = {step.name: step.done for step in steps}
    return described


def describe_folder(path: Path) -> dict[str, Any]:
    """A frame store or an artifact. Raises InputError if ``path`` is neither."""
    if (path / "model.safetensors").exists():
        return _artifact(path)
    if not (path / "zarr.json").exists():
        raise InputError(f"{path}: neither a campaign file, nor a frame store, nor an artifact")
    return describe_store(str(path))


def describe_store(place: str) -> dict[str, Any]:
    """A frame store in a folder or, by its URL, in object storage. Raises InputError."""
    from hpcbackmap.store.store import open_store

    store = open_store(place)
    return {
        "store": place,
        "size": _size(place),
        "resolutions": list(store.resolutions),
        "systems": _store_systems(store),
        **{
            key: store.attributes[key]
            for key in ("format_version", "quantised", "digest", "provenance")
        },
    }


def _planned_systems(campaign: Campaign) -> dict[str, Any]:
    """Trajectory files that `ingest` would read, with globs resolved; of beads, which is which."""
    planned: dict[str, dict[str, Any]] = {}
    for system in campaign.systems:
        files = [file for item in system.trajectories for file in sorted(glob(item))]
        planned[system.name] = {"files": files}
        if system.resolution is not None:
            from hpcbackmap.ingest.survey import planned_beads

            planned[system.name]["beads"] = planned_beads(system, campaign.ladder)
    return planned


def _store_systems(store: "FrameStore") -> dict[str, Any]:
    described = {}
    for name in store.systems:
        system = store.system(name)
        described[name] = {
            "frames": system.n_frames,
            "chains": len(system.ladder.topology.chain_ids),
            "residues": system.ladder.topology.n_residues,
            "particles": {item: system.ladder.n_particles(item) for item in store.resolutions},
            "sources": [source for source, *_ in system.sources],
        }
    return described


def _stage(campaign: Campaign, name: str, store: "FrameStore | None") -> dict[str, Any]:
    stage = campaign.stages[name]
    described: dict[str, Any] = {"kind": stage.model.kind}
    if stage.artifact:
        return described | {"artifact": stage.artifact}
    if store:
        from hpcbackmap.stages.build import build_stage

        ladders = [store.system(system).ladder for system in store.systems]
        model = build_stage(name, stage.model, ladders, stage.train.seed)
        described["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    shown = ("batch_size", "max_steps", "max_minutes", "zero_stage", "precision")
    return described | stage.train.model_dump(include=set(shown), exclude_none=True)


def _split(campaign: Campaign, store: "FrameStore") -> dict[str, Any]:
    from hpcbackmap.store.split import split_frames

    ranges = split_frames(store, campaign.split)
    return {name: sum(part.stop - part.start for part in parts) for name, parts in ranges.items()}


def _backmapping(campaign: Campaign, store: "FrameStore") -> dict[str, Any]:
    settings = campaign.backmap
    if settings.input:
        from hpcbackmap.store.store import open_store

        source = open_store(settings.input)
        frames = {name: source.system(name).n_frames for name in source.systems}
    else:
        from hpcbackmap.store.split import split_frames

        frames = dict.fromkeys(store.systems, 0)
        for part in split_frames(store, campaign.split)["test"]:
            frames[part.system] += part.stop - part.start
    members = 1 if settings.mode else math.prod(campaign.draws().values())
    return {
        "input": settings.input or "held-out frames",
        "frames": sum(frames.values()),
        "members": members,
        "structures": sum(frames.values()) * members,
        "shards": settings.shard_frames
        if settings.shard_frames == "auto"
        else sum(-(-count // settings.shard_frames) for count in frames.values()),
    }


def _artifact(path: Path) -> dict[str, Any]:
    from hpcbackmap.stages.artifact import load_artifact, read_artifact_config

    stage, config = load_artifact(path), read_artifact_config(path)
    return {
        "artifact": str(path),
        "size": _size(str(path)),
        "stage": stage.name,
        "kind": stage.kind,
        "parameters": sum(parameter.numel() for parameter in stage.parameters()),
        "model": config["model"],
        "card": config["card"],
    }


def _size(place: str) -> str:
    """Bytes of the files below, as ``12.3 MB``."""
    from hpcbackmap.store.location import size_of

    return f"{size_of(place) / 1e6:.1f} MB"
