"""The commands as a user types them: a whole small campaign, and everything that can be wrong with one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import EXAMPLE, hpcbackmap, succeed

FRAMES = 60
CAMPAIGN = """
name: small
ladder: [fg, ca, "ucg:5"]
systems: [{name: trpcage, topology: top.pdb, trajectories: [md.xtc]}]
split: {validation: 0.2, test: 0.2}
stages:
  ca-fg:
    model: {kind: genzprot, width: 16, layers: 1}
    train: &train {max_steps: 20, batch_size: 8, checkpoint_every: 10, validate_every: 10,
                   validation_frames: 8, log_every: 5}
  ucg5-ca:
    model: {kind: cgvae, width: 16, layers: 1, latent: 2}
    train: *train
backmap: {members: 2, batch_frames: 4, shard_frames: 8}
evaluate: {bootstrap: 20}
"""


MPIRUN = shutil.which("mpirun", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
MPI_SETTINGS = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """Folder of a campaign over the first frames of the example ensemble."""
    import mdtraj

    folder = tmp_path_factory.mktemp("small")
    frames = mdtraj.load(EXAMPLE / "trpcage.xtc", top=EXAMPLE / "trpcage_top.pdb")[:FRAMES]
    frames.save(folder / "md.xtc")
    shutil.copy(EXAMPLE / "trpcage_top.pdb", folder / "top.pdb")
    (folder / "campaign.yaml").write_text(CAMPAIGN)
    return folder


@pytest.fixture(scope="module")
def road(small) -> Path:
    """The same folder after every command has run."""
    campaign = small / "campaign.yaml"
    succeed("ingest", campaign)
    succeed("train", campaign, "--stage", "ca-fg")
    succeed("train", campaign, "--stage", "ucg5-ca")
    succeed("backmap", campaign)
    succeed("evaluate", campaign)
    table = succeed("evaluate", campaign, "--elbo").stdout
    assert "ca-fg" in table
    assert "ucg5-ca" in table
    assert "ladder" in table
    succeed("report", campaign)
    return small


def test_every_command_leaves_what_the_architecture_lists(road):
    work = road / "work"
    for name in (
        "frames.zarr/zarr.json",
        "stages/ca-fg/artifact/model.safetensors",
        "stages/ca-fg/artifact/MODEL_CARD.md",
        "stages/ca-fg/checkpoints/latest.json",
        "stages/ca-fg/metrics.jsonl",
        "stages/ca-fg/campaign.yaml",
        "stages/ucg5-ca/artifact/config.json",
        "backmapped.zarr/zarr.json",
        "metrics.json",
        "elbo.json",
        "report.html",
    ):
        assert (work / name).is_file(), name
    record = json.loads((work / "metrics.json").read_text())
    assert record["n_frames"] == {"trpcage": 12}
    assert record["members"] == 2


def test_inspect_says_that_all_is_done(road):
    described = json.loads(succeed("inspect", road / "campaign.yaml", "--json").stdout)
    assert all(described["done"].values())
    assert len(described["done"]) == 7
    assert described["systems"]["trpcage"]["particles"] == {"fg": 154, "ca": 20, "ucg5": 5}
    assert described["backmap"]["structures"] == 24


def test_a_retrained_stage_makes_the_later_steps_due_again(road):
    done = road / "work" / "stages" / "ca-fg" / "done.json"
    before = done.stat()
    os.utime(done)
    try:
        described = json.loads(succeed("inspect", road / "campaign.yaml", "--json").stdout)
    finally:
        os.utime(done, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [name for name, finished in described["done"].items() if not finished] == [
        "backmap",
        "evaluate",
        "likelihood",
        "report",
    ]


def test_inspect_describes_a_store_and_an_artifact(road):
    store = json.loads(succeed("inspect", road / "work" / "frames.zarr", "--json").stdout)
    assert store["systems"]["trpcage"]["frames"] == FRAMES
    artifact = succeed("inspect", road / "work" / "stages" / "ca-fg" / "artifact").stdout
    assert "genzprot" in artifact


@pytest.mark.parametrize(
    "command", [["ingest"], ["train", "--stage", "ca-fg"], ["backmap"]], ids=lambda c: c[0]
)
def test_a_finished_command_does_nothing_again(road, command):
    before = contents(road / "work")
    result = succeed(command[0], road / "campaign.yaml", *command[1:])
    assert "nothing to do" in result.stderr.lower()
    assert contents(road / "work") == before


def test_a_quiet_ingest_says_nothing(road):
    result = succeed("ingest", road / "campaign.yaml", "--quiet")
    assert not result.stdout + result.stderr


def test_export_writes_what_other_programs_read(road, tmp_path):
    import mdtraj
    import numpy as np

    store = road / "work" / "frames.zarr"
    succeed("export", store, "-o", tmp_path / "back.pdb", "--start", 1, "--stop", 4)
    back = mdtraj.load(tmp_path / "back.pdb")
    source = mdtraj.load(road / "md.xtc", top=road / "top.pdb")[1:4]
    place = {str(atom): atom.index for atom in source.topology.atoms}
    assert back.n_atoms == 154
    order = [place[str(atom)] for atom in back.topology.atoms]
    assert np.abs(back.xyz - source.xyz[:, order]).max() < 1.1e-3


def test_evaluate_judges_two_files(road, tmp_path):
    succeed("export", road / "work" / "frames.zarr", "-o", tmp_path / "a.pdb", "--stop", 3)
    arguments = ["--truth", tmp_path / "a.pdb", "--generated", tmp_path / "a.pdb", "--json"]
    record = json.loads(succeed("evaluate", *arguments).stdout)
    model = next(row for row in record["rows"] if row["row"] == "model")
    assert model["metrics"]["rmsd_aligned_angstrom"]["value"] == pytest.approx(0, abs=1e-3)
    alone = succeed("evaluate", "--generated", tmp_path / "a.pdb").stdout
    assert "Rotamer outliers (%)" in alone


def contents(folder: Path) -> dict[str, int]:
    """Every file below a folder and when it was written."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def campaign(small, tmp_path) -> Path:
    """A fresh campaign of its own over the same files, nothing run yet."""
    for name in ("md.xtc", "top.pdb", "campaign.yaml"):
        shutil.copy(small / name, tmp_path / name)
    return tmp_path / "campaign.yaml"


def refused(result: subprocess.CompletedProcess, code: int, *named: str) -> None:
    """The command failed with ``code`` and one line that names the culprit."""
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if "hpcbackmap: error:" in line]
    assert len(errors) == 1, result.stderr
    assert all(part in errors[0] for part in named), errors[0]


def break_missing_file(folder: Path):
    (folder / "md.xtc").unlink()
    return ["md.xtc"]


def break_truncated_file(folder: Path):
    data = (folder / "md.xtc").read_bytes()
    (folder / "md.xtc").write_bytes(data[: len(data) * 2 // 3])
    return ["md.xtc"]


def break_other_topology(folder: Path):
    lines = (folder / "top.pdb").read_text().splitlines(keepends=True)
    kept = [
        line
        for line in lines
        if " SER A  20 " not in line and not line.startswith(("TER", "CONECT"))
    ]
    assert len(kept) < len(lines) - 5
    (folder / "top.pdb").write_text("".join(kept))
    return ["md.xtc"]


def break_nan(folder: Path):
    import mdtraj

    frames = mdtraj.load(folder / "md.xtc", top=folder / "top.pdb")[:8]
    frames.xyz[5, 3] = float("nan")
    frames.save(folder / "md.dcd")
    text = (folder / "campaign.yaml").read_text()
    (folder / "campaign.yaml").write_text(text.replace("md.xtc", "md.dcd"))
    return ["md.dcd", "5"]


def break_missing_atom(folder: Path):
    keep_atoms(folder, "not (resSeq 6 and name CZ3)")
    return ["TRP6", "CZ3"]


def break_unknown_residue(folder: Path):
    text = (folder / "top.pdb").read_text()
    (folder / "top.pdb").write_text(text.replace("TRP A   6", "XYZ A   6"))
    return ["XYZ6"]


def keep_atoms(folder: Path, selection: str) -> None:
    import mdtraj

    frames = mdtraj.load(folder / "md.xtc", top=folder / "top.pdb")
    frames = frames.atom_slice(frames.topology.select(selection))
    frames.save(folder / "md.xtc")
    frames[0].save(folder / "top.pdb")


@pytest.mark.parametrize(
    "break_it",
    [
        break_missing_file,
        break_truncated_file,
        break_other_topology,
        break_nan,
        break_missing_atom,
        break_unknown_residue,
    ],
    ids=lambda function: function.__name__.removeprefix("break_"),
)
def test_an_unusable_trajectory_is_refused(campaign, break_it):
    named = break_it(campaign.parent)
    refused(hpcbackmap("ingest", campaign), 3, *named)
    assert not (campaign.parent / "work" / "frames.zarr" / "zarr.json").exists()


@pytest.mark.parametrize(
    ("override", "code", "named"),
    [
        ('ladder=[fg, ca, "ucg:50"]', 3, ["ucg:50"]),
        ('ladder=[fg, ca, "martini"]', 2, ["martini"]),
        ("store.shard_mbs=1", 2, ["store.shard_mbs", "shard_mb"]),
        ("split.test=half", 2, ["split.test"]),
        ("systems=[]", 2, ["systems"]),
    ],
)
def test_an_impossible_campaign_is_refused(campaign, override, code, named):
    refused(hpcbackmap("ingest", campaign, "stages={}", override), code, *named)
    assert not (campaign.parent / "work" / "frames.zarr").exists()


def test_an_unwritable_output_folder_is_refused(campaign):
    (campaign.parent / "work").write_text("a file where the folder should be")
    refused(hpcbackmap("ingest", campaign), 4, "work")


def test_a_full_disk_leaves_no_store(campaign):
    refused(hpcbackmap("ingest", campaign, limit=50_000), 4, "frames.zarr")
    assert not (campaign.parent / "work" / "frames.zarr").exists()


def test_a_store_of_a_newer_format_is_refused(road, tmp_path):
    store = tmp_path / "newer.zarr"
    shutil.copytree(road / "work" / "frames.zarr", store)
    record = json.loads((store / "zarr.json").read_text())
    record["attributes"]["format_version"] = 99
    (store / "zarr.json").write_text(json.dumps(record))
    refused(hpcbackmap("inspect", store), 3, "newer.zarr", "99")
    refused(hpcbackmap("export", store, "-o", tmp_path / "x.pdb"), 3, "newer.zarr", "99")


def test_an_artifact_of_another_ladder_is_refused(road, tmp_path):
    campaign = tmp_path / "campaign.yaml"
    shutil.copy(road / "campaign.yaml", campaign)
    for name in ("md.xtc", "top.pdb"):
        shutil.copy(road / name, tmp_path / name)
    other = 'ladder=[fg, ca, "ucg:4"]'
    artifact = road / "work" / "stages" / "ucg5-ca" / "artifact"
    fine = road / "work" / "stages" / "ca-fg" / "artifact"
    stages = {
        "ca-fg": {"model": {"kind": "genzprot"}, "artifact": str(fine)},
        "ucg4-ca": {"model": {"kind": "cgvae"}, "artifact": str(artifact)},
    }
    overrides = [other, f"stages={json.dumps(stages)}"]
    succeed("ingest", campaign, *overrides)
    refused(hpcbackmap("backmap", campaign, *overrides), 3, "ucg5-ca")
    assert not (tmp_path / "work" / "backmapped.zarr").exists()


def test_a_stage_before_its_store_is_refused(campaign):
    refused(hpcbackmap("train", campaign, "--stage", "ca-fg"), 3, "frames.zarr")


def test_an_unknown_stage_is_refused(campaign):
    refused(hpcbackmap("train", campaign, "--stage", "ucg9-ca"), 2, "ucg9-ca")


def test_ranks_that_do_not_know_each_other_are_refused(road):
    alone_among_two = {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "OMPI_COMM_WORLD_RANK": "0",
        "OMPI_COMM_WORLD_SIZE": "2",
    }
    arguments = ["train", road / "campaign.yaml", "--stage", "ca-fg"]
    refused(hpcbackmap(*arguments, **alone_among_two), 5, "ranks")


@pytest.mark.skipif(MPIRUN is None, reason="no mpirun on PATH")
def test_ranks_that_fail_alike_say_so_once_and_none_hangs(campaign):
    (campaign.parent / "md.xtc").unlink()
    result = hpcbackmap("ingest", campaign, launcher=[MPIRUN, "-n", "3"], **MPI_SETTINGS)
    refused(result, 3, "md.xtc")


def test_results_are_pure_json_on_standard_output(campaign):
    result = succeed("ingest", campaign, "--json")
    assert isinstance(json.loads(result.stdout), dict)
    assert result.stderr


def test_a_usage_error_exits_with_2():
    assert hpcbackmap("train").returncode == 2
    assert hpcbackmap("evaluate", "--truth", "a.pdb").returncode == 2


@pytest.mark.parametrize(
    "command",
    ["demo", "ingest", "train", "backmap", "evaluate", "report", "export", "artifact", "inspect"],
)
def test_every_command_explains_itself(command):
    text = succeed(command, "--help").stdout
    assert "Usage: hpcbackmap" in text
    assert "Options" in text
