"""Networks of `cgvae`, of one molecule, between any two resolutions.

Invariant message passing on right-handed bead frames; every bead sees its nearest neighbours whatever
their distance. The networks correct a linear model fitted in closed form, so that the latents are in use from
the first step. Shapes as in `stages.base`.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpcbackmap.config.campaign import CgvaeConfig
from hpcbackmap.protein.residues import CIS_BORDER, RESIDUES
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.stages.base import Normal
from hpcbackmap.stages.cgvae.elastic import ATOMS, MOST_ELASTIC, TRACE, ElasticNetwork
from hpcbackmap.stages.cgvae.linear import (
    PENALTIES,
    choose_penalty,
    folds,
    held_out,
    principal_components,
    ridge,
)
from hpcbackmap.stages.cgvae.superposition import mean_frame, superposed, surroundings, turned
from hpcbackmap.stages.layers import geometry
from hpcbackmap.stages.layers.bead_system import PARTICLE_FEATURES, BeadSystem
from hpcbackmap.stages.layers.close_trace import recentre
from hpcbackmap.stages.layers.network import MLP, MessageLayers
from hpcbackmap.stages.layers.on_host import HostNumber
from hpcbackmap.stages.layers.pooling import bead_sums

__all__ = ["BeadNetwork"]

MAX_NEIGHBOURS = 100
REACHES = (0.8, 1.2, 2.0)
"""Reaches tried for the surroundings that orient a bead's frame, in mean distances of nearest beads."""
FOLDS = 8
MOST_SWING = 4.0


class BeadNetwork(nn.Module):
    scale: Tensor
    unit: Tensor
    cis: Tensor
    reference: Tensor
    around: Tensor
    ridge: Tensor
    basis: Tensor
    gain: Tensor
    latent_log_std: Tensor
    bead_log_spread: Tensor
    swing: Tensor
    elastic: ElasticNetwork | None

    def __init__(self, config: CgvaeConfig, ladder: Ladder, fine: str, coarse: str):
        super().__init__()
        self.config = config
        width = config.width
        self.register_buffer("scale", torch.tensor(1.0))
        self.register_buffer("unit", torch.tensor(0.1))
        self.reach = HostNumber()
        self.bead = nn.Linear(len(RESIDUES) + 1, width)
        self.shape = nn.Linear(geometry.CHAIN_FEATURES, width)
        self.trunk = MessageLayers(width, config.layers)
        self.prior_head = MLP(width, width, 2 * config.latent)
        self.particle = MLP(PARTICLE_FEATURES, width, width)
        self.observe = MLP(width + 3, width, width)
        self.posterior_head = MLP(2 * width, width, 2 * config.latent)
        self.from_latent = nn.Linear(config.latent, width)
        self.decoder = MessageLayers(width, max(1, config.layers - 1))
        self.place = MLP(2 * width, width, 3)
        self.log_spread = nn.Linear(width, 1)
        for layer in (
            self.place.last,
            self.prior_head.last,
            self.posterior_head.last,
            self.log_spread,
        ):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self._own_tables(ladder, coarse, fine)

    def _own_tables(self, ladder: Ladder, coarse: str, fine: str) -> None:
        """What the molecule may learn by heart, and the linear model that `calibrate` fits in closed form."""
        mapping = ladder.mapping(coarse)
        n, beads, width = mapping.n_fine, mapping.n_coarse, self.config.width
        self.particle_table = nn.Parameter(torch.randn(n, width) * 0.1)
        self.bead_table = nn.Parameter(torch.randn(beads, width) * 0.1)
        self.readout = nn.Parameter(torch.zeros(n, width, 3))
        self.register_buffer("cis", torch.zeros(n, dtype=torch.bool))
        self.register_buffer("reference", torch.zeros(beads, 3))
        self.register_buffer("around", torch.ones(beads, beads))
        self.register_buffer("ridge", torch.zeros(n, 3 * beads + 1, 3))
        self.register_buffer("basis", torch.zeros(n, self.config.latent, 3))
        self.register_buffer("gain", torch.zeros(n, 3, self.config.latent))
        self.register_buffer("latent_log_std", torch.zeros(beads, self.config.latent))
        self.register_buffer("bead_log_spread", torch.zeros(beads))
        self.register_buffer("swing", torch.tensor(1.0))
        self.most = int(np.bincount(mapping.bead).max())
        self.is_trace = ladder.is_calpha(fine)
        self.elastic = None
        if n <= MOST_ELASTIC and (self.is_trace or ladder.index(fine) == 0):
            self.elastic = ElasticNetwork(n, *(TRACE if self.is_trace else ATOMS))

    def calibrate(self, fine: Tensor, coarse: Tensor, system: BeadSystem) -> Tensor:
        """Length scales, cis links and what has a closed form.

        Ridge regression in the bead frames, its penalty and the reach of the frames chosen by cross-validation
        over blocks of alike frames; probabilistic principal components (Tipping & Bishop 1999) of what it
        leaves over in frames held out: basis, exact linear posterior and spread of every bead; the
        elastic network of what is stiff. Returns predictions of frames held out, [F, N, 3].
        """
        near, _ = geometry.nearest(coarse, system.coarse_sizes, 1)
        nearest = (geometry.gather(coarse, near)[:, :, 0] - coarse).norm(dim=-1)
        self.scale.fill_(float(nearest.mean()))
        self.reference.copy_(mean_frame(coarse))
        rest = recentre(self._fit_linear(fine, coarse, system), system)
        self._fit_components(self._to_local(rest, self._frames(coarse, system), system), system)
        first, second = system.bond_index.T
        if self.is_trace:
            median = (fine[:, second] - fine[:, first]).norm(dim=-1).median(0).values
            self.cis[second] = median < CIS_BORDER
        if self.elastic is not None:
            self.elastic.fit(fine, system)
            self.swing.fill_(self._fit_swing(self.elastic, fine, rest, coarse, system))
        self.unit.fill_(float(rest.square().mean().sqrt().clamp_min(1e-3)))
        return fine - rest

    def _fit_linear(self, fine: Tensor, coarse: Tensor, system: BeadSystem) -> Tensor:
        """Sets the frames and the ridge weights; returns the held-out errors, lab frame [F, N, 3]."""
        fold = folds(superposed(coarse, self.reference), FOLDS)
        members = [torch.nonzero(system.bead_of == b).squeeze(-1) for b in range(coarse.shape[1])]
        members = [index for index in members if len(index) > 1]
        best = torch.inf, 0.0, self.around, fine
        for reach in REACHES:
            self.around.copy_(surroundings(self.reference, reach * float(self.scale)))
            inputs, local = self._linear_problem(fine, coarse, system)
            guess = torch.zeros(
                len(PENALTIES), *local.shape, dtype=local.dtype, device=local.device
            )
            for index in members:
                x, y = inputs[:, system.bead_of[index[0]]], local[:, index].flatten(1)
                guess[:, :, index] = held_out(x, y, fold).unflatten(-1, (-1, 3))
            least, chosen = choose_penalty((guess - local).square().mean((2, 3)), fold)
            if least < best[0]:
                best = least, PENALTIES[chosen], self.around.clone(), local - guess[chosen]
        _, penalty, around, missed = best
        self.around.copy_(around)
        inputs, local = self._linear_problem(fine, coarse, system)
        for index in members:
            weights = ridge(
                inputs[:, system.bead_of[index[0]]], local[:, index].flatten(1), penalty
            )
            self.ridge[index] = weights.unflatten(1, (-1, 3)).transpose(0, 1).to(self.ridge)
        frames = self._frames(coarse, system)[:, system.bead_of]
        return torch.einsum("fnij,fni->fnj", frames, missed)

    def _linear_problem(
        self, fine: Tensor, coarse: Tensor, system: BeadSystem
    ) -> tuple[Tensor, Tensor]:
        """Inputs [F, B, 3B + 1] and targets [F, N, 3] of the ridge regression, in the bead frames."""
        frames = self._frames(coarse, system)
        local = self._to_local(fine - coarse[:, system.bead_of], frames, system)
        return self._ridge_inputs(coarse, frames), local

    def _fit_components(self, local: Tensor, system: BeadSystem) -> None:
        for bead, freedom in enumerate(system.freedom.tolist()):
            members = torch.nonzero(system.bead_of == bead).squeeze(-1)
            if freedom == 0:
                continue
            values = local[:, members].flatten(1)
            model = principal_components(values, self.config.latent, int(freedom))
            self.basis[members] = model.basis.unflatten(0, (-1, 3)).transpose(1, 2).to(self.basis)
            self.gain[members] = model.gain.unflatten(0, (-1, 3)).to(self.gain)
            self.latent_log_std[bead] = model.log_std.to(self.latent_log_std)
            self.bead_log_spread[bead] = model.log_spread

    def _fit_swing(
        self,
        elastic: ElasticNetwork,
        fine: Tensor,
        missed: Tensor,
        coarse: Tensor,
        system: BeadSystem,
    ) -> float:
        """How much wider than the prior members are drawn, so that the elastic network leaves the right spread.

        The network takes away a part of every deviation. Right is the error of relaxed predictions of held-out
        frames; ``missed`` [F, N, 3] is their error before.
        """
        drawn = self.deviation(coarse, system, torch.Generator().manual_seed(0))
        answer = elastic(fine - missed)
        error = (answer - fine).square().mean().sqrt()
        spread = (elastic(fine - missed + drawn) - answer).square().mean().sqrt()
        return float((error / spread.clamp_min(1e-6)).clamp(1, MOST_SWING))

    def deviation(self, coarse: Tensor, system: BeadSystem, generator: torch.Generator) -> Tensor:
        """Of a member from the mean, drawn from the principal components, lab frame [F, N, 3]."""
        shape = (*coarse.shape[:2], self.config.latent)
        z = torch.randn(shape, generator=generator).to(coarse)
        local = torch.einsum("fnl,nld->fnd", z[:, system.bead_of], self.basis)
        frames = self._frames(coarse, system)[:, system.bead_of]
        return recentre(torch.einsum("fnij,fni->fnj", frames, local), system)

    def context(self, coarse: Tensor, system: BeadSystem) -> dict[str, Any]:
        """What the beads alone tell: features, frames, neighbourhoods."""
        reach = self.reach(self.scale) * 5
        frames = self._frames(coarse, system)
        k = min(max(system.coarse_sizes) - 1, MAX_NEIGHBOURS)
        index, valid = geometry.nearest(coarse, system.coarse_sizes, k)
        apart = system.place[index] - system.place.view(1, -1, 1)
        apart = torch.where(system.chain[index] == system.chain.view(1, -1, 1), apart, 0)
        graph = (geometry.edge_features(coarse, frames, index, reach), index, valid, apart)
        shape = geometry.chain_shape(coarse, system.bead_before, system.bead_after, reach)
        h = self.bead(system.composition) + self.shape(shape) + self.bead_table
        particle = self.particle(system.particle) + self.particle_table
        return {"h": self.trunk(h, *graph), "graph": graph, "frames": frames, "particle": particle}

    def prior(self, context: dict[str, Any]) -> Normal:
        mean, log_std = self.prior_head(context["h"]).chunk(2, -1)
        return Normal(mean, log_std.clamp(-5, 2))

    def posterior(
        self, context: dict[str, Any], fine: Tensor, coarse: Tensor, system: BeadSystem
    ) -> Normal:
        frames = context["frames"]
        shift = fine - coarse[:, system.bead_of] - self._linear(coarse, frames, system)
        local = self._to_local(shift, frames, system)
        particle = context["particle"].expand(len(fine), -1, -1)
        seen = self.observe(torch.cat([particle, local / self.unit], -1))
        seen = bead_sums(seen, system) / system.members.sqrt().unsqueeze(-1)
        mean, log_std = self.posterior_head(torch.cat([context["h"], seen], -1)).chunk(2, -1)
        mean = mean + bead_sums(torch.einsum("fnd,ndl->fnl", local, self.gain), system)
        log_std = log_std + self.latent_log_std
        return Normal(mean, log_std.clamp(-5, 2))

    def decode(
        self, context: dict[str, Any], z: Tensor, coarse: Tensor, system: BeadSystem
    ) -> tuple[Tensor, Tensor]:
        """Mean of the fine positions [F, N, 3] and log standard deviation per bead [F, B]."""
        h = self.decoder(context["h"] + self.from_latent(z), *context["graph"])
        members = h[:, system.bead_of]
        particle = context["particle"].expand(len(h), -1, -1)
        local = self.place(torch.cat([members, particle], -1))
        local = (local + torch.einsum("fnw,nwd->fnd", members, self.readout)) * self.unit
        local = local + torch.einsum("fnl,nld->fnd", z[:, system.bead_of], self.basis)
        log_spread = self.log_spread(h).squeeze(-1) + self.bead_log_spread
        shift = torch.einsum("fnij,fni->fnj", context["frames"][:, system.bead_of], local)
        shift = shift + self._linear(coarse, context["frames"], system)
        return coarse[:, system.bead_of] + recentre(shift, system), log_spread.clamp(-9, 2)

    def _linear(self, coarse: Tensor, frames: Tensor, system: BeadSystem) -> Tensor:
        """Ridge part of the displacement from the bead, lab frame: [F, N, 3]."""
        inputs = self._ridge_inputs(coarse, frames).transpose(0, 1)
        member, taken = self._members(system)
        weights = (self.ridge[member] * taken[..., None, None]).transpose(1, 2).flatten(2)
        local = (inputs @ weights).unflatten(-1, (-1, 3)).transpose(0, 1)
        placed = local.flatten(1, 2)[:, system.bead_of * self.most + system.slot]
        return torch.einsum("fnij,fni->fnj", frames[:, system.bead_of], placed)

    def _members(self, system: BeadSystem) -> tuple[Tensor, Tensor]:
        """Members of every bead, padded, [B, most], and which entries are members."""
        size = system.members
        place = torch.arange(self.most, device=size.device)
        taken = place < size.unsqueeze(1)
        first = (size.cumsum(0) - size).unsqueeze(1)
        order = system.bead_of.argsort(stable=True)
        return order[(first + place).clamp_max(len(order) - 1)], taken

    def _ridge_inputs(self, coarse: Tensor, frames: Tensor) -> Tensor:
        """Positions of all beads in each bead's frame, far ones faint, and 1: [F, B, 3B + 1]."""
        gap = coarse.unsqueeze(1) - coarse.unsqueeze(2)
        gap = gap * self.around.to(gap.dtype).sqrt().unsqueeze(-1)
        local = torch.einsum("fbij,fbcj->fbci", frames, gap).flatten(-2)
        return torch.cat([local, torch.ones_like(local[..., :1])], -1)

    def _frames(self, coarse: Tensor, system: BeadSystem) -> Tensor:
        """Frames of the beads [F, B, 3, 3], by superposition of their surroundings."""
        return turned(coarse, self.reference.to(coarse.dtype), self.around.to(coarse.dtype))

    def _to_local(self, shift: Tensor, frames: Tensor, system: BeadSystem) -> Tensor:
        return torch.einsum("fnij,fnj->fni", frames[:, system.bead_of], shift)
