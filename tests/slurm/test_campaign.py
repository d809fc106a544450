"""A campaign on a real Slurm: submitted, watched, disturbed, cancelled with the commands that users type."""

import json
import shlex
import shutil
import sys
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from cluster import REPOSITORY, Cluster
from forked import rank_words

STAGES = ("ca-fg", "ucg5-ca")
STEPS = 160
SITE = """
export MASTER_ADDR=127.0.0.1
hpcbackmap=({python} -m hpcbackmap)
mpirun=({mpirun} --oversubscribe -n "$SLURM_NTASKS")
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_osc=^ucx
"""
TRAIN = {
    "batch_size": 8,
    "warmup_steps": 5,
    "validate_every": 20,
    "validation_frames": 8,
    "checkpoint_every": 20,
    "log_every": 1,
}


class Project:
    """A shrunk example campaign in a folder of its own; Slurm's nodes share this host."""

    def __init__(self, folder: Path, slurm: Cluster, example: Path):
        self.folder, self.slurm = folder, slurm
        for name in ("trpcage.xtc", "trpcage_top.pdb"):
            shutil.copy(example / name, folder)
        mpirun = shutil.which(
            "mpirun", path=f"{Path(sys.executable).parent}:{slurm.environment['PATH']}"
        )
        if mpirun is None:
            pytest.skip("no mpirun on this machine")
        (folder / "site.sh").write_text(SITE.format(python=shlex.join(rank_words()), mpirun=mpirun))
        settings = yaml.safe_load((example / "campaign.yaml").read_text())
        settings["systems"][0]["stride"] = 10
        small = [{"kind": kind, "width": 8, "layers": 1} for kind in ("genzprot", "cgvae")]
        small[1]["mended"] = False
        groups = (
            {"partition": "a", "time": "00:30:00"},
            {"partition": "b", "nodes": 2, "time": "00:30:00", "sbatch": ["--comment=beads"]},
        )
        settings["stages"] = {
            name: {"model": model, "train": TRAIN | {"max_steps": steps}, "node_group": group}
            for name, model, steps, group in zip(STAGES, small, (40, STEPS), groups, strict=True)
        }
        settings["backmap"] = {"members": 2, "shard_frames": 8}
        settings["evaluate"] = {"bootstrap": 20}
        settings["node_groups"] = {"backmap": {"partition": "b", "nodes": 2}}
        (folder / "campaign.yaml").write_text(yaml.safe_dump(settings))

    def command(self, *arguments: str, code: int = 0) -> str:
        """Output of `hpcbackmap ...` from the folder above the campaign's."""
        return self.slurm.hpcbackmap(self.folder.parent, *arguments, code=code)

    def elsewhere(self, workdir: str) -> list[str]:
        """Overrides for the same frames in another working folder."""
        return [f"workdir={workdir}", f"store.path={self.folder / 'work' / 'frames.zarr'}"]

    @property
    def file(self) -> str:
        return f"{self.folder.name}/campaign.yaml"

    def status(self, *overrides: str) -> dict[str, dict]:
        rows = json.loads(self.command("status", self.file, *overrides, "--json"))["steps"]
        return {row["step"]: row for row in rows}

    def jobs(self, workdir: str = "work") -> dict[str, int]:
        records = json.loads((self.folder / workdir / "slurm" / "jobs.json").read_text())
        return {name: record["id"] for name, record in records.items()}

    def stage(self, name: str, workdir: str = "work") -> Path:
        return self.folder / workdir / "stages" / name

    def weights(self, name: str, workdir: str = "work") -> bytes:
        return (self.stage(name, workdir) / "artifact" / "model.safetensors").read_bytes()

    def logs(self, workdir: str = "work") -> str:
        return "".join(path.read_text() for path in (self.folder / workdir / "slurm").glob("*.log"))


def records(stage: Path, rank: int) -> list[dict]:
    name = "metrics.jsonl" if rank == 0 else f"metrics.rank{rank}.jsonl"
    return [json.loads(line) for line in (stage / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def project(slurm, tmp_path_factory, example_dir) -> Project:
    return Project(tmp_path_factory.mktemp("project"), slurm, example_dir)


@pytest.fixture(scope="module")
def finished(project) -> dict[str, dict]:
    """Status of the whole campaign after one `hpcbackmap submit`."""
    submitted = project.command("submit", project.file).splitlines()
    assert [line.split()[0] for line in submitted] == [
        "ingest",
        "train",
        "train",
        "backmap",
        "evaluate",
    ]
    again = project.command("submit", project.file).splitlines()
    assert len(again) == 5
    assert all("in the queue already" in line for line in again)
    last = project.jobs()["evaluate"]
    project.slurm.wait_for_state(last, "COMPLETED", "CANCELLED", "FAILED", seconds=400)
    assert project.slurm.field(last, "JobState") == "COMPLETED", project.logs()
    return project.status()


def test_one_command_runs_the_campaign(project, finished):
    assert {row["state"] for row in finished.values()} == {"done"}, finished
    assert (project.folder / "work" / "report.html").exists()
    assert (
        project.command("submit", project.file).strip() == "nothing to do: the campaign is complete"
    )


def test_stages_train_at_the_same_time_on_their_own_nodes(project, finished):
    spans = []
    for name, nodes in zip(STAGES, (["a1"], ["b1", "b2"]), strict=True):
        ranks = [records(project.stage(name), rank) for rank in range(len(nodes))]
        starts = [rank[0] for rank in ranks]
        assert [(start["node"], start["world"]) for start in starts] == [
            (it, len(nodes)) for it in nodes
        ]
        assert {rank[-1]["step"] for rank in ranks} == {finished[f"train {name}"]["of"]}
        begun = max(datetime.fromisoformat(start["time"]).timestamp() for start in starts)
        spans.append((begun, (project.stage(name) / "done.json").stat().st_mtime))
    assert max(begin for begin, _ in spans) < min(end for _, end in spans), spans


def test_warned_and_then_bereft_of_a_node_ends_with_the_same_artifact(project, finished):
    """A training requeued after a warning, then after the loss of a node, equals the undisturbed one."""
    slurm, stage = project.slurm, project.stage("ucg5-ca", "disturbed")
    number = int(
        slurm.run(
            *("sbatch", "--parsable", "--nodes=2", "--partition=b", "--open-mode=append"),
            *("--output", str(project.folder / "disturbed.log"), "slurm/train_stage.sh"),
            *(str(project.folder / "campaign.yaml"), "ucg5-ca", *project.elsewhere("disturbed")),
            cwd=REPOSITORY,
        )
    )
    wait_for_step(slurm, stage, 20)
    slurm.run("scancel", "--signal=USR1", "--batch", str(number))
    slurm.wait(lambda: slurm.field(number, "Restarts") == "1", 30, "the job is requeued")
    stopped_at = records(stage, 0)[-1]["step"]
    assert 20 <= stopped_at < STEPS
    wait_for_step(slurm, stage, stopped_at + 20)
    other = fragile_backmapping(project)
    slurm.lose_node("b2")
    (project.folder / "fragile" / "lost").touch()
    slurm.wait(lambda: slurm.field(number, "Restarts") == "2", 60, "the node is missed")
    slurm.start_node("b2")
    slurm.wait_for_state(number, "COMPLETED", "FAILED", seconds=240)
    slurm.wait_for_state(other, "COMPLETED", "FAILED", seconds=60)
    assert slurm.field(other, "JobState") == "COMPLETED"
    assert "a node does not answer" in (project.folder / "fragile" / "log").read_text()
    log = (project.folder / "disturbed.log").read_text()
    assert slurm.field(number, "JobState") == "COMPLETED", log
    assert project.weights("ucg5-ca", "disturbed") == project.weights("ucg5-ca")
    assert f"after step {stopped_at} of {STEPS}; the same command continues" in log
    assert project.status(*project.elsewhere("disturbed"))["train ucg5-ca"]["restarts"] == 2


def fragile_backmapping(project: Project) -> int:
    """Submit a stand-in that, as mpirun does, fails as soon as it has lost a node, before Slurm misses it."""
    folder = project.folder / "fragile"
    folder.mkdir()
    wait = "until [ -e lost ]; do sleep 0.2; done; exit 1"
    (folder / "site.sh").write_text(
        f"cd {folder}; touch running\n"
        f"mpirun=(bash -c '[ -z \"$SLURM_RESTART_COUNT\" ] || exit 0; {wait}')\n"
    )
    number = project.slurm.run(
        *("sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=1", "--partition=b"),
        *(f"--output={folder}/log", "slurm/backmap.sh", str(folder / "campaign.yaml")),
        cwd=REPOSITORY,
    )
    project.slurm.wait((folder / "running").exists, 30, "the stand-in runs")
    return int(number)


def wait_for_step(slurm: Cluster, stage: Path, step: int) -> None:
    def reached() -> bool:
        published = (stage / "checkpoints").glob("step_*/manifest.json")
        return any(int(path.parent.name[5:]) >= step for path in published)

    slurm.wait(reached, 200, f"a checkpoint of step {step} or later")


def test_refused_failing_and_cancelled_jobs_are_told_in_one_line(project, finished):
    slurm, changed = project.slurm, project.elsewhere("broken")
    changed += [
        f"stages.ca-fg.artifact={project.stage('ca-fg')}/artifact",
        "stages.ucg5-ca.train.learning_rate=1.0",
    ]
    unknown = "stages.ucg5-ca.node_group.partition=nowhere"
    refused = project.command("submit", project.file, *changed, unknown, code=2)
    assert refused.count("\n") == 1
    assert "stages.ucg5-ca.node_group: Slurm refuses the job: invalid partition" in refused
    assert not (project.folder / "broken" / "slurm" / "jobs.json").exists()

    project.command("submit", project.file, *changed)
    first = project.jobs("broken")
    assert set(first) == {"train ucg5-ca", "backmap", "evaluate"}
    slurm.wait_for_state(first["train ucg5-ca"], "FAILED")
    slurm.wait_for_state(first["evaluate"], "CANCELLED")
    rows = project.status(*changed)
    failed = rows["train ucg5-ca"]
    assert (failed["state"], failed["exit_code"]) == ("failed", 7)
    assert "lower stages.ucg5-ca.train.learning_rate" in failed["note"]
    assert rows["backmap"]["state"] == "stopped"
    assert rows["backmap"]["note"] == "did not start: needs train ucg5-ca"

    project.command("submit", project.file, *changed)
    second = project.jobs("broken")
    assert not set(first.values()) & set(second.values())
    project.command("cancel", project.file, *changed)
    for number in second.values():
        slurm.wait_for_state(number, "CANCELLED")
