"""Closed-form linear models: ridge regression and probabilistic principal components."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Components", "principal_components", "ridge"]

PENALTY = 3e-3
"""Ridge penalty per frame, nm^2."""
LEAST_NOISE = 0.05
"""Share of the variance per direction that is left to noise at least."""


def ridge(inputs: Tensor, targets: Tensor) -> Tensor:
    """Weights [K, T] for inputs [F, K], whose last column is the unpenalised 1, and targets [F, T]."""
    x, y = inputs.double(), targets.double()
    penalty = torch.full((x.shape[1],), PENALTY * len(x), dtype=x.dtype, device=x.device)
    penalty[-1] = 1e-9
    return torch.linalg.solve(x.T @ x + torch.diag(penalty), x.T @ y)


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
