"""Stages on groups of ranks of their own, for models that want different nodes.

The ranks of the last stage take shards and write them. A batch that one of them needs goes as a request up to
a rank of the first stage and comes back one stage further at every rank. A writer has at most `AHEAD` requests
under way, which bounds every queue. Batches, noise and arithmetic are those of the plain chain, and so are
the bits.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice

import numpy as np

from hpcbackmap.backmapping.chain import Chain, Descent
from hpcbackmap.runtime.errors import ConfigError
from hpcbackmap.runtime.mpi import MpiComm

__all__ = ["Groups", "Link", "RemoteChain", "serve"]

AHEAD = 2
"""Batches that a writer has asked for before it needs them."""


class Groups:
    """Which ranks serve which stage.

    sizes: ranks of each stage, coarse to fine, in order of rank. stage: of this rank. upstream: rank that it
    asks, None at the first stage. downstream: how many ranks ask it.
    Raises ConfigError if the sizes do not fit the stages or the ranks.
    """

    def __init__(self, sizes: Sequence[int], n_stages: int, rank: int, ranks: int):
        if len(sizes) != n_stages or sum(sizes) != ranks or min(sizes) < 1:
            raise ConfigError(
                f"--pipeline {','.join(map(str, sizes))}: give the number of ranks of each of the {n_stages} "
                f"stage(s), coarse to fine, {ranks} together"
            )
        starts = [0, *accumulate(sizes)]
        self.stage = next(number for number in range(n_stages) if rank < starts[number + 1])
        place = rank - starts[self.stage]
        self.writes = self.stage == n_stages - 1
        self.upstream, self.downstream = None, 0
        if self.stage:
            self.upstream = starts[self.stage - 1] + place % sizes[self.stage - 1]
        if not self.writes:
            self.downstream = len(range(place, sizes[self.stage + 1], sizes[self.stage]))


class Link:
    """A writer's way to the rank above it: requests up, finished stages down, in order."""

    def __init__(self, comm: MpiComm, upstream: int):
        self._comm, self._upstream = comm, upstream
        self._under_way = 0

    def ask(self, system: str, descent: Descent) -> None:
        self._comm.send((system, descent), self._upstream)
        self._under_way += 1

    def answer(self) -> Descent:
        descent: Descent
        _, (_, descent) = self._comm.receive()
        self._under_way -= 1
        return descent

    def close(self) -> None:
        """Take what is still under way, then tell the rank above that no more will be asked."""
        while self._under_way:
            self.answer()
        self._comm.send(None, self._upstream)
        self._comm.finish_sends()


class RemoteChain:
    """A `Chain` whose stages but the last run on other ranks."""

    def __init__(self, chain: Chain, system: str, link: Link):
        self.stages, self.device = chain.stages, chain.device
        self._chain, self._system, self._link = chain, system, link
        self._arrived: deque[Descent] = deque()
        self._expected = 0

    def run(self, descent: Descent) -> list[dict[str, np.ndarray]]:
        """See `Chain.run`."""
        self._link.ask(self._system, descent)
        while self._expected:
            self._arrived.append(self._receive())
        return self._chain.run(self._link.answer())

    def run_all(
        self, descents: Iterable[Descent]
    ) -> Iterator[tuple[Descent, list[dict[str, np.ndarray]]]]:
        """Each with its `run`; the next ones are asked for before they are needed."""
        coming = iter(descents)
        for descent in islice(coming, AHEAD):
            self._ask(descent)
        while self._arrived or self._expected:
            arrived = self._arrived.popleft() if self._arrived else self._receive()
            for descent in islice(coming, 1):
                self._ask(descent)
            yield arrived, self._chain.run(arrived)

    def _ask(self, descent: Descent) -> None:
        self._link.ask(self._system, descent)
        self._expected += 1

    def _receive(self) -> Descent:
        self._expected -= 1
        return self._link.answer()


class RemoteChains:
    """The `RemoteChain` of each system by name, made when it is asked for first."""

    def __init__(self, chains: Mapping[str, Chain], link: Link):
        self._chains, self._link = chains, link
        self._made: dict[str, RemoteChain] = {}

    def __getitem__(self, name: str) -> RemoteChain:
        if name not in self._made:
            self._made[name] = RemoteChain(self._chains[name], name, self._link)
        return self._made[name]


def serve(groups: Groups, chains: Mapping[str, Chain], comm: MpiComm) -> None:
    """Run this rank's stage for the ranks below until all of them are done."""
    asked: deque[int] = deque()
    open_ranks = groups.downstream
    while open_ranks:
        sender, message = comm.receive()
        if message is None:
            open_ranks -= 1
        elif groups.upstream is not None and sender != groups.upstream:
            asked.append(sender)
            comm.send(message, groups.upstream)
        else:
            system, descent = message
            chains[system].step(groups.stage, descent)
            comm.send(message, asked.popleft() if groups.upstream is not None else sender)
    if groups.upstream is not None:
        comm.send(None, groups.upstream)
    comm.finish_sends()
