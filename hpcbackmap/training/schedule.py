"""Learning rate over a run: linear warm-up, then a cosine down to a twentieth."""

import math

from hpcbackmap.config.campaign import TrainConfig

__all__ = ["FLOOR", "learning_rate", "progress_fraction"]

FLOOR = 0.05
"""Share of the learning rate that is left at the end."""


def progress_fraction(train: TrainConfig, step: int, seconds: float) -> float:
    """How much of the run is over, 0 to 1: the larger of the shares of steps and, if limited, of minutes."""
    share = step / train.max_steps
    if train.max_minutes is not None:
        share = max(share, seconds / (60 * train.max_minutes))
    return min(share, 1.0)


def learning_rate(train: TrainConfig, step: int, seconds: float) -> float:
    """Rate of optimiser step ``step`` (from 0).

    With ``max_minutes`` it depends on the clock, so two such runs differ; without, on the step alone.
    """
    warm = min(1.0, (step + 1) / max(1, train.warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * progress_fraction(train, step, seconds)))
    return train.learning_rate * warm * (FLOOR + (1 - FLOOR) * cosine)
