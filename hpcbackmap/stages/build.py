"""From a configuration to an untrained stage."""

from typing import Any

from hpcbackmap.config.campaign import GenzprotConfig, ModelConfig, TraceConfig
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.stages.base import Stage

__all__ = ["build_stage", "new_stage"]


def build_stage(name: str, config: ModelConfig, ladders: list[Ladder], seed: int) -> Stage[Any]:
    """Untrained stage ``name`` (``coarse-fine``) for these molecules; weights drawn from ``seed``.

    Raises InputError if a molecule does not fit the stage, or if a stage of one molecule gets several.
    """
    import torch

    coarse, _, fine = name.partition("-")
    if config.per_system and len({ladder.digest for ladder in ladders}) > 1:
        which, remedy = "cgvae", "; set model.kind=trace" if fine == "ca" else ""
        if config.kind == "genzprot":
            which, remedy = "per_system", "; set model.per_system=false"
        count = len(ladders)
        raise InputError(f"stage {name}: {which} learns one molecule, there are {count}{remedy}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stage = new_stage(fine, coarse, config, ladders[0])
    for ladder in ladders:
        stage.require(ladder)
    return stage


def new_stage(fine: str, coarse: str, config: ModelConfig, ladder: Ladder) -> Stage[Any]:
    """A stage of the kind that ``config`` names; ``ladder``: of the molecule, for a kind that learns one."""
    if isinstance(config, GenzprotConfig):
        from hpcbackmap.stages.genzprot.model import Genzprot

        return Genzprot(fine, coarse, config, ladder)
    if isinstance(config, TraceConfig):
        from hpcbackmap.stages.trace.model import Trace

        return Trace(fine, coarse, config)
    from hpcbackmap.stages.cgvae.model import Cgvae

    return Cgvae(fine, coarse, config, ladder)
