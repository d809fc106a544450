"""Message passing on beads with local frames: the trunk that both stage kinds share."""

import torch
from torch import Tensor, nn

from hpcbackmap.stages.geometry import EDGE_FEATURES, gather

__all__ = ["MLP", "MessageLayers", "activated", "weighted_sum"]

SEPARATIONS = 9
"""Separations along the chain that are told apart: 0 (another chain) and 1 to 8 or more."""


class MLP(nn.Sequential):
    """Linear, SiLU, Linear."""

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs))


def activated(x: Tensor) -> Tensor:
    """SiLU of ``x``, which is not read again; in its place where no gradient is needed."""
    return nn.functional.silu(x, inplace=not torch.is_grad_enabled())


def weighted_sum(values: Tensor, weight: Tensor) -> Tensor:
    """Sum of values [..., K, W] with weights [..., K]: [..., W]. A matrix product: einsum copies here."""
    return torch.matmul(weight.unsqueeze(-2), values).squeeze(-2)


class _Layer(nn.Module):
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
        return h + self.update(h)


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
        self.edge = nn.Sequential(nn.Linear(EDGE_FEATURES + 8, edge_width), nn.SiLU())
        self.layers = nn.ModuleList(_Layer(width, edge_width) for _ in range(layers))

    def forward(
        self, h: Tensor, edges: Tensor, index: Tensor, valid: Tensor, separation: Tensor
    ) -> Tensor:
        with torch.autocast(
            h.device.type, dtype=torch.bfloat16, enabled=self.bf16 and self.training
        ):
            return self._rounds(h, edges, index, valid, separation).to(h.dtype)

    def _rounds(self, h, edges, index, valid, separation) -> Tensor:
        limit = SEPARATIONS - 1
        apart = self.embed(separation.clamp(-limit, limit) + limit)
        edges = self.edge(torch.cat([edges, apart], -1))
        weight = valid / valid.sum(-1, keepdim=True).clamp_min(1).sqrt()
        for layer in self.layers:
            h = layer(h, edges, index, weight)
        return h
