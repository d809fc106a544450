"""Stage kinds and their sizes, as the campaign file has them."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from hpcbackmap.config.model import Model
from hpcbackmap.config.values import Depth, Neighbours, StepsOrNone, Weight, Width

__all__ = ["KINDS", "CgvaeConfig", "GenzprotConfig", "ModelConfig", "TraceConfig"]


MAX_NETWORK = 2**26
"""Most width² x layers of a network: about a billion parameters."""


def _require_size(width: int, layers: int) -> None:
    if width**2 * layers > MAX_NETWORK:
        raise ValueError(
            f"width {width} with layers {layers} makes a network of more than a billion parameters"
        )


class CgvaeConfig(Model):
    """Beads to finer beads, C-alpha or heavy atoms of one protein, which it learns by heart."""

    kind: Literal["cgvae"] = "cgvae"
    """Which network and likelihood the stage has."""
    per_system: ClassVar[bool] = True
    width: Width = 64
    """Features of a bead and of a particle."""
    layers: Depth = 3
    """Rounds of message passing."""
    latent: Neighbours = 8
    """Latents of a bead."""
    beta: Weight = 1.0
    """Weight of the KL term in the training loss."""
    free_bits: Weight = 0.0
    """Nats of KL per bead that cost nothing in training; reported numbers always count them."""
    kl_warmup_steps: StepsOrNone = 0
    """Steps over which the KL term of the training loss grows to its full weight."""
    geometry_weight: Weight = 0.1
    """Weight of the bond-length term beside the ELBO; large values sharpen the posterior against the prior."""
    mended: bool = True
    """Whether the shipped denoiser may mend C-alpha traces; how far is chosen by held-out training frames."""

    @model_validator(mode="after")
    def _fits_a_machine(self) -> "CgvaeConfig":
        _require_size(self.width, self.layers)
        return self


class TraceConfig(Model):
    """Beads of any number of residues to the C-alpha trace of any protein, from residue types."""

    kind: Literal["trace"] = "trace"
    """Which network and likelihood the stage has."""
    per_system: ClassVar[bool] = False
    width: Width = 96
    """Features of a bead and of a residue."""
    layers: Depth = 2
    """Rounds of message passing, of each of three kinds."""
    rounds: Depth = 3
    """Refinements of the trace."""
    neighbours: Neighbours = 10
    """Neighbours in space of each residue and bead."""
    denoiser: Width | Literal[0] = 64
    """Features of a residue in the denoiser, which makes traces protein-like within beads; 0: none."""

    @model_validator(mode="after")
    def _fits_a_machine(self) -> "TraceConfig":
        _require_size(self.width, self.layers)
        return self


class GenzprotConfig(Model):
    """C-alpha to heavy atoms (internal coordinates)."""

    kind: Literal["genzprot"] = "genzprot"
    """Which network and likelihood the stage has."""
    width: Width = 128
    """Features of a residue."""
    layers: Depth = 4
    """Rounds of message passing."""
    neighbours: Neighbours = 16
    """Nearest residues that each residue sees."""
    rounds: Depth = 4
    """Shares in which side chains are placed, each seeing those before it."""
    redraws: Annotated[int, Field(ge=0, le=64)] = 4
    """Rounds in which side chains in contact draw their torsions again."""
    steric_weight: Weight = 0.0
    """Weight of clashes among generated neighbours beside the ELBO."""
    coarse_noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Largest random displacement (nm, standard deviation) of the C-alpha atoms that training shows."""
    per_system: bool = False
    """Learn one protein by heart: an embedding for each of its residues, zero at the start."""
    torsion_bias: bool = True
    """With per_system: a bias for the torsions of each residue, fitted in closed form before the first step."""

    @model_validator(mode="after")
    def _fits_a_machine(self) -> "GenzprotConfig":
        _require_size(self.width, self.layers)
        return self


ModelConfig = CgvaeConfig | TraceConfig | GenzprotConfig
KINDS: dict[str, type[CgvaeConfig] | type[TraceConfig] | type[GenzprotConfig]] = {
    "cgvae": CgvaeConfig,
    "trace": TraceConfig,
    "genzprot": GenzprotConfig,
}
