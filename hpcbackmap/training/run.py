"""One start of a training: from fresh or from a checkpoint, to its end or to a stop."""

import logging
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hpcbackmap.config.campaign import Campaign, TrainConfig
from hpcbackmap.runtime.errors import DivergedError, InputError, OutputError, Stopped
from hpcbackmap.runtime.stopping import StopSignals
from hpcbackmap.stages.artifact import stage_description
from hpcbackmap.stages.base import Stage
from hpcbackmap.stages.build import build_stage
from hpcbackmap.store.split import FrameRange, split_frames
from hpcbackmap.store.store import FrameStore
from hpcbackmap.training.checkpoints.checkpoints import Checkpoints, Progress
from hpcbackmap.training.checkpoints.publish import save_weights
from hpcbackmap.training.checkpoints.reshape import reshaped
from hpcbackmap.training.checkpoints.saving import load_engine, save_engine
from hpcbackmap.training.divergence import weights_are_finite
from hpcbackmap.training.engine import (
    Objective,
    apply_gradients,
    full_weights,
    make_engine,
    micro_batch,
)
from hpcbackmap.training.feed import Feed, StageInputs
from hpcbackmap.training.init_from import start_from
from hpcbackmap.training.ranks.world import World, come_to, host_group, on_rank_zero
from hpcbackmap.training.records.metrics import Recorder
from hpcbackmap.training.schedule import learning_rate
from hpcbackmap.training.validation import share_of_rank, validate

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

__all__ = ["Run"]

log = logging.getLogger(__name__)

CALIBRATION_FRAMES = 512
SKIPS_IN_A_ROW = 20
FIXED = ("batch_size", "accumulation", "seed", "precision", "zero_stage", "validation_frames")
MAY_CHANGE = frozenset(f"train.{key}" for key in TrainConfig.model_fields if key not in FIXED)
"""Settings that a resumed training may have changed."""


class Run:
    """What the loop needs, and the loop.

    identity: the settings that decide the weights. settings: DeepSpeed's configuration. about: the record
    of this start.
    """

    def __init__(
        self,
        campaign: Campaign,
        identity: dict[str, Any],
        store: FrameStore,
        folder: Path,
        settings: dict[str, Any],
        world: World,
        device: torch.device,
        about: dict[str, Any],
    ):
        self.name = identity["stage"]
        self.config = campaign.stages[self.name]
        self.train = self.config.train
        self.store, self.folder, self.identity = store, folder, identity
        self.world, self.device, budget = world, device, campaign.store.budget_mb
        self.hosts = host_group(world, device)
        self.checkpoints = Checkpoints(folder / "checkpoints", identity, MAY_CHANGE)
        manifest = on_rank_zero(world, self.checkpoints.newest)
        self.progress = Progress(**manifest["progress"]) if manifest else Progress()

        stage = self.new_stage()
        self.described = stage_description(stage)
        ranges = split_frames(store, campaign.split)
        self._require_frames(stage, ranges["train"])
        self.parameters = sum(parameter.numel() for parameter in stage.parameters())
        log.info("%d parameters", self.parameters)
        self.feed = Feed(store, stage, self.train.seed, device, identity["clusters"])
        self.ranges, self.budget = ranges, budget
        stage.to(device)
        if manifest is None or self._is_reshaped(manifest):  # which leaves buffers out
            self.bring_to_start(stage)
        self.engine = self._make_engine(stage, settings, manifest)

        micro = micro_batch(self.name, self.train, world.size)
        frames = self.train.validation_frames
        self.validation = self.judged_frames("validation", frames)
        start, together = self.progress.position, micro * world.size
        self.stream = iter(self.feed.stream(ranges["train"], together, world, budget, start))
        self.recorder = Recorder(folder, world, self.train, self.progress, about)

    def new_stage(self) -> Stage[Any]:
        """The stage as it is built, before it is calibrated or loaded."""
        ladders = [self.store.system(name).ladder for name in self.store.systems]
        return build_stage(self.name, self.config.model, ladders, self.train.seed)

    def _require_frames(self, stage: Stage[Any], ranges: list[FrameRange]) -> None:
        known = self.store.resolutions
        for resolution in (stage.fine, stage.coarse):
            if resolution not in known:
                raise InputError(
                    f"{self.store.path}: stage {self.name} learns from {resolution} frames, the store has "
                    f"only {', '.join(known)}"
                )
        if not ranges:
            raise InputError(f"{self.store.path}: the split leaves no frames to train on")

    def bring_to_start(self, stage: Stage[Any]) -> None:
        """Bring a stage to where training starts: the weights of an artifact, and what frames tell.

        Every rank shows it the same frames: many of one molecule, or one of each of several.
        """
        if self.train.init_from and not start_from(self.train.init_from, stage):
            return
        size, budget = self.train.batch_size, self.budget
        inputs = self.feed.sample(self.ranges["train"], size, CALIBRATION_FRAMES, budget)
        with torch.no_grad():
            stage.calibrate(inputs.fine, inputs.coarse, inputs.system)

    def judged_frames(self, part: str, frames: int) -> list[tuple[StageInputs, float]]:
        """This rank's share of evenly spaced frames of a part of the split."""
        micro = micro_batch(self.name, self.train, self.world.size)
        batches = list(self.feed.fixed(self.ranges[part], frames, micro, part))
        return share_of_rank(batches, self.world.rank, self.world.size)

    def _is_reshaped(self, manifest: dict[str, Any]) -> bool:
        """Whether the checkpoint is of another number of ranks, which without ZeRO does not matter."""
        return bool(self.train.zero_stage and manifest["world_size"] != self.world.size)

    def _make_engine(
        self, stage: Stage[Any], settings: dict[str, Any], manifest: dict[str, Any] | None
    ) -> "DeepSpeedEngine":
        """The engine, in the state of the checkpoint if there is one."""
        objective = Objective(stage, self.train)
        folder = self.checkpoints.folder
        if manifest is None:
            return make_engine(objective, self.train, settings)
        if not self._is_reshaped(manifest):
            engine = make_engine(objective, self.train, settings)
            load_engine(engine, folder, manifest["tag"])
        else:
            log.info(
                "checkpoint of %d ranks, reshaped for %d", manifest["world_size"], self.world.size
            )
            universal = settings | {"checkpoint": {"load_universal": True}}
            engine = make_engine(objective, self.train, universal)
            with reshaped(folder, manifest["tag"], self.world) as tag:
                load_engine(engine, folder, tag)
        log.info("continuing after step %d", self.progress.step)
        return engine

    def to_the_end(self, stop: StopSignals) -> None:
        """Steps, validations and checkpoints until training is over; raises Stopped on a stop signal."""
        progress, train = self.progress, self.train
        self._look_at_the_start()
        self.started = time.monotonic() - progress.seconds
        while not self.is_over():
            stopping = self.take_step(stop)
            over = self.is_over()
            if progress.step % train.validate_every == 0 or over:
                self.validate()
                over = self.is_over()
            if progress.step % train.checkpoint_every == 0 or over or stopping:
                self.checkpoint()
            if stopping and not over:
                torch.distributed.barrier()
                raise Stopped(
                    f"{self.name}: stopped on request after step {progress.step} of "
                    f"{train.max_steps}; the same command continues"
                )

    def _look_at_the_start(self) -> None:
        """Validation before the first step: what is published must not be far worse."""
        if self.validation and self.progress.step == 0:
            self.engine.module.stage.at_step(0)
            self.progress.start_loss = validate(self.engine, self.validation)["loss"]
            log.info("validation loss at the start: %.4g", self.progress.start_loss)

    def is_over(self) -> bool:
        progress, train = self.progress, self.train
        return (
            progress.step >= train.max_steps
            or (train.patience is not None and progress.stale >= train.patience)
            or (train.max_minutes is not None and progress.seconds >= 60 * train.max_minutes)
        )

    def take_step(self, stop: StopSignals) -> bool:
        """One optimiser step; True if some rank was asked to stop.

        Of the device the trainer reads one number, the gradient norm: whether there is a step depends on it.
        """
        progress = self.progress
        rate = learning_rate(self.train, progress.step, progress.seconds)
        self.engine.module.stage.at_step(progress.step)
        terms: dict[str, Tensor] = {}
        for part in range(1, self.train.accumulation + 1):
            losses = self._forward()
            come_to("backward pass")
            self.engine.backward(_poisoned(losses["loss"]))
            if part < self.train.accumulation:
                self.engine.step()
            for name, value in losses.items():
                terms[name] = terms.get(name, 0) + value.detach() / self.train.accumulation
        come_to("optimiser step")
        norm = apply_gradients(self.engine, rate)
        come_to("agreement")
        stopping, progress.seconds = self._agree(stop.received is not None)
        progress.step += 1
        if norm == math.inf:
            self._skip()
        else:
            progress.skipped_in_a_row = 0
        if progress.step % self.train.log_every == 0:
            self._record(terms, {"learning_rate": rate, "gradient_norm": norm})
        return stopping

    def _forward(self) -> dict[str, Tensor]:
        """Losses of the next micro-batch."""
        come_to("reading frames")
        began = time.perf_counter()
        inputs = self.feed.inputs(next(self.stream), f"train/{self.progress.step}")
        waited = time.perf_counter() - began
        self.recorder.count(inputs.n_frames, inputs.fine[..., 0].numel(), waited)
        self.progress.position = inputs.position
        come_to("forward pass")
        found: dict[str, Tensor] = self.engine(*inputs.arguments())
        return found

    def _agree(self, asked: bool) -> tuple[bool, float]:
        """One small reduction among the hosts: any stop signal, the slowest clock."""
        seconds = time.monotonic() - self.started
        if self.world.size == 1:
            return asked, seconds
        flags = torch.tensor([asked, seconds], dtype=torch.float64)
        torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MAX, group=self.hosts)
        return bool(flags[0]), float(flags[1])

    def _skip(self) -> None:
        """All ranks left the weights as they were: the gradient, which they share, is not finite."""
        progress = self.progress
        progress.skipped += 1
        progress.skipped_in_a_row += 1
        self.require_finite_weights()
        if self.world.rank == 0:
            log.warning("step %d: loss or gradient is not finite, skipped", progress.step)
        if progress.skipped_in_a_row > SKIPS_IN_A_ROW:
            raise DivergedError(
                f"{self.name}: no finite loss and gradient in {progress.skipped_in_a_row} steps in a row "
                f"after step {progress.step - progress.skipped_in_a_row}; {self._advice()}"
            )

    def require_finite_weights(self) -> None:
        """Raises DivergedError, on all ranks, that names the step after which weights are no numbers."""
        if not weights_are_finite(self.engine, self.world, self.hosts):
            last = self.progress.step - self.progress.skipped_in_a_row
            raise DivergedError(
                f"{self.name}: weights that are not finite since step {last}; {self._advice()}"
            )

    def _advice(self) -> str:
        return (
            f"lower stages.{self.name}.train.learning_rate, and the same command goes on from there"
        )

    def _record(self, terms: dict[str, Tensor], values: dict[str, float]) -> None:
        """Log means over all ranks."""
        names = sorted(terms)
        means = torch.stack([terms[name].double() for name in names]) / self.world.size
        if self.world.size > 1:
            torch.distributed.all_reduce(means)
        losses = dict(zip(names, means.tolist(), strict=True))
        values["skipped"] = self.progress.skipped
        self.recorder.training(self.progress.step, self.progress.seconds, losses | values)

    def validate(self) -> None:
        self.require_finite_weights()
        if not self.validation:
            return
        values = validate(self.engine, self.validation)
        if not math.isfinite(values["loss"]):
            log.warning("step %d: the validation loss is not finite", self.progress.step)
        best = self.progress.best["loss"] if self.progress.best else math.inf
        improved = values["loss"] < best
        self.progress.stale = 0 if improved else self.progress.stale + 1
        if improved:
            self.keep_weights(values)
        self.recorder.validation(self.progress.step, values, improved)

    def keep_weights(self, values: dict[str, float]) -> None:
        """The present weights are the ones to export."""
        self.keep(full_weights(self.engine), self.progress.step, values)

    def keep(self, weights: dict[str, Tensor], step: int, values: dict[str, float]) -> None:
        """``weights``, as they were after ``step``, are the ones to export."""
        name = f"best_{step}.safetensors"
        path = self.checkpoints.folder / name
        digest = on_rank_zero(self.world, lambda: save_weights(weights, path))
        self.progress.best = {"step": step, "weights": name, "sha256": digest, **values}

    def checkpoint(self) -> None:
        """A whole new checkpoint, or the one before and OutputError on all ranks; of finite weights alone."""
        self.require_finite_weights()
        tag, kept = f"step_{self.progress.step}", self.checkpoints
        on_rank_zero(self.world, lambda: kept.prepare(tag))
        try:
            files = save_engine(self.engine, kept.folder, tag, self.world)
        except OutputError:
            on_rank_zero(self.world, lambda: kept.discard(tag))
            raise
        size, described = self.world.size, self.described
        on_rank_zero(self.world, lambda: kept.publish(tag, files, self.progress, size, described))


def _poisoned(loss: Tensor) -> Tensor:
    """The loss, whose gradient is not a number where the loss is not finite; nothing is read from the device.

    A bad loss of one rank so reaches the gradient norm of all, and they skip the step together.
    """
    return loss * torch.where(torch.isfinite(loss), 1.0, math.nan)
