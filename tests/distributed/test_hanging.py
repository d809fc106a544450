"""A rank that hangs is named, and the others end with a code instead of waiting for ever."""

import os
import re
import signal

import pytest
from runs import ALONE, STAGE, alone, by_hand, finish, kill_tree, stage_folder, start, wait_for

from hpcbackmap.training.checkpoints.checkpoints import last_published
from hpcbackmap.training.trainer import train

pytestmark = pytest.mark.trains

SECONDS = "4"
LONG = f"stages.{STAGE}.train.max_steps=100000"
SLEEPS = """
import os, sys, time

from hpcbackmap.training import feed

usual = feed.Feed.inputs


def inputs(self, batch, key):
    if key == "train/20" and os.environ["RANK"] == "1":
        time.sleep(600)
    return usual(self, batch, key)


feed.Feed.inputs = inputs
from hpcbackmap.cli.app import main

main(["train", *sys.argv[1:]])
"""


def two_ranks(example, folder, **more):
    environs = by_hand([0, 1], 2, HPCBACKMAP_WAITING_SECONDS=SECONDS)
    return [start(ALONE, example, folder, LONG, **more, **each) for each in environs]


@pytest.mark.parametrize("stopped", [1, 0])
def test_a_stopped_rank_is_named(example, tmp_path, stopped):
    """Rank 0 also serves what the ranks talk through. The same command continues."""
    ranks = two_ranks(example, tmp_path)
    wait_for(stage_folder(tmp_path) / "checkpoints" / "step_10" / "manifest.json", ranks[0])
    os.kill(ranks[stopped].pid, signal.SIGSTOP)
    output = finish(ranks[1 - stopped], code=5)
    kill_tree(ranks[stopped])
    said = re.findall("hpcbackmap: error: .*", output)
    assert len(said) == 1, output
    assert f"rank {stopped} of 2 did not answer for {SECONDS} s" in said[0]
    assert "Traceback" not in output
    if stopped:
        step = int(last_published(stage_folder(tmp_path) / "checkpoints").removeprefix("step_"))
        few = f"stages.{STAGE}.train.max_steps={step + 2}"
        assert train(alone(example, tmp_path, few), STAGE)["steps"] == step + 2


def test_a_rank_that_sleeps_is_named_then_given_up(example, tmp_path):
    """Its heart beats: it may be at long work, so it gets three times as long."""
    program = tmp_path / "sleeps.py"
    program.write_text(SLEEPS)
    ranks = two_ranks(example, tmp_path, program=str(program))
    output = finish(ranks[0], code=5)
    assert re.search(r"waiting for \d+ s for rank 1 of 2 \(reading frames\): hung, or", output)
    assert len(re.findall("hpcbackmap: error: rank 1 of 2 did not come to the others", output)) == 1
    silent = finish(ranks[1], code=5)
    assert "error" not in silent, "one line says it for both"
