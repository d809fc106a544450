"""A training of so many CPU-minutes, which goes on where it was stopped and keeps an average of the weights."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Run"]

WARMUP, COOLDOWN, FLOOR = 100, 0.4, 0.02
"""Steps in which the rate rises, share of the time in which it falls, and how far, relative to its height."""
AVERAGED = 0.998
LARGEST_GRADIENT = 5.0
SAVE_SECONDS = 60


class Run:
    """A training under way: module, optimisers, averaged weights, step, CPU-seconds of ``seconds``.

    path: its checkpoint; where there is one, the run goes on from it.
    """

    def __init__(
        self,
        module: nn.Module,
        optimisers: list[torch.optim.Optimizer],
        path: Path,
        seconds: float,
    ):
        self.module, self.optimisers, self.path, self.seconds = module, optimisers, path, seconds
        self.rates = [[g["lr"] for g in o.param_groups] for o in optimisers]
        self.average = {key: value.clone() for key, value in module.state_dict().items()}
        self.step, self.cpu, self.before = 0, 0.0, time.process_time()
        if path.exists():
            state = torch.load(path)
            module.load_state_dict(state["weights"])
            self.average, self.step, self.cpu = state["average"], state["step"], state["cpu"]
            for optimiser, kept in zip(optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(kept)

    def train(self, stream: Iterator, terms: Callable[[Any], dict[str, Tensor]]) -> dict:
        """Until the time is up, for batches of ``stream``; leaves the averaged weights in the module.

        terms: of the loss of a batch, their sum as ``loss``. Returns steps and CPU-minutes.
        """
        self.module.train()
        saved = time.monotonic()
        while (left := 1 - self._spent() / self.seconds) > 0:
            self._one(terms(next(stream)), left)
            if time.monotonic() - saved > SAVE_SECONDS:
                self._save()
                saved = time.monotonic()
        self._save()
        self.module.load_state_dict(self.average)
        return {"steps": self.step, "cpu_minutes": round(self.cpu / 60, 1)}

    def _spent(self) -> float:
        now = time.process_time()
        self.cpu, self.before = self.cpu + now - self.before, now
        return self.cpu

    def _one(self, terms: dict[str, Tensor], left: float) -> None:
        share = min(1.0, max(FLOOR, left / COOLDOWN)) * min(1, (self.step + 1) / WARMUP)
        for optimiser, rates in zip(self.optimisers, self.rates, strict=True):
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * share
            optimiser.zero_grad()
        terms["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), LARGEST_GRADIENT)
        if torch.isfinite(norm):
            for optimiser in self.optimisers:
                optimiser.step()
        self.step += 1
        self._follow()
        if self.step % 100 < 2:
            shown = " ".join(f"{key} {float(value.detach()):.3f}" for key, value in terms.items())
            print(self.step, f"{self.cpu / 60:.1f} min", shown, flush=True)

    @torch.no_grad()
    def _follow(self) -> None:
        kept = min(AVERAGED, self.step / (self.step + 9))
        for key, value in self.module.state_dict().items():
            self.average[key].lerp_(value, 1 - kept)

    def _save(self) -> None:
        state = {
            "weights": self.module.state_dict(),
            "average": self.average,
            "step": self.step,
            "cpu": self.cpu,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        part = self.path.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, self.path)
