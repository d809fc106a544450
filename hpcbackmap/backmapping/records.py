"""Records of finished shards, the locks on an output, and the audit at the end.

A shard is done when its record stands in `.shards/` and its data have the hash that the record names. The
record is written last, by rename, after the data have been read back.
"""

import errno
import fcntl
import json
import logging
import os
import socket
from contextlib import contextmanager
from pathlib import Path

from hpcbackmap.backmapping.plan import Plan, Shard
from hpcbackmap.runtime.errors import IncompleteError, InputError, OutputError, ResourceError
from hpcbackmap.store.store import FrameStore

__all__ = ["Records", "only_run"]

log = logging.getLogger(__name__)

NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}


class Records:
    """Records of the shards of one plan in one output folder."""

    def __init__(self, plan: Plan, output: Path):
        self.plan, self.output = plan, output
        self.folder = output / ".shards"

    def path(self, shard: Shard) -> Path:
        return self.folder / f"{shard.system}.{shard.number:08d}.json"

    def is_done(self, store: FrameStore, shard: Shard) -> bool:
        """Whether a shard is recorded and its data are what the record says; damage is told."""
        try:
            record = json.loads(self.path(shard).read_text())
            if record["plan"] != self.plan.digest:
                return False
            if record["sha256"] == self._digest(store, shard):
                return True
            reason = "its data differ from its record"
        except FileNotFoundError:
            return False
        except (ValueError, KeyError, TypeError, InputError) as error:
            reason = str(error)
        name = f"{shard.system}/{shard.number}"
        log.warning("shard %s is damaged and will be computed again: %s", name, reason)
        return False

    def publish(self, store: FrameStore, shard: Shard, quarantined: list[dict]) -> None:
        """Read a shard back and declare it done. Raises OutputError if the record cannot be written."""
        first, stop = self.plan.rows(shard)
        record = {
            "plan": self.plan.digest,
            "rows": stop - first,
            "sha256": self._digest(store, shard),
            "quarantined": quarantined,
        }
        _write_durably(self.path(shard), json.dumps(record))

    @staticmethod
    def _digest(store: FrameStore, shard: Shard) -> str:
        """SHA-256 of all that a shard holds."""
        return store.system(shard.system).digest(shard.number)

    def audit(self) -> tuple[int, list[dict]]:
        """Shards without a record, and the quarantined structures of all others.

        Raises IncompleteError if all shards are there but their structures do not add up.
        """
        rows, quarantined, missing = 0, [], 0
        for shard in self.plan.shards:
            record = self._read(shard)
            if record is None:
                missing += 1
                continue
            rows += record["rows"]
            quarantined += record["quarantined"]
        expected = self.plan.total_frames * self.plan.rows_per_frame
        if not missing and rows != expected:
            raise IncompleteError(f"{self.output}: {rows} structures written, {expected} expected")
        return missing, quarantined

    def checksums(self) -> dict[tuple[str, int], str]:
        """Digest of every recorded shard, by system and number."""
        records = {(s.system, s.number): self._read(s) for s in self.plan.shards}
        return {place: record["sha256"] for place, record in records.items() if record}

    def _read(self, shard: Shard) -> dict | None:
        """The record of a shard; None where there is none. Raises InputError for one that is damaged."""
        path = self.path(shard)
        try:
            record = json.loads(path.read_text())
            wanted = {"plan": str, "sha256": str, "rows": int, "quarantined": list}
            for key, kind in wanted.items():
                if not isinstance(record[key], kind):
                    raise ValueError(f"{key} is {record[key]!r}")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: damaged record of a shard ({error}); remove it, and the same command makes the "
                "shard again"
            ) from None
        return record


@contextmanager
def only_run(output: Path, index: int, count: int):
    """Hold the lock of one of ``count`` parts of an output; it falls with the process, however it dies.

    Runs of other parts may go on side by side if they count as many parts. Gives a function that writes this
    process's name into the locks, for others to read. Raises ResourceError if another run works on this part,
    or on parts of another size.
    """
    files = [_acquire(output / ".lock", output, fcntl.LOCK_EX if count == 1 else fcntl.LOCK_SH)]
    try:
        if count > 1:
            name = f".lock-{index}-of-{count}"
            files.append(_acquire(output / name, output, fcntl.LOCK_EX))
            for other in output.glob(".lock-*-of-*"):
                if not other.name.endswith(f"-of-{count}"):
                    _acquire(other, output, fcntl.LOCK_SH).close()
        yield lambda: [_sign(file) for file in files]
    finally:
        for file in files:
            file.close()


def _acquire(path: Path, output: Path, kind: int):
    file = path.open("a+")
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = (file.read().strip().splitlines() or ["another process"])[-1]
        file.close()
        raise ResourceError(f"{output}: {holder} is writing it; wait for it, or stop it") from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        log.warning("%s: this file system has no locks; start one run at a time", output)
    return file


def _sign(file) -> None:
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()


def _write_durably(path: Path, text: str) -> None:
    scratch = path.with_suffix(".part")
    try:
        with scratch.open("w") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(scratch, path)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from None
