"""The command `evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from hpcbackmap.cli.options import Json, Overrides, load
from hpcbackmap.config.campaign import Campaign
from hpcbackmap.runtime import console
from hpcbackmap.runtime.errors import ConfigError

__all__ = ["evaluate"]


def evaluate(
    campaign: Annotated[
        Path | None,
        typer.Argument(metavar="[CAMPAIGN]", help="Campaign whose backmapped frames are judged."),
    ] = None,
    overrides: Overrides = None,
    truth: Annotated[
        str | None,
        typer.Option("--truth", help="Instead: trajectory or store with the true atoms."),
    ] = None,
    generated: Annotated[
        list[str] | None,
        typer.Option(
            "--generated",
            help="Trajectory or store to judge against --truth; may be repeated: members of each frame. "
            "Without --truth: each by itself.",
        ),
    ] = None,
    truth_top: Annotated[
        Path | None, typer.Option("--truth-top", help="Topology, where --truth carries none.")
    ] = None,
    generated_top: Annotated[
        Path | None,
        typer.Option("--generated-top", help="Topology, where --generated carries none."),
    ] = None,
    elbo: Annotated[
        bool,
        typer.Option("--elbo", help="Instead: ELBO of every stage and of the ladder, held out."),
    ] = False,
    frames: Annotated[
        int | None, typer.Option("--frames", min=1, help="Judge at most so many frames.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare backmapped structures with the truth and with trivial baselines.

    For a campaign: hpcbackmap evaluate campaign.yaml
    For two files:  hpcbackmap evaluate --truth md.xtc --truth-top md.pdb --generated made.pdb
    Without truth:  hpcbackmap evaluate --generated made.pdb
    Likelihoods:    hpcbackmap evaluate campaign.yaml --elbo --frames 200
    """
    alone = campaign is not None and truth is None and not generated
    if (elbo or frames) and not alone:
        raise ConfigError("evaluate: --elbo and --frames need a campaign, and no files")
    if campaign is not None and alone:
        cap = [f"evaluate.max_frames={frames}"] if frames else []
        resolved = load(campaign, [*(overrides or []), *cap])
    if elbo:
        _evaluate_elbo(resolved, as_json)
        return
    from hpcbackmap.evaluation.campaign import evaluate_campaign
    from hpcbackmap.evaluation.files import evaluate_files, evaluate_structures
    from hpcbackmap.evaluation.record import five_figures, validation_lines

    if alone:
        from hpcbackmap.runtime.mpi import get_comm

        record = evaluate_campaign(resolved, get_comm())
    elif campaign is None and generated:
        if truth is None and truth_top is not None:
            raise ConfigError("evaluate: --truth-top needs --truth")
        record = (
            evaluate_structures(generated, generated_top)
            if truth is None
            else evaluate_files(truth, generated, truth_top, generated_top)
        )
    else:
        raise ConfigError("evaluate: give a campaign, or --generated with or without --truth")
    if as_json:
        console.show(record, as_json)
    else:
        compared = alone or truth is not None
        console.show_lines(five_figures(record) if compared else [])
        console.show_lines(validation_lines(record))


def _evaluate_elbo(campaign: Campaign, as_json: bool) -> None:
    from hpcbackmap.evaluation.elbo_table import elbo_lines
    from hpcbackmap.evaluation.likelihood import evaluate_elbo
    from hpcbackmap.runtime.mpi import get_comm

    record = evaluate_elbo(campaign, get_comm())
    if as_json:
        console.show(record, as_json)
    else:
        console.show_lines(elbo_lines(record))
