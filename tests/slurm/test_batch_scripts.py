"""The batch scripts by themselves: a stand-in for the training shows what reaches its ranks."""

import json

import pytest
from cluster import REPOSITORY, Cluster

RANKS = """
[ "$1" = train ] || exit 0
trap 'touch asked.$SLURM_PROCID; exit 75' USR1 TERM
touch started.$SLURM_PROCID.$SLURMD_NODENAME
echo "rank $SLURM_PROCID, start $SLURM_RESTART_COUNT: $*"
[ "${SLURM_RESTART_COUNT:-0}" -eq 0 ] || exit 0
while :; do sleep 0.1; done
"""


@pytest.fixture
def submit(slurm: Cluster, tmp_path):
    """Submit a training of the stand-in, two ranks on two nodes, from a relative path."""
    (tmp_path / "ranks.sh").write_text(RANKS)

    def submit(name: str, *options: str, site: str = "") -> tuple[int, "Folder"]:
        folder = Folder(tmp_path / name)
        folder.path.mkdir()
        (folder.path / "site.sh").write_text(
            f"cd {folder.path}\nhpcbackmap=(bash {tmp_path}/ranks.sh)\n{site}\n"
        )
        number = slurm.run(
            *("sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=1", "--output", folder.log),
            *(
                *options,
                "slurm/train_stage.sh",
                str(folder.path / "campaign.yaml"),
                "ca-fg",
                "seed=3",
            ),
            cwd=REPOSITORY,
        )
        return int(number), folder

    return submit


class Folder:
    def __init__(self, path):
        self.path, self.log = path, str(path / "log")

    def seen(self, pattern: str) -> int:
        return len(list(self.path.glob(pattern)))

    def text(self) -> str:
        return (self.path / "log").read_text()


def test_stop_requeue_cancel(slurm: Cluster, submit):
    """A warned job stops on all nodes and comes back; others end as they are told to, each in one line."""
    jobs = {
        "requeued": submit("requeued"),
        "refused": submit("refused", "--no-requeue", "--partition=b"),
        "capped": submit("capped", "--partition=b", site="max_restarts=0"),
        "cancelled": submit("cancelled"),
    }
    for _, folder in jobs.values():
        slurm.wait(lambda seen=folder.seen: seen("started.*") == 2, 30, "both ranks run")
    for name, (number, _) in jobs.items():
        signal = [] if name == "cancelled" else ["--signal=USR1", "--batch"]
        slurm.run("scancel", *signal, str(number))
    ends = {
        "requeued": "COMPLETED",
        "refused": "FAILED",
        "capped": "FAILED",
        "cancelled": "CANCELLED",
    }
    for name, state in ends.items():
        slurm.wait_for_state(jobs[name][0], state, seconds=60)
    for number, folder in jobs.values():
        assert folder.seen("asked.*") == 2, folder.text()
        assert f"hpcbackmap: job {number}: start 0 on" in folder.text()

    number, folder = jobs["requeued"]
    assert slurm.field(number, "Restarts") == "1"
    assert f"job {number}: back into the queue, restart 1 of at most 20" in folder.text()
    assert "rank 1, start 1: train" in folder.text()
    assert f"{folder.path}/campaign.yaml --stage ca-fg seed=3" in folder.text()
    assert f"job {number}: ended with code 0" in folder.text()
    for name, line in {
        "refused": "stopped, and Slurm refuses to requeue it; submit again to continue",
        "capped": "stopped after 0 restarts (max_restarts in site.sh); submit again to continue",
    }.items():
        number, folder = jobs[name]
        assert f"job {number}: {line}" in folder.text()
        assert slurm.field(number, "ExitCode") == "75:0"
    number, folder = jobs["cancelled"]
    assert f"job {number}: cancelled; submit again to continue" in folder.text()


CAMPAIGN = """
name: together
ladder: [fg, ca, "ucg:5"]
systems: [{name: one, topology: top.pdb, trajectories: ["*.xtc"]}]
stages:
  ca-fg: {model: {kind: genzprot}, node_group: {partition: a, nodes: 2}}
  ucg5-ca: {model: {kind: cgvae}, node_group: {partition: b}}
"""


def test_stages_in_one_heterogeneous_job(slurm: Cluster, tmp_path):
    (tmp_path / "ranks.sh").write_text(RANKS)
    (tmp_path / "campaign.yaml").write_text(CAMPAIGN)
    (tmp_path / "site.sh").write_text(
        f"cd {tmp_path}\nhpcbackmap=(bash ranks.sh)\nmpirun=(env SLURM_PROCID=0)\n"
    )
    slurm.hpcbackmap(tmp_path, "submit", "campaign.yaml", "--het")
    folder = Folder(tmp_path)
    slurm.wait(lambda: folder.seen("started.*") == 3, 30, "all ranks run")
    assert {path.name for path in tmp_path.glob("started.*")} == {
        "started.0.a1",
        "started.1.a2",
        "started.0.b1",
    }
    rows = json.loads(slurm.hpcbackmap(tmp_path, "status", "campaign.yaml", "--json"))["steps"]
    assert [(row["state"], row["nodes"]) for row in rows[1:3]] == [
        ("running", "a[1-2]"),
        ("running", "b1"),
    ]
    jobs = json.loads((tmp_path / "work" / "slurm" / "jobs.json").read_text())
    number = jobs["train ca-fg"]["id"]
    assert jobs["train ucg5-ca"]["id"] == number
    slurm.run("scancel", "--signal=USR1", "--batch", str(number))
    slurm.wait_for_state(jobs["evaluate"]["id"], "COMPLETED", "CANCELLED", seconds=90)
    assert slurm.field(number, "JobState") == "COMPLETED"
    assert slurm.field(number, "Restarts") == "1"
