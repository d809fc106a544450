"""From a configuration to an untrained stage."""

from hpcbackmap.config.campaign import CgvaeConfig, GenzprotConfig
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.stages.base import Stage

__all__ = ["build_stage"]


def build_stage(
    name: str, config: CgvaeConfig | GenzprotConfig, ladders: list[Ladder], seed: int
) -> Stage:
    """Untrained stage ``name`` (``coarse-fine``) for these molecules; weights drawn from ``seed``.

    Raises InputError if a molecule does not fit the stage, or if a per-system stage gets several.
    """
    import torch

    from hpcbackmap.stages.cgvae.model import Cgvae
    from hpcbackmap.stages.genzprot.model import Genzprot

    if config.per_system and len({ladder.digest for ladder in ladders}) > 1:
        raise InputError(
            f"stage {name}: per_system learns one molecule, there are {len(ladders)}; "
            "set model.per_system=false"
        )
    coarse, _, fine = name.partition("-")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind = Genzprot if config.kind == "genzprot" else Cgvae
        stage = kind(fine, coarse, config, ladders[0])
    for ladder in ladders:
        stage.describe(ladder)
    return stage
