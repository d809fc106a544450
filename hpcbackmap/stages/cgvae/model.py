"""Beads to finer beads, C-alpha or heavy atoms of one protein, in space, after CGVAE (Wang et al. 2022).

Latents are normal given the beads; fine positions are Gaussian on the fibre of the beads given both.

Differences from the reference: invariant message passing in right-handed frames, so that handedness is
learned; every bead sees its nearest neighbours whatever their distance; no link between channels and bead
size; exact re-centring onto the beads; exact likelihood and KL; a closed form to start from, so that the
latents are in use from the first step. An elastic network and the closing projection have the last word on a
structure, and `mending` where it helps; the ELBO is that of the decoder before them.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hpcbackmap.config.campaign import CgvaeConfig
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.stages.base import Elbo, Normal, Stage, kl_per_unit
from hpcbackmap.stages.cgvae.bead_network import BeadNetwork
from hpcbackmap.stages.cgvae.mending import Mending, can_mend
from hpcbackmap.stages.collapse import active_units
from hpcbackmap.stages.layers.bead_system import BeadSystem, bead_system
from hpcbackmap.stages.layers.close_trace import close_calpha, recentre
from hpcbackmap.stages.layers.pooling import bead_sums, system_sums

__all__ = ["Cgvae"]

BOND_TOLERANCE = 0.02
"""Bond error (nm) that costs as much as one nat per free direction."""


class Terms(NamedTuple):
    """Log-likelihood per bead [F, B], KL per latent [F, B, L], decoder mean [F, N, 3]."""

    log_likelihood: Tensor
    information: Tensor
    mean: Tensor


class Cgvae(Stage[BeadSystem]):
    kind = "cgvae"
    variance = "one per bead, learned as a function of beads and latents"
    fitted = True
    config: CgvaeConfig
    network: BeadNetwork
    ladder: Ladder

    def __init__(self, fine: str, coarse: str, config: CgvaeConfig, ladder: Ladder):
        super().__init__(fine, coarse)
        self.config, self.network = config, BeadNetwork(config, ladder, fine, coarse)
        self.latent = self.elbo_noise = self.noise_width = config.latent
        self.kl_share = 1.0
        self.ladder = ladder
        self.noisy = ladder.is_calpha(fine)
        if self.noisy:
            self.noise_width += 3 * int(np.bincount(ladder.mapping(coarse).bead).max())
        self.mending = None
        if config.mended and can_mend(ladder, fine, coarse):
            self.mending = Mending(ladder, fine, coarse)

    def describe(self, ladder: Ladder) -> BeadSystem:
        self.require_molecule(ladder)
        return bead_system(ladder, self.fine, self.coarse)

    def calibrate(self, fine: Tensor, coarse: Tensor, system: BeadSystem) -> None:
        held_out = self.network.calibrate(fine, coarse, system)
        if self.mending is not None:
            generator = torch.Generator().manual_seed(1)
            members = []
            for _ in range(2):
                drawn = self.network.swing * self.network.deviation(coarse, system, generator)
                members.append(self._relaxed(held_out + drawn, system))
            self.mending.fit(members, fine, coarse, self._cis(system))

    def at_step(self, step: int) -> None:
        self.kl_share = min(1.0, (step + 1) / max(1, self.config.kl_warmup_steps))

    def prior(self, coarse: Tensor, system: BeadSystem) -> Normal:
        return self._prior(self._context(coarse, system))

    def posterior(self, fine: Tensor, coarse: Tensor, system: BeadSystem) -> Normal:
        return self._posterior(self._context(coarse, system), fine, coarse, system)

    def decode(self, z: Tensor, coarse: Tensor, system: BeadSystem) -> Tensor:
        return self._decode(self._context(coarse, system), z, coarse, system)[0]

    def sample(self, coarse: Tensor, system: BeadSystem, noise: Tensor) -> Tensor:
        context = self._context(coarse, system)
        noise, rest = noise[..., : self.latent], noise[..., self.latent :]
        swing = self.network.swing
        positions, log_spread = self._decode(
            context, self._prior(context).at(swing * noise), coarse, system
        )
        if self.noisy:
            white = rest.unflatten(-1, (-1, 3))[:, system.bead_of, system.slot]
            white = torch.einsum("fnij,fni->fnj", context["frames"][:, system.bead_of], white)
            spread = swing * log_spread.exp()[:, system.bead_of].unsqueeze(-1)
            positions = positions + recentre(spread * white, system)
        return self._finished(positions, coarse, system)

    def mode(self, coarse: Tensor, system: BeadSystem) -> Tensor:
        context = self._context(coarse, system)
        latents = self._prior(context).mean
        positions = self._decode(context, latents, coarse, system)[0]
        return self._finished(positions, coarse, system)

    def elbo(self, fine: Tensor, coarse: Tensor, system: BeadSystem, noise: Tensor) -> Elbo:
        """Gaussian on the fibre: 3 (members - 1) free directions per bead, one variance per bead."""
        terms = self._terms(fine, coarse, system, noise)
        kl = terms.information.sum(-1)
        return Elbo(*(system_sums(values, system) for values in (terms.log_likelihood, kl)))

    def log_weight(self, fine: Tensor, coarse: Tensor, system: BeadSystem, noise: Tensor) -> Tensor:
        context = self._context(coarse, system)
        q = self._posterior(context, fine, coarse, system)
        p = self._prior(context)
        z = q.at(noise[..., : self.latent])
        nats = _on_fibre(fine, *self._decode(context, z, coarse, system), system)
        return system_sums(nats + p.log_density(z) - q.log_density(z), system)

    def information(self, fine: Tensor, coarse: Tensor, system: BeadSystem) -> Tensor:
        context = self._context(coarse, system)
        q = self._posterior(context, fine, coarse, system)
        return kl_per_unit(q, self._prior(context))

    def loss(
        self, fine: Tensor, coarse: Tensor, system: BeadSystem, noise: Tensor
    ) -> dict[str, Tensor]:
        """beta-ELBO per free direction, and bond lengths. In training the KL may be eased in or partly free."""
        log_likelihood, information, mean = self._terms(fine, coarse, system, noise)
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
            terms["bonds"] = _bond_error(mean, fine, system)
            loss = loss + self.config.geometry_weight * terms["bonds"] / BOND_TOLERANCE
        return {"loss": loss, **terms}

    def _terms(self, fine: Tensor, coarse: Tensor, system: BeadSystem, noise: Tensor) -> Terms:
        context = self._context(coarse, system)
        q = self._posterior(context, fine, coarse, system)
        p = self._prior(context)
        z = q.at(noise[..., : self.latent])
        mean, log_spread = self._decode(context, z, coarse, system)
        return Terms(_on_fibre(fine, mean, log_spread, system), kl_per_unit(q, p), mean)

    def _context(self, coarse: Tensor, system: BeadSystem) -> dict[str, Any]:
        return self.network.context(coarse, system)

    def _prior(self, context: dict[str, Any]) -> Normal:
        return self.network.prior(context)

    def _posterior(
        self, context: dict[str, Any], fine: Tensor, coarse: Tensor, system: BeadSystem
    ) -> Normal:
        return self.network.posterior(context, fine, coarse, system)

    def _decode(
        self, context: dict[str, Any], z: Tensor, coarse: Tensor, system: BeadSystem
    ) -> tuple[Tensor, Tensor]:
        """Mean of the fine positions [F, N, 3] and log standard deviation per bead [F, B]."""
        return self.network.decode(context, z, coarse, system)

    def _finished(self, positions: Tensor, coarse: Tensor, system: BeadSystem) -> Tensor:
        relaxed = self._relaxed(positions, system)
        if self.mending is None:
            return relaxed
        mended: Tensor = self.mending(relaxed, coarse, self._cis(system))
        return mended

    def _relaxed(self, positions: Tensor, system: BeadSystem) -> Tensor:
        """Stiff distances, then for C-alpha traces the closing projection."""
        if self.network.elastic is not None:
            positions = self.network.elastic(positions)
        if not self.noisy:
            return positions
        return close_calpha(positions, system, self._cis(system))

    def _cis(self, system: BeadSystem) -> Tensor:
        """Which links of the trace are cis, [bonds]."""
        return self.network.cis[system.bond_index[:, 1]]


def _on_fibre(fine: Tensor, mean: Tensor, log_spread: Tensor, system: BeadSystem) -> Tensor:
    """Log density of each bead's members on its fibre, nats [F, B]; log_spread [F, B]."""
    gap = bead_sums((fine - mean).square().sum(-1), system)
    nats = -0.5 * gap * torch.exp(-2 * log_spread)
    return nats - system.freedom * (log_spread + 0.5 * math.log(2 * math.pi))


def _bond_error(positions: Tensor, fine: Tensor, system: BeadSystem) -> Tensor:
    """Mean absolute difference of bond lengths, nm; 0 where there are no bonds."""
    if len(system.bond_index) == 0:
        return positions.new_zeros(())
    return (_bond_lengths(positions, system) - _bond_lengths(fine, system)).abs().mean()


def _bond_lengths(positions: Tensor, system: BeadSystem) -> Tensor:
    first, second = system.bond_index.T
    found: Tensor = (positions[:, second] - positions[:, first]).norm(dim=-1)
    return found
