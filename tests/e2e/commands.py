"""Run the real command in a process of its own."""

import os
import resource
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples" / "trpcage"
SETTINGS = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
RANK_SETTINGS = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}
"""Left in our environment by tests that train in this process."""


def hpcbackmap(
    *arguments, launcher=(), limit=None, timeout=300, **environment
) -> subprocess.CompletedProcess:
    """Run one command. launcher: words before it. limit: largest file (bytes) that it may write."""
    inherited = {key: value for key, value in os.environ.items() if key not in RANK_SETTINGS}
    return subprocess.run(
        [*launcher, sys.executable, "-m", "hpcbackmap", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        preexec_fn=limit and (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))),
        env=inherited | SETTINGS | environment,
    )


def succeed(*arguments, **options) -> subprocess.CompletedProcess:
    """The same, for commands that must not fail."""
    result = hpcbackmap(*arguments, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result
