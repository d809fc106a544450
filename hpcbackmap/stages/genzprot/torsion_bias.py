"""What single residues of one protein do beside what the network of all proteins expects of them.

The network sees a residue's kind and surroundings; a simulation of one protein shows in addition what that very
residue does. So the logits of its torsions get a bias each, fitted in closed form before the first step: the
frequencies that are expected over training frames become the observed ones (iterative scaling, Darroch &
Ratcliff 1972).

Shapes: R residues, n torsions (of residues of frames), BINS of a torsion.
"""

import torch
from torch import Tensor, nn

from hpcbackmap.protein.side_chain import N_CHI
from hpcbackmap.stages.genzprot import packing, planes
from hpcbackmap.stages.genzprot.torsions import bin_of

__all__ = ["Observed", "TorsionBias", "frames_to_observe"]

STRENGTH = 8.0
"""Frames that the network's own expectation counts for; frames of a simulation resemble each other."""
ROUNDS = 6
ENOUGH, AT_LEAST = 16_384, 16
"""Residues of all frames to observe, about, which is 3 CPU-seconds; frames, however large the protein."""
NEVER = 1e-9
"""Frames; what is so rare is not told from what never happens."""


class TorsionBias(nn.Module):
    """planes [R, BINS]: of planes given their neighbours. chi [R, N_CHI, BINS]: of side chains. At first 0."""

    def __init__(self, residues: int):
        super().__init__()
        self.planes = nn.Parameter(torch.zeros(residues, planes.BINS))
        self.chi = nn.Parameter(torch.zeros(residues, N_CHI, packing.BINS))

    @torch.no_grad()
    def fit(self, planes: "Observed", chi: list["Observed"]) -> None:
        """By planes and by each chi, as they were observed without a bias."""
        self.planes.copy_(planes.bias(len(self.planes)))
        for k, observed in enumerate(chi):
            self.chi[:, k] = observed.bias(len(self.chi))


class Observed:
    """Torsions of training frames and what was expected of them."""

    def __init__(self) -> None:
        self.parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, logits: Tensor, angle: Tensor, residue: Tensor) -> None:
        """logits [n, BINS], true angles [n] (rad) and whose they are [n]."""
        self.parts.append((logits, bin_of(angle, logits.shape[-1]), residue))

    def bias(self, residues: int) -> Tensor:
        """What makes the logits of each residue expect what it did, [R, BINS]; 0 of those not observed."""
        logits, bins, residue = (torch.cat(part) for part in zip(*self.parts, strict=True))
        nothing = logits.new_zeros(residues, logits.shape[-1])
        ones = torch.ones_like(logits[:, :1])

        def expected(bias: Tensor) -> Tensor:
            return nothing.index_add(0, residue, (logits + bias[residue]).softmax(-1))

        frames = nothing[:, :1].index_add(0, residue, ones)
        each = residue * logits.shape[-1] + bins
        seen = nothing.flatten().index_add(0, each, ones.flatten()).view_as(nothing)
        prior = STRENGTH * expected(nothing) / frames.clamp_min(1)
        wanted = (seen + prior) * frames / (frames + STRENGTH)
        bias = nothing
        for _ in range(ROUNDS):
            ratio = wanted.clamp_min(NEVER) / expected(bias).clamp_min(NEVER)
            bias = bias + ratio.log()
        return bias


def frames_to_observe(residues: int) -> int:
    """How many frames of a protein of so many residues tell what they do."""
    return max(AT_LEAST, ENOUGH // residues)
