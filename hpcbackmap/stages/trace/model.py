"""Beads to the C-alpha trace of any protein, from residue types alone.

The trace starts as the smoothest one through the beads and is refined in rounds (`network`); its loss adds
the energy score of prior draws (`energy_score`), which trains what is used. The closing projection has the last
word on a structure; the ELBO is that of the decoder before it.
"""

import torch
from torch import Tensor, nn

from hpcbackmap.config.campaign import TraceConfig
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.stages.cartesian import BOND_TOLERANCE, CartesianStage, bond_error, bond_lengths
from hpcbackmap.stages.layers.close_trace import LIMIT, close_calpha
from hpcbackmap.stages.trace.energy_score import energy_score, other_noise
from hpcbackmap.stages.trace.network import TraceNetwork
from hpcbackmap.stages.trace.system import TraceSystem, trace_system

__all__ = ["Trace"]

CIS_DRAWS = 16
"""Normals per bead that draw the cis links of its members."""
DRAW_TOLERANCE = 0.05
"""Energy score (nm) of prior draws that costs as much as one nat per free direction."""


class Trace(CartesianStage[TraceSystem]):
    kind = "trace"

    def __init__(self, fine: str, coarse: str, config: TraceConfig):
        super().__init__(fine, coarse, config, TraceNetwork(config))
        self.noise_width += CIS_DRAWS

    def describe(self, ladder: Ladder) -> TraceSystem:
        if not ladder.is_calpha(self.fine):
            raise InputError(
                f"stage {self.name}: trace places C-alpha atoms, {self.fine} is no trace"
            )
        return trace_system(ladder, self.fine, self.coarse)

    def sample(self, coarse: Tensor, system: TraceSystem, noise: Tensor) -> Tensor:
        context = self._context(coarse, system)
        noise, rest = noise[..., : self.latent], noise[..., self.latent :]
        positions, _ = self._decode(context, self._prior(context).at(noise), coarse, system)
        return self._closed(positions, context, system, rest)

    def _loss(self, context, fine, coarse, system, noise) -> dict[str, Tensor]:
        terms = super()._loss(context, fine, coarse, system, noise)
        draws, second = self._two_draws(context, coarse, system, noise), system.bond_index[:, 1]
        terms["energy_score"] = energy_score(*draws, fine, system)
        score = terms["energy_score"] / DRAW_TOLERANCE
        for draw in draws:
            bonds = 0.5 * bond_error(draw, fine, system)
            score = score + self.config.geometry_weight * bonds / BOND_TOLERANCE
        logits = self.network.cis_logits(context)[:, second]
        cis = (bond_lengths(fine, system) < LIMIT).to(logits.dtype)
        terms["cis"] = nn.functional.binary_cross_entropy_with_logits(logits, cis)
        terms["loss"] = terms["loss"] + self.config.draws_weight * score + terms["cis"]
        return terms

    def _two_draws(self, context, coarse, system, noise) -> list[Tensor]:
        """Decoder means [F, N, 3] of two draws from the prior."""
        prior, noise = self._prior(context), noise[..., : self.latent]
        return [
            self._decode(context, prior.at(each), coarse, system)[0]
            for each in (noise, other_noise(noise, system))
        ]

    def _closed(
        self, positions: Tensor, context, system: TraceSystem, noise: Tensor | None
    ) -> Tensor:
        """The closing projection; ``noise`` [F, B, CIS_DRAWS] draws cis links, None takes the likely state."""
        logits = self.network.cis_logits(context)
        border = torch.zeros_like(logits)
        if noise is not None:
            share = torch.special.ndtr(noise[:, system.bead_of, system.slot % CIS_DRAWS])
            border = torch.logit(share, eps=1e-6)
        return close_calpha(positions, system, (logits > border)[:, system.bond_index[:, 1]])
