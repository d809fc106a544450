"""How far the ranks are with writing frames: a bar on a terminal, a line now and then in a log."""

import logging
import sys
import time
from datetime import timedelta

__all__ = ["FrameProgress"]

log = logging.getLogger(__name__)

LOG_SECONDS = 10.0
"""Between two lines."""


class FrameProgress:
    """Counts frames of all ranks on a board that rank 0 looks at when it has written something.

    Entered and left by all ranks together. done: frames that were there before; total: of all ranks.
    """

    def __init__(self, comm, done: int, total: int):
        self._comm, self._earlier, self._total = comm, done, total
        self._mine = 0
        self._begun = self._told = time.monotonic()
        self._bar = None

    def __enter__(self) -> "FrameProgress":
        self._board = self._comm.board(1)
        if self._comm.rank == 0 and sys.stderr.isatty():
            self._bar = _new_bar()
            self._task = self._bar.add_task("frames", total=self._total, completed=self._earlier)
            self._bar.start()
        return self

    def tell(self, frames: int) -> None:
        """This rank has written ``frames`` more."""
        self._mine += frames
        self._board.put([self._mine])
        if self._comm.rank == 0:
            self._show(self._earlier + sum(rank[0] for rank in self._board.read()))

    def __exit__(self, kind, *_) -> None:
        """Frees the board together, unless this rank leaves with an error that the others may not have."""
        if self._bar:
            self._bar.stop()
        if kind is not None:
            return
        self._comm.barrier()
        if self._comm.rank == 0:
            written = self._earlier + sum(rank[0] for rank in self._board.read())
            log.info("%d of %d frames", written, self._total)
        self._board.free()

    def _show(self, written: int) -> None:
        now = time.monotonic()
        if self._bar:
            self._bar.update(self._task, completed=written)
        elif now - self._told >= LOG_SECONDS:
            self._told = now
            rate = (written - self._earlier) / (now - self._begun)
            left = timedelta(seconds=round((self._total - written) / rate))
            log.info("%d of %d frames, %.3g/s, %s left", written, self._total, rate, left)


def _new_bar():
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
