"""What the log of a job and Slurm say of a step that is not done, told in one word and one reason."""

import json

import pytest

from hpcbackmap.cluster import status
from hpcbackmap.cluster.scheduler import Job
from hpcbackmap.cluster.status import DONE, FAILED, RUNNING, STOPPED, WAITING, Row, table
from hpcbackmap.config.load import load_campaign

BEGUN = "hpcbackmap: job 3: start 0 on node7,\n"
END = "hpcbackmap: job 3: ended with code {}\n"


def read(text="", job=None, needs=(), silent=False, before=WAITING) -> Row:
    row = Row("backmap", before, "2x4")
    status._read_job(row, "the.log", text, job, list(needs), silent)
    return row


def job(state, reason="None", exit_code=0) -> Job:
    return Job("backmap", state, reason, "node7", 0, exit_code)


@pytest.mark.parametrize(
    ("row", "state", "note"),
    [
        (read(), STOPPED, "did not start"),
        (read(needs=["train ca-fg"]), STOPPED, "did not start: needs train ca-fg"),
        (read(job=job("PENDING", "Resources")), WAITING, "in the queue (Resources)"),
        (read(job=job("PENDING", "Dependency"), needs=["ingest"]), WAITING, "needs ingest"),
        (read(BEGUN, job("RUNNING")), RUNNING, ""),
        (read(BEGUN), STOPPED, "submit again to continue"),
        (read(BEGUN, silent=True), RUNNING, "Slurm was not asked"),
        (read(BEGUN + END.format(0)), WAITING, "files or settings changed since; submit again"),
        (read(BEGUN + END.format(75)), STOPPED, "submit again to continue"),
        (read(BEGUN + "hpcbackmap: error: no disk\n" + END.format(4)), FAILED, "no disk"),
        (read(BEGUN, job("OUT_OF_MEMORY")), FAILED, "out of memory"),
        (read(BEGUN, job("FAILED", exit_code=9)), FAILED, "see the.log"),
        (read(job=job("PENDING", "DependencyNeverSatisfied"), needs=["x"]), STOPPED, "did not start: needs x"),
    ],
)  # fmt: skip
def test_state_and_reason(row, state, note):
    assert (row.state, row.note) == (state, note)


def test_only_the_last_start_counts():
    """An error of the start before it is over."""
    text = BEGUN + "hpcbackmap: error: no disk\n" + END.format(4) + BEGUN
    assert read(text).note == "submit again to continue"
    assert read(text).exit_code is None


@pytest.fixture
def campaign(example_dir, tmp_path):
    return load_campaign(example_dir / "campaign.yaml", [f"workdir={tmp_path}"])


def trained(campaign, *records, torn="") -> Row:
    folder = campaign.path("stages/ca-fg")
    folder.mkdir(parents=True)
    lines = [json.dumps(record) for record in records]
    (folder / "metrics.jsonl").write_text("\n".join([*lines, torn]))
    row = Row("train ca-fg", WAITING, "1x1")
    status._read_training(campaign, row)
    return row


def step(number, seconds):
    return {"kind": "train", "step": number, "seconds": seconds, "loss": 1.5}


def test_the_pace_is_that_of_the_last_start(campaign):
    """Ten steps took 2 s each before a restart and 0.5 s each after it; half a line may stand at the end."""
    most = campaign.stages["ca-fg"].train.max_steps
    start = {"kind": "start", "node": "node1"}
    before = [step(number, 2.0 * number) for number in range(1, 11)]
    after = [step(10 + number, 20 + 0.5 * number) for number in range(1, 11)]
    row = trained(campaign, start, *before, start | {"node": "node2"}, *after, torn='{"kind": "tr')
    assert (row.state, row.nodes, row.restarts, row.at, row.of) == (STOPPED, "node2", 1, 20, most)
    left = [0.5 * (most - 20)]
    minutes = campaign.stages["ca-fg"].train.max_minutes
    if minutes is not None:
        left.append(60 * minutes - 25)
    assert row.seconds_left == max(0, round(min(left)))


def test_a_training_that_never_began_has_no_pace(campaign):
    assert trained(campaign, torn="{").seconds_left is None


def test_columns_are_aligned():
    rows = [
        Row("ingest", DONE, "1x1"),
        Row("train ucg5-ca", FAILED, "gpu 2x4", exit_code=4, note="x"),
    ]
    lines = table(rows)
    assert (
        len({line.index(word) for line, word in zip(lines, ("state", DONE, FAILED), strict=True)})
        == 1
    )
    assert "failed (4)" in lines[2]
