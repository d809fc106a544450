"""Fixtures that every test folder may use."""

import fcntl
import logging
import os
import resource
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest

# Runs of several ranks go on beside each other; each would bind its ranks to the same first cores.
os.environ.setdefault("PRTE_MCA_hwloc_default_binding_policy", "none")
os.environ.setdefault("OMPI_MCA_hwloc_base_binding_policy", "none")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def restored_environment():
    """Training in this process sets launcher variables; the next test must not see them."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def logging_of_a_library():
    """A command run in this process logs to the standard error of its time, which later ones find closed."""
    log = logging.getLogger("hpcbackmap")
    log.handlers, log.propagate = [], True
    log.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of public protein ensembles, named by HPCBACKMAP_DATA; tests that need it skip without it."""
    folder = Path(os.environ.get("HPCBACKMAP_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; set HPCBACKMAP_DATA")
    return folder


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """A function (name, make) -> folder that ``make`` filled, once for all processes of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder_of(name: str, make: Callable[[Path], None]) -> Path:
        folder = shared / name
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "made").exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
                folder.mkdir()
                make(folder)
                (folder / "made").touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def example_dir() -> Path:
    """The example ensemble that ships with the project: trpcage_top.pdb and trpcage.xtc."""
    return REPOSITORY / "examples" / "trpcage"


@pytest.fixture(scope="session")
def example_run(example_dir):
    """All frames of the example as mdtraj reads them, once; slices are copies, so take one to change it."""
    import mdtraj

    return mdtraj.load(str(example_dir / "trpcage.xtc"), top=str(example_dir / "trpcage_top.pdb"))


@pytest.fixture
def full_disk():
    """A context in which no file of this process may grow beyond so many bytes, as on a full disk."""

    @contextmanager
    def limit(size: int):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit
