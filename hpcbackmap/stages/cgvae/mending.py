"""Traces of one protein mended by what is known of all: the denoiser of the shipped trace stage.

A stage that has seen few frames of a flexible molecule bends its chain where it is not sure. The denoiser takes
such a trace for one seen through noise and leads it to a protein-like one near by; beads stay. How wide that
noise is taken to be is chosen by predictions that the closed form makes of frames held out of it. Where the
stage knows its molecule better than the denoiser does, that is not at all. Shapes as in `stages.base`.
"""

import logging
from itertools import combinations

import numpy as np
import torch
from torch import Tensor, nn

from hpcbackmap.resolution.build import DEFINITIONS
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.layers.close_trace import close_calpha
from hpcbackmap.stages.layers.on_host import HostNumber
from hpcbackmap.stages.trace.denoiser import SHARP, WIDTHS, Denoiser
from hpcbackmap.stages.trace.system import TraceSystem, trace_system

__all__ = ["Mending", "can_mend"]

log = logging.getLogger(__name__)

OFFSETS = (2, 3, 4)
"""Residues apart along the chain, whose distances judge a mended trace."""
DENOISER = 64
"""Width of the shipped one, of which artifacts hold the weights."""
JUDGED = 1000
"""Residues of all frames that the choice looks at."""
LEAST_GAIN = 0.01
"""By which share a wider noise has to lower the score."""
TRIED = tuple(sorted(width for width in WIDTHS if width < SHARP))
"""nm. Above the last, what is expected is no trace."""


def can_mend(ladder: Ladder, fine: str, coarse: str) -> bool:
    """Whether these beads are what the trace stage knows: runs of residues, means of their C-alpha atoms."""
    steps = np.diff(ladder.mapping(coarse).bead)
    runs = bool(np.isin(steps, (0, 1)).all())
    return ladder.is_calpha(fine) and runs and ladder.definition(coarse) == DEFINITIONS[0]


class Mending(nn.Module):
    """Moves traces [F, N, 3] of one molecule; returns them as they came before `fit`.

    Its weights are buffers: they are kept with the stage and are not trained with it.
    """

    width: Tensor

    def __init__(self, ladder: Ladder, fine: str, coarse: str):
        super().__init__()
        self.denoiser = Denoiser(DENOISER).requires_grad_(False)
        for module in self.denoiser.modules():
            for name, value in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, value.detach())
        self.system = trace_system(ladder, fine, coarse)
        self.register_buffer("width", torch.tensor(0.0))
        self._width = HostNumber()

    def forward(self, trace: Tensor, coarse: Tensor, cis: Tensor) -> Tensor:
        """coarse: beads [F, B, 3]; cis: which links are cis, [bonds]."""
        return self._mended(trace, coarse, cis, self._width(self.width))

    def fit(self, members: list[Tensor], fine: Tensor, coarse: Tensor, cis: Tensor) -> None:
        """Take the shipped weights, and choose the width.

        members: closed predictions of frames ``fine`` [F, N, 3] that were held out. The widths grow as long as
        the continuous ranked probability score of distances along the chain falls by `LEAST_GAIN`.
        """
        from hpcbackmap.stages.artifact import load_artifact

        shipped = load_artifact(shipped_artifact(kind="trace"))
        self.denoiser.load_state_dict(shipped.get_submodule("denoiser").state_dict())
        frames = max(2, JUDGED // fine.shape[1])
        kept = np.linspace(0, len(fine) - 1, min(frames, len(fine))).round().astype(int)
        fine, coarse = fine[kept], coarse[kept]
        members = [member[kept] for member in members]
        best, chosen = self._score(members, fine), 0.0
        for width in TRIED:
            mended = [self._mended(member, coarse, cis, width) for member in members]
            score = self._score(mended, fine)
            if not score < (1 - LEAST_GAIN) * best:
                break
            best, chosen = score, width
        self.width.fill_(chosen)
        how = f"mended as if seen through {chosen:.2f} nm of noise" if chosen else "not mended"
        log.info("C-alpha traces are %s, as held-out training frames say", how)

    def _mended(self, trace: Tensor, coarse: Tensor, cis: Tensor, width: float) -> Tensor:
        if not width:
            return trace
        system = self._system_as(trace)
        links = cis.expand(len(trace), -1)
        return close_calpha(self.denoiser.refined(trace, coarse, system, links, width), system, cis)

    def _system_as(self, trace: Tensor) -> TraceSystem:
        """The system where ``trace`` is and of its type; it goes there once."""
        now = self.system.weight
        if now.device != trace.device or now.dtype != trace.dtype:
            self.system = self.system.apply(
                lambda tensor: tensor.to(trace if tensor.is_floating_point() else trace.device)
            )
        return self.system

    def _score(self, members: list[Tensor], fine: Tensor) -> float:
        """Ranked probability score (Gneiting & Raftery 2007), nm, a mean over frames and distances."""
        truth, *drawn = (self._distances(trace) for trace in (fine, *members))
        missed = torch.stack([(each - truth).abs().mean() for each in drawn]).mean()
        apart = torch.stack([(a - b).abs().mean() for a, b in combinations(drawn, 2)]).mean()
        return float(missed - apart / 2)

    def _distances(self, trace: Tensor) -> Tensor:
        stretch, found = self._system_as(trace).stretch, []
        for offset in OFFSETS:
            gap = (trace[:, offset:] - trace[:, :-offset]).norm(dim=-1)
            found.append(gap[:, stretch[offset:] == stretch[:-offset]])
        return torch.cat(found, 1)
