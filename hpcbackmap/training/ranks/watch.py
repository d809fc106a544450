"""The ranks of a training watch one another: one that hangs is named, and the others do not wait for ever.

A thread of every rank puts two numbers into the ranks' store now and then: a beat, and how many places of the
training its main thread has come by (`world.come_to`; all ranks come by the same ones). Rank 0 reads them. A
rank without a beat is stopped, or its node is: the training ends. One that beats and stays behind the others
is named; it may be at long work, and ends the training after three times as long.
"""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from torch.distributed import Store

from hpcbackmap.runtime.errors import ResourceError
from hpcbackmap.runtime.roll_call import WAITING_VARIABLE, waiting_seconds
from hpcbackmap.training.ranks.world import HERE, World, rank_names

__all__ = ["Watch", "watched"]

log = logging.getLogger(__name__)

OFTEN, BEAT_SECONDS = 10, 10.0
"""Beats in the time after which a rank is missed, at least, and seconds between two at most."""
PATIENCE = 3
"""Times of waiting after which a rank that beats and does not come ends the training."""
VERDICT = "verdict"
JOIN_SECONDS = 2.0
"""That a thread may take to leave; one that a silent store holds stays behind."""


@dataclass
class Watch:
    """What one rank knows of the others, without a clock of its own: times are arguments, in seconds.

    seconds: after how long without a beat a rank is missed.
    """

    size: int
    seconds: float
    seen: dict[int, tuple[int, float]] = field(default_factory=dict)
    came: dict[int, tuple[int, float]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    def hear(self, rank: int, beat: int, place: int, name: str, now: float) -> None:
        """A rank's numbers and the name of its place, as they are in the store."""
        self.names[rank] = name
        for known, number in ((self.seen, beat), (self.came, place)):
            if rank not in known or known[rank][0] != number:
                known[rank] = number, now

    def wait_anew(self, now: float) -> None:
        """This process itself was away: what it has not heard says nothing."""
        for known in (self.seen, self.came):
            for rank, (number, _) in known.items():
                known[rank] = number, now

    def silent(self, now: float) -> list[int]:
        """Ranks without a beat for too long."""
        return [rank for rank, (_, then) in self.seen.items() if now - then > self.seconds]

    def behind(self, now: float) -> tuple[list[int], float]:
        """Ranks that all others wait for, and for how long; none if all are at one place."""
        places = {rank: number for rank, (number, _) in self.came.items()}
        last = min(places.values(), default=0)
        late = [rank for rank, number in places.items() if number == last]
        if len(places) < self.size or len(late) == self.size:
            return [], 0.0
        waited = now - max(then for _, then in self.came.values())
        return (late, waited) if waited > self.seconds else ([], 0.0)


@contextmanager
def watched(world: World, connect: Callable[[], Store]) -> Iterator[None]:
    """While entered the ranks watch one another. connect: a connection of its own to the ranks' store.

    Where a rank is missed this process says so in one line and ends with the code of ResourceError: its main
    thread stands in a collective that nothing else can end.
    """
    if world.size == 1:
        yield
        return
    leaving = threading.Event()
    talk = _Talk(world, connect, leaving)
    threads = [threading.Thread(target=it, daemon=True) for it in (talk.run, talk.judge)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        leaving.set()
        for thread in threads:
            thread.join(JOIN_SECONDS)


class _Talk:
    """Two threads of a rank: one talks with the store, which may not answer, the other looks at the clock."""

    def __init__(self, world: World, connect: Callable[[], Store], leaving: threading.Event):
        self.world, self.connect, self.leaving = world, connect, leaving
        self.seconds = waiting_seconds()
        self.pause = min(BEAT_SECONDS, self.seconds / OFTEN)
        self.watch = Watch(world.size, self.seconds)
        self.verdict: str | None = None
        self.answered = time.monotonic()
        self.named = self.answered

    def run(self) -> None:
        """Beat, and read what the others say: rank 0 all of them, the others rank 0."""
        try:
            store = self.connect()
        except RuntimeError as error:
            log.warning("the ranks do not watch one another: %s", str(error).splitlines()[0])
            self.leaving.set()
            return
        beat = 0
        while not self.leaving.wait(self.pause):
            beat += 1
            with suppress(RuntimeError):  # the store is gone, or silent: the other thread sees it
                self._exchange(store, beat)
                self.answered = time.monotonic()

    def _exchange(self, store: Store, beat: int) -> None:
        rank = self.world.rank
        store.set(f"beat/{rank}", json.dumps([beat, HERE.number, HERE.name]))
        if rank == 0 and self.verdict:
            store.set(VERDICT, self.verdict)
        for other in range(self.world.size) if rank == 0 else (0,):
            if store.check([f"beat/{other}"]):
                number, place, name = json.loads(store.get(f"beat/{other}"))
                self.watch.hear(other, number, place, name, time.monotonic())
        if rank and store.check([VERDICT]):
            self.verdict = store.get(VERDICT).decode()

    def judge(self) -> None:
        """End this process where a rank is missed, or rank 0 says that one is."""
        before = time.monotonic()
        while not self.leaving.wait(self.pause):
            now = time.monotonic()
            if now - before > 3 * self.pause + 1:
                self.watch.wait_anew(now)
                self.answered = now
            before = now
            if self.verdict:
                os._exit(ResourceError.exit_code)
            line = self._look(now)
            if line and not self.leaving.is_set():
                self._end(line)

    def _look(self, now: float) -> str | None:
        """The line of a training that ends; None if it goes on."""
        lost = now - self.answered > self.seconds + self.pause
        silent = [0] if lost else self.watch.silent(now)
        if silent:
            return self._line(silent, "did not answer", self.seconds)
        late, waited = self.watch.behind(now) if self.world.rank == 0 else ([], 0.0)
        if not late:
            return None
        if waited > PATIENCE * self.seconds:
            return self._line(late, "did not come to the others", waited)
        if now - self.named > self.seconds:
            self.named = now
            log.warning(
                "waiting for %.0f s for %s of %d (%s): hung, or at long work; the others go on when it comes, "
                "and end after %.0f s",
                waited,
                rank_names(late),
                self.world.size,
                self.watch.names[late[0]],
                PATIENCE * self.seconds,
            )
        return None

    def _line(self, ranks: list[int], what: str, seconds: float) -> str:
        last = self.watch.names.get(ranks[0], "the start")
        return (
            f"{rank_names(ranks)} of {self.world.size} {what} for {seconds:.0f} s (last at: {last}): stopped, "
            f"hung, or its node is lost; the same command continues. {WAITING_VARIABLE} sets the time"
        )

    def _end(self, line: str) -> None:
        """Say so and leave, rank 0 when the others have read it."""
        sys.stderr.write(f"hpcbackmap: error: {line}\n")
        sys.stderr.flush()
        if self.world.rank == 0:
            self.verdict = line
            time.sleep(3 * self.pause)
        os._exit(ResourceError.exit_code)
