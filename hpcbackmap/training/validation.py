"""Validation over all ranks: fixed frames, fixed noise, no gradient."""

import logging
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hpcbackmap.stages.base import Stage
from hpcbackmap.stages.collapse import collapse, spread_and_error
from hpcbackmap.stages.noise import frame_noise
from hpcbackmap.training.feed import StageInputs
from hpcbackmap.training.ranks.world import come_to

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

__all__ = ["share_of_rank", "validate", "warn_of_collapse"]

log = logging.getLogger(__name__)

REPORTED = ("loss", "log_likelihood", "kl", "active_units")


def share_of_rank(
    batches: list[StageInputs], rank: int, world: int
) -> list[tuple[StageInputs, float]]:
    """Every ``world``-th batch with its weight in frames.

    All ranks get the same number, because under ZeRO 3 a forward pass is a meeting; fillers weigh nothing.
    """
    if not batches:
        return []
    mine = [(batch, float(batch.n_frames)) for batch in batches[rank::world]]
    short = -(-len(batches) // world) - len(mine)
    return mine + [(batches[0], 0.0)] * short


def validate(engine: "DeepSpeedEngine", share: list[tuple[StageInputs, float]]) -> dict[str, float]:
    """Means per frame over all ranks: ``loss``, ``log_likelihood`` and ``kl`` in nats, ``active_units``.

    ``active_units`` only where the stage counts them.
    """
    sums: Tensor | None = None
    engine.eval()
    with torch.no_grad():
        for inputs, weight in share:
            come_to("validation")
            terms = engine(*inputs.arguments())
            names = [name for name in REPORTED if name in terms]
            values = [terms[name].double() for name in names]
            more = weight * torch.stack([*values, torch.ones_like(values[0])])
            sums = more if sums is None else sums + more
    engine.train()
    come_to("end of validation")
    assert sums is not None, "there is something to validate on"
    if torch.distributed.get_world_size() > 1:
        torch.distributed.all_reduce(sums)
    *totals, frames = sums.tolist()
    return {name: total / frames for name, total in zip(names, totals, strict=True)}


def warn_of_collapse(
    stage: Stage[Any], inputs: StageInputs, found: dict[str, float], seed: int
) -> None:
    """Say so if the trained stage's latents are out of use; ``found``: its `validate` values."""
    frames, beads = list(range(len(inputs.coarse))), inputs.coarse.shape[1]
    draws = [
        frame_noise(seed, f"{stage.name}/collapse", frames, member, beads, stage.noise_width)
        for member in (0, 1)
    ]
    first, second = (torch.from_numpy(draw).to(inputs.coarse) for draw in draws)
    moved = spread_and_error(stage, inputs.fine, inputs.coarse, inputs.system, (first, second))
    spread, error = (float(value.mean().sqrt()) for value in moved)
    kind = collapse(found.get("active_units", math.inf), spread, error)
    if kind == "posterior":
        log.warning(
            "%s: posterior collapse, the latents carry nothing; try kl_warmup_steps, free_bits or a "
            "smaller beta",
            stage.name,
        )
    elif kind == "prior":
        log.warning(
            "%s: prior collapse, members differ by %.3g A where the error is %.3g A",
            stage.name,
            10 * spread,
            10 * error,
        )
