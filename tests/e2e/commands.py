"""Run the real command in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

from forked import Forked

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
    words, env = ["-m", "hpcbackmap", *map(str, arguments)], inherited | SETTINGS | environment
    if launcher:
        return subprocess.run(
            [*launcher, sys.executable, *words],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=env,
        )
    run = Forked(words, env, apart=True, limit=limit)
    output, errors = run.communicate(timeout)
    return subprocess.CompletedProcess(words, run.returncode, output, errors)


def succeed(*arguments, **options) -> subprocess.CompletedProcess:
    """The same, for commands that must not fail."""
    result = hpcbackmap(*arguments, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result
