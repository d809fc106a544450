"""Signs that a stage's latents have fallen out of use, on frames that it was not trained on.

Posterior collapse: what the encoder says equals what the prior says, so the latents tell the decoder
nothing. Prior collapse: the prior leaves the latents no room, so members are alike where the truth differs.
"""

from typing import Any

import torch
from torch import Tensor

from hpcbackmap.stages.base import Stage
from hpcbackmap.stages.system import System

__all__ = ["active_units", "collapse", "spread_and_error"]

ACTIVE = 0.01
"""Nats of information, on average over frames, above which a latent unit is in use."""
IDLE = 0.05
"""Active units per bead below which the posterior has collapsed."""
ALIKE = 0.1
"""Spread of members over the error of the mode below which the prior has collapsed."""


def active_units(information: Tensor) -> Tensor:
    """Units in use per bead, averaged over beads: scalar.

    information: KL of each unit [B, U] in nats, averaged over frames. Burda et al. (2016) count units by the
    variance of their posterior mean; the KL does the same and serves discrete latents too.
    """
    return (information > ACTIVE).sum(-1).double().mean()


def spread_and_error(
    stage: Stage[Any], fine: Tensor, coarse: Tensor, system: System, noise: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Variance of members and squared error of the mode per fine particle, nm^2, both [F].

    fine [F, N, 3], coarse [F, B, 3]. noise: of two members, each [F, B, W].
    """
    with torch.no_grad():
        first, second = (stage.sample(coarse, system, one) for one in noise)
        error = stage.mode(coarse, system) - fine
    spread = (first - second).square().sum(-1).mean(-1) / 2
    return spread, error.square().sum(-1).mean(-1)


def collapse(active: float, spread: float, error: float) -> str | None:
    """``posterior``, ``prior`` or None; spread and error are root mean squares over frames."""
    if active < IDLE:
        return "posterior"
    if spread < ALIKE * error:
        return "prior"
    return None
