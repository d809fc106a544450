"""Beads to finer beads, C-alpha or heavy atoms in Cartesian coordinates, after CGVAE (Wang et al. 2022).

Differences from the reference: invariant message passing in right-handed frames, so that handedness is
learned; every bead sees its nearest neighbours whatever their distance; no link between channels and bead
size; exact re-centring onto the beads; exact likelihood and KL. Two networks share the mathematics here:
`bead_network` (any two resolutions; for one molecule around a closed form, so that the latents are in use
from the first step) and `trace_network` (C-alpha traces of many proteins). An elastic network and the
closing projection have the last word on a structure; the ELBO is that of the decoder before them.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch

from hpcbackmap.config.campaign import CgvaeConfig
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.stages.base import Elbo, Normal, Stage, System, kl_per_unit
from hpcbackmap.stages.cgvae.bead_network import BeadNetwork
from hpcbackmap.stages.cgvae.system import bead_system
from hpcbackmap.stages.collapse import active_units
from hpcbackmap.stages.layers.close_trace import LIMIT, close_calpha, recentre
from hpcbackmap.stages.layers.pooling import bead_sums, system_sums
from hpcbackmap.stages.trace.energy_score import energy_score, other_noise
from hpcbackmap.stages.trace.network import TraceNetwork

__all__ = ["Cgvae"]


class Cgvae(Stage):
    kind = "cgvae"
    variance = "one per bead, learned as a function of beads and latents"

    def __init__(self, fine: str, coarse: str, config: CgvaeConfig, ladder: Ladder | None):
        super().__init__(fine, coarse)
        self.config = config
        self.latent = self.elbo_noise = self.noise_width = config.latent
        self.kl_share = 1.0
        self.ladder = ladder if config.per_system else None
        self.traces = fine == "ca" and not config.per_system
        if self.traces:
            self.noise_width += CIS_DRAWS
            self.network = TraceNetwork(config)
        else:
            self.network = BeadNetwork(config, ladder, fine, coarse)
        self.noisy = config.per_system and ladder.is_calpha(fine)
        if self.noisy:
            self.noise_width += 3 * int(np.bincount(ladder.mapping(coarse).bead).max())

    def describe(self, ladder: Ladder) -> System:
        self.require_molecule(ladder)
        return bead_system(ladder, self.fine, self.coarse)

    def calibrate(self, fine: Tensor, coarse: Tensor, system: Batch) -> None:
        self.network.calibrate(fine, coarse, system)

    def prior(self, coarse: Tensor, system: Batch) -> Normal:
        return self._prior(self._context(coarse, system))

    def posterior(self, fine: Tensor, coarse: Tensor, system: Batch) -> Normal:
        return self._posterior(self._context(coarse, system), fine, coarse, system)

    def decode(self, z: Tensor, coarse: Tensor, system: Batch) -> Tensor:
        return self._decode(self._context(coarse, system), z, coarse, system)[0]

    def sample(self, coarse: Tensor, system: Batch, noise: Tensor) -> Tensor:
        context = self._context(coarse, system)
        noise, rest = noise[..., : self.latent], noise[..., self.latent :]
        swing = self.network.swing if self.config.per_system else 1.0
        positions, log_spread = self._decode(
            context, self._prior(context).at(swing * noise), coarse, system
        )
        if self.noisy:
            white = rest.unflatten(-1, (-1, 3))[:, system.bead_of, system.slot]
            white = torch.einsum("fnij,fni->fnj", context["frames"][:, system.bead_of], white)
            spread = swing * log_spread.exp()[:, system.bead_of].unsqueeze(-1)
            positions = positions + recentre(spread * white, system)
        return self._closed(positions, context, system, rest)

    def mode(self, coarse: Tensor, system: Batch) -> Tensor:
        context = self._context(coarse, system)
        positions = self._decode(context, self._prior(context).mean, coarse, system)[0]
        return self._closed(positions, context, system, None)

    def elbo(self, fine: Tensor, coarse: Tensor, system: Batch, noise: Tensor) -> Elbo:
        """Gaussian on the fibre: 3 (members - 1) free directions per bead, one variance per bead."""
        context = self._context(coarse, system)
        log_likelihood, information, _ = self._terms(context, fine, coarse, system, noise)
        kl = information.sum(-1)
        return Elbo(*(system_sums(values, system) for values in (log_likelihood, kl)))

    def log_weight(self, fine: Tensor, coarse: Tensor, system: Batch, noise: Tensor) -> Tensor:
        context = self._context(coarse, system)
        q, p = self._posterior(context, fine, coarse, system), self._prior(context)
        z = q.at(noise[..., : self.latent])
        nats = _on_fibre(fine, *self._decode(context, z, coarse, system), system)
        return system_sums(nats + p.log_density(z) - q.log_density(z), system)

    def information(self, fine: Tensor, coarse: Tensor, system: Batch) -> Tensor:
        context = self._context(coarse, system)
        return kl_per_unit(self._posterior(context, fine, coarse, system), self._prior(context))

    def at_step(self, step: int) -> None:
        self.kl_share = min(1.0, (step + 1) / max(1, self.config.kl_warmup_steps))

    def loss(self, fine: Tensor, coarse: Tensor, system: Batch, noise: Tensor) -> dict[str, Tensor]:
        """beta-ELBO per free direction, and bond lengths. In training the KL may be eased in or partly free."""
        context = self._context(coarse, system)
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
        freedom = torch.bincount(system.coarse_system, weights=system.freedom)
        loss = (system_sums(weight * counted - log_likelihood, system) / freedom).mean()
        if len(system.bond_index) and self.config.geometry_weight:
            terms["bonds"] = _bond_error(mean, fine, system)
            loss = loss + self.config.geometry_weight * terms["bonds"] / BOND_TOLERANCE
        if self.traces:
            draws, second = self._two_draws(context, coarse, system, noise), system.bond_index[:, 1]
            terms["energy_score"] = energy_score(*draws, fine, system)
            score = terms["energy_score"] / DRAW_TOLERANCE
            for draw in draws:
                bonds = 0.5 * _bond_error(draw, fine, system)
                score = score + self.config.geometry_weight * bonds / BOND_TOLERANCE
            logits = self.network.cis_logits(context)[:, second]
            cis = (_bond_lengths(fine, system) < LIMIT).to(logits.dtype)
            terms["cis"] = nn.functional.binary_cross_entropy_with_logits(logits, cis)
            loss = loss + self.config.draws_weight * score + terms["cis"]
        return {"loss": loss, **terms}

    def _terms(self, context, fine, coarse, system, noise) -> tuple[Tensor, Tensor, Tensor]:
        """Log-likelihood per bead [F, B], KL per latent [F, B, L], decoder mean [F, N, 3]."""
        q, p = self._posterior(context, fine, coarse, system), self._prior(context)
        z = q.at(noise[..., : self.latent])
        mean, log_spread = self._decode(context, z, coarse, system)
        return _on_fibre(fine, mean, log_spread, system), kl_per_unit(q, p), mean

    def _two_draws(self, context, coarse, system, noise) -> list[Tensor]:
        """Decoder means [F, N, 3] of two draws from the prior."""
        prior, noise = self._prior(context), noise[..., : self.latent]
        return [
            self._decode(context, prior.at(each), coarse, system)[0]
            for each in (noise, other_noise(noise, system))
        ]

    def _context(self, coarse: Tensor, system: Batch):
        return self.network.context(coarse, system)

    def _prior(self, context) -> Normal:
        return self.network.prior(context)

    def _posterior(self, context, fine: Tensor, coarse: Tensor, system: Batch) -> Normal:
        return self.network.posterior(context, fine, coarse, system)

    def _decode(self, context, z: Tensor, coarse: Tensor, system: Batch) -> tuple[Tensor, Tensor]:
        """Mean of the fine positions [F, N, 3] and log standard deviation per bead [F, B]."""
        return self.network.decode(context, z, coarse, system)

    def _closed(self, positions: Tensor, context, system: Batch, noise: Tensor | None) -> Tensor:
        """The closing projection; ``noise`` [F, B, CIS_DRAWS] draws cis links, None takes the likely state."""
        if self.config.per_system and self.network.elastic is not None:
            positions = self.network.elastic(positions)
        if not bool(system.calpha.all()):
            return positions
        second = system.bond_index[:, 1]
        if not self.traces:
            return close_calpha(positions, system, self.network.cis[second])
        logits = self.network.cis_logits(context)
        border = torch.zeros_like(logits)
        if noise is not None:
            share = torch.special.ndtr(noise[:, system.bead_of, system.slot % CIS_DRAWS])
            border = torch.logit(share, eps=1e-6)
        return close_calpha(positions, system, (logits > border)[:, second])


CIS_DRAWS = 16
"""Normals per bead that draw the cis links of its members."""
BOND_TOLERANCE = 0.02
"""Bond error (nm) that costs as much as one nat per free direction."""
DRAW_TOLERANCE = 0.05
"""The same for the energy score of prior draws."""


def _on_fibre(fine: Tensor, mean: Tensor, log_spread: Tensor, system: Batch) -> Tensor:
    """Log density of each bead's members on its fibre, nats [F, B]; log_spread [F, B]."""
    gap = bead_sums((fine - mean).square().sum(-1), system)
    nats = -0.5 * gap * torch.exp(-2 * log_spread)
    return nats - system.freedom * (log_spread + 0.5 * math.log(2 * math.pi))


def _bond_error(positions: Tensor, fine: Tensor, system: Batch) -> Tensor:
    """Mean absolute difference of bond lengths, nm."""
    return (_bond_lengths(positions, system) - _bond_lengths(fine, system)).abs().mean()


def _bond_lengths(positions: Tensor, system: Batch) -> Tensor:
    first, second = system.bond_index.T
    return (positions[:, second] - positions[:, first]).norm(dim=-1)
