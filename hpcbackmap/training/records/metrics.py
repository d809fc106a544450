"""What a run says about itself: JSON lines from every rank; table, TensorBoard and terminal from rank 0."""

import json
import logging
import math
import resource
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import torch

from hpcbackmap.config.campaign import TrainConfig
from hpcbackmap.runtime.files import write_whole
from hpcbackmap.runtime.parsing import json_value
from hpcbackmap.training.checkpoints.checkpoints import Progress
from hpcbackmap.training.ranks.world import World
from hpcbackmap.training.records.metrics_csv import Table
from hpcbackmap.training.schedule import progress_fraction

if TYPE_CHECKING:
    from rich.progress import Progress as ProgressBar
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["Recorder"]

log = logging.getLogger(__name__)


class Recorder:
    """Writes `metrics.jsonl` (`metrics.rank<r>.jsonl` on other ranks) and, on rank 0, `metrics.csv` and
    `tensorboard/`.

    about: says who starts, with what; the first record of every start, never dropped. Other records after
    the step to start from, left by a run that was killed, are: the resumed run writes them again.
    """

    def __init__(
        self, folder: Path, world: World, train: TrainConfig, start: Progress, about: dict[str, Any]
    ):
        name = "metrics.jsonl" if world.rank == 0 else f"metrics.rank{world.rank}.jsonl"
        self._train, self._leads = train, world.rank == 0
        self._world_size = world.size
        self._file = _open_up_to(folder / name, start.step)
        self._write_line({"kind": "start", "step": start.step, **about})
        self._table: Table | None = None
        self._board: SummaryWriter | None = None
        self._bar: ProgressBar | None = None
        if self._leads:
            from torch.utils import tensorboard

            self._table = Table(folder / "metrics.csv", start.step)
            self._board = tensorboard.SummaryWriter(
                str(folder / "tensorboard"), purge_step=start.step + 1
            )
            self._bar = _progress_bar() if sys.stderr.isatty() else None
        self._task = self._bar.add_task(folder.name, total=1.0) if self._bar else None
        self._first_fraction = progress_fraction(train, start.step, start.seconds)
        self._first_seconds = start.seconds
        self._restart_meter()

    def _restart_meter(self) -> None:
        self._since, self._frames, self._particles = time.perf_counter(), 0, 0
        self._waited = 0.0

    def count(self, frames: int, particles: int, waited: float) -> None:
        """A micro-batch: frames and fine particles it brought this rank, seconds it was waited for."""
        self._frames += frames
        self._particles += particles
        self._waited += waited

    def training(self, step: int, seconds: float, values: dict[str, float]) -> None:
        """Record of one logged step; ``seconds`` of training so far over all restarts.

        Frames and particles per second are those of all ranks, each of which gets as many frames.
        """
        lapse = max(time.perf_counter() - self._since, 1e-9)
        record = {
            "kind": "train",
            "step": step,
            **_with_elbo(values),
            "frames_per_second": self._world_size * self._frames / lapse,
            "particles_per_second": self._world_size * self._particles / lapse,
            "data_wait": self._waited / lapse,
            "peak_memory_mb": _peak_memory_mb(),
            "seconds": seconds,
        }
        self._write(record)
        self._restart_meter()
        if self._leads:
            self._show(step, seconds, values["loss"])

    def validation(self, step: int, values: dict[str, float], improved: bool) -> None:
        self._write({"kind": "validation", "step": step, **_with_elbo(values)})
        self._restart_meter()
        if self._leads:
            nats = " ".join(f"{key} {value:.4g}" for key, value in values.items())
            text = f"step {step}: validation {nats}{' (best so far)' if improved else ''}"
            self._bar.console.print(text) if self._bar else log.info("%s", text)

    def close(self) -> None:
        self._file.close()
        if self._table:
            self._table.close()
        if self._board:
            self._board.close()
        if self._bar:
            self._bar.stop()

    def _write(self, record: dict[str, Any]) -> None:
        """JSON knows no infinities: values that are not finite are left out."""
        record = {key: value for key, value in record.items() if _is_writable(value)}
        self._write_line(record)
        if self._table:
            self._table.write(record)
        if self._board:
            for key, value in record.items():
                if key not in ("kind", "step"):
                    self._board.add_scalar(f"{record['kind']}/{key}", value, record["step"])

    def _write_line(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def _show(self, step: int, seconds: float, loss: float) -> None:
        fraction = progress_fraction(self._train, step, seconds)
        if self._bar and self._task is not None:
            self._bar.update(
                self._task, completed=fraction, description=f"step {step}  loss {loss:.4f}"
            )
            return
        per_fraction = (seconds - self._first_seconds) / max(fraction - self._first_fraction, 1e-9)
        left = timedelta(seconds=round((1 - fraction) * per_fraction))
        log.info("%3.0f %%  step %d  loss %.4f  %s left", 100 * fraction, step, loss, left)


def _with_elbo(values: dict[str, float]) -> dict[str, float]:
    """With ``elbo`` in nats per frame, where both terms are there."""
    if "log_likelihood" not in values or "kl" not in values:
        return values
    return values | {"elbo": values["log_likelihood"] - values["kl"]}


def _is_writable(value: str | float) -> bool:
    return isinstance(value, str) or math.isfinite(value)


def _progress_bar() -> "ProgressBar":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True))
    bar.start()
    return bar


def _open_up_to(path: Path, step: int) -> TextIO:
    """The file, open to append, without records after ``step`` and without a half-written last line."""
    kept = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            record = json_value(line)
            if record["kind"] == "start" or record["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            break
    write_whole(path, "".join(kept))
    return path.open("a")


def _peak_memory_mb() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
