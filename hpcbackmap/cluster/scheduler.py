"""Slurm's commands: submit, look, cancel. Nothing else of this package calls them."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hpcbackmap.runtime.errors import ConfigError, ResourceError

__all__ = ["Job", "cancel", "find_jobs", "is_here", "objection", "require", "submit"]

ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}
PERHAPS_LATER = (
    "Requested node configuration is not available",
    "Required node not available",
    "Requested partition configuration not available now",
)
SECONDS = 60
"""How long Slurm may take to answer."""


@dataclass(frozen=True)
class Job:
    """A job as Slurm knows it now; Slurm forgets jobs some minutes after their end.

    state, reason: Slurm's words. nodes: its node list, empty while it waits.
    """

    name: str
    state: str
    reason: str
    nodes: str
    restarts: int
    exit_code: int

    @property
    def is_live(self) -> bool:
        """In the queue or running, and not waiting for something that will never be."""
        return self.state not in ENDED and self.reason != "DependencyNeverSatisfied"


def is_here() -> bool:
    return shutil.which("sbatch") is not None


def require() -> None:
    """Raises ConfigError where Slurm is not installed, ResourceError where it does not answer."""
    answer = _slurm("sinfo", "--noheader", "--format=%P")
    if answer.returncode:
        raise ResourceError(f"Slurm does not answer: {_words(answer)}")


def submit(script: Path, after: list[int]) -> int:
    """Submit; the job starts once all jobs of ``after`` have ended well. Returns its number.

    Raises ResourceError with Slurm's words if it is refused.
    """
    wait = []
    if after:
        wait = [f"--dependency=afterok:{':'.join(map(str, after))}", "--kill-on-invalid-dep=yes"]
    answer = _slurm("sbatch", "--parsable", *wait, str(script))
    if answer.returncode:
        raise ResourceError(f"{script}: {_words(answer)}")
    return int(answer.stdout.split(";")[0])


def objection(script: Path) -> tuple[str | None, bool]:
    """What Slurm has against this script, and whether nothing but a change can help.

    Otherwise nodes are drained or down for now, or the request is more than the partition has.
    """
    answer = _slurm("sbatch", "--test-only", str(script))
    if not answer.returncode:
        return None, False
    words = _words(answer)
    return words, not any(text in words for text in PERHAPS_LATER)


def find_jobs(numbers: set[int]) -> dict[tuple[int, int], Job]:
    """Jobs that Slurm remembers, by number and component (0 unless heterogeneous)."""
    found = {}
    for number in sorted(numbers):
        answer = _slurm("scontrol", "--oneliner", "show", "job", str(number))
        if answer.returncode and "Invalid job id" not in answer.stderr:
            raise ResourceError(f"Slurm does not answer: {_words(answer)}")
        for line in answer.stdout.splitlines() if not answer.returncode else []:
            fields = dict(re.findall(r"(\w+)=(\S*)", line))
            found[number, int(fields.get("HetJobOffset", 0))] = Job(
                name=fields["JobName"],
                state=fields["JobState"],
                reason=fields["Reason"],
                nodes=fields.get("NodeList", "").removeprefix("(null)"),
                restarts=int(fields["Restarts"]),
                exit_code=int(fields["ExitCode"].split(":")[0]),
            )
    return found


def cancel(numbers: set[int]) -> None:
    """Raises ResourceError if Slurm does not do it."""
    answer = _slurm("scancel", *map(str, sorted(numbers)))
    if answer.returncode:
        raise ResourceError(f"scancel: {_words(answer)}")


def _slurm(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except FileNotFoundError:
        raise ConfigError(
            f"no {command[0]} here: run this on a login node of a Slurm cluster, or see --dry-run"
        ) from None
    except subprocess.TimeoutExpired:
        raise ResourceError(f"Slurm does not answer: {command[0]} took {SECONDS} s") from None


def _words(answer: subprocess.CompletedProcess[str]) -> str:
    """What Slurm said of an error, in one line."""
    lines = answer.stderr.splitlines() or [f"exit code {answer.returncode}"]
    texts = (re.sub(r"^((\w+: )*error|allocation failure): ", "", line) for line in lines)
    return "; ".join(dict.fromkeys(text for text in texts if text))
