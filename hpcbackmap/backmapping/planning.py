"""Making a plan from a campaign: which frames, what is drawn, in which batches and shards."""

import json
from bisect import bisect_left
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hpcbackmap.backmapping.plan import Plan, Shard
from hpcbackmap.backmapping.source import FileSource, Source
from hpcbackmap.backmapping.states import states_of_run
from hpcbackmap.config.campaign import BackmapConfig, Campaign
from hpcbackmap.protein.hydrogens import HYDROGENS
from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.runtime.files import sha256_of
from hpcbackmap.trajectories.units import frame_bytes

if TYPE_CHECKING:
    from hpcbackmap.backmapping.chain import Chains
    from hpcbackmap.store.store import FrameStore

__all__ = [
    "chosen_frames",
    "make_plan",
    "settled_plan",
    "stage_folders",
    "start_resolution",
]


RELAXED_SECONDS = 0.006
"""Of CPU time, about, for each residue of a structure that is relaxed."""


def make_plan(
    campaign: Campaign,
    source: Source,
    folders: dict[str, Path],
    frames: dict[str, list[list[int]]],
    chains: "Chains",
    ranks: int,
    there: dict[str, Any] | None,
) -> Plan:
    """The campaign's plan. Sizes that are ``auto`` come from the stored plan ``there``, or are measured.

    frames: see `chosen_frames`. Raises InputError for a missing artifact.
    """
    settings = campaign.backmap
    sizes: dict[str, Any] = {
        "batch_frames": settings.batch_frames,
        "shard_frames": settings.shard_frames,
    }
    for key, value in sizes.items():
        if value == "auto" and there is not None:
            sizes[key] = there.get(key)
    measure = "auto" in sizes.values()
    plan = Plan(
        **_settled(campaign, source, folders, frames),
        batch_frames=1 if measure else sizes["batch_frames"],
        shard_frames=1 if measure else sizes["shard_frames"],
        device=chains.device.type,
    )
    if settings.hydrogens or settings.relax:
        same = there is not None and there.get("finish") == plan.finish
        states = (there or {}).get("protonation") if same else None
        states = states or states_of_run(plan, source, chains, settings.ph)
        plan = replace(plan, protonation=states)
    return _with_sizes(plan, source, chains, ranks, sizes) if measure else plan


def settled_plan(campaign: Campaign, source: Source) -> dict[str, Any]:
    """What of a plan the campaign, its input and its artifacts settle, as the plan in an output has it
    (`Plan.to_dict`): without the device, and without sizes that are ``auto``.

    Raises ConfigError for a rung without a stage, InputError for an input or artifact that is not there.
    """
    folders = stage_folders(campaign)
    settled = _settled(campaign, source, folders, chosen_frames(campaign, source))
    for key in ("batch_frames", "shard_frames"):
        if getattr(campaign.backmap, key) != "auto":
            settled[key] = getattr(campaign.backmap, key)
    found: dict[str, Any] = json.loads(json.dumps(settled))
    return found


def _settled(
    campaign: Campaign, source: Source, folders: dict[str, Path], frames: dict[str, Any]
) -> dict[str, Any]:
    settings, known = campaign.backmap, campaign.resolutions()
    start = start_resolution(campaign, source)
    made = known[: known.index(start)]
    return {
        "input": source.digest,
        "stages": {rung: _artifact_digest(folders[rung]) for rung in campaign.descent()},
        "start": start,
        "resolutions": _written(made, settings),
        "frames": frames,
        "draws": campaign.draws(),
        "mode": settings.mode,
        "seed": settings.seed,
        **({"finish": _finish(settings)} if settings.hydrogens or settings.relax else {}),
        **({"reference": _reference_digest(campaign)} if settings.reference else {}),
        **({} if settings.mode or settings.coherence == 1 else {"coherence": settings.coherence}),
        **_secondary_structure(campaign),
    } | ({"source": source.facts} if isinstance(source, FileSource) else {})


def _finish(settings: BackmapConfig) -> dict[str, Any]:
    asked = {"hydrogens": settings.hydrogens, "relax": settings.relax}
    return {name: True for name, wanted in asked.items() if wanted} | {"ph": settings.ph}


def _written(made: list[str], settings: BackmapConfig) -> list[str]:
    """Resolutions to write; hydrogens stand behind the heavy atoms."""
    kept = [name for name in made if settings.keep is None or name in settings.keep]
    return [*kept[:1], HYDROGENS, *kept[1:]] if settings.hydrogens else kept


def stage_folders(campaign: Campaign) -> dict[str, Path]:
    """Artifact of each stage on the way down. Raises ConfigError for a rung without a stage."""
    folders = {}
    for rung in campaign.descent():
        if rung not in campaign.stages:
            raise ConfigError(
                f"stages: no stage for rung {rung}; the ladder cannot be climbed down"
            )
        given = campaign.stages[rung].artifact
        folders[rung] = Path(given) if given else campaign.path(f"stages/{rung}/artifact")
    return folders


def _with_sizes(
    plan: Plan, source: Source, chains: "Chains", ranks: int, sizes: dict[str, Any]
) -> Plan:
    """The plan with measured sizes, for the largest of its systems."""
    from hpcbackmap.backmapping.sizing import choose_batch, choose_shard, seconds_per_frame

    name = max(plan.frames, key=lambda name: source.system(name).n_particles(plan.start))
    system, frames = source.system(name), plan.n_frames(name)
    probe = plan.local_frames(Shard(name, 0, 0, min(frames, 128)))
    given = (chains[name], system, plan.start)
    if sizes["batch_frames"] == "auto":
        batch, seconds = choose_batch(*given, probe, plan.members, ranks)
    else:
        batch = sizes["batch_frames"]
        seconds = seconds_per_frame(*given, probe[:batch], plan.members)
    if plan.relaxes:
        seconds += RELAXED_SECONDS * system.ladder.topology.n_residues * plan.rows_per_frame
    shard = sizes["shard_frames"]
    if shard == "auto":
        ladder = plan.written_ladder(name, system.ladder)
        particles = sum(ladder.n_particles(level) for level in plan.resolutions)
        size = frame_bytes(particles) * plan.rows_per_frame
        shard = choose_shard(seconds, size, batch, plan.total_frames, ranks)
    return Plan(**(vars(plan) | {"batch_frames": batch, "shard_frames": shard}))


def start_resolution(campaign: Campaign, source: Source) -> str:
    """Where the way down begins. Raises InputError if the input does not have it."""
    start = campaign.backmap.start or campaign.resolutions()[-1]
    if start not in source.resolutions:
        raise InputError(
            f"{source.path}: has {', '.join(source.resolutions)}, backmapping starts from {start}; give "
            "another input, or backmap.start"
        )
    return start


def chosen_frames(campaign: Campaign, source: Source) -> dict[str, list[list[int]]]:
    """Of every system: held-out frames of the campaign's own store, or all of a store that the user brings.

    [start, stop, step] ranges of local indices. Raises InputError if there are none.
    """
    if campaign.backmap.input:
        ranges = {name: [range(source.system(name).n_frames)] for name in source.systems}
    else:
        from hpcbackmap.store.split import split_frames

        ranges = {}
        for part in split_frames(cast("FrameStore", source), campaign.split)["test"]:
            ranges.setdefault(part.system, []).append(range(part.start, part.stop))
    chosen = {name: _thinned(parts, campaign.backmap.frames) for name, parts in ranges.items()}
    chosen = {name: parts for name, parts in chosen.items() if parts}
    if not chosen:
        why = (
            f"backmap.frames={campaign.backmap.frames} leaves none"
            if campaign.backmap.frames
            else "is the test fraction of the split zero?"
        )
        raise InputError(f"{source.path}: no frames to backmap; {why}")
    return chosen


def _thinned(parts: list[range], wanted: str | None) -> list[list[int]]:
    """[start, stop, step] of ``START:STOP:STRIDE`` among the frames of all parts together."""
    bounds = [int(word) if word else None for word in (wanted or ":").split(":")]
    chosen = range(sum(map(len, parts)))[slice(*bounds)]
    found, before = [], 0
    for part in parts:
        here = chosen[bisect_left(chosen, before) : bisect_left(chosen, before + len(part))]
        if here:
            shift = part.start - before
            found.append([here[0] + shift, here[-1] + shift + 1, here.step])
        before += len(part)
    return found


def _secondary_structure(campaign: Campaign) -> dict[str, str]:
    given = campaign.backmap.secondary_structure
    if given is None:
        return {}
    from hpcbackmap.backmapping.secondary_structure import read_secondary_structure

    return {"secondary_structure": read_secondary_structure(given, campaign.path("")).letters}


def _reference_digest(campaign: Campaign) -> str:
    from hpcbackmap.backmapping.reference import read_reference

    return read_reference(str(campaign.path(str(campaign.backmap.reference)))).digest


def _artifact_digest(folder: Path) -> str:
    try:
        return sha256_of(folder / "model.safetensors", folder / "config.json")
    except OSError as error:
        raise InputError(
            f"{error.filename}: {error.strerror}; train this stage first, or give stages.*.artifact"
        ) from None
