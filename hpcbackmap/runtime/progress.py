"""How far all ranks are with their work, told by rank 0: a line now and then, or a bar on a terminal."""

import logging
import sys
import time
from datetime import timedelta
from typing import Any

from hpcbackmap.runtime.mpi import Comm

__all__ = ["Progress", "set_pause"]

log = logging.getLogger(__name__)

TERMINAL_SECONDS, LOG_SECONDS = 5.0, 30.0
"""Between two lines."""
DONE, GIVEN_UP, MICROSECONDS = range(3)
_asked: list[float] = []


def set_pause(seconds: float) -> None:
    """Seconds between two lines, on terminals and elsewhere; 0: none."""
    _asked[:] = [seconds or float("inf")]


class Progress:
    """What every rank has done, on a board that only rank 0 looks at. Entered and left by all ranks together.

    total: of all ranks, ``earlier`` of which were there before; what: they are called. given_up: word for those
    that are counted apart. bar: one is shown on a terminal instead of lines.
    """

    def __init__(
        self,
        comm: Comm,
        total: int,
        what: str,
        earlier: int = 0,
        given_up: str | None = None,
        bar: bool = False,
    ):
        self._comm, self._total, self._what = comm, total, what
        self._earlier, self._given_up = earlier, given_up
        self._mine = [0, 0, 0]
        self._bar: Any = _new_bar() if bar and comm.rank == 0 and sys.stderr.isatty() else None
        pause = TERMINAL_SECONDS if sys.stderr.isatty() else LOG_SECONDS
        self._pause = _asked[0] if _asked else pause

    def __enter__(self) -> "Progress":
        self._board = self._comm.board(3)
        self._begun = self._told = time.monotonic()
        if self._bar:
            self._task = self._bar.add_task(self._what, total=self._total, completed=self._earlier)
            self._bar.start()
        return self

    def tell(self, done: int, given_up: int = 0, seconds: float = 0.0) -> None:
        """This rank has done so many more, in so many seconds; rank 0 says how things stand if it is time."""
        self._mine[DONE] += done
        self._mine[GIVEN_UP] += given_up
        self._mine[MICROSECONDS] += round(1e6 * seconds)
        self._board.put(self._mine)
        if self._comm.rank:
            return
        now = time.monotonic()
        if self._bar:
            self._bar.update(self._task, completed=self._earlier + self._done(self._board.read()))
        elif now - self._told >= self._pause:
            self._told = now
            log.info("%s", self.line(now - self._begun))

    def line(self, seconds: float) -> str:
        """Done and per second, time left, the slowest rank where ranks say their time; rank 0 only."""
        ranks = self._board.read()
        done = self._done(ranks)
        rate = done / max(seconds, 1e-9)
        left = self._total - self._earlier - done
        text = f"{self._earlier + done} of {self._total} {self._what}, {rate:.3g}/s, "
        text += f"{timedelta(seconds=round(left / max(rate, 1e-9)))} left"
        paces = [
            (rank[DONE] / rank[MICROSECONDS] * 1e6, number)
            for number, rank in enumerate(ranks)
            if rank[MICROSECONDS]
        ]
        if len(paces) > 1:
            pace, number = min(paces)
            text += f", slowest rank {number} {pace:.3g}/s"
        if self._given_up:
            text += f", {sum(rank[GIVEN_UP] for rank in ranks)} {self._given_up}"
        return text

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        """Frees the board together, unless this rank leaves with an error that the others may not have."""
        if self._bar:
            self._bar.stop()
        if kind is not None:
            return
        self._comm.barrier()
        if self._comm.rank == 0:
            done = self._earlier + self._done(self._board.read())
            log.info("%d of %d %s", done, self._total, self._what)
        self._board.free()

    @staticmethod
    def _done(ranks: list[list[int]]) -> int:
        return sum(rank[DONE] for rank in ranks)


def _new_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
