"""Validation over all ranks: fixed frames, fixed noise, no gradient."""

import torch

from hpcbackmap.training.feed import StageInputs

__all__ = ["share_of_rank", "validate"]


def share_of_rank(
    batches: list[StageInputs], rank: int, world: int
) -> list[tuple[StageInputs, float]]:
    """Every ``world``-th batch with its weight in frames.

    All ranks get the same number, because under ZeRO 3 a forward pass is a meeting; fillers weigh nothing.
    """
    if not batches:
        return []
    mine = [(batch, float(batch.n_frames)) for batch in batches[rank::world]]
    short = -(-len(batches) // world) - len(mine)
    return mine + [(batches[0], 0.0)] * short


def validate(engine, share: list[tuple[StageInputs, float]]) -> dict[str, float]:
    """Means per frame over all ranks: ``loss``, and ``log_likelihood`` and ``kl`` in nats."""
    names = ("loss", "log_likelihood", "kl")
    sums = torch.zeros(len(names) + 1, dtype=torch.float64, device=engine.device)
    engine.eval()
    with torch.no_grad():
        for inputs, weight in share:
            terms = engine(*inputs.arguments())
            values = [terms[name].double() for name in names] + [sums.new_ones(())]
            sums += weight * torch.stack(values)
    engine.train()
    if torch.distributed.get_world_size() > 1:
        torch.distributed.all_reduce(sums)
    *totals, frames = sums.tolist()
    return {name: total / frames for name, total in zip(names, totals, strict=True)}
