"""Commands of the package under a real mpirun, whose ranks are forked."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from forked import Forked, rank_words

__all__ = ["ENVIRONMENT", "in_turn", "launched", "run"]

IN_TURN = Path(__file__).with_name("in_turn.py")

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMPI_MCA_osc": "^ucx"}


def launched(ranks: int, *words: str) -> list[str]:
    """``hpcbackmap words`` on so many ranks, not forked; 0: without mpirun. Skips the test without one."""
    inner = [sys.executable, "-m", "hpcbackmap", *words]
    return inner if ranks == 0 else [*_mpirun(ranks), *inner]


def run(ranks: int, *words: str) -> subprocess.CompletedProcess:
    """The ended command, its ranks forked; 0: without mpirun."""
    words, env = ["-m", "hpcbackmap", *words], os.environ | ENVIRONMENT
    if ranks:
        launcher = [*_mpirun(ranks), *rank_words(), *words]
        return subprocess.run(launcher, env=env, capture_output=True, text=True, timeout=300)
    process = Forked(words, env, apart=True)
    output, errors = process.communicate(300)
    return subprocess.CompletedProcess(words, process.returncode, output, errors)


def in_turn(ranks: int, *commands: list[str]) -> None:
    """Commands, one after another, in the ranks of one mpirun; each must succeed."""
    words = [*_mpirun(ranks), *rank_words(), str(IN_TURN), json.dumps(commands)]
    env = os.environ | ENVIRONMENT
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr


def _mpirun(ranks: int) -> list[str]:
    mpirun = shutil.which(
        "mpirun", path=os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    )
    if mpirun is None:
        pytest.skip("no mpirun on this machine")
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    return [mpirun, *root, "--oversubscribe", "-n", str(ranks)]
