"""Networks for C-alpha traces of proteins never seen: refinement along the chain.

The trace starts as the smoothest one through the bead centres and is refined in rounds, at the C-alpha
level: each residue looks along its chain and at its neighbours in space, in right-handed frames of the
present trace, and moves; the beads stay where they are. Residue types are all that is known of a molecule.
Shapes as in `stages.base`; K neighbours in space, C places along the chain.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpcbackmap.config.campaign import TraceConfig
from hpcbackmap.protein.residues import RESIDUES
from hpcbackmap.stages.base import Normal
from hpcbackmap.stages.layers import geometry
from hpcbackmap.stages.layers.bead_system import PARTICLE_FEATURES
from hpcbackmap.stages.layers.close_trace import TRANS, recentre
from hpcbackmap.stages.layers.network import MLP, Block, MessageLayers
from hpcbackmap.stages.layers.pooling import bead_sums
from hpcbackmap.stages.trace.system import TraceSystem

__all__ = ["TraceNetwork"]

WINDOW = 4
"""Residues before and after each one that it sees along the chain."""
REACH = 2
"""The same for one convolution."""
TRACE_REACH = 2.0
"""Distance (nm) up to which the neighbours of a trace are told apart."""


@dataclass(frozen=True)
class Context:
    """What the beads alone tell.

    h [F, N, width] and beads [F, B, width]: features. trace [F, N, 3]: the spline. frames [F, N, 3, 3]: of
    each residue's bead. neighbours: index, validity and separation of neighbours in space, [F, N, K] each.
    along: for each offset of the window, which residues have one there, [C, N].
    """

    h: Tensor
    beads: Tensor
    trace: Tensor
    frames: Tensor
    neighbours: tuple[Tensor, Tensor, Tensor]
    along: Tensor


class TraceNetwork(nn.Module):
    def __init__(self, config: TraceConfig):
        super().__init__()
        width = config.width
        self.config = config
        self.register_buffer("scale", torch.tensor(1.0))
        self.register_buffer("unit", torch.tensor(0.1))
        self.composition = nn.Linear(len(RESIDUES) + 1, width)
        self.shape = nn.Linear(geometry.CHAIN_FEATURES, width)
        self.coarse = MessageLayers(width, config.layers)
        self.particle = nn.Linear(PARTICLE_FEATURES, width)
        self.of_bead = nn.Linear(width, width)
        self.start = nn.Linear(LOCAL_FEATURES, width)
        self.chain = nn.ModuleList(_AlongChain(width) for _ in range(2 * config.layers))
        self.space = MessageLayers(width, config.layers)
        self.pool = nn.Linear(width, width)
        self.deep = MessageLayers(width, config.layers)
        self.prior_head = MLP(width, width, 2 * config.latent)
        self.back = nn.Linear(width, width)
        self.observe = MLP(width + 3 + 2 * LOCAL_FEATURES, width, width)
        self.observe_chain = _AlongChain(width)
        self.posterior_head = MLP(2 * width, width, 2 * config.latent)
        self.from_latent = MLP(config.latent, width, width)
        self.rounds = nn.ModuleList(_Round(width) for _ in range(config.rounds))
        self.log_spread = MLP(width, width, 1)
        self.cis = nn.Linear(width, 1)
        for layer in (self.prior_head[-1], self.log_spread[-1], self.cis):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.cis.bias, -5.0)

    def calibrate(self, fine: Tensor, coarse: Tensor, system: TraceSystem) -> None:
        """Length scales: beads to their nearest, C-alpha atoms to the spline."""
        near, _ = geometry.nearest(coarse, system.coarse_sizes, 1)
        gap = geometry.gather(coarse, near)[:, :, 0] - coarse
        self.scale.fill_(float(gap.norm(dim=-1).mean()))
        shift = fine - _spline(coarse, system)
        self.unit.fill_(float(shift.square().mean().sqrt().clamp_min(1e-3)))

    def context(self, coarse: Tensor, system: TraceSystem) -> Context:
        reach = float(self.scale) * 5
        bead_frames = geometry.local_frames(coarse, system.bead_before, system.bead_after)
        k = min(max(system.coarse_sizes) - 1, self.config.neighbours)
        index, valid = geometry.nearest(coarse, system.coarse_sizes, k)
        apart = _apart(system.place, system.chain, index)
        graph = (geometry.edge_features(coarse, bead_frames, index, reach), index, valid, apart)
        shape = geometry.chain_shape(coarse, system.bead_before, system.bead_after, reach)
        beads = self.coarse(self.composition(system.composition) + self.shape(shape), *graph)

        trace = _spline(coarse, system)
        frames = bead_frames[:, system.bead_of]
        along = _along(system)
        neighbours = _neighbours(trace, system, self.config.neighbours)
        h = self.particle(system.particle) + self.of_bead(beads[:, system.bead_of])
        h = h + self.start(_local(trace, frames, coarse, system, along))
        half = len(self.chain) // 2
        for layer in self.chain[:half]:
            h = layer(h, along)
        h = self.space(
            h, geometry.edge_features(trace, frames, neighbours[0], TRACE_REACH), *neighbours
        )
        for layer in self.chain[half:]:
            h = layer(h, along)
        beads = self.deep(beads + self.pool(_mean(h, system)), *graph)
        h = h + self.back(beads[:, system.bead_of])
        return Context(h, beads, trace, frames, neighbours, along)

    def prior(self, context: Context) -> Normal:
        mean, log_std = self.prior_head(context.beads).chunk(2, -1)
        return Normal(mean, log_std.clamp(-5, 2))

    def posterior(
        self, context: Context, fine: Tensor, coarse: Tensor, system: TraceSystem
    ) -> Normal:
        shift = torch.einsum("fnij,fnj->fni", context.frames, fine - context.trace)
        own = _trace_frames(fine, system)
        seen = torch.cat(
            [
                context.h,
                shift / self.unit,
                _local(fine, context.frames, coarse, system, context.along),
                _local(fine, own, coarse, system, context.along),
            ],
            -1,
        )
        seen = _mean(self.observe_chain(self.observe(seen), context.along), system)
        mean, log_std = self.posterior_head(torch.cat([context.beads, seen], -1)).chunk(2, -1)
        return Normal(mean, (log_std - 1).clamp(-5, 2))

    def decode(self, context: Context, z: Tensor, coarse: Tensor, system: TraceSystem):
        """Mean of the C-alpha positions [F, N, 3] and log standard deviation per bead [F, B]."""
        h = context.h + self.from_latent(z)[:, system.bead_of]
        trace, frames = context.trace.expand(len(h), -1, -1), context.frames
        frames = frames.expand(len(h), -1, -1, -1)
        neighbours = tuple(item.expand(len(h), -1, -1) for item in context.neighbours)
        for layer in self.rounds:
            local = _local(trace, frames, coarse, system, context.along)
            edges = geometry.edge_features(trace, frames, neighbours[0], TRACE_REACH)
            h, move = layer(h, local, edges, neighbours, context.along)
            move = torch.einsum("fnij,fni->fnj", frames, move * self.unit)
            moved = trace + recentre(move, system)
            frames, trace = _trace_frames(moved.detach(), system), moved
        log_spread = self.log_spread(_mean(h, system)).squeeze(-1) + self.unit.log() - 1
        return trace, log_spread.clamp(-9, 2)

    def cis_logits(self, context: Context) -> Tensor:
        """Log odds that the link to each residue from the one before it is cis, [F, N]."""
        return self.cis(context.h).squeeze(-1)


class _AlongChain(Block):
    """h_i += MLP(norm(h_j), j within REACH of i along the chain)."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Linear((2 * REACH + 1) * width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, h: Tensor, along: Tensor) -> Tensor:
        x = self.norm(h)
        parts = [
            x if k == 0 else x.roll(-k, 1) * along[WINDOW + k].unsqueeze(-1)
            for k in range(-REACH, REACH + 1)
        ]
        gate, value = self.mix(torch.cat(parts, -1)).chunk(2, -1)
        return h + self.out(torch.sigmoid(gate) * nn.functional.silu(value))


class _Round(Block):
    """One refinement: look at the present trace, along the chain and in space, then move."""

    def __init__(self, width: int):
        super().__init__()
        self.local = nn.Linear(LOCAL_FEATURES, width)
        self.chain = _AlongChain(width)
        self.space = MessageLayers(width, 1)
        self.move = MLP(width, width, 3)
        nn.init.zeros_(self.move[-1].weight)
        nn.init.zeros_(self.move[-1].bias)

    def forward(self, h, local, edges, neighbours, along) -> tuple[Tensor, Tensor]:
        h = self.chain(h + self.local(local), along)
        h = self.space(h, edges, *neighbours)
        return h, self.move(h)


LOCAL_FEATURES = 3 * (2 * WINDOW + 1)


def _local(
    trace: Tensor, frames: Tensor, coarse: Tensor, system: TraceSystem, along: Tensor
) -> Tensor:
    """Window of the trace and own bead centre, seen from each residue: [F, N, LOCAL_FEATURES]."""
    trace = trace.detach()
    parts = [coarse[:, system.bead_of] - trace]
    for k in range(-WINDOW, WINDOW + 1):
        if k:
            gap = (trace.roll(-k, 1) - trace) * along[WINDOW + k].unsqueeze(-1)
            parts.append(gap / abs(k) ** 0.5)
    gaps = torch.stack(parts, -2) / TRANS
    return torch.einsum("fnij,fncj->fnci", frames, gaps).flatten(-2)


def _along(system: TraceSystem) -> Tensor:
    """Whether the residue k places on is in the same unbroken stretch, 1 or 0, [2 WINDOW + 1, N]."""
    place = torch.arange(len(system.stretch), device=system.stretch.device)
    rows = []
    for k in range(-WINDOW, WINDOW + 1):
        same = system.stretch.roll(-k) == system.stretch
        same &= system.fine_system.roll(-k) == system.fine_system
        rows.append(same & (place + k >= 0) & (place + k < len(place)))
    return torch.stack(rows).to(system.weight.dtype)


def _neighbours(trace: Tensor, system: TraceSystem, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k nearest residues of the same molecule outside the window: index, validity, separation [F, N, K].

    Found in blocks of residues, so that memory stays in bounds for long molecules.
    """
    found, start = [], 0
    for size in system.fine_sizes:
        points, own = trace[:, start : start + size], slice(start, start + size)
        place, chain = system.residue[own], system.residue_chain[own]
        take = min(k, size)
        for rows in torch.arange(size, device=trace.device).split(BLOCK):
            gap = torch.cdist(points[:, rows], points, compute_mode="donot_use_mm_for_euclid_dist")
            near = (place[rows, None] - place).abs() <= WINDOW
            near &= chain[rows, None] == chain
            value, index = (gap + FAR * near).topk(take, dim=-1, largest=False)
            valid = nn.functional.pad(value < FAR, (0, k - take))
            found.append((nn.functional.pad(index, (0, k - take)) + start, valid))
        start += size
    index, valid = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
    return index, valid, _apart(system.residue, system.residue_chain, index)


FAR = 1e4
"""Beyond every distance in a molecule, nm."""
BLOCK = 1024


def _apart(place: Tensor, chain: Tensor, index: Tensor) -> Tensor:
    """Signed distance along the chain of neighbours ``index`` [F, N, K], 0 across chains."""
    gap = place[index] - place.view(1, -1, 1)
    return torch.where(chain[index] == chain.view(1, -1, 1), gap, 0)


def _mean(values: Tensor, system: TraceSystem) -> Tensor:
    """Sum over the members of each bead by the root of their number: [F, N, W] to [F, B, W]."""
    return bead_sums(values, system) / system.members.sqrt().unsqueeze(-1)


def _spline(coarse: Tensor, system: TraceSystem) -> Tensor:
    """The smoothest trace [F, N, 3] through beads [F, B, 3]."""
    bead = coarse[:, system.bead_of]
    gap = coarse[:, system.bead_spline] - bead.unsqueeze(2)
    shift = (gap * system.spline.to(coarse.dtype).unsqueeze(-1)).sum(2)
    return bead + recentre(shift, system)


def _trace_frames(trace: Tensor, system: TraceSystem) -> Tensor:
    """Right-handed frames of each residue from the residues beside it: [F, N, 3, 3]."""
    return geometry.local_frames(trace, system.before_index, system.after_index)
