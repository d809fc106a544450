"""Ranks together: ingest, the shared counter, and errors that end all ranks with one message."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from forked import Forked, rank_words

REPOSITORY = Path(__file__).resolve().parents[2]

MPIRUN = shutil.which("mpirun", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")

ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_osc": "^ucx",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMP_NUM_THREADS": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PYTHONPATH": str(REPOSITORY),
}

pytestmark = pytest.mark.skipif(MPIRUN is None, reason="no mpirun")


def mpirun(ranks: int, *command: str, forked: bool = True) -> subprocess.CompletedProcess:
    """``python command`` on so many ranks; ``forked`` or not they are of real mpirun, but for one alone."""
    if ranks == 1:
        alone = Forked(command, os.environ | ENVIRONMENT, apart=True)
        output, errors = alone.communicate(120)
        return subprocess.CompletedProcess(command, alone.returncode, output, errors)
    return subprocess.run(
        [MPIRUN, "-n", str(ranks), *(rank_words() if forked else [sys.executable]), *command],
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def write_campaign(folder: Path, example_dir: Path, trajectories: str) -> Path:
    path = folder / "campaign.yaml"
    path.write_text(
        f"name: t\nladder: [fg, ca, 'ucg:5:blobs']\nstore: {{chunk_mb: 0.02, shard_mb: 0.2}}\nsystems:\n"
        f"  - {{name: a, topology: {example_dir}/trpcage_top.pdb, trajectories: [{trajectories}]}}\n"
        f"  - {{name: b, trajectories: [{example_dir}/trpcage_top.pdb]}}\n"
        f"  - {{name: c, trajectories: [{example_dir}/trpcage_top.pdb]}}\n"
    )
    return path


def content(store: Path) -> dict[str, str]:
    files = sorted(item for item in store.rglob("*") if item.is_file())
    return {str(f.relative_to(store)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_store_does_not_depend_on_the_number_of_ranks(example_dir, tmp_path):
    stores = []
    for ranks in (1, 3):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        campaign = write_campaign(folder, example_dir, f"{example_dir}/trpcage.xtc")
        result = mpirun(ranks, str(REPOSITORY / "launch" / "ingest.py"), str(campaign))
        assert result.returncode == 0, result.stderr
        stores.append(content(folder / "work" / "frames.zarr"))
    assert len(stores[0]) > 20
    assert stores[0] == stores[1]


def test_one_bad_file_ends_all_ranks_with_one_message(example_dir, tmp_path):
    (tmp_path / "bad.xtc").write_bytes((example_dir / "trpcage.xtc").read_bytes()[:-99])
    campaign = write_campaign(tmp_path, example_dir, str(tmp_path / "bad.xtc"))
    result = mpirun(3, str(REPOSITORY / "launch" / "ingest.py"), str(campaign))
    assert result.returncode != 0
    assert result.stderr.count("bad.xtc: cannot be read, perhaps truncated") == 1, result.stderr
    assert not list((tmp_path / "work").glob("*"))


def test_shared_counter_hands_out_each_number_once(tmp_path):
    code = (
        "from hpcbackmap.runtime.mpi import get_comm; import time\n"
        "comm = get_comm(); counter = comm.counter()\n"
        "mine = []\n"
        "while (i := counter.next()) < 40:\n    mine.append(i); time.sleep(0.002 * (comm.rank + 1))\n"
        "counter.free(); parts = comm.gather(mine); top = comm.allreduce(comm.rank, 'max')\n"
        "if comm.rank == 0: print(top, *sorted(i for part in parts for i in part))"
    )
    assert mpirun(3, "-c", code).stdout.split() == ["2", *map(str, range(40))]


def test_a_crash_on_one_rank_ends_the_others():
    code = (
        "from hpcbackmap.runtime.mpi import get_comm; comm = get_comm()\n"
        "if comm.rank == 1: raise ZeroDivisionError('one rank')\n"
        "comm.barrier()"
    )
    result = mpirun(2, "-c", code)
    assert result.returncode != 0
    assert "ZeroDivisionError" in result.stderr


def test_ranks_that_do_not_see_each_other_are_refused():
    code = "import os; os.environ['PMI_SIZE'] = '4'\nfrom hpcbackmap.runtime.mpi import get_comm; get_comm()"
    result = mpirun(1, "-c", code)
    assert "ResourceError: started as 4 ranks, but each sees itself alone" in result.stderr
