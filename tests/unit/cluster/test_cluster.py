"""Campaigns as Slurm jobs, as far as they can be judged without a Slurm."""

import json
import sys
from pathlib import Path

import pytest

from hpcbackmap.cluster.status import campaign_status, table
from hpcbackmap.cluster.submission import dry_run, submit_campaign
from hpcbackmap.config.load import load_campaign
from hpcbackmap.runtime.errors import ConfigError

CAMPAIGN = """
name: my protein
ladder: [fg, ca, "ucg:5"]
systems: [{name: one, topology: top.pdb, trajectories: ["*.xtc"]}]
stages:
  ca-fg:
    model: {kind: genzprot}
    train: {max_steps: 100}
    node_group:
      {partition: gpu, nodes: 2, tasks_per_node: 4, gpus_per_node: 4, time: "12:00:00", sbatch: [--qos=high]}
  ucg5-ca:
    model: {kind: cgvae}
    node_group: {account: p123, constraint: "a100|h100", mem: 8G, cpus_per_task: 2}
node_groups:
  backmap: {nodes: 8, tasks_per_node: 48}
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    """The campaign; no Slurm is found, whatever this machine has."""
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "campaign.yaml"
    path.write_text(CAMPAIGN)
    return path


def scripts(file, *overrides, together=False) -> list[str]:
    return list(dry_run(load_campaign(file, overrides), file, list(overrides), together))


def test_jobs_have_the_options_of_their_node_groups_and_wait_for_what_they_need(file):
    ways, texts = scripts(file, "seed=7")[::2], scripts(file, "seed=7")[1::2]
    assert [way.splitlines()[1].removeprefix("# submitted by: sbatch ") for way in ways] == [
        "ingest.sh",
        "--dependency=afterok:<ingest> --kill-on-invalid-dep=yes train-ca-fg.sh",
        "--dependency=afterok:<ingest> --kill-on-invalid-dep=yes train-ucg5-ca.sh",
        "--dependency=afterok:<ingest>:<train ca-fg>:<train ucg5-ca> --kill-on-invalid-dep=yes backmap.sh",
        "--dependency=afterok:<backmap> --kill-on-invalid-dep=yes evaluate.sh",
    ]
    lines = texts[1].splitlines()
    for option in (
        *("job-name=my-protein-train-ca-fg", "nodes=2", "ntasks-per-node=4", "gpus-per-node=4"),
        *("partition=gpu", "time=12:00:00", "qos=high", "signal=B:USR1@300", "requeue"),
    ):
        assert f"#SBATCH --{option}" in lines
    assert sum(line.startswith("#SBATCH --time") for line in lines) == 1
    assert f"export PATH={Path(sys.executable).parent}:$PATH" in lines
    assert lines[-1].endswith(f"train_stage.sh {file.resolve()} ca-fg seed=7")
    assert "#SBATCH '--constraint=a100|h100'" in texts[2].splitlines()
    assert "#SBATCH --ntasks-per-node=48" in texts[3].splitlines()


@pytest.mark.parametrize(
    ("time", "warning"),
    [("8", 120), ("10:00", 150), ("00:04:00", 60), ("1-00", 300), ("2-01:00", 300)],
)
def test_short_jobs_are_warned_in_time(file, time, warning):
    """A warning longer than the walltime would come at once, and again after every restart."""
    text = scripts(file, f"stages.ca-fg.node_group.time='{time}'")[3]
    assert f"#SBATCH --signal=B:USR1@{warning}" in text.splitlines()


def test_one_heterogeneous_job_has_a_component_per_stage(file):
    _, _, way, text, last, *_ = scripts(file, together=True)
    first, second = text.split("#SBATCH hetjob\n")
    assert "--partition=gpu" in first
    assert "--partition" not in second
    assert "--account=p123" in second
    assert f"train_together.sh {file.resolve()} ca-fg,ucg5-ca" in second
    assert "afterok:<ingest> " in way
    assert "backmap.sh" in last


def test_another_node_group_is_not_another_campaign(file):
    here = load_campaign(file)
    elsewhere = load_campaign(
        file, ["stages.ca-fg.node_group.partition=cpu", "node_groups.ingest.nodes=3"]
    )
    assert here.digest() == elsewhere.digest()
    assert here.digest() != load_campaign(file, ["stages.ca-fg.train.seed=1"]).digest()


@pytest.mark.parametrize(
    ("override", "named"),
    [
        # YAML reads 12:00:00 as 43200, which Slurm would take for minutes.
        ("node_groups.backmap.time=12:00:00", "node_groups.backmap.time: write a time as"),
        ("node_groups.backmap.partiton=a", "did you mean 'partition'"),
        ("node_groups.backmap.sbatch=[qos=high]", "write an option of sbatch"),
    ],
)
def test_wrong_node_groups_are_named(file, override, named):
    with pytest.raises(ConfigError, match=named):
        load_campaign(file, [override])


def test_nothing_is_queued_that_cannot_run(file):
    with pytest.raises(ConfigError, match=r"stages\.ca-fg.*cannot be shared by 8 rank\(s\)"):
        scripts(file, "stages.ca-fg.train.batch_size=12")
    with pytest.raises(ConfigError, match="no sinfo here: run this on a login node"):
        list(submit_campaign(load_campaign(file), file, []))


def test_status_reads_files_alone(file):
    campaign = load_campaign(file)
    stage, jobs = campaign.path("stages/ca-fg"), campaign.path("slurm")
    stage.mkdir(parents=True)
    jobs.mkdir()
    start = {"kind": "start", "step": 0, "node": "n17"}
    steps = [{"kind": "train", "step": n, "loss": 2.0 - n, "seconds": 3.0 * n} for n in (10, 20)]
    (stage / "metrics.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in (start, start, *steps)) + '{"kind'
    )
    log = jobs / "train-ucg5-ca-5.log"
    log.write_text(
        "hpcbackmap: job 5: start 0 on n[2-3], 2026-11-22T22:25:16+00:00\n"
        "hpcbackmap: error: frames.zarr: not a store\n"
        "hpcbackmap: job 5: ended with code 3\n"
    )
    record = {"id": 5, "component": 0, "job_name": "-", "log": str(log), "after": []}
    waiting = record | {"id": 6, "log": str(jobs / "backmap-6.log"), "after": ["train ucg5-ca"]}
    (jobs / "jobs.json").write_text(json.dumps({"train ucg5-ca": record, "backmap": waiting}))

    rows = {row.step: row for row in campaign_status(campaign)}
    stopped, failed = rows["train ca-fg"], rows["train ucg5-ca"]
    assert (stopped.state, stopped.nodes, stopped.restarts) == ("stopped", "n17", 1)
    assert (stopped.at, stopped.of, stopped.loss, stopped.seconds_left) == (20, 100, -18.0, None)
    assert (failed.state, failed.exit_code) == ("failed", 3)
    assert failed.nodes == "n[2-3]"
    assert failed.note == "frames.zarr: not a store"
    assert rows["backmap"].state == "waiting"
    assert (rows["backmap"].group, rows["backmap"].nodes) == ("8x48", "")
    assert any(line.startswith("train ucg5-ca  failed (3)") for line in table(list(rows.values())))

    from hpcbackmap.training.ranks.lock import only_training
    from hpcbackmap.training.ranks.world import World

    with only_training(stage, World(0, 1, 0, "single process")):
        running = {row.step: row for row in campaign_status(campaign)}["train ca-fg"]
    assert (running.state, running.seconds_left) == ("running", 240)
