"""What every stage is: a conditional VAE between two adjacent resolutions.

Shape legend: F frames, S systems (molecules) in the batch, N fine particles and B beads over all systems
of the batch, L latent width, U latent units, W noise width. Positions are nm. A batch holds F frames of
S systems: many frames of one protein (S = 1), or one frame each of many proteins (F = 1).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hpcbackmap.config.campaign import ModelConfig
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.stages.layers.network import MessageLayers, recompute_blocks
from hpcbackmap.stages.system import S, System, collate

if TYPE_CHECKING:
    from hpcbackmap.stages.given import Given

__all__ = [
    "Drawn",
    "Elbo",
    "Normal",
    "Stage",
    "System",
    "collate",
    "kl_divergence",
    "kl_per_unit",
]


@dataclass(frozen=True)
class Normal:
    """Diagonal normal: mean and log standard deviation, both [F, B, L]."""

    mean: Tensor
    log_std: Tensor

    def at(self, noise: Tensor) -> Tensor:
        """The draw that standard-normal ``noise`` [F, B, L] stands for."""
        return self.mean + self.log_std.exp() * noise

    def log_density(self, z: Tensor) -> Tensor:
        """Nats per bead of z [F, B, L]: [F, B]."""
        scaled = (z - self.mean) * torch.exp(-self.log_std)
        return -(0.5 * scaled.square() + self.log_std + 0.5 * math.log(2 * math.pi)).sum(-1)


def kl_per_unit(q: Normal, p: Normal) -> Tensor:
    """KL(q || p) of each latent in nats, [F, B, L]; closed form, both terms divided by the variance of p."""
    ratio = 2 * (q.log_std - p.log_std)
    shift = (q.mean - p.mean) * torch.exp(-p.log_std)
    return 0.5 * (ratio.exp() + shift.square() - 1 - ratio)


def kl_divergence(q: Normal, p: Normal) -> Tensor:
    """KL(q || p) per bead in nats, [F, B]."""
    return kl_per_unit(q, p).sum(-1)


@dataclass(frozen=True)
class Elbo:
    """Both terms in nats per frame and system, [F, S].

    log_likelihood: density of the fine positions on the fibre {fine : mapping(fine) = coarse}, nm^-D.
    """

    log_likelihood: Tensor
    kl: Tensor

    @property
    def total(self) -> Tensor:
        return self.log_likelihood - self.kl


class Drawn(NamedTuple):
    """structures: [F, N, 3] each. set_aside: of a stage that a structure guides, in which frames that was of
    no use, bool [F]; None of others.
    """

    structures: list[Tensor]
    set_aside: np.ndarray | None = None


class Stage(nn.Module, ABC, Generic[S]):
    """Conditional VAE of one rung. Draws no randomness itself: noise is an argument.

    name: ``coarse-fine``. fine, coarse: resolution names. noise_width: W, standard normals per bead and
    member that `sample` consumes, of which the first `latent` are the latent. latent: L, 0 where the
    likelihood is exact. elbo_noise: standard normals per bead that `elbo`, `loss` and `log_weight` read.
    variance: what the likelihood's variances hang on. ladder: of the one molecule that it learns, if it does.
    by_heart: weights that it has for that molecule beside those of a stage for all; zero before training.
    fitted: whether `calibrate` fits it in closed form, so that it is of use before the first step.
    config: the settings that it was made from.
    """

    kind: ClassVar[str]
    variance: ClassVar[str] = "learned"
    by_heart: ClassVar[frozenset[str]] = frozenset()
    fitted: ClassVar[bool] = False
    config: ModelConfig

    def __init__(self, fine: str, coarse: str):
        super().__init__()
        self.fine, self.coarse = fine, coarse

    ladder: Ladder | None = None
    latent: int
    elbo_noise: int
    noise_width: int

    @property
    def name(self) -> str:
        return f"{self.coarse}-{self.fine}"

    def at_rung(self, rung: str) -> "Stage[Any]":
        """This stage, for ``rung`` of a ladder. Raises InputError if it is of another rung."""
        if self.name != rung:
            raise InputError(f"holds stage {self.name}, not {rung}")
        return self

    def require_molecule(self, ladder: Ladder) -> None:
        """Raises InputError if this stage has learned one molecule and ``ladder`` is of another."""
        if self.ladder is not None and ladder.rung_digest(self.coarse) != self.ladder.rung_digest(
            self.coarse
        ):
            raise InputError(
                f"stage {self.name} was made for another sequence or mapping "
                f"({self.ladder.topology.n_residues} residues, here {ladder.topology.n_residues})"
            )

    def use_bf16(self) -> None:
        """Train with message passing, where the arithmetic is, in bfloat16; geometry and densities stay."""
        for module in self.modules():
            if isinstance(module, MessageLayers):
                module.bf16 = True

    def use_activation_checkpointing(self) -> None:
        """Train with blocks of message passing computed a second time rather than kept."""
        recompute_blocks(self)

    def require(self, ladder: Ladder) -> None:
        """Raises InputError if this stage cannot treat a molecule; costs next to nothing beside `describe`."""
        self.require_molecule(ladder)

    @abstractmethod
    def describe(self, ladder: Ladder) -> S:
        """Static description of one molecule. Raises InputError if this stage cannot treat it."""

    def calibrate(self, fine: Tensor, coarse: Tensor, system: S) -> None:
        """Set scales and starting values from training frames; called once before training.

        Also where training starts from a stage that has no weights `by_heart`: then those alone are set.
        """

    def at_step(self, step: int) -> None:
        """Told by the trainer before optimiser step ``step`` (from 0); schedules of the loss follow it."""

    @abstractmethod
    def decode(self, z: Tensor, coarse: Tensor, system: S) -> Tensor:
        """Most likely fine positions given z [F, B, L]: [F, N, 3], mapped onto ``coarse`` exactly."""

    @abstractmethod
    def elbo(self, fine: Tensor, coarse: Tensor, system: S, noise: Tensor) -> Elbo:
        """One-sample ELBO; noise [F, B, L] (further columns are not read)."""

    @abstractmethod
    def log_weight(self, fine: Tensor, coarse: Tensor, system: S, noise: Tensor) -> Tensor:
        """log p(fine | z) + log p(z | coarse) - log q(z | fine, coarse), nats [F, S], at the z of ``noise``.

        noise as in `elbo`. Its mean over noise is the ELBO; log mean exp is the importance-weighted bound
        (Burda et al. 2016). With an exact posterior it is the log-likelihood, whatever the noise.
        """

    @abstractmethod
    def information(self, fine: Tensor, coarse: Tensor, system: S) -> Tensor:
        """KL of each latent unit of each bead, nats [F, B, U]; its sum over B and U is the KL of `elbo`."""

    @abstractmethod
    def loss(self, fine: Tensor, coarse: Tensor, system: S, noise: Tensor) -> dict[str, Tensor]:
        """Training objective: scalars, means over frames; ``loss`` is the one to minimise.

        ``log_likelihood`` and ``kl``, in nats per frame and system, are always among them, and
        ``active_units`` (see `stages.collapse`) where latents can fall out of use; noise as in `elbo`.
        """

    @abstractmethod
    def sample(self, coarse: Tensor, system: S, noise: Tensor) -> Tensor:
        """Prior member: [F, N, 3]; noise [F, B, W]. Nothing but ``coarse`` and noise enters."""

    takes_given: ClassVar[bool] = False
    """Whether `samples` and `mode` take a `stages.given.Given`: atoms that they keep, beads that they
    reproduce.
    """

    def samples(self, coarse: Tensor, system: S, noises: list[Tensor]) -> list[Tensor]:
        """A member for each noise: what `sample` returns for it, bit for bit."""
        return [self.sample(coarse, system, noise) for noise in noises]

    @abstractmethod
    def mode(self, coarse: Tensor, system: S) -> Tensor:
        """One answer, no noise: [F, N, 3]."""

    def draw(
        self, coarse: Tensor, system: S, noises: list[Tensor] | None, *given: "Given"
    ) -> Drawn:
        """`samples` of all noises, or for None the `mode`, and what there is to say of them."""
        if noises is None:
            return Drawn([self.mode(coarse, system, *given)])
        return Drawn(self.samples(coarse, system, noises, *given))
