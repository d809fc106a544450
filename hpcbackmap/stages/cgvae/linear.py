"""Closed-form linear models: ridge regression and probabilistic principal components."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "PENALTIES",
    "Components",
    "choose_penalty",
    "folds",
    "held_out",
    "principal_components",
    "ridge",
]

PENALTIES = tuple(10 ** (k / 2) for k in range(-10, 3))
"""Ridge penalties to choose from, in mean variances of the inputs."""
LEAST_NOISE = 0.05
"""Share of the variance per direction that is left to noise at least."""


def ridge(inputs: Tensor, targets: Tensor, penalty: float) -> Tensor:
    """Weights [K, T] for inputs [F, K], whose last column is the unpenalised 1, and targets [F, T]."""
    x, y = inputs[:, :-1].double(), targets.double()
    middle, mean = x.mean(0), y.mean(0)
    gram = (x - middle).T @ (x - middle)
    damping = penalty * gram.diagonal().mean() + 1e-12
    gram = gram + damping * torch.eye(len(gram), dtype=x.dtype, device=x.device)
    weights = torch.linalg.solve(gram, (x - middle).T @ (y - mean))
    return torch.cat([weights, (mean - middle @ weights).unsqueeze(0)])


def folds(positions: Tensor, count: int) -> Tensor:
    """Frames [F, B, 3] cut into blocks along their first principal component, int64 [F].

    Leaving such a block out asks for frames unlike the rest, as new ones are; random frames are too alike.
    """
    x = positions.flatten(1).double()
    x = x - x.mean(0)
    _, vectors = torch.linalg.eigh(x @ x.T)
    rank = vectors[:, -1].argsort(stable=True).argsort()
    found: Tensor = rank * min(count, len(x)) // len(x)
    return found


def held_out(inputs: Tensor, targets: Tensor, fold: Tensor) -> Tensor:
    """Predictions [P, F, T] of every frame by ridge regression on the other folds, one per PENALTIES.

    inputs, targets as in `ridge`; fold int64 [F].
    """
    x, y = inputs[:, :-1].double(), targets.double()
    answer = torch.empty(len(PENALTIES), *targets.shape, dtype=targets.dtype, device=x.device)
    for block in fold.unique():
        out, rest = fold == block, fold != block
        middle, mean = x[rest].mean(0), y[rest].mean(0)
        gram = (x[rest] - middle).T @ (x[rest] - middle)
        values, vectors = torch.linalg.eigh(gram)
        there = vectors.T @ ((x[rest] - middle).T @ (y[rest] - mean))
        here = (x[out] - middle) @ vectors
        for row, penalty in zip(answer, PENALTIES, strict=True):
            damped = values.clamp_min(0) + penalty * gram.diagonal().mean() + 1e-12
            row[out] = ((here / damped) @ there + mean).to(row)
    return answer


def choose_penalty(errors: Tensor, fold: Tensor) -> tuple[float, int]:
    """Least mean error and the number of the penalty to take, from held-out errors [P, F].

    The largest penalty within one standard error (over folds) of the least (Breiman et al. 1984): a new path
    differs from all training frames more than these do from each other.
    """
    blocks = torch.stack([errors[:, fold == block].mean(1) for block in fold.unique()], 1)
    mean = blocks.mean(1)
    best = int(mean.argmin())
    border = mean[best] + blocks[best].std() / blocks.shape[1] ** 0.5
    return float(mean[best]), int(torch.nonzero(mean <= border).max())


class Components(NamedTuple):
    """x = basis z + noise, z ~ N(0, 1); posterior mean ``x @ gain``, log standard deviations ``log_std``.

    basis, gain [D, L]; log_std [L]; log_spread: log standard deviation of the noise.
    """

    basis: Tensor
    gain: Tensor
    log_std: Tensor
    log_spread: float


def principal_components(values: Tensor, count: int, freedom: int) -> Components:
    """Maximum-likelihood probabilistic PCA (Tipping & Bishop 1999) of values [F, D] about zero.

    freedom: directions in which the values can vary at all; noise is spread over these.
    """
    x = values.double()
    variance, direction = torch.linalg.eigh(x.T @ x / len(x))
    variance, direction = variance.flip(0).clamp_min(0), direction.flip(1)
    used = min(count, max(freedom - 1, 0))
    rest = float(variance[used:].sum()) / max(freedom - used, 1)
    noise = max(rest, LEAST_NOISE * float(variance.sum()) / freedom, 1e-8)
    strength = torch.zeros(count, dtype=x.dtype, device=x.device)
    strength[:used] = variance[:used].clamp_min(noise)
    strength[used:] = noise
    axes = torch.zeros(x.shape[1], count, dtype=x.dtype, device=x.device)
    axes[:, :used] = direction[:, :used]
    slope = (strength - noise).sqrt()
    return Components(
        axes * slope,
        axes * (slope / strength),
        0.5 * (noise / strength).log(),
        0.5 * float(torch.tensor(noise).log()),
    )
