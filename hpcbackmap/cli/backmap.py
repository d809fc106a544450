"""The command `backmap`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from hpcbackmap.cli.options import Json, Overrides, absolute, load
from hpcbackmap.runtime import console
from hpcbackmap.runtime.errors import ConfigError

__all__ = ["backmap"]


def backmap(
    campaign: Annotated[
        Path,
        typer.Argument(
            metavar="CAMPAIGN|TRAJECTORY", help="Campaign file (.yaml), or a C-alpha trajectory."
        ),
    ],
    overrides: Overrides = None,
    input_store: Annotated[
        str | None,
        typer.Option("--input", help="Store of coarse frames; default: the held-out frames."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="Store to write (default: backmapped.zarr); for a trajectory .xtc, .dcd or .pdb.",
        ),
    ] = None,
    members: Annotated[
        int | None,
        typer.Option("--members", min=1, max=10_000, help="Structures to draw per input frame."),
    ] = None,
    mode: Annotated[
        bool, typer.Option("--mode", help="Instead: the one most likely structure per frame.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, max=2**63 - 1, help="Seed of the draws.")
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", help="Resolution to write, may be repeated; default: all."),
    ] = None,
    batch: Annotated[
        str | None, typer.Option("--batch", help="Frames per batch, or auto: measured.")
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            "--part", metavar="I/N", help="Only part I of N of the work, from 0, as in a job array."
        ),
    ] = None,
    pipeline: Annotated[
        str | None,
        typer.Option(
            "--pipeline",
            metavar="N,M,…",
            help="Ranks of each stage, coarse to fine; default: every rank runs all stages.",
        ),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            "--time-limit", help="Minutes after which no more work is begun (exit code 75)."
        ),
    ] = None,
    top: Annotated[
        Path | None,
        typer.Option("--top", help="Topology of a trajectory whose format carries none."),
    ] = None,
    artifact: Annotated[
        Path | None,
        typer.Option("--artifact", help="Trained ca-fg stage for a trajectory; default: shipped."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Put atoms into coarse frames with the trained stages; a rerun does only what is missing.

    In parallel: mpirun -n 4 hpcbackmap backmap campaign.yaml --members 10
    No campaign: hpcbackmap backmap ca.xtc --top ca.pdb -o atoms.xtc
    """
    if mode and members:
        raise ConfigError("backmap: give --members or --mode, not both")
    if campaign.suffix not in (".yaml", ".yml"):
        if overrides or input_store or time_limit or keep or batch or part or pipeline:
            raise ConfigError(
                f"{campaign}: KEY=VALUE, --input, --keep, --batch, --part, --pipeline and --time-limit "
                "need a campaign (.yaml), this is taken for a trajectory"
            )
        drawn = None if mode else members or 1
        _backmap_trajectory(campaign, output, top, drawn, seed or 0, artifact, as_json)
        return
    if top or artifact:
        raise ConfigError("backmap: --top and --artifact are for a trajectory, not for a campaign")
    chosen = {
        "backmap.input": input_store and absolute(input_store),
        "backmap.output": output and absolute(output),
        "backmap.members": members,
        "backmap.mode": mode or None,
        "backmap.seed": seed,
        "backmap.keep": keep or None,
        "backmap.batch_frames": batch,
    }
    options = [f"{key}={json.dumps(value)}" for key, value in chosen.items() if value is not None]
    resolved = load(campaign, [*(overrides or []), *options])
    from hpcbackmap.backmapping.driver import backmap
    from hpcbackmap.runtime.mpi import get_comm

    seconds = None if time_limit is None else 60 * time_limit
    result = backmap(resolved, get_comm(), seconds, _part(part), _rank_counts(pipeline))
    console.show(result, as_json)


def _part(text: str | None) -> tuple[int, int]:
    if text is None:
        return 0, 1
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise ConfigError(
            f"backmap: --part {text}: write I/N with I from 0 to N - 1, for example 0/16"
        )
    return int(index), int(count)


def _rank_counts(text: str | None) -> list[int] | None:
    if text is None:
        return None
    words = text.split(",")
    if not all(word.isdigit() for word in words):
        raise ConfigError(f"backmap: --pipeline {text}: write numbers of ranks, for example 1,3")
    return [int(word) for word in words]


def _backmap_trajectory(trajectory, output, top, members, seed, artifact, as_json) -> None:
    if output is None:
        raise ConfigError(f"{trajectory}: say where to write: --output FILE.xtc, .dcd or .pdb")
    from hpcbackmap.backmapping.shipped import backmap_trajectory

    result = backmap_trajectory(trajectory, output, top, members, seed, artifact)
    console.show(result, as_json)
