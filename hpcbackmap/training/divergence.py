"""Whether a training still learns numbers: its weights, and its validation beside the one at the start."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hpcbackmap.training.ranks.world import World

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine
    from torch.distributed import ProcessGroup

__all__ = ["is_far_worse", "weights_are_finite"]

SHARE, NATS = 0.25, 1.0
"""A validation loss is far worse than another if it is higher by this share of it and so many nats more."""


def is_far_worse(loss: float, start: float) -> bool:
    """Whether a validation loss says that nothing was learned; a ``start`` that is no number says nothing."""
    return math.isfinite(start) and not loss <= start + SHARE * abs(start) + NATS


def weights_are_finite(
    engine: "DeepSpeedEngine", world: World, hosts: "ProcessGroup | None"
) -> bool:
    """Whether all weights of the stage are numbers, on all ranks alike. Collective.

    Under ZeRO 3 each rank looks at the part that it keeps.
    """
    with torch.no_grad():
        checks = [torch.isfinite(part).all() for part in _own_weights(engine)]
        finite = torch.stack(checks).all().double().cpu() if checks else torch.ones(())
    if world.size > 1:
        torch.distributed.all_reduce(finite, op=torch.distributed.ReduceOp.MIN, group=hosts)
    return bool(finite)


def _own_weights(engine: "DeepSpeedEngine") -> list[Tensor]:
    stage = engine.module.stage
    parts = [getattr(parameter, "ds_tensor", parameter) for parameter in stage.parameters()]
    return [
        part.detach()
        for part in (*parts, *stage.buffers())
        if part.is_floating_point() and part.numel()
    ]
