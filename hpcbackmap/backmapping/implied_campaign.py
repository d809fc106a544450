"""The campaign that a request for files implies: its ladder, the shipped stages, and how the work is cut."""

from pathlib import Path

import numpy as np

from hpcbackmap.backmapping.request import Request
from hpcbackmap.backmapping.source import FileSource
from hpcbackmap.config.campaign import Campaign
from hpcbackmap.resolution.build import runs_spec
from hpcbackmap.runtime.errors import ConfigError
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.trajectories.units import frame_bytes

__all__ = ["implied_campaign"]

BATCH_RESIDUES = {"cpu": 1000, "cuda": 20000}
"""Residues that go through the network together, by device: larger batches are no faster."""
HELD_RESIDUES = 200_000
"""Residues of all members of a batch: some 20 MB."""
SHARDS = 64
SHARD_RESIDUES = (4000, 100_000)
"""A run is cut into about so many shards, each of so many residues of structures: seconds to a minute."""
RELAXED_RESIDUES = (1000, 20_000)
"""The same of structures that are relaxed, which takes 6 ms a residue."""
SHARD_BYTES = 64e6
ATOM_BYTES = 8 * frame_bytes(1)
"""Of the heavy atoms of a residue, about."""


def implied_campaign(request: Request, source: FileSource, folder: Path) -> Campaign:
    """A campaign that works in ``folder`` and makes what the request asks of the files."""
    residues = source.only.ladder.topology.n_residues
    members = 1 if request.mode else request.members
    batch = _batch(residues, members, _device_kind(request))
    return Campaign.model_validate(
        {
            "name": "files",
            "workdir": str(folder),
            "ladder": _ladder_specs(source),
            "systems": [{"name": "trajectory", "trajectories": [source.path]}],
            "stages": _stages(request, source),
            "backmap": {
                "input": source.path,
                "output": "shards",
                "keep": ["fg"],
                "members": members,
                "mode": request.mode,
                "seed": request.seed,
                "hydrogens": request.hydrogens,
                "relax": request.relax,
                "ph": request.ph,
                "coherence": request.coherence,
                "reference": request.reference and str(Path(request.reference).resolve()),
                "secondary_structure": _secondary_structure(request),
                "frames": _frames(request.frames, source.only.n_frames),
                "batch_frames": batch,
                "shard_frames": _shard(
                    source.only.n_frames, residues * members, batch, request.relax
                ),
            },
        }
    )


def _secondary_structure(request: Request) -> str | None:
    """Its letters: a campaign looks up a file elsewhere."""
    if request.secondary_structure is None:
        return None
    from hpcbackmap.backmapping.secondary_structure import read_secondary_structure

    return read_secondary_structure(request.secondary_structure, Path()).letters


def _ladder_specs(source: FileSource) -> list[str]:
    bead_of = source.only.reading.sites.get("bead_of")
    if bead_of is None:
        return ["fg", "ca"]
    ladder = source.only.ladder
    definition = ladder.definition(ladder.resolutions[-1])
    return ["fg", "ca", runs_spec(np.bincount(bead_of).tolist(), definition)]


def _stages(request: Request, source: FileSource) -> dict[str, dict[str, object]]:
    """The shipped stages, or the user's ca-fg stage, for each rung of the way down."""
    heavy = Path(request.stages[0]) if request.stages else shipped_artifact("ca-fg")
    stages: dict[str, dict[str, object]] = {
        "ca-fg": {"model": {"kind": "genzprot"}, "artifact": str(heavy)}
    }
    (start,) = source.resolutions
    if start != "ca":
        trace = str(shipped_artifact(kind="trace"))
        stages[f"{start}-ca"] = {"model": {"kind": "trace"}, "artifact": trace}
    return stages


def _device_kind(request: Request) -> str:
    if request.device == "cpu":
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _frames(wanted: str | None, count: int) -> str | None:
    """``START:STOP:STRIDE`` without negative numbers, as a campaign has it."""
    if wanted is None:
        return None
    bounds = [int(word) if word else None for word in wanted.split(":")]
    start, stop, step = slice(*bounds).indices(count)
    if start >= stop:
        raise ConfigError(f"--frames {wanted}: leaves none of {count} frames")
    return f"{start}:{stop}:{step}"


def _batch(residues: int, members: int, device: str) -> int:
    """Frames of a batch: few where there are many members of each, which are held together."""
    frames = min(BATCH_RESIDUES[device] // residues, HELD_RESIDUES // (residues * members))
    return max(1, frames)


def _shard(frames: int, residues: int, batch: int, relax: bool) -> int:
    """Frames of a shard, whole batches. residues: of all structures of a frame. Ranks do not count, so that
    any number of them continues a run.
    """
    few, many = RELAXED_RESIDUES if relax else SHARD_RESIDUES
    wanted = min(max(frames * residues / SHARDS, few), many)
    most = max(1.0, min(wanted, SHARD_BYTES / ATOM_BYTES) / residues)
    return batch * max(1, round(most / batch))
