"""Beads to their halves: the network of the trace stage, of whose trace the means over half beads are meant."""

import math

import torch
from torch import Tensor

from hpcbackmap.config.campaign import TraceConfig
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.resolution.mapping import Mapping
from hpcbackmap.stages.layers.pooling import system_sums
from hpcbackmap.stages.system import Plain
from hpcbackmap.stages.trace.energy_score import energy_score, other_noise, pair_lengths
from hpcbackmap.stages.trace.model import WEIGHTS, Trace
from hpcbackmap.stages.trace.network import LATENT, Context, displacement
from hpcbackmap.stages.trace.system import TraceSystem, trace_system

__all__ = ["FinerBeads", "HalvesSystem"]

KEPT = 0.4
"""Error of a distance of two halves (nm) that loses 63 % of its credit."""
ALONG, NEAR = 12, 2.5
"""Halves whose distances count: so many places apart, or so near in the smoothest trace (nm)."""


class HalvesSystem(TraceSystem):
    """half [N]: which half of its bead each residue is in, 0 or 1."""

    half: Plain


class FinerBeads(Trace):
    """Fine positions [F, 2 B, 3]: the two halves of bead b are 2 b and 2 b + 1. There is nothing to close."""

    def __init__(self, fine: str, coarse: str, config: TraceConfig):
        super().__init__(fine, coarse, config)
        self.noise_width = LATENT

    def describe(self, ladder: Ladder) -> HalvesSystem:
        """ladder: (fg, ca, halves, beads) or a longer one."""
        halves, pair = ladder.mapping(self.fine).bead, ladder.mapping(self.coarse).bead
        whole = Ladder(
            ladder.topology,
            ("fg", "ca", self.coarse),
            (ladder.mapping("ca"), _joined(ladder, self.fine, self.coarse)),
        )
        described = trace_system(whole, "ca", self.coarse)
        system = HalvesSystem()
        for key, value in vars(described).items():
            setattr(system, key, value)
        system.half = torch.from_numpy(halves - 2 * pair[halves])
        return system

    def means(self, trace: Tensor, system: HalvesSystem) -> Tensor:
        """Halves [F, 2 B, 3] of a trace [F, N, 3]."""
        half = 2 * system.bead_of + system.half
        shape = (len(trace), 2 * system.n_coarse, 3)
        total = trace.new_zeros(shape).index_add(1, half, trace)
        return total / torch.bincount(half, minlength=shape[1]).view(1, -1, 1)

    def samples(self, coarse: Tensor, system: HalvesSystem, noises: list[Tensor]) -> list[Tensor]:
        context = self.network.context(coarse, system)
        drawn = [self.network.decode(context, z[..., :LATENT], coarse, system) for z in noises]
        return [self.means(trace, system) for trace in drawn]

    def mode(self, coarse: Tensor, system: HalvesSystem) -> Tensor:
        context = self.network.context(coarse, system)
        return self.means(self.network.decode(context, None, coarse, system), system)

    def log_weight(
        self, fine: Tensor, coarse: Tensor, system: HalvesSystem, noise: Tensor
    ) -> Tensor:
        context = self.network.context(coarse, system)
        mean = self.network.decode(context, noise[..., :LATENT], coarse, system)
        nats = self._of_halves(fine, self.means(mean, system), context, system)
        return system_sums(nats, system)

    def loss(
        self, fine: Tensor, coarse: Tensor, system: HalvesSystem, noise: Tensor
    ) -> dict[str, Tensor]:
        """Scores of two draws, or of the one answer every third step."""
        context, z = self.network.context(coarse, system), None
        if not (self.training and self.answers):
            z = noise[..., :LATENT]
            z = torch.cat([z, other_noise(z, system)])
        draws = self.means(self.network.decode(context, z, coarse, system), system)
        unit = displacement(system.length)
        pairs = _pairs(self.means(context.trace, system)[0], system)

        def place(a: Tensor, b: Tensor) -> Tensor:
            square = (a - b).square().sum(-1).unflatten(1, (-1, 2)).mean(-1)
            return (square + 1e-8).sqrt() / unit

        def apart(a: Tensor, b: Tensor) -> Tensor:
            return 1 - torch.exp(-(a - b).abs() / KEPT)

        lengths = pair_lengths(draws, pairs), pair_lengths(fine, pairs)
        terms = {
            "place": energy_score(place, draws, fine).mean(),
            "pairs": energy_score(apart, *lengths).mean(),
        }
        nats = self._of_halves(fine, draws[: len(fine)].detach(), context, system)
        loss = sum(WEIGHTS[name] * value for name, value in terms.items())
        return {
            "loss": loss - nats.mean() / 3,
            "log_likelihood": system_sums(nats, system).mean(),
            "kl": coarse.new_zeros(()),
            **terms,
        }

    def _of_halves(
        self, fine: Tensor, mean: Tensor, context: Context, system: HalvesSystem
    ) -> Tensor:
        """Log density of each bead's halves in the three directions that it leaves them, nats [F, B]."""
        log_spread = self.network.spread(context, system)
        gap = (fine - mean).square().sum(-1).unflatten(1, (-1, 2)).sum(-1)
        return -0.5 * gap * torch.exp(-2 * log_spread) - 3 * (
            log_spread + 0.5 * math.log(2 * math.pi)
        )


def _joined(ladder: Ladder, fine: str, coarse: str) -> Mapping:
    """Mapping from residues to ``coarse``, two levels as one."""
    halves, pair = ladder.mapping(fine), ladder.mapping(coarse)
    return Mapping(pair.bead[halves.bead], halves.weight * pair.weight[halves.bead])


def _pairs(places: Tensor, system: HalvesSystem) -> Tensor:
    """Pairs [2, pairs] of halves of one molecule near each other along the chain or in ``places`` [2 B, 3]."""
    own = system.coarse_system.repeat_interleave(2)
    rank = torch.arange(len(own))
    near = torch.cdist(places, places) < NEAR
    near |= (rank[:, None] - rank).abs() <= ALONG
    return torch.nonzero(torch.triu((own[:, None] == own) & near, 1)).T
