"""The communicator of a run: MPI under an MPI launcher, else a stand-in of one process.

mpi4py is imported only when a launcher started this process (or HPCBACKMAP_MPI=1), so that everything
else works on a machine without MPI.
"""

import sys
import time
import traceback
from collections.abc import Callable
from functools import cache
from types import TracebackType
from typing import Any, Protocol, TypeVar

from hpcbackmap.runtime.errors import HpcbackmapError, OutputError, ResourceError
from hpcbackmap.runtime.launcher import asked_ranks, launched_by_mpi
from hpcbackmap.runtime.roll_call import RollCall

__all__ = [
    "Board",
    "Comm",
    "Counter",
    "LocalComm",
    "MpiComm",
    "abort",
    "get_comm",
    "on_first_rank",
    "raise_together",
]

T = TypeVar("T")
POLL_SECONDS = 2e-4


class Counter(Protocol):
    """Hands out numbers from 0, each once over all ranks."""

    def next(self, incr: int = 1) -> int: ...

    def free(self) -> None: ...


class Board(Protocol):
    """A row of numbers for each rank, that every rank may read at any time."""

    def put(self, values: list[int]) -> None: ...

    def read(self) -> list[list[int]]: ...

    def free(self) -> None: ...


class Comm(Protocol):
    """What a run needs of its ranks. ``gather`` gives all values on rank 0, None elsewhere."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def local_rank(self) -> int: ...

    def barrier(self) -> None: ...

    def bcast(self, value: Any = None) -> Any: ...

    def gather(self, value: Any) -> Any: ...

    def allreduce(self, value: Any, op: str = "sum") -> Any: ...

    def counter(self) -> Counter: ...

    def board(self, width: int) -> Board: ...


class LocalComm:
    """One process alone."""

    rank = 0
    size = 1
    local_rank = 0

    def barrier(self) -> None:
        pass

    def bcast(self, value: Any = None) -> Any:
        return value

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def allreduce(self, value: Any, op: str = "sum") -> Any:
        return value

    def counter(self) -> "_LocalCounter":
        return _LocalCounter()

    def board(self, width: int) -> "_LocalBoard":
        return _LocalBoard(width)


class MpiComm:
    """All ranks of MPI.COMM_WORLD. Methods are collective unless they say otherwise; values are pickled.

    local_rank: number among the ranks of this node.
    """

    def __init__(self, mpi: Any):
        self._mpi, self._comm = mpi, mpi.COMM_WORLD
        self.rank, self.size = self._comm.rank, self._comm.size
        self.local_rank = self._comm.Split_type(mpi.COMM_TYPE_SHARED).rank
        self._sent: list[Any] = []
        self._roll = RollCall(mpi, self._comm)

    def barrier(self) -> None:
        """Waits without taking the processor. Ranks that do not come are named after a time."""
        request, begun = self._comm.Ibarrier(), time.monotonic()
        told = begun
        while not request.Test():
            now = time.monotonic()
            time.sleep(min(1e-3, POLL_SECONDS + 0.01 * (now - begun)))
            if now - told > self._roll.patience:
                self._roll.call(request, now - begun)
                told = time.monotonic()
        self._roll.met()

    def bcast(self, value: Any = None) -> Any:
        """The value of rank 0, on all ranks."""
        self.barrier()
        return self._comm.bcast(value, root=0)

    def gather(self, value: Any) -> list[Any] | None:
        """The values of all ranks in order on rank 0, None elsewhere."""
        self.barrier()
        found: list[Any] | None = self._comm.gather(value, root=0)
        return found

    def allreduce(self, value: Any, op: str = "sum") -> Any:
        """``sum``, ``min`` or ``max`` over all ranks."""
        self.barrier()
        return self._comm.allreduce(value, op=getattr(self._mpi, op.upper()))

    def send(self, value: Any, rank: int) -> None:
        """To one rank; not collective. Returns at once; messages of one sender arrive in order."""
        self._sent = [request for request in self._sent if not request.Test()]
        self._sent.append(self._comm.isend(value, dest=rank))

    def finish_sends(self) -> None:
        """Wait until all that was sent is under way to those who receive it; not collective."""
        self._mpi.Request.Waitall(self._sent)
        self._sent = []

    def receive(self) -> tuple[int, Any]:
        """The next message of any rank, and who sent it; waits without taking the processor."""
        status = self._mpi.Status()
        while not self._comm.Iprobe():
            time.sleep(POLL_SECONDS)
        value = self._comm.recv(status=status)
        return status.Get_source(), value

    def counter(self) -> Any:
        """Numbers 0, 1, 2, … handed out once each over all ranks: one-sided, so no rank has to serve.

        Made and freed by all ranks together; its ``next()`` is not collective. ``next(0)`` looks at the number
        that comes, ``next(n)`` takes n of them.
        """
        from mpi4py.util.sync import Counter

        return Counter(typecode="q", comm=self._comm)

    def board(self, width: int) -> "_SharedBoard":
        """``width`` numbers of every rank that rank 0 can look at; see `_SharedBoard`."""
        return _SharedBoard(self._mpi, self._comm, width)


class _LocalCounter:
    def __init__(self) -> None:
        self._value = 0

    def next(self, incr: int = 1) -> int:
        self._value += incr
        return self._value - incr

    def free(self) -> None:
        pass


class _LocalBoard:
    def __init__(self, width: int):
        self._values = [[0] * width]

    def put(self, values: list[int]) -> None:
        self._values[0] = list(values)

    def read(self) -> list[list[int]]:
        return self._values

    def free(self) -> None:
        pass


class _SharedBoard:
    """Integers of every rank, kept by rank 0: each rank puts its own, one-sided, rank 0 reads all.

    Made and freed by all ranks together; `put` and `read` are not collective.
    """

    def __init__(self, mpi: Any, comm: Any, width: int):
        import numpy as np

        self._mpi, self._rank, self._width = mpi, comm.rank, width
        item = mpi.INT64_T.Get_size()
        size = item * width * comm.size if comm.rank == 0 else 0
        self._window = mpi.Win.Allocate(size, disp_unit=item, comm=comm)
        self._all = np.zeros((comm.size, width), dtype=np.int64)
        if comm.rank == 0:
            self._window.Lock(0)
            np.frombuffer(self._window, dtype=np.int64)[:] = 0
            self._window.Unlock(0)
        comm.barrier()

    def put(self, values: list[int]) -> None:
        import numpy as np

        self._window.Lock(0, self._mpi.LOCK_SHARED)
        self._window.Put(np.array(values, dtype=np.int64), 0, target=self._rank * self._width)
        self._window.Unlock(0)

    def read(self) -> list[list[int]]:
        """The numbers of every rank."""
        self._window.Lock(0)
        self._window.Get(self._all, 0)
        self._window.Unlock(0)
        found: list[list[int]] = self._all.tolist()
        return found

    def free(self) -> None:
        """Collective."""
        self._window.Free()


@cache
def get_comm() -> LocalComm | MpiComm:
    """The communicator of this run.

    Under MPI an uncaught exception of one rank then ends all ranks, so that none waits for ever.
    Raises ResourceError if the launcher started several processes that do not see each other.
    """
    asked = asked_ranks()
    if not launched_by_mpi():
        _require_size(asked, 1)
        return LocalComm()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        if asked == 1:
            return LocalComm()
        raise ResourceError(
            f"started as {asked} ranks, but mpi4py cannot be used ({str(error).splitlines()[0]}); "
            "install mpi4py for this MPI"
        ) from None
    _require_size(asked, MPI.COMM_WORLD.size)
    if MPI.COMM_WORLD.size > 1:
        sys.excepthook = _abort_on_exception
    return MpiComm(MPI)


def abort(code: int) -> None:
    """End all ranks at once with this exit code; does nothing in a process without MPI."""
    mpi = sys.modules.get("mpi4py.MPI")
    if (
        mpi is not None
        and mpi.Is_initialized()
        and not mpi.Is_finalized()
        and mpi.COMM_WORLD.size > 1
    ):
        mpi.COMM_WORLD.Abort(code)


def raise_together(comm: Comm, error: HpcbackmapError | None) -> None:
    """Raise the first rank's error on every rank, so that no rank waits for one that failed. Collective."""
    errors = comm.bcast(comm.gather(error))
    for error in errors:
        if error is not None:
            raise error


def on_first_rank(comm: Comm, work: Callable[[], T]) -> T:
    """``work()`` of rank 0, its result or its error on every rank. Collective.

    An OSError (full disk, no permission) becomes OutputError.
    """
    answer, error = None, None
    if comm.rank == 0:
        try:
            answer = work()
        except HpcbackmapError as failure:
            error = failure
        except OSError as failure:
            where = failure.filename or "output"
            error = OutputError(f"{where}: {failure.strerror or failure}")
    raise_together(comm, error)
    ours: T = comm.bcast(answer)
    return ours


def _require_size(asked: int, found: int) -> None:
    if asked > 1 and found == 1:
        raise ResourceError(
            f"started as {asked} ranks, but each sees itself alone: this launcher belongs to another MPI "
            "than mpi4py; start with the mpirun (or srun --mpi=…) of the MPI that mpi4py uses, or unset what "
            "an earlier job has left of its variables"
        )


def _abort_on_exception(
    kind: type[BaseException], value: BaseException, trace: TracebackType | None
) -> None:
    traceback.print_exception(kind, value, trace)
    sys.stderr.flush()
    abort(getattr(value, "exit_code", 1))
