"""The command `train`."""

from pathlib import Path
from typing import Annotated

import typer

from hpcbackmap.cli.options import CampaignFile, Json, Overrides, load
from hpcbackmap.runtime import console

__all__ = ["train"]


def train(
    campaign: CampaignFile,
    stage: Annotated[str, typer.Option("--stage", help="Stage to train, for example ca-fg.")],
    overrides: Overrides = None,
    deepspeed_config: Annotated[
        Path | None,
        typer.Option(
            "--deepspeed-config", "--deepspeed_config", help="Your own DeepSpeed JSON, merged in."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train one stage; the same command resumes. Stages need nothing of each other.

    With a launcher: deepspeed --num_accelerators 4 --module hpcbackmap train campaign.yaml --stage ca-fg
    """
    resolved = load(campaign, overrides)
    from hpcbackmap.training.trainer import train

    console.show(train(resolved, stage, deepspeed_config=deepspeed_config), as_json)
