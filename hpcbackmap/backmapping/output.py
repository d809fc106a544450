"""What a run fills: a frame store, or the workspace of a run whose results become files."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcbackmap.backmapping.confidence import EXPECTED_ERROR, known_kind
from hpcbackmap.backmapping.plan import Plan
from hpcbackmap.backmapping.records import Records
from hpcbackmap.backmapping.source import Source, keeps_cells
from hpcbackmap.backmapping.workspace import (
    Workspace,
    create_workspace,
    is_workspace,
    open_workspace,
)
from hpcbackmap.config.campaign import Campaign
from hpcbackmap.config.load import resolved_yaml
from hpcbackmap.runtime.files import scratch_of

if TYPE_CHECKING:
    from hpcbackmap.store.store import FrameStore

__all__ = ["create_output", "open_output", "stored_plan"]


def open_output(output: Path) -> "FrameStore | Workspace":
    """An output that is being filled. Raises InputError if it is none."""
    if is_workspace(output):
        return open_workspace(output)
    from hpcbackmap.store.store import open_store

    return open_store(output, incomplete_ok=True)


def stored_plan(output: Path) -> dict[str, Any] | None:
    """The plan that an output was made by, None where there is no output."""
    if not output.exists():
        return None
    found: dict[str, Any] | None = (
        open_output(output).attributes.get("provenance", {}).get("plan", {})
    )
    return found


def create_output(
    campaign: Campaign, plan: Plan, source: Source, output: Path, plain: bool = False
) -> None:
    """An empty output, as a `Workspace` if ``plain``. If another run was faster, its output stays."""
    scratch = scratch_of(output)
    shutil.rmtree(scratch, ignore_errors=True)
    if plain:
        _create_plain(plan, source, scratch)
    else:
        _create_store(campaign, plan, source, scratch)
    Records(plan, scratch).folder.mkdir()
    (scratch / ".campaign.yaml").write_text(resolved_yaml(campaign))
    try:
        os.rename(scratch, output)
    except OSError:
        shutil.rmtree(scratch)
        if not output.exists():
            raise


def _create_plain(plan: Plan, source: Source, folder: Path) -> None:
    (name,) = plan.frames
    ladder = plan.written_ladder(name, source.system(name).ladder)
    create_workspace(
        folder,
        plan.to_dict(),
        name,
        plan.n_frames(name) * plan.rows_per_frame,
        {level: ladder.n_particles(level) for level in plan.resolutions},
        plan.shard_frames * plan.rows_per_frame,
    )


def _create_store(campaign: Campaign, plan: Plan, source: Source, folder: Path) -> None:
    from hpcbackmap.store.layout import CELL
    from hpcbackmap.store.store import create_store

    known = [known_kind(plan, source.system(name)) for name in plan.frames]
    has_errors = "fg" in plan.resolutions and None not in known
    observables = {"source_frame": "int64", "member": "int64"}
    if any(keeps_cells(source.system(name)) for name in plan.frames):
        observables |= dict.fromkeys(CELL, "float32")
    create_store(
        str(folder),
        {name: plan.written_ladder(name, source.system(name).ladder) for name in plan.frames},
        {name: plan.n_frames(name) * plan.rows_per_frame for name in plan.frames},
        plan.resolutions,
        campaign.store.model_copy(update={"quantise": False}),
        {"plan": plan.to_dict()},
        shard_frames=plan.shard_frames * plan.rows_per_frame,
        observables=observables,
        residue_values={EXPECTED_ERROR: "float16"} if has_errors else None,
    )
