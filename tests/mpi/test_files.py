"""`backmap FILE` under a real mpirun: one file, the same bytes on any number of ranks and after a kill."""

import os
import signal
import subprocess
import time
from pathlib import Path

import mdtraj
import pytest
from under_mpirun import ENVIRONMENT, launched

from hpcbackmap.backmapping.files import backmap_files
from hpcbackmap.backmapping.request import Request
from hpcbackmap.runtime.mpi import LocalComm

FRAMES = 420


@pytest.fixture(scope="module")
def trace(tmp_path_factory, example_dir):
    folder = tmp_path_factory.mktemp("trace")
    whole = mdtraj.load(str(example_dir / "trpcage.xtc"), top=str(example_dir / "trpcage_top.pdb"))
    calpha = whole[:FRAMES].atom_slice(whole.topology.select("name CA"))
    calpha.save_xtc(str(folder / "ca.xtc"))
    calpha[0].save_pdb(str(folder / "ca.pdb"))
    return folder


@pytest.fixture(scope="module")
def undisturbed(trace):
    """What one process writes that nobody stops."""
    return run_here(trace, "undisturbed.xtc")


def run_here(trace, name: str, part=(0, 1), **more) -> bytes | None:
    request = Request(output=trace / name, top=str(trace / "ca.pdb"), members=1, seed=1, **more)
    backmap_files([str(trace / "ca.xtc")], request, LocalComm(), part=part)
    return (trace / name).read_bytes() if (trace / name).exists() else None


def command(trace, name: str, ranks: int, *more: str) -> list[str]:
    files = str(trace / "ca.xtc"), "--top", str(trace / "ca.pdb"), "-o", str(trace / name)
    return launched(ranks, "backmap", *files, "--seed", "1", *more)


def test_a_killed_run_is_continued_by_two_ranks_to_the_same_bytes(trace, undisturbed):
    scratch = trace / ".killed.xtc.hpcbackmap"
    running = subprocess.Popen(
        command(trace, "killed.xtc", 0), env=os.environ | ENVIRONMENT, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while len(records(scratch)) < 1 and time.monotonic() < deadline:
        assert running.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    finished = {path: path.stat().st_mtime_ns for path in records(scratch)}
    assert finished
    assert not (trace / "killed.xtc").exists()
    running = subprocess.Popen(
        command(trace, "killed.xtc", 2), env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    kept = {}
    while running.poll() is None:
        for path in records(scratch):
            with_time = path.stat().st_mtime_ns if path.exists() else None
            kept[path] = with_time or kept.get(path)
        time.sleep(0.05)
    _, said = running.communicate()
    assert running.returncode == 0, said
    assert (trace / "killed.xtc").read_bytes() == undisturbed
    assert all(kept.get(path, written) == written for path, written in finished.items())
    assert not list(trace.glob(".killed*")), "what a run works in goes with its end"


def test_relaxed_structures_are_the_same_on_two_ranks(trace):
    pytest.importorskip("openmm", reason="needs OpenMM")
    alone = run_here(trace, "relaxed.xtc", relax=True, frames="0:60")
    both = command(trace, "both.xtc", 2, "--relax", "--frames", "0:60")
    ended = subprocess.run(both, env=os.environ | ENVIRONMENT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "2 of 2 shards" in ended.stderr
    assert (trace / "both.xtc").read_bytes() == alone


def records(scratch: Path) -> list[Path]:
    return sorted(scratch.glob("shards/.shards/*.json"))


def test_parts_share_the_work_and_the_last_delivers(trace, undisturbed):
    assert run_here(trace, "parts.xtc", part=(1, 3)) is None
    assert run_here(trace, "parts.xtc", part=(0, 3)) is None
    assert run_here(trace, "parts.xtc", part=(2, 3)) == undisturbed
