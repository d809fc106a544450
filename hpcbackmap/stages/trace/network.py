"""Network of the trace stage: from beads of any number of residues to a C-alpha trace, in rounds.

The trace starts as the smoothest one through the bead centres and is refined at the C-alpha level: each
residue looks along its chain and at its neighbours in space, in right-handed frames of the present trace, and
moves; beads that are means of C-alpha atoms stay where they are. What is known of a molecule are residue
types, how many residues each bead has and what a bead is. Shapes as in `stages.base`; K neighbours in space.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpcbackmap.config.campaign import TraceConfig
from hpcbackmap.protein.residues import TRANS
from hpcbackmap.stages.layers import geometry
from hpcbackmap.stages.layers.network import MLP, Block, MessageLayers
from hpcbackmap.stages.layers.pooling import bead_sums
from hpcbackmap.stages.trace.system import (
    BEAD_FEATURES,
    REACH,
    RESIDUE_FEATURES,
    SEGMENTS,
    STEPS,
    TraceSystem,
)

__all__ = ["LATENT", "Context", "TraceNetwork", "displacement"]

BEAD_NOISE, LOCAL_NOISE = 8, 4
"""Normals of a draw that all residues of a bead see, and those of each of its segments."""
LATENT = BEAD_NOISE + SEGMENTS * LOCAL_NOISE
WINDOW = 4
"""Residues before and after each one whose places it sees."""
TRACE_REACH, BEAD_REACH = 2.0, 4.5
"""Distances (nm) up to which neighbours of a trace and of a bead are told apart."""
LATER, LARGEST = 0.5, 0.3
"""Moves after the first round: this share of the first's length, of at most so many nm."""


@dataclass(frozen=True)
class Context:
    """What the beads alone tell.

    h [F, N, width] and beads [F, B, width]: features. trace [F, N, 3]: the spline. frames [F, N, 3, 3]: of
    each residue's bead. neighbours: index, validity and separation of neighbours in space, [F, N, K] each.
    along: for each place of the window, which residues have one there, [2 WINDOW + 1, N].
    """

    h: Tensor
    beads: Tensor
    trace: Tensor
    frames: Tensor
    neighbours: tuple[Tensor, Tensor, Tensor]
    along: Tensor

    def repeat(self, count: int) -> "Context":
        """The frames so many times over."""
        if count == 1:
            return self

        def more(each: Tensor) -> Tensor:
            return torch.cat([each] * count)

        index, valid, apart = self.neighbours
        return Context(
            more(self.h),
            more(self.beads),
            more(self.trace),
            more(self.frames),
            (more(index), more(valid), more(apart)),
            self.along,
        )


class TraceNetwork(nn.Module):
    def __init__(self, config: TraceConfig):
        super().__init__()
        width = config.width
        self.neighbours = config.neighbours
        self.composition = nn.Linear(BEAD_FEATURES, width)
        self.shape = nn.Linear(geometry.CHAIN_FEATURES, width)
        self.coarse = MessageLayers(width, config.layers)
        self.particle = nn.Linear(RESIDUE_FEATURES, width)
        self.of_bead = nn.Linear(width, width)
        self.start = nn.Linear(LOCAL_FEATURES, width)
        self.chain = nn.ModuleList(AlongChain(width, number) for number in range(len(STEPS)))
        self.space = MessageLayers(width, config.layers)
        self.pool = nn.Linear(width, width)
        self.deep = MessageLayers(width, config.layers)
        self.back = nn.Linear(width, width)
        self.last = AlongChain(width, 0)
        self.from_noise = MLP(BEAD_NOISE + LOCAL_NOISE, width, width)
        self.answer = nn.Parameter(torch.zeros(width))
        count = config.rounds
        self.rounds = nn.ModuleList(
            _Round(width, sees_space=number % 2 == 0 or number == count - 1)
            for number in range(count)
        )
        self.cis = nn.Linear(width, 1)
        self.log_spread = MLP(width, width, 1)
        self.log_error = MLP(width, width, 1)
        for layer in (self.cis, self.log_spread.last, self.log_error.last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.cis.bias, -5.0)

    def context(self, coarse: Tensor, system: TraceSystem) -> Context:
        bead_frames = geometry.local_frames(coarse, system.bead_before, system.bead_after)
        k = min(max(system.coarse_sizes) - 1, self.neighbours)
        index, valid = geometry.nearest(coarse, system.coarse_sizes, k)
        edges = geometry.edge_features(coarse, bead_frames, index, BEAD_REACH)
        graph = (edges, index, valid, _apart(system.place, system.chain, index))
        shape = geometry.chain_shape(coarse, system.bead_before, system.bead_after, BEAD_REACH)
        beads = self.composition(system.bead_features) + self.shape(shape)
        beads = self.coarse(beads, *graph)

        trace = spline(coarse, system)
        frames, along = bead_frames[:, system.bead_of], window(system)
        neighbours = near_residues(trace, system, self.neighbours)
        h = self.particle(system.residue_features) + self.of_bead(beads)[:, system.bead_of]
        h = h + self.start(local_places(trace, frames, coarse, system, along))
        half = len(self.chain) // 2
        for layer in self.chain[:half]:
            h = layer(h, system)
        edges = geometry.edge_features(trace, frames, neighbours[0], TRACE_REACH)
        h = self.space(h, edges, *neighbours)
        for layer in self.chain[half:]:
            h = layer(h, system)
        beads = self.deep(beads + self.pool(_mean(h, system)), *graph)
        h = self.last(h + self.back(beads)[:, system.bead_of], system)
        return Context(h, beads, trace, frames, neighbours, along)

    def decode(
        self, context: Context, z: Tensor | None, coarse: Tensor, system: TraceSystem
    ) -> Tensor:
        """C-alpha positions of z [D F, B, LATENT], D draws of each frame, or of the one answer (None).

        [D F, N, 3], or [F, N, 3].
        """
        return self.refine(context, z, coarse, system)[1]

    def refine(
        self, context: Context, z: Tensor | None, coarse: Tensor, system: TraceSystem
    ) -> tuple[Tensor, Tensor]:
        """Features of residues after the last round [D F, N, width], and what `decode` returns."""
        draws = 1 if z is None else len(z) // len(coarse)
        context, coarse = context.repeat(draws), coarse.repeat(draws, 1, 1)
        h = context.h + (self.answer if z is None else self._heard(z, system))
        trace, frames, neighbours = context.trace, context.frames, context.neighbours
        scale = displacement(system.length)[system.bead_of].unsqueeze(-1)
        for layer in self.rounds:
            h, move = layer(h, trace, frames, neighbours, coarse, system, context.along)
            move = torch.einsum("fnij,fni->fnj", frames, move * scale)
            trace = trace + keep_beads(move, system)
            frames = geometry.local_frames(trace.detach(), system.before_index, system.after_index)
            if layer is self.rounds[0]:
                scale = LATER * scale.clamp_max(LARGEST)
        return h, trace

    def _heard(self, z: Tensor, system: TraceSystem) -> Tensor:
        """What each residue hears of its bead's noise, [F, N, width]."""
        of_bead = z[:, system.bead_of, :BEAD_NOISE]
        of_segment = z[..., BEAD_NOISE:].unflatten(-1, (SEGMENTS, LOCAL_NOISE))
        own = of_segment[:, system.bead_of, system.segment]
        found: Tensor = self.from_noise(torch.cat([of_bead, own], -1))
        return found

    def spread(self, context: Context, system: TraceSystem) -> Tensor:
        """Log standard deviation (nm) of C-alpha atoms about a draw, per bead [F, B]."""
        found = self.log_spread(_mean(context.h.detach(), system)).squeeze(-1)
        result: Tensor = (found + displacement(system.length).log() - 1).clamp(-9, 2)
        return result

    def error(self, context: Context, system: TraceSystem) -> Tensor:
        """Log of the expected error (nm) of each residue of the one answer, [F, N]."""
        found = self.log_error(context.h.detach()).squeeze(-1)
        result: Tensor = found + displacement(system.length).log()[system.bead_of] - 1
        return result

    def cis_logits(self, context: Context) -> Tensor:
        """Log odds that the link to each residue from the one before it is cis, [F, N]."""
        found: Tensor = self.cis(context.h).squeeze(-1)
        return found


class AlongChain(Block):
    """h_i += gated mix of norm(h_j), j up to REACH strides before and after i."""

    bf16 = False

    def __init__(self, width: int, stride: int):
        super().__init__()
        self.stride = stride
        self.norm = nn.LayerNorm(width)
        self.narrow = nn.Linear(width, width // 2)
        self.mix = nn.Linear((2 * REACH + 1) * (width // 2), 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, h: Tensor, system: TraceSystem) -> Tensor:
        x = self.narrow(self.norm(h))
        seen = x[:, system.reach_index[:, self.stride]]
        seen = seen * system.reach[:, self.stride].unsqueeze(-1)
        with torch.autocast(
            h.device.type, dtype=torch.bfloat16, enabled=self.bf16 and self.training
        ):
            gate, value = self.mix(seen.flatten(-2)).chunk(2, -1)
            found: Tensor = h + self.out(torch.sigmoid(gate) * nn.functional.silu(value))
            return found


class _Round(Block):
    """One refinement: look at the present trace, along the chain and perhaps in space, then move."""

    def __init__(self, width: int, sees_space: bool):
        super().__init__()
        self.local = nn.Linear(LOCAL_FEATURES, width)
        self.chain = AlongChain(width, 0)
        self.space = MessageLayers(width, 1) if sees_space else None
        self.second = AlongChain(width, 1)
        self.move = MLP(width, width, 3)
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.move.last.weight, std=0.01)
        nn.init.zeros_(self.move.last.bias)

    def forward(
        self,
        h: Tensor,
        trace: Tensor,
        frames: Tensor,
        neighbours: tuple[Tensor, Tensor, Tensor],
        coarse: Tensor,
        system: TraceSystem,
        along: Tensor,
    ) -> tuple[Tensor, Tensor]:
        h = self.chain(h + self.local(local_places(trace, frames, coarse, system, along)), system)
        if self.space is not None:
            edges = geometry.edge_features(trace, frames, neighbours[0], TRACE_REACH)
            h = self.space(h, edges, *neighbours)
        h = self.second(h, system)
        return h, self.move(self.norm(h))


LOCAL_FEATURES = 3 * (2 * WINDOW + 3) + 2


def displacement(length: Tensor) -> Tensor:
    """Typical distance (nm) of C-alpha atoms from the smoothest trace through beads of ``length`` residues."""
    return 0.05 * length**0.9


def local_places(
    trace: Tensor, frames: Tensor, coarse: Tensor, system: TraceSystem, along: Tensor
) -> Tensor:
    """Window of the trace, own bead and those beside it, seen from each residue: [F, N, LOCAL_FEATURES]."""
    trace = trace.detach()
    own = system.bead_of
    size = displacement(system.length)[own].view(1, -1, 1) + TRANS
    beads = (own, system.bead_previous[own], system.bead_next[own])
    gaps = [(coarse[:, bead] - trace) / size for bead in beads]
    lengths = []
    for k in range(-WINDOW, WINDOW + 1):
        if not k:
            continue
        gap = (trace.roll(-k, 1) - trace) * along[WINDOW + k].unsqueeze(-1)
        gaps.append(gap / (TRANS * abs(k) ** 0.5))
        if abs(k) == 1:
            lengths.append(gap.norm(dim=-1, keepdim=True) / TRANS - 1)
    seen = torch.einsum("fnij,fncj->fnci", frames, torch.stack(gaps, -2))
    return torch.cat([seen.flatten(-2), *lengths], -1)


def window(system: TraceSystem) -> Tensor:
    """Whether the residue k places on is in the same unbroken stretch, 1 or 0, [2 WINDOW + 1, N]."""
    place = torch.arange(len(system.stretch), device=system.stretch.device)
    rows = []
    for k in range(-WINDOW, WINDOW + 1):
        same = system.stretch.roll(-k) == system.stretch
        same &= system.fine_system.roll(-k) == system.fine_system
        rows.append(same & (place + k >= 0) & (place + k < len(place)))
    return torch.stack(rows).to(system.weight.dtype)


def near_residues(trace: Tensor, system: TraceSystem, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k nearest residues of the same molecule outside the window: index, validity, separation [F, N, K].

    Of long molecules by a tree on a CPU, elsewhere in blocks of residues: memory stays in bounds.
    """
    found, start = [], 0
    for size in system.fine_sizes:
        points, own = trace[:, start : start + size], slice(start, start + size)
        place, chain = system.residue[own], system.residue_chain[own]
        if size > geometry.LARGE and trace.device.type == "cpu":
            index, valid = _near_by_tree(points, place, chain, k)
            found.append((index + start, valid))
            start += size
            continue
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


def _near_by_tree(points: Tensor, place: Tensor, chain: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The same of one molecule [F, n, 3], without separation: those in the window are left out afterwards."""
    index, _ = geometry.nearest(points, (points.shape[1],), k + 2 * WINDOW)
    near = (place[index] - place.view(1, -1, 1)).abs() <= WINDOW
    near &= chain[index] == chain.view(1, -1, 1)
    order = near.byte().argsort(dim=-1, stable=True)[..., :k]
    return index.gather(-1, order), ~near.gather(-1, order)


FAR = 1e4
"""Beyond every distance in a molecule, nm."""
BLOCK = 1024


def _apart(place: Tensor, chain: Tensor, index: Tensor) -> Tensor:
    """Signed distance along the chain of neighbours ``index`` [F, N, K], 0 across chains."""
    gap = place[index] - place.view(1, -1, 1)
    return torch.where(chain[index] == chain.view(1, -1, 1), gap, 0)


def _mean(values: Tensor, system: TraceSystem) -> Tensor:
    """Sum over the residues of each bead by the root of their number: [F, N, W] to [F, B, W]."""
    return bead_sums(values, system) / system.length.sqrt().unsqueeze(-1)


def keep_beads(move: Tensor, system: TraceSystem) -> Tensor:
    """``move`` [F, N, 3] less its mean over each bead that is the mean of its C-alpha atoms."""
    mean = bead_sums(move * system.weight.unsqueeze(-1), system)
    return move - (mean * system.exact.unsqueeze(-1))[:, system.bead_of]


def spline(coarse: Tensor, system: TraceSystem) -> Tensor:
    """The smoothest trace [F, N, 3] through beads [F, B, 3]."""
    bead = coarse[:, system.bead_of]
    gap = coarse[:, system.bead_spline] - bead.unsqueeze(2)
    shift = (gap * system.spline.to(coarse.dtype).unsqueeze(-1)).sum(2)
    mean = bead_sums(shift * system.weight.unsqueeze(-1), system)
    return bead + shift - mean[:, system.bead_of]
