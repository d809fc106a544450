"""`backmap FILE`: what was stopped continues, and what is there is not replaced."""

import os
import signal

import mdtraj
import numpy as np
import pytest
from calpha_file import backmap

from hpcbackmap.backmapping import deliver, implied_campaign
from hpcbackmap.backmapping.chain import Chain
from hpcbackmap.runtime.errors import (
    ConfigError,
    OutputError,
    ResourceError,
    Stopped,
)
from hpcbackmap.runtime.files import Lock
from hpcbackmap.trajectories import writer
from hpcbackmap.trajectories.writer import TrajectoryWriter

FRAMES = 7


@pytest.fixture
def stopped(trace, artifact, tmp_path, monkeypatch):
    """A run of several shards that SIGTERM stopped in its second batch."""
    run, calls = Chain.run, []

    def stopped_meanwhile(self, descent):
        calls.append(descent)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return run(self, descent)

    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setitem(implied_campaign.BATCH_RESIDUES, "cpu", 20)
    monkeypatch.setattr(implied_campaign, "SHARD_RESIDUES", (20, 20))
    monkeypatch.setattr(Chain, "run", stopped_meanwhile)
    with pytest.raises(Stopped, match=r"7 shards to do; the same command continues"):
        backmap(trace[0], tmp_path / "o.dcd", trace[1], artifact=artifact)
    assert signal.getsignal(signal.SIGTERM) is handler
    return calls


@pytest.mark.trains
def test_a_run_that_was_stopped_continues(trace, artifact, tmp_path, stopped):
    assert {path.name for path in tmp_path.iterdir()} == {"ca.dcd", "ca.pdb", ".o.dcd.hpcbackmap"}
    before = len(stopped)
    backmap(trace[0], tmp_path / "o.dcd", trace[1], artifact=artifact)
    assert len(stopped) - before == FRAMES - 1, "the first shard was done"
    result = backmap(trace[0], tmp_path / "whole.dcd", trace[1], artifact=artifact)
    one, other = (
        mdtraj.load(str(tmp_path / name), top=result["topology"]).xyz
        for name in ("o.dcd", "whole.dcd")
    )
    assert np.array_equal(one, other)
    assert not list(tmp_path.glob(".*"))


def test_other_options_do_not_continue_a_run(trace, artifact, tmp_path, stopped):
    with pytest.raises(OutputError, match=r"another seed.*--force to start anew"):
        backmap(trace[0], tmp_path / "o.dcd", trace[1], artifact=artifact, seed=5)
    with pytest.raises(OutputError, match=r"another source.on_bad_frame was skip, is stop"):
        backmap(trace[0], tmp_path / "o.dcd", trace[1], artifact=artifact, on_bad_frame="stop")
    before = len(stopped)
    backmap(trace[0], tmp_path / "o.dcd", trace[1], artifact=artifact, seed=5, force=True)
    assert len(stopped) - before == FRAMES


@pytest.mark.parametrize("where", ["shards", "."])
def test_a_run_at_work_is_named_and_left_alone(trace, artifact, tmp_path, stopped, where):
    """Whether it fills its shards or delivers what they hold."""
    made = tmp_path / ".o.dcd.hpcbackmap" / "shards"
    assert made.is_dir()
    lock = Lock.take(made.parent / where / ".lock", "it")
    lock.sign()
    before = sorted(path.name for path in made.iterdir())
    for force in (False, True):
        with pytest.raises(ResourceError, match=rf"o.dcd: process {os.getpid()} on .* is writing"):
            backmap(trace[0], tmp_path / "o.dcd", trace[1], artifact=artifact, seed=5, force=force)
    assert sorted(path.name for path in made.iterdir()) == before
    lock.close()


def test_an_output_that_exists_is_not_replaced_unasked(trace, artifact, tmp_path):
    for name in ("out.pdb", "out.zarr"):
        backmap(trace[0], tmp_path / name, trace[1], artifact=artifact)
        with pytest.raises(OutputError, match=rf"{name}: is there already; .* --force"):
            backmap(trace[0], tmp_path / name, trace[1], artifact=artifact)
        backmap(trace[0], tmp_path / name, trace[1], artifact=artifact, seed=1, force=True)
    assert not list(tmp_path.glob(".out*"))


def test_a_topology_that_is_there_is_never_replaced(trace, artifact, tmp_path):
    mine = tmp_path / "out_top.pdb"
    mine.write_bytes(trace[1].read_bytes())
    with pytest.raises(ConfigError, match=r"out_top.pdb: there is another topology of this name"):
        backmap(trace[0], tmp_path / "out.dcd", trace[1], artifact=artifact)
    assert mine.read_bytes() == trace[1].read_bytes()
    backmap(trace[0], tmp_path / "out.dcd", trace[1], artifact=artifact, force=True)
    assert mdtraj.load(str(tmp_path / "out.dcd"), top=str(mine)).n_frames == FRAMES
    backmap(trace[0], tmp_path / "out.xtc", trace[1], artifact=artifact)


def test_input_is_never_replaced(trace, artifact, tmp_path):
    before = trace[0].read_bytes()
    with pytest.raises(ConfigError, match="would replace the input"):
        backmap(trace[0], trace[0], trace[1], artifact=artifact)
    (tmp_path / "x_top.pdb").write_bytes(trace[1].read_bytes())
    with pytest.raises(ConfigError, match=r"x_top.pdb: would replace the input"):
        backmap(trace[0], tmp_path / "x.xtc", tmp_path / "x_top.pdb", artifact=artifact)
    assert trace[0].read_bytes() == before
    with pytest.raises(ConfigError, match=r"can write .*, not .docx"):
        backmap(trace[0], tmp_path / "x.docx", trace[1], artifact=artifact)


class Counted(TrajectoryWriter):
    """Counts the files that are open."""

    now = most = 0

    def __enter__(self):
        Counted.now += 1
        Counted.most = max(Counted.most, Counted.now)
        return super().__enter__()

    def finish(self):
        Counted.now -= 1
        super().finish()


@pytest.mark.trains
def test_many_members_are_the_same_and_open_few_files(trace, artifact, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "TrajectoryWriter", Counted)
    made = {}
    for name, at_once in (("all", 32), ("few", 2)):
        monkeypatch.setattr(deliver, "MEMBERS_AT_ONCE", at_once)
        Counted.now = Counted.most = 0
        output = tmp_path / f"{name}.dcd"
        result = backmap(trace[0], output, trace[1], 5, 0, artifact)
        made[name] = [mdtraj.load(path, top=result["topology"]).xyz for path in result["output"]]
        assert Counted.most <= at_once + 1
    np.testing.assert_allclose(made["few"], made["all"], atol=2e-4)
