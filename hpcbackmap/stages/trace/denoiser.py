"""Denoiser of a C-alpha trace: what is protein-like within beads, learned from structures.

The network sees a trace to which white noise of a known width was added, and says where the residues were: the
score of the smoothed distribution of traces (Vincent 2011), from which a probability flow (Song et al. 2021)
leads from a noisy trace to a protein-like one. Beads that are means of C-alpha atoms are kept at every step.
Shapes as in `stages.base`.
"""

import math
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from hpcbackmap.stages.layers import geometry
from hpcbackmap.stages.layers.close_trace import close_calpha
from hpcbackmap.stages.layers.network import MLP, MessageLayers
from hpcbackmap.stages.trace.contacts import push_apart
from hpcbackmap.stages.trace.network import (
    LOCAL_FEATURES,
    TRACE_REACH,
    AlongChain,
    keep_beads,
    local_places,
    near_residues,
    window,
)
from hpcbackmap.stages.trace.system import (
    BEAD_FEATURES,
    RESIDUE_FEATURES,
    STRUCTURES,
    TraceSystem,
)

__all__ = ["SHARP", "WIDTHS", "Denoiser"]

NARROWEST, WIDEST = 0.01, 1.0
"""Widths of the noise that it learns, nm."""
START, END, STEPS = 0.8, 0.03, 7
"""The flow: widths (nm) at which it begins and of its last step, and how many steps it takes."""
SHARP, CLOSING = 0.3, 10
"""Below this width (nm) what is expected is a trace, rather than the mean of many, and its links are closed at
every step by so many iterations: what closing bends the next step mends."""
SPACING = 3.0
"""Widths are even in this root of them (Karras et al. 2022)."""
RESIDUES_AT_A_TIME = 8192
"""Of the frames that go through the flow together, which bounds its memory."""
STRIDES = ((0, 1, 2), (3, 0, 1), (2, 0))
"""Of the blocks along the chain, before, between and after the looks into space."""


class Denoiser(nn.Module):
    def __init__(self, width: int, neighbours: int = 16):
        super().__init__()
        self.neighbours = neighbours
        self.particle = nn.Linear(RESIDUE_FEATURES, width)
        self.of_bead = nn.Linear(BEAD_FEATURES, width)
        self.structure = nn.Embedding(len(STRUCTURES), width)
        self.level = MLP(3, width, width)
        self.start = nn.Linear(LOCAL_FEATURES, width)
        self.parts = nn.ModuleList(
            nn.ModuleList(AlongChain(width, stride) for stride in strides) for strides in STRIDES
        )
        self.space = nn.ModuleList(MessageLayers(width, 1) for _ in STRIDES[1:])
        self.norm = nn.LayerNorm(width)
        self.move = MLP(width, width, 3)
        nn.init.normal_(self.move.last.weight, std=0.01)
        nn.init.zeros_(self.move.last.bias)

    @torch.no_grad()
    def refined(
        self,
        trace: Tensor,
        coarse: Tensor,
        system: TraceSystem,
        cis: Tensor,
        start: float = START,
    ) -> Tensor:
        """The trace [F, N, 3] at the end of the flow that begins at it, as if it were seen through noise.

        cis: which links are to be cis, [F, bonds]. start: width of that noise, nm; the flow joins at the next
        step below.
        """
        steps = [step for step in _STEPS if step[0] <= start]
        frames = max(1, RESIDUES_AT_A_TIME // max(1, trace.shape[1]))
        parts = zip(trace.split(frames), coarse.split(frames), cis.split(frames), strict=True)
        return torch.cat([self._refined(*each, system, steps) for each in parts])

    def _refined(
        self,
        trace: Tensor,
        coarse: Tensor,
        cis: Tensor,
        system: TraceSystem,
        steps: list[tuple[float, float, float]],
    ) -> Tensor:
        """By the second-order multistep solver of Lu et al. (2022, DPM-Solver++), in logarithms of widths."""
        known, before = self._of_molecule(system), None
        for width, following, ahead in steps:
            near = near_residues(trace, system, self.neighbours)
            clean = self(trace, trace.new_full(trace.shape[:2], width), coarse, system, near, known)
            if following:
                clean = clean + keep_beads(push_apart(clean, system, near), system)
            if width < SHARP:
                clean = close_calpha(clean, system, cis, CLOSING)
            towards = clean if before is None else clean + ahead * (clean - before)
            trace = towards + (trace - towards) * (following / width)
            before = clean
        return trace

    def _of_molecule(self, system: TraceSystem) -> tuple[Tensor, Tensor]:
        """What no trace enters: features of the residues [N, width], and `window`."""
        h = self.particle(system.residue_features) + self.structure(system.structure)
        return h + self.of_bead(system.bead_features)[system.bead_of], window(system)

    def loss(self, trace: Tensor, noise: Tensor, coarse: Tensor, system: TraceSystem) -> Tensor:
        """Mean squared error over the variance of the noise, for traces [F, N, 3]; about 1 untrained.

        noise [F, N, 4]: standard normals; the last tells how wide the noise of a molecule is, by that of its
        first residue.
        """
        first = torch.cat([system.fine_system.new_ones(1), system.fine_system.diff()]) > 0
        share = torch.special.ndtr(noise[:, first, 3])[:, system.fine_system]
        width = NARROWEST * (WIDEST / NARROWEST) ** share
        seen = trace + width.unsqueeze(-1) * keep_beads(noise[..., :3], system)
        apart = (self(seen, width, coarse, system) - trace) / width.unsqueeze(-1)
        found: Tensor = apart.square().mean()
        return found

    def forward(
        self,
        trace: Tensor,
        width: Tensor,
        coarse: Tensor,
        system: TraceSystem,
        near: tuple[Tensor, Tensor, Tensor] | None = None,
        known: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Expected trace [F, N, 3] for one seen through noise of ``width`` nm, [F, N].

        near: what `near_residues` finds of ``trace``; known: `_of_molecule`; where they are there already.
        """
        frames = geometry.local_frames(trace, system.before_index, system.after_index)
        near = near or near_residues(trace, system, self.neighbours)
        edges = geometry.edge_features(trace, frames, near[0], TRACE_REACH)
        h, along = known or self._of_molecule(system)
        h = h + self.level(_levels(width))
        h = h + self.start(local_places(trace, frames, coarse, system, along))
        for number, part in enumerate(self.parts):
            if number:
                h = self.space[number - 1](h, edges, *near)
            for block in cast("nn.ModuleList", part):
                h = block(h, system)
        move = torch.einsum("fnij,fni->fnj", frames, self.move(self.norm(h)))
        return trace + width.unsqueeze(-1) * keep_beads(move, system)


def _levels(width: Tensor) -> Tensor:
    """What the network hears of the width of noise, [..., 3]."""
    log = torch.log(width / 0.1)
    return torch.stack([log / 2, torch.sin(log), torch.cos(log)], -1)


def _flow() -> list[tuple[float, float, float]]:
    """Width of every step, that of the next, and by how much of the last change to look ahead."""
    first, last = (width ** (1 / SPACING) for width in (START, END))
    widths = [(first + (last - first) * k / (STEPS - 1)) ** SPACING for k in range(STEPS)]
    down = [math.log(wide / narrow) for wide, narrow in pairwise(widths)]
    ahead = [0.0, *(0.5 * now / last for last, now in pairwise(down)), 0.0]
    return list(zip(widths, [*widths[1:], 0.0], ahead, strict=True))


_STEPS = _flow()
WIDTHS = tuple(width for width, _, _ in _STEPS)
"""Of the noise (nm) at each step of the flow."""
