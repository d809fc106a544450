"""The line that rank 0 writes every few seconds about all ranks."""

import logging
import sys
import time
from datetime import timedelta

__all__ = ["Progress"]

log = logging.getLogger(__name__)

TERMINAL_SECONDS, LOG_SECONDS = 5.0, 30.0
"""Between two lines."""
STRUCTURES, QUARANTINED, MICROSECONDS = range(3)


class Progress:
    """What every rank has done, on a board that only rank 0 looks at. Made and closed by all ranks together.

    structures: to do in this run.
    """

    def __init__(self, comm, structures: int):
        self._comm, self._structures = comm, structures
        self._board = comm.board(3)
        self._mine = [0, 0, 0]
        self._begun = self._told = time.monotonic()
        self._pause = TERMINAL_SECONDS if sys.stderr.isatty() else LOG_SECONDS

    def tell(self, rows: int, quarantined: int, seconds: float) -> None:
        """A batch of this rank is done; rank 0 says how things stand if it is time."""
        self._mine[STRUCTURES] += rows
        self._mine[QUARANTINED] += quarantined
        self._mine[MICROSECONDS] += round(1e6 * seconds)
        self._board.put(self._mine)
        now = time.monotonic()
        if self._comm.rank == 0 and now - self._told >= self._pause:
            self._told = now
            log.info("%s", self.line(now - self._begun))

    def line(self, seconds: float) -> str:
        """Structures done and per second, time left, the slowest rank, quarantined; rank 0 only."""
        ranks = self._board.read()
        done = sum(rank[STRUCTURES] for rank in ranks)
        rate = done / max(seconds, 1e-9)
        left = timedelta(seconds=round((self._structures - done) / max(rate, 1e-9)))
        text = f"{done} of {self._structures} structures, {rate:.3g}/s, {left} left"
        paces = [
            (rank[STRUCTURES] / rank[MICROSECONDS] * 1e6, number)
            for number, rank in enumerate(ranks)
            if rank[MICROSECONDS]
        ]
        if len(paces) > 1:
            pace, number = min(paces)
            text += f", slowest rank {number} {pace:.3g}/s"
        return text + f", {sum(rank[QUARANTINED] for rank in ranks)} quarantined"

    def close(self) -> None:
        self._board.free()
