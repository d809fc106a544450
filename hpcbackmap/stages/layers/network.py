"""Message passing on beads with local frames: the trunk that both stage kinds share."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hpcbackmap.stages.layers.geometry import EDGE_FEATURES, gather

__all__ = ["MLP", "Block", "MessageLayers", "activated", "recompute_blocks", "weighted_sum"]

SEPARATIONS = 9
"""Separations along the chain that are told apart: 0 (another chain) and 1 to 8 or more."""


class MLP(nn.Sequential):
    """Linear, SiLU, Linear."""

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs))

    @property
    def last(self) -> nn.Linear:
        return cast("nn.Linear", self[-1])


def activated(x: Tensor) -> Tensor:
    """SiLU of ``x``, which is not read again; in its place where no gradient is needed."""
    return nn.functional.silu(x, inplace=not torch.is_grad_enabled())


def weighted_sum(values: Tensor, weight: Tensor) -> Tensor:
    """Sum of values [..., K, W] with weights [..., K]: [..., W]. A matrix product: einsum copies here."""
    return torch.matmul(weight.unsqueeze(-2), values).squeeze(-2)


class Block(nn.Module):
    """A module that can give up its inner results in training and compute them again in the backward pass.

    Set by `recompute_blocks`. Less memory for a second forward pass; the same numbers, bit for bit on the CPU.
    """

    recomputed = False

    def __call__(self, *inputs: Any) -> Any:
        return self.economical(super().__call__, *inputs)

    def economical(self, function: Callable[..., Any], *inputs: Any) -> Any:
        """``function(*inputs)``, a part of this block."""
        if self.recomputed and self.training and torch.is_grad_enabled():
            return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
        return function(*inputs)


def recompute_blocks(module: nn.Module) -> None:
    """Activation checkpointing of the blocks in ``module``; of blocks within blocks only the outer ones."""
    for child in module.children():
        if isinstance(child, Block):
            child.recomputed = True
        else:
            recompute_blocks(child)


class _Layer(Block):
    """h_i += linear(sum over neighbours of messages), then a feed-forward block; linear in beads times K."""

    def __init__(self, width: int, edge_width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.own = nn.Linear(width, width)
        self.other = nn.Linear(width, width, bias=False)
        self.edge = nn.Linear(edge_width, width, bias=False)
        self.collect = nn.Linear(width, width)
        self.update = nn.Sequential(nn.LayerNorm(width), MLP(width, 2 * width, width))

    def forward(self, h: Tensor, edges: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        x = self.norm(h)
        pair = self.edge(edges)
        pair += gather(self.other(x), index)
        pair += self.own(x).unsqueeze(2)
        h = h + self.collect(weighted_sum(activated(pair), weight.to(pair.dtype)))
        found: Tensor = h + self.update(h)
        return found


class _Edges(Block, nn.Sequential):
    """What every layer knows of a pair: [F, B, K, edge_width]."""

    def forward(self, features: Tensor, apart: Tensor) -> Tensor:  # type: ignore[override]
        pair = torch.cat([features, apart], -1)
        for layer in self:
            pair = layer(pair)
        return pair


class MessageLayers(nn.Module):
    """``layers`` rounds of messages over fixed neighbours.

    h [F, B, width]; edges [F, B, K, EDGE_FEATURES] from `edge_features`; index, valid [F, B, K];
    separation int64 [F, B, K], signed distance along the chain, 0 across chains.
    With ``bf16`` set, training runs the matrix products here in bfloat16; what comes in and goes out
    keeps its precision.
    """

    bf16 = False

    def __init__(self, width: int, layers: int, edge_width: int = 32):
        super().__init__()
        self.embed = nn.Embedding(2 * SEPARATIONS - 1, 8)
        self.edge = _Edges(nn.Linear(EDGE_FEATURES + 8, edge_width), nn.SiLU())
        self.layers = nn.ModuleList(_Layer(width, edge_width) for _ in range(layers))

    def forward(
        self, h: Tensor, edges: Tensor, index: Tensor, valid: Tensor, separation: Tensor
    ) -> Tensor:
        with torch.autocast(
            h.device.type, dtype=torch.bfloat16, enabled=self.bf16 and self.training
        ):
            return self._rounds(h, edges, index, valid, separation).to(h.dtype)

    def _rounds(
        self, h: Tensor, edges: Tensor, index: Tensor, valid: Tensor, separation: Tensor
    ) -> Tensor:
        limit = SEPARATIONS - 1
        edges = self.edge(edges, self.embed(separation.clamp(-limit, limit) + limit))
        weight = valid / valid.sum(-1, keepdim=True).clamp_min(1).sqrt()
        for layer in self.layers:
            h = layer(h, edges, index, weight)
        return h
