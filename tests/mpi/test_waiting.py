"""Ranks that wait: for one that hangs, and for one that is asked to stop."""

import os
import re
import signal
import subprocess
import time

import pytest
from forked import rank_words
from test_mpi_ingest import ENVIRONMENT, MPIRUN, REPOSITORY, content, mpirun, write_campaign

pytestmark = pytest.mark.skipif(MPIRUN is None, reason="no mpirun")

HANGS = """
import os, time
from hpcbackmap.runtime.console import configure_logging
from hpcbackmap.runtime.mpi import get_comm
os.environ["HPCBACKMAP_WAITING_SECONDS"] = "0.5"
configure_logging(verbose=False)
comm = get_comm()
comm.barrier()
if comm.rank == {rank}:
    time.sleep(6)
print(comm.gather(comm.rank))
"""
STOPS = """
import os, signal, sys
from hpcbackmap.ingest import ingest
from hpcbackmap.runtime.mpi import get_comm
fill, comm = ingest.fill_units, get_comm()

def asked(*given):
    for number, unit in enumerate(fill(*given)):
        if comm.rank == 1 and number == 1:
            os.kill({process}, signal.{signal})
            __import__("time").sleep(1)
        yield unit

ingest.fill_units = asked
from hpcbackmap.cli.app import main
main(["ingest", sys.argv[1]])
"""
SLOW = """
import sys, time
from hpcbackmap.ingest import ingest
fill = ingest.fill_units

def slowly(*given):
    for unit in fill(*given):
        time.sleep(2)
        yield unit

ingest.fill_units = slowly
from hpcbackmap.cli.app import main
main(["ingest", sys.argv[1]])
"""


@pytest.mark.parametrize("rank", [0, 2])
def test_a_rank_that_hangs_is_named_once_in_a_while(rank):
    result = mpirun(3, "-c", HANGS.format(rank=rank))
    assert result.returncode == 0, result.stderr
    assert "[0, 1, 2]" in result.stdout
    lines = [line for line in result.stderr.splitlines() if "waiting for" in line]
    assert 1 <= len(lines) <= 6, result.stderr
    assert all(f"rank(s) {rank} of 3" in line for line in lines), lines


@pytest.fixture(scope="module")
def undisturbed(example_dir, tmp_path_factory):
    """Content of the store that nobody stopped."""
    folder = tmp_path_factory.mktemp("undisturbed")
    campaign = write_campaign(folder, example_dir, f"{example_dir}/trpcage.xtc")
    assert mpirun(1, "-m", "hpcbackmap", "ingest", str(campaign)).returncode == 0
    return content(folder / "work/frames.zarr")


@pytest.mark.parametrize("process", ["os.getpid()", "os.getppid()"])
def test_a_signal_stops_all_ranks_between_shards(process, undisturbed, example_dir, tmp_path):
    """To one rank or to mpirun: exit code 75, one line, and the same command continues."""
    campaign = write_campaign(tmp_path, example_dir, f"{example_dir}/trpcage.xtc")
    code = STOPS.format(process=process, signal="SIGUSR1")
    result = mpirun(3, "-c", code, str(campaign), forked="getppid" not in process)
    assert result.returncode == 75, result.stderr
    said = re.findall("hpcbackmap: error: .*", result.stderr)
    assert len(said) == 1, result.stderr
    assert "the same command continues" in said[0], result.stderr
    partial = tmp_path / "work" / "frames.zarr.partial"
    written = {path.name: path.stat().st_mtime_ns for path in partial.glob(".written/*.json")}
    assert 2 <= len(written) < 40, written
    again = mpirun(1, "-m", "hpcbackmap", "ingest", str(campaign))
    assert again.returncode == 0, again.stderr
    assert "are there from an earlier ingest" in again.stderr
    assert content(tmp_path / "work/frames.zarr") == undisturbed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_mpirun_that_is_asked_to_end_gives_its_ranks_the_time(number, example_dir, tmp_path):
    """Open MPI itself kills them within a second; launch/mpirun.sh does not."""
    campaign = write_campaign(tmp_path, example_dir, f"{example_dir}/trpcage.xtc")
    program = tmp_path / "slow.py"
    program.write_text(SLOW)
    launcher = ["bash", str(REPOSITORY / "launch/mpirun.sh"), "-n", "2", *rank_words()]
    run = subprocess.Popen(
        [*launcher, program, campaign],
        env=os.environ | ENVIRONMENT | {"MPIRUN": str(MPIRUN)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # shells ignore it in what runs behind
    )
    written = tmp_path / "work" / "frames.zarr.partial" / ".written"
    while not list(written.glob("*.json")) and run.poll() is None:
        time.sleep(0.05)
    run.send_signal(number)
    _, errors = run.communicate(timeout=100)
    assert run.returncode == 75, errors
    said = re.findall("hpcbackmap: error: .*", errors)
    assert len(said) == 1, errors
    assert "the same command continues" in said[0], errors
