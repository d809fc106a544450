"""Records of finished shards, the locks on an output, and the audit at the end.

A shard is done when its record stands in `.shards/` and its data have the hash that the record names. The
record is written last, by rename, after the data have been read back.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcbackmap.backmapping.plan import Plan, Shard
from hpcbackmap.runtime.errors import IncompleteError, InputError
from hpcbackmap.runtime.files import Lock, read_regular, write_whole, writing
from hpcbackmap.runtime.parsing import sealed, unsealed

if TYPE_CHECKING:
    from hpcbackmap.backmapping.workspace import Workspace
    from hpcbackmap.store.store import FrameStore

__all__ = ["Records", "only_run"]

log = logging.getLogger(__name__)


class Records:
    """Records of the shards of one plan in one output folder."""

    def __init__(self, plan: Plan, output: Path):
        self.plan, self.output = plan, output
        self.folder = output / ".shards"

    def path(self, shard: Shard) -> Path:
        return self.folder / f"{shard.system}.{shard.number:08d}.json"

    def is_done(self, store: "FrameStore | Workspace", shard: Shard) -> bool:
        """Whether a shard is recorded and its data are what the record says; damage is told."""
        try:
            record = unsealed(read_regular(self.path(shard)))
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

    def publish(
        self,
        store: "FrameStore | Workspace",
        shard: Shard,
        quarantined: list[dict[str, Any]],
        facts: dict[str, Any] | None = None,
        relaxation: dict[str, Any] | None = None,
    ) -> None:
        """Read a shard back and declare it done. relaxation: of the method of that name.

        Raises OutputError if the record cannot be written.
        """
        first, stop = self.plan.rows(shard)
        record = {
            "plan": self.plan.digest,
            "rows": stop - first,
            "sha256": self._digest(store, shard),
            "quarantined": quarantined,
        } | {key: it for key, it in (("facts", facts), ("relaxation", relaxation)) if it}
        write_whole(self.path(shard), sealed(record))

    @staticmethod
    def _digest(store: "FrameStore | Workspace", shard: Shard) -> str:
        """SHA-256 of all that a shard holds."""
        return store.system(shard.system).digest(shard.number)

    def audit(self) -> tuple[int, list[dict[str, Any]]]:
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

    def facts(self) -> dict[str, float]:
        """What the recorded shards count, added up; of keys ``most_…`` the largest."""
        total: dict[str, float] = {}
        for shard in self.plan.shards:
            for key, value in ((self._read(shard) or {}).get("facts") or {}).items():
                before = total.get(key, 0)
                total[key] = max(before, value) if key.startswith("most_") else before + value
        return total

    def relaxation(self) -> tuple[list[list[float]], list[dict[str, Any]]]:
        """Of the structures of the recorded shards: energies before and after (kJ/mol a residue) of those that
        were relaxed, and those that were not: system, frame, member, reason.
        """
        energies, kept = [], []
        for shard in self.plan.shards:
            found = (self._read(shard) or {}).get("relaxation") or {}
            energies += found.get("energies", [])
            kept += found.get("kept", [])
        return energies, kept

    def checksums(self) -> dict[tuple[str, int], str]:
        """Digest of every recorded shard, by system and number."""
        records = {(s.system, s.number): self._read(s) for s in self.plan.shards}
        return {place: record["sha256"] for place, record in records.items() if record}

    def _read(self, shard: Shard) -> dict[str, Any] | None:
        """The record of a shard; None where there is none. Raises InputError for one that is damaged."""
        path = self.path(shard)
        try:
            record = unsealed(read_regular(path))
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
def only_run(output: Path, index: int, count: int) -> Iterator[Callable[[], None]]:
    """Hold the lock of one of ``count`` parts of an output; it falls with the process, however it dies.

    Runs of other parts may go on side by side if they count as many parts. Gives a function that writes this
    process's name into the locks, for others to read. Raises ResourceError if another run works on this part,
    or on parts of another size.
    """
    with writing(output):
        held = [Lock.take(output / ".lock", output, shared=count > 1)]

    def sign() -> None:
        for lock in held:
            lock.sign()

    try:
        if count > 1:
            with writing(output):
                held.append(Lock.take(output / f".lock-{index}-of-{count}", output))
                for other in output.glob(".lock-*-of-*"):
                    if not other.name.endswith(f"-of-{count}"):
                        Lock.take(other, output, shared=True).close()
        yield sign
    finally:
        for lock in held:
            lock.close()
