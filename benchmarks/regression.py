"""Closed-form regressions from beads to fine positions of one molecule: what a learned stage has to beat.

Shapes: F training frames, Q asked frames, B beads, N fine particles; nm. Every frame is superposed by its
beads on the mean training frame, and the answer is moved back, so that the answers follow rotations and
translations. Beads are met only roughly: apply the closing projection afterwards where it is due.
Strengths are chosen by cross-validation over ``blocks``, never over random frames, which are too alike.
Ridge is here by its kernel, as is the kernel ridge beside it: with more frames than coordinates `stages.cgvae`
solves the other, smaller system (`stages/cgvae/linear.py`).
"""

from abc import ABC, abstractmethod

import numpy as np
import torch

from hpcbackmap.metrics.rmsd import pairwise_rmsd, superpose
from hpcbackmap.stages.cgvae.superposition import mean_frame

__all__ = ["REGRESSIONS", "KernelRidge", "NearestBlend", "Regression", "Ridge", "time_blocks"]

MOST_FRAMES = 2000
"""Evenly spaced training frames beyond this many are left out: the cost grows with their cube."""
PENALTIES = tuple(10.0**k for k in np.arange(-5, 1.01, 0.5))
"""Penalties tried, as shares of the mean diagonal of the centred kernel."""
LENGTHS = (0.5, 1.0, 2.0, 4.0)
"""Widths of the Gaussian kernel tried, in median distances of training frames."""
NEIGHBOURS = (1, 2, 4, 8, 16)


def time_blocks(n_frames: int, count: int = 5) -> np.ndarray:
    """Number of the contiguous block that each frame is in, int64 [n_frames]."""
    return np.arange(n_frames) * min(count, n_frames) // n_frames


class Regression(ABC):
    """One of the regressions. ``fit`` first, then ``predict``."""

    name: str

    def fit(
        self, beads: np.ndarray, fine: np.ndarray, blocks: np.ndarray | None = None
    ) -> "Regression":
        """Learn from beads [F, B, 3] and fine [F, N, 3].

        blocks: which frames belong together, int [F] (paths; default: five blocks of time). Raises
        ValueError for fewer than two frames.
        """
        if len(beads) < 2:
            raise ValueError(f"a regression needs two frames at least, not {len(beads)}")
        blocks = time_blocks(len(beads)) if blocks is None else np.asarray(blocks)
        if len(beads) > MOST_FRAMES:
            keep = np.linspace(0, len(beads) - 1, MOST_FRAMES).round().astype(int)
            beads, fine, blocks = beads[keep], fine[keep], blocks[keep]
        if len(np.unique(blocks)) < 2:
            blocks = time_blocks(len(beads))
        self._learn(np.asarray(beads, np.float64), np.asarray(fine, np.float64), blocks)
        return self

    @abstractmethod
    def _learn(self, beads: np.ndarray, fine: np.ndarray, blocks: np.ndarray) -> None: ...

    @abstractmethod
    def predict(self, beads: np.ndarray) -> np.ndarray:
        """Fine positions [Q, N, 3] for beads [Q, B, 3]."""


class _Kernel(Regression):
    """Kernel ridge regression with centred kernel and targets; the bias is not penalised."""

    lengths: tuple[float, ...]

    @abstractmethod
    def _kernel(self, a: np.ndarray, b: np.ndarray, length: float) -> np.ndarray: ...

    def _learn(self, beads, fine, blocks):
        self._reference = mean_frame(torch.from_numpy(beads)).numpy()[None]
        x, y = self._inputs(beads), superpose(fine, self._reference, beads, self._reference)
        self._x, self._shape = x, fine.shape[1:]
        y = y.reshape(len(y), -1)
        self._unit = np.sqrt(np.median(_squares(x, x))) or 1.0
        errors = {(length, penalty): 0.0 for length in self.lengths for penalty in PENALTIES}
        for length in self.lengths:
            kernel = self._kernel(x, x, length)
            for block in np.unique(blocks):
                rest, out = np.flatnonzero(blocks != block), np.flatnonzero(blocks == block)
                solve = _Solver(kernel[np.ix_(rest, rest)], y[rest])
                for penalty in PENALTIES:
                    gap = solve(penalty).answer(kernel[np.ix_(out, rest)]) - y[out]
                    errors[length, penalty] += float((gap**2).sum())
        self.length, self.penalty = min(errors, key=errors.get)
        self._model = _Solver(self._kernel(x, x, self.length), y)(self.penalty)

    def predict(self, beads):
        beads = np.asarray(beads, np.float64)
        kernel = self._kernel(self._inputs(beads), self._x, self.length)
        answer = self._model.answer(kernel).reshape(len(beads), *self._shape)
        there = superpose(beads, self._reference)
        return superpose(answer, beads, there, beads)

    def _inputs(self, beads):
        return superpose(beads, self._reference).reshape(len(beads), -1)


class Ridge(_Kernel):
    """Linear in the superposed bead coordinates."""

    name = "ridge"
    lengths = (1.0,)

    def _kernel(self, a, b, length):
        centre = self._x.mean(0)
        return (a - centre) @ (b - centre).T


class KernelRidge(_Kernel):
    """Gaussian kernel on the superposed bead coordinates."""

    name = "kernel ridge"
    lengths = LENGTHS

    def _kernel(self, a, b, length):
        return np.exp(-0.5 * _squares(a, b) / (length * self._unit) ** 2)


class NearestBlend(Regression):
    """Mean of the training frames nearest by beads, each superposed on the asked beads, near ones more."""

    name = "k-NN blend"

    def _learn(self, beads, fine, blocks):
        errors = dict.fromkeys(NEIGHBOURS, 0.0)
        for block in np.unique(blocks):
            self._beads, self._fine = beads[blocks != block], fine[blocks != block]
            for count in NEIGHBOURS:
                self.count = count
                gap = self.predict(beads[blocks == block]) - fine[blocks == block]
                errors[count] += float((gap**2).sum())
        self.count = min(errors, key=errors.get)
        self._beads, self._fine = beads, fine

    def predict(self, beads):
        beads = np.asarray(beads, np.float64)
        apart = pairwise_rmsd(beads, self._beads)
        count = min(self.count, len(self._beads))
        order = np.argsort(apart, axis=1, kind="stable")[:, :count]
        near = np.take_along_axis(apart, order, 1)
        weight = np.exp(-0.5 * (near / np.maximum(near[:, :1], 1e-6)) ** 2)
        weight /= weight.sum(1, keepdims=True)
        answer = np.zeros((len(beads), *self._fine.shape[1:]))
        for k in range(count):
            chosen = order[:, k]
            moved = superpose(self._fine[chosen], beads, self._beads[chosen], beads)
            answer += weight[:, k, None, None] * moved
        return answer


REGRESSIONS: tuple[type[Regression], ...] = (Ridge, KernelRidge, NearestBlend)


class _Solver:
    """Centred kernel [F, F] and targets [F, T], decomposed once for many penalties."""

    def __init__(self, kernel: np.ndarray, targets: np.ndarray):
        self._columns, self._all = kernel.mean(0), kernel.mean()
        centred = kernel - self._columns - self._columns[:, None] + self._all
        self._values, self._vectors = np.linalg.eigh(centred)
        self._scale = max(np.trace(centred) / len(kernel), 1e-300)
        self._mean = targets.mean(0)
        self._turned = self._vectors.T @ (targets - self._mean)

    def __call__(self, penalty: float) -> "_Solver":
        damped = self._values.clip(0) + penalty * self._scale
        self._weights = self._vectors @ (self._turned / damped[:, None])
        return self

    def answer(self, kernel: np.ndarray) -> np.ndarray:
        """Targets [Q, T] for the uncentred kernel [Q, F] against the training frames."""
        rows = kernel.mean(1, keepdims=True)
        return (kernel - rows - self._columns + self._all) @ self._weights + self._mean


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances of the rows of a [Q, D] and b [F, D]: [Q, F]."""
    total = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return total.clip(0)
