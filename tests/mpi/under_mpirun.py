"""Commands of the package under a real mpirun."""

import os
import shutil
import sys

import pytest

__all__ = ["ENVIRONMENT", "launched"]

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMPI_MCA_osc": "^ucx"}


def launched(ranks: int, *words: str) -> list[str]:
    """``hpcbackmap words`` on so many ranks; 0: without mpirun. Skips the test where there is no mpirun."""
    inner = [sys.executable, "-m", "hpcbackmap", *words]
    if ranks == 0:
        return inner
    mpirun = shutil.which(
        "mpirun", path=os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    )
    if mpirun is None:
        pytest.skip("no mpirun on this machine")
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    return [mpirun, *root, "--oversubscribe", "-n", str(ranks), *inner]
