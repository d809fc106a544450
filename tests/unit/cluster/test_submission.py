"""Submitting and cancelling with a stand-in for Slurm: what it is asked, and what its answers come to."""

import sys

import pytest

from hpcbackmap.cluster import scheduler
from hpcbackmap.cluster.ledger import Ledger
from hpcbackmap.cluster.scheduler import Job
from hpcbackmap.cluster.submission import cancel_campaign, submit_campaign
from hpcbackmap.config.load import load_campaign
from hpcbackmap.runtime.errors import ConfigError, ResourceError

CAMPAIGN = """
name: small
ladder: [fg, ca, "ucg:5"]
systems: [{name: one, topology: top.pdb, trajectories: ["*.xtc"]}]
stages:
  ca-fg: {model: {kind: genzprot}}
  ucg5-ca: {model: {kind: cgvae}}
"""
STEPS = ["ingest", "train ca-fg", "train ucg5-ca", "backmap", "evaluate"]
SHOWN = (
    "JobId={0} JobName=small-{1} JobState={2} Reason={3} Restarts=2 ExitCode={4} NodeList={5} "
    "Command=/a/b.sh"
)


class Slurm:
    """Programs that write down what they are asked, and answer from a folder of files.

    ``NAME.says``: what a program prints, ``NAME.fails``: what it says on standard error, with code 1.
    ``jobs/NUMBER``: what is known of a job.
    """

    PROGRAM = """#!{python} -S
import os, sys
here, (name, *words) = {folder!r}, (os.path.basename(sys.argv[0]), *sys.argv[1:])
asked = os.path.join(here, "asked")
with open(asked, "a") as file:
    file.write(" ".join((name, *words)) + chr(10))
if "--test-only" in words:
    name = "test"
failing = os.path.join(here, name + ".fails")
if os.path.exists(failing):
    sys.exit(open(failing).read())
if name == "sbatch":
    count = sum(line.startswith("sbatch --parsable") for line in open(asked))
    print(str(100 + count) + ";cluster")
if name == "scontrol":
    known = os.path.join(here, "jobs", words[-1])
    if not os.path.exists(known):
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    print(open(known).read())
"""

    def __init__(self, folder):
        self.folder, self.seen = folder, 0
        (folder / "jobs").mkdir(parents=True)
        for name in ("sinfo", "sbatch", "scontrol", "scancel"):
            program = folder / name
            program.write_text(self.PROGRAM.format(python=sys.executable, folder=str(folder)))
            program.chmod(0o755)

    def asked(self, name: str) -> list[str]:
        """Words of the calls of a program since the last time."""
        path = self.folder / "asked"
        lines = path.read_text().splitlines() if path.exists() else []
        lines, self.seen = lines[self.seen :], len(lines)
        return [line.removeprefix(name + " ") for line in lines if line.startswith(name + " ")]

    def knows(self, number: int, name: str, state: str, reason="None", code="0:0", nodes="(null)"):
        shown = SHOWN.format(number, name.replace(" ", "-"), state, reason, code, nodes)
        (self.folder / "jobs" / str(number)).write_text(shown)

    def fails(self, name: str, words: str) -> None:
        (self.folder / f"{name}.fails").write_text(words)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path / 'slurm'}:/usr/bin:/bin")
    return Slurm(tmp_path / "slurm")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "campaign.yaml"
    path.write_text(CAMPAIGN)
    return path


def submitted(file) -> list[str]:
    return list(submit_campaign(load_campaign(file), file, []))


def test_jobs_wait_for_the_numbers_that_slurm_gave_the_ones_before(file, slurm):
    lines = submitted(file)
    assert [line.split()[:-2][0] for line in lines] == [step.split()[0] for step in STEPS]
    assert lines[3].split("job ")[1] == "104, after 101, 102, 103"
    calls = [call for call in slurm.asked("sbatch") if "--test-only" not in call]
    assert [call.split()[1:-1] for call in calls] == [
        [] if not after else [f"--dependency=afterok:{after}", "--kill-on-invalid-dep=yes"]
        for after in ("", "101", "101", "101:102:103", "104")
    ]
    assert {name: it["id"] for name, it in Ledger(load_campaign(file)).records.items()} == dict(
        zip(STEPS, range(101, 106), strict=True)
    )


def test_what_is_in_the_queue_stays_and_what_waits_for_a_new_job_is_submitted_anew(file, slurm):
    submitted(file)
    slurm.knows(101, "ingest", "RUNNING", nodes="node1")
    slurm.knows(102, "train ca-fg", "PENDING", "Dependency")
    slurm.knows(103, "train ucg5-ca", "FAILED", code="7:0")
    slurm.knows(104, "backmap", "PENDING", "DependencyNeverSatisfied")
    slurm.knows(105, "evaluate", "PENDING", "Dependency")
    slurm.asked("sbatch")
    lines = submitted(file)
    told = {line[:16].strip(): line[16:].split(",")[0].strip() for line in lines}
    assert told == {
        "ingest": "in the queue already: job 101",
        "train ca-fg": "in the queue already: job 102",
        "train ucg5-ca": "job 106",
        "backmap": "job 107",
        "evaluate": "job 108",
    }
    assert slurm.asked("scancel") == ["105"], "it waited for a job that is submitted anew"


def test_a_refused_script_is_named_by_its_key_and_nothing_is_submitted(file, slurm):
    slurm.fails("test", "allocation failure: Invalid account or account/partition combination")
    with pytest.raises(
        ConfigError, match=r"node_groups\.ingest: Slurm refuses the job: Invalid acc"
    ):
        submitted(file)
    assert not [call for call in slurm.asked("sbatch") if "--test-only" not in call]
    slurm.fails("test", "sbatch: error: Requested node configuration is not available")
    lines = submitted(file)
    assert sum("cannot start as things are: Requested node" in line for line in lines) == 5
    assert sum(" job " in line for line in lines) == 5


def test_jobs_are_what_slurm_shows(slurm):
    slurm.knows(7, "backmap", "RUNNING", nodes="node[1-2]")
    slurm.knows(8, "evaluate", "FAILED", "NonZeroExitCode", "7:0")
    component = SHOWN.format("9 HetJobOffset=1", "train", "PENDING", "Resources", "0:0", "(null)")
    (slurm.folder / "jobs" / "9").write_text(component)
    found = scheduler.find_jobs({7, 8, 9, 10})
    assert found == {
        (7, 0): Job("small-backmap", "RUNNING", "None", "node[1-2]", 2, 0),
        (8, 0): Job("small-evaluate", "FAILED", "NonZeroExitCode", "", 2, 7),
        (9, 1): Job("small-train", "PENDING", "Resources", "", 2, 0),
    }
    assert [job.is_live for job in found.values()] == [True, False, True]


def test_a_number_that_another_job_has_got_does_not_count(file, slurm):
    submitted(file)
    slurm.knows(101, "something-else", "RUNNING")
    assert Ledger(load_campaign(file)).jobs() == {}


def test_a_campaign_is_cancelled_as_far_as_it_lives(file, slurm):
    submitted(file)
    slurm.knows(101, "ingest", "COMPLETED")
    slurm.knows(103, "train ucg5-ca", "PENDING", "Dependency")
    slurm.knows(102, "train ca-fg", "RUNNING")
    lines = list(cancel_campaign(load_campaign(file)))
    assert [line.split(" job ")[1] for line in lines] == ["102 cancelled", "103 cancelled"]
    assert slurm.asked("scancel") == ["102 103"]


@pytest.mark.parametrize("program", ["sinfo", "scontrol"])
def test_a_slurm_that_does_not_answer_is_not_an_empty_queue(file, slurm, program):
    submitted(file)
    slurm.asked("sbatch")
    slurm.fails(program, f"{program}: error: Unable to contact slurm controller (connect failure)")
    with pytest.raises(ResourceError, match="does not answer: Unable to contact slurm controller"):
        submitted(file)
    assert slurm.asked("sbatch") == []
