"""Mathematics of the Cartesian stage: normal latents on every bead, a Gaussian on the beads' fibre.

Prior, posterior, likelihood and ELBO of `cgvae`, whatever its network: that has ``calibrate``, ``context``,
``prior``, ``posterior`` and ``decode``.
"""

import math
from abc import abstractmethod
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from hpcbackmap.config.campaign import CgvaeConfig
from hpcbackmap.stages.base import Elbo, Normal, Stage, kl_per_unit
from hpcbackmap.stages.collapse import active_units
from hpcbackmap.stages.layers.bead_system import BeadSystem
from hpcbackmap.stages.layers.pooling import bead_sums, system_sums

__all__ = ["BOND_TOLERANCE", "CartesianStage", "bond_error", "bond_lengths"]

B = TypeVar("B", bound=BeadSystem)

BOND_TOLERANCE = 0.02
"""Bond error (nm) that costs as much as one nat per free direction."""


class Terms(NamedTuple):
    """Log-likelihood per bead [F, B], KL per latent [F, B, L], decoder mean [F, N, 3]."""

    log_likelihood: Tensor
    information: Tensor
    mean: Tensor


class CartesianStage(Stage[B]):
    """Latents are normal given the beads; fine positions are Gaussian on the fibre of the beads given both.

    The ELBO is that of the decoder; what `sample` and `mode` do to a structure afterwards is not in it.
    """

    variance = "one per bead, learned as a function of beads and latents"
    config: CgvaeConfig
    network: Any

    def __init__(self, fine: str, coarse: str, config: CgvaeConfig, network: nn.Module):
        super().__init__(fine, coarse)
        self.config, self.network = config, network
        self.latent = self.elbo_noise = self.noise_width = config.latent
        self.kl_share = 1.0

    def calibrate(self, fine: Tensor, coarse: Tensor, system: B) -> None:
        self.network.calibrate(fine, coarse, system)

    def prior(self, coarse: Tensor, system: B) -> Normal:
        return self._prior(self._context(coarse, system))

    def posterior(self, fine: Tensor, coarse: Tensor, system: B) -> Normal:
        return self._posterior(self._context(coarse, system), fine, coarse, system)

    def decode(self, z: Tensor, coarse: Tensor, system: B) -> Tensor:
        return self._decode(self._context(coarse, system), z, coarse, system)[0]

    def mode(self, coarse: Tensor, system: B) -> Tensor:
        context = self._context(coarse, system)
        positions = self._decode(context, self._prior(context).mean, coarse, system)[0]
        return self._closed(positions, context, system, None)

    def elbo(self, fine: Tensor, coarse: Tensor, system: B, noise: Tensor) -> Elbo:
        """Gaussian on the fibre: 3 (members - 1) free directions per bead, one variance per bead."""
        terms = self._terms(self._context(coarse, system), fine, coarse, system, noise)
        kl = terms.information.sum(-1)
        return Elbo(*(system_sums(values, system) for values in (terms.log_likelihood, kl)))

    def log_weight(self, fine: Tensor, coarse: Tensor, system: B, noise: Tensor) -> Tensor:
        context = self._context(coarse, system)
        q, p = self._posterior(context, fine, coarse, system), self._prior(context)
        z = q.at(noise[..., : self.latent])
        nats = _on_fibre(fine, *self._decode(context, z, coarse, system), system)
        return system_sums(nats + p.log_density(z) - q.log_density(z), system)

    def information(self, fine: Tensor, coarse: Tensor, system: B) -> Tensor:
        context = self._context(coarse, system)
        return kl_per_unit(self._posterior(context, fine, coarse, system), self._prior(context))

    def at_step(self, step: int) -> None:
        self.kl_share = min(1.0, (step + 1) / max(1, self.config.kl_warmup_steps))

    def loss(self, fine: Tensor, coarse: Tensor, system: B, noise: Tensor) -> dict[str, Tensor]:
        """beta-ELBO per free direction, and bond lengths. In training the KL may be eased in or partly free."""
        return self._loss(self._context(coarse, system), fine, coarse, system, noise)

    def _loss(
        self, context: Any, fine: Tensor, coarse: Tensor, system: B, noise: Tensor
    ) -> dict[str, Tensor]:
        log_likelihood, information, mean = self._terms(context, fine, coarse, system, noise)
        kl = information.sum(-1)
        weight, counted = self.config.beta, kl
        if self.training:
            weight, counted = weight * self.kl_share, kl.clamp_min(self.config.free_bits)
        terms = {
            "log_likelihood": system_sums(log_likelihood, system).mean(),
            "kl": system_sums(kl, system).mean(),
            "active_units": active_units(information.detach().mean(0)),
        }
        freedom = system_sums(system.freedom.unsqueeze(0), system)
        loss = (system_sums(weight * counted - log_likelihood, system) / freedom).mean()
        if self.config.geometry_weight:
            terms["bonds"] = bond_error(mean, fine, system)
            loss = loss + self.config.geometry_weight * terms["bonds"] / BOND_TOLERANCE
        return {"loss": loss, **terms}

    def _terms(self, context: Any, fine: Tensor, coarse: Tensor, system: B, noise: Tensor) -> Terms:
        q, p = self._posterior(context, fine, coarse, system), self._prior(context)
        z = q.at(noise[..., : self.latent])
        mean, log_spread = self._decode(context, z, coarse, system)
        return Terms(_on_fibre(fine, mean, log_spread, system), kl_per_unit(q, p), mean)

    def _context(self, coarse: Tensor, system: B) -> Any:
        return self.network.context(coarse, system)

    def _prior(self, context: Any) -> Normal:
        return self.network.prior(context)

    def _posterior(self, context: Any, fine: Tensor, coarse: Tensor, system: B) -> Normal:
        return self.network.posterior(context, fine, coarse, system)

    def _decode(self, context: Any, z: Tensor, coarse: Tensor, system: B) -> tuple[Tensor, Tensor]:
        """Mean of the fine positions [F, N, 3] and log standard deviation per bead [F, B]."""
        return self.network.decode(context, z, coarse, system)

    @abstractmethod
    def _closed(self, positions: Tensor, context: Any, system: B, noise: Tensor | None) -> Tensor:
        """A structure after its repair; ``noise``: the normals beyond the latents, None for one answer."""


def _on_fibre(fine: Tensor, mean: Tensor, log_spread: Tensor, system: BeadSystem) -> Tensor:
    """Log density of each bead's members on its fibre, nats [F, B]; log_spread [F, B]."""
    gap = bead_sums((fine - mean).square().sum(-1), system)
    nats = -0.5 * gap * torch.exp(-2 * log_spread)
    return nats - system.freedom * (log_spread + 0.5 * math.log(2 * math.pi))


def bond_error(positions: Tensor, fine: Tensor, system: BeadSystem) -> Tensor:
    """Mean absolute difference of bond lengths, nm; 0 where there are no bonds."""
    if len(system.bond_index) == 0:
        return positions.new_zeros(())
    return (bond_lengths(positions, system) - bond_lengths(fine, system)).abs().mean()


def bond_lengths(positions: Tensor, system: BeadSystem) -> Tensor:
    first, second = system.bond_index.T
    return (positions[:, second] - positions[:, first]).norm(dim=-1)
