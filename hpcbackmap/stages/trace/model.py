"""Beads to C-alpha for any protein: one network for beads of any number of residues.

The prior is a standard normal that goes into the refinement of the trace and is trained by a proper score of
its draws; the posterior is the prior, so that the ELBO is the mean log density of draws. A denoiser makes
what lies within beads protein-like, and the closing projection has the last word on a structure; the ELBO is
that of the network before both.
"""

import math

import torch
from torch import Tensor, nn

from hpcbackmap.config.campaign import TraceConfig
from hpcbackmap.protein.residues import CIS_BORDER
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.stages.base import Elbo, Stage
from hpcbackmap.stages.layers.close_trace import close_calpha
from hpcbackmap.stages.layers.pooling import bead_sums, system_sums
from hpcbackmap.stages.trace.denoiser import Denoiser
from hpcbackmap.stages.trace.energy_score import other_noise, trace_scores
from hpcbackmap.stages.trace.network import LATENT, AlongChain, Context, TraceNetwork
from hpcbackmap.stages.trace.secondary_structure import SecondaryStructure
from hpcbackmap.stages.trace.system import TraceSystem, trace_system

__all__ = ["Trace"]

CIS_DRAWS = 16
"""Normals per bead that draw the cis links of its members."""
CLOSING = 300
"""Iterations of the closing projection at most; a frame that is sound is left alone before."""
RESIDUE_DRAWS = 25
"""Residues of a bead that have normals of their own where training adds noise to them; four each."""
WEIGHTS = {"place": 3.0, "shape": 0.7, "pairs": 4.0, "bonds": 10.0, "cis": 0.3}
"""Of the terms of the loss; bonds in nm."""
ANSWER_EVERY = 3
"""Every so many steps train the one answer, the others draws."""


class Trace(Stage[TraceSystem]):
    """structure: what a user knows of the secondary structure of the protein."""

    kind = "trace"
    variance = "one per bead, learned as a function of beads"
    config: TraceConfig
    answers: bool
    structure: SecondaryStructure | None = None

    def __init__(self, fine: str, coarse: str, config: TraceConfig):
        super().__init__(fine, coarse)
        self.config = config
        self.latent = LATENT
        self.elbo_noise = LATENT + 4 * RESIDUE_DRAWS
        self.noise_width = LATENT + CIS_DRAWS
        self.network = TraceNetwork(config)
        self.denoiser = Denoiser(config.denoiser) if config.denoiser else None
        self.answers = False

    def at_rung(self, rung: str) -> "Trace":
        """This stage for whatever beads are right above its C-alpha atoms."""
        coarse, _, fine = rung.partition("-")
        if fine != self.fine:
            raise InputError(f"makes {self.fine} from beads, not stage {rung}")
        self.coarse = coarse
        return self

    def use_bf16(self) -> None:
        for module in self.modules():
            if isinstance(module, AlongChain):
                module.bf16 = True

    def require(self, ladder: Ladder) -> None:
        if not ladder.is_calpha(self.fine):
            raise InputError(
                f"stage {self.name}: trace places C-alpha atoms, {self.fine} is no trace"
            )
        if self.structure is not None:
            self.structure.states(ladder.topology)

    def describe(self, ladder: Ladder) -> TraceSystem:
        self.require(ladder)
        system = trace_system(ladder, self.fine, self.coarse)
        if self.structure is not None:
            system.structure = torch.from_numpy(self.structure.states(ladder.topology))
        return system

    def at_step(self, step: int) -> None:
        self.answers = step % ANSWER_EVERY == ANSWER_EVERY - 1

    def decode(self, z: Tensor, coarse: Tensor, system: TraceSystem) -> Tensor:
        return self.network.decode(self.network.context(coarse, system), z, coarse, system)

    def sample(self, coarse: Tensor, system: TraceSystem, noise: Tensor) -> Tensor:
        return self.samples(coarse, system, [noise])[0]

    def samples(self, coarse: Tensor, system: TraceSystem, noises: list[Tensor]) -> list[Tensor]:
        context = self.network.context(coarse, system)
        links = self._cis_links(context, system, noises)
        positions = self._draws(context, coarse, system, noises, links)
        return list(close_calpha(positions, system, links, CLOSING).split(len(coarse)))

    def mode(self, coarse: Tensor, system: TraceSystem) -> Tensor:
        context = self.network.context(coarse, system)
        links = self._cis_links(context, system)
        positions = self._answer(context, coarse, system, links)
        return close_calpha(positions, system, links, CLOSING)

    def _answer(self, context: Context, coarse: Tensor, system: TraceSystem, cis: Tensor) -> Tensor:
        """The most likely trace before the closing projection, [F, N, 3]."""
        answer = self.network.decode(context, None, coarse, system)
        return self._refined(answer, coarse, system, cis)

    def _draws(
        self,
        context: Context,
        coarse: Tensor,
        system: TraceSystem,
        noises: list[Tensor],
        cis: Tensor,
    ) -> Tensor:
        """Traces before the closing projection, one draw after the other, [D F, N, 3]."""
        draws = torch.cat(
            [self.network.decode(context, noise[..., :LATENT], coarse, system) for noise in noises]
        )
        return self._refined(draws, coarse.repeat(len(noises), 1, 1), system, cis)

    def _refined(
        self, positions: Tensor, coarse: Tensor, system: TraceSystem, cis: Tensor
    ) -> Tensor:
        if self.denoiser is None:
            return positions
        return self.denoiser.refined(positions, coarse, system, cis)

    def _cis_links(
        self, context: Context, system: TraceSystem, noises: list[Tensor] | None = None
    ) -> Tensor:
        """Which links are cis in each draw, bool [D F, bonds], or most likely (None), [F, bonds]."""
        logits, border = self.network.cis_logits(context), torch.zeros(())
        if noises is not None:
            logits = logits.repeat(len(noises), 1)
            share = torch.special.ndtr(torch.cat([_for_links(noise, system) for noise in noises]))
            border = torch.logit(share, eps=1e-6)
        return (logits > border.to(logits))[:, system.bond_index[:, 1]]

    def uncertainty(self, coarse: Tensor, system: TraceSystem) -> Tensor:
        """Expected error of the one answer, nm [F, N]."""
        return self.network.error(self.network.context(coarse, system), system).exp()

    def elbo(self, fine: Tensor, coarse: Tensor, system: TraceSystem, noise: Tensor) -> Elbo:
        """Gaussian about a draw, one variance per bead, in the directions that the bead leaves free."""
        log_likelihood = self.log_weight(fine, coarse, system, noise)
        return Elbo(log_likelihood, torch.zeros_like(log_likelihood))

    def log_weight(
        self, fine: Tensor, coarse: Tensor, system: TraceSystem, noise: Tensor
    ) -> Tensor:
        context = self.network.context(coarse, system)
        mean = self.network.decode(context, noise[..., :LATENT], coarse, system)
        return system_sums(self._log_density(fine, mean, context, system), system)

    def information(self, fine: Tensor, coarse: Tensor, system: TraceSystem) -> Tensor:
        return coarse.new_zeros(*coarse.shape[:2], LATENT)

    def loss(
        self, fine: Tensor, coarse: Tensor, system: TraceSystem, noise: Tensor
    ) -> dict[str, Tensor]:
        """Scores of two draws, or of the one answer every third step (see `at_step`).

        The spread and the expected errors learn from what the rest has made and do not change it.
        """
        context, second = self.network.context(coarse, system), system.bond_index[:, 1]
        if self.training and self.answers:
            draws = self.network.decode(context, None, coarse, system)
            log_error = self.network.error(context, system)
            apart = (draws.detach() - fine).norm(dim=-1)
            error = (apart * torch.exp(-log_error) + log_error).mean()
        else:
            z = noise[..., :LATENT]
            z = torch.cat([z, other_noise(z, system)])
            draws, error = self.network.decode(context, z, coarse, system), coarse.new_zeros(())
        terms = trace_scores(draws, fine, context.trace, system)
        links = _lengths(draws, system).unflatten(0, (-1, len(fine))) - _lengths(fine, system)
        terms["bonds"] = links.abs().mean()
        cis = (_lengths(fine, system) < CIS_BORDER).to(draws.dtype)
        logits = self.network.cis_logits(context)[:, second]
        terms["cis"] = nn.functional.binary_cross_entropy_with_logits(logits, cis)
        nats = self._log_density(fine, draws[: len(fine)].detach(), context, system)
        loss = sum(WEIGHTS[name] * value for name, value in terms.items())
        if self.denoiser is not None:
            own = _of_residues(noise[..., LATENT:], system, 4)
            terms["denoising"] = self.denoiser.loss(fine, own, coarse, system)
            loss = loss + terms["denoising"]
        return {
            "loss": loss - (nats / system.freedom.clamp_min(1)).mean() + error,
            "log_likelihood": system_sums(nats, system).mean(),
            "kl": coarse.new_zeros(()),
            **terms,
        }

    def _log_density(
        self, fine: Tensor, mean: Tensor, context: Context, system: TraceSystem
    ) -> Tensor:
        """Of each bead's residues on its fibre, nats [F, B]."""
        log_spread = self.network.spread(context, system)
        gap = bead_sums((fine - mean).square().sum(-1), system)
        nats = -0.5 * gap * torch.exp(-2 * log_spread)
        return nats - system.freedom * (log_spread + 0.5 * math.log(2 * math.pi))


def _for_links(noise: Tensor, system: TraceSystem) -> Tensor:
    """The normal that draws the state of the link to each residue, [F, N]."""
    return noise[..., LATENT:][:, system.bead_of, system.slot % CIS_DRAWS]


def _of_residues(noise: Tensor, system: TraceSystem, count: int) -> Tensor:
    """So many normals of each residue from those of its bead, [F, N, count]; in a longer bead some are the
    same.
    """
    slot = system.slot % (noise.shape[-1] // count)
    columns = count * slot.unsqueeze(-1) + torch.arange(count, device=noise.device)
    return noise[:, system.bead_of.unsqueeze(-1), columns]


def _lengths(positions: Tensor, system: TraceSystem) -> Tensor:
    first, second = system.bond_index.T
    found: Tensor = (positions[:, second] - positions[:, first]).norm(dim=-1)
    return found
