"""The MPI driver under a real mpirun: same bits on any number of ranks, nothing lost when killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

from hpcbackmap.backmapping.driver import backmap
from hpcbackmap.config import load_campaign
from hpcbackmap.errors import InputError, Stopped
from hpcbackmap.frames.ingest import ingest
from hpcbackmap.frames.store import create_store, open_store
from hpcbackmap.mpi import get_comm
from hpcbackmap.stages.artifact import save_artifact
from hpcbackmap.stages.build import build_stage

MEMBERS, SHARD = 2, 3


@pytest.fixture(scope="module")
def campaign_folder(tmp_path_factory, example_dir):
    """An ingested example campaign with untrained stages: the driver does not care how good they are."""
    folder = tmp_path_factory.mktemp("campaign")
    small = {"width": 16, "layers": 1}
    record = {
        "name": "example",
        "ladder": ["fg", "ca", "ucg:5"],
        "systems": [
            {
                "name": "trpcage",
                "topology": str(example_dir / "trpcage_top.pdb"),
                "trajectories": [str(example_dir / "trpcage.xtc")],
                "stride": 5,
            }
        ],
        "split": {"by": "time", "validation": 0.2, "test": 0.4},
        "stages": {
            "ca-fg": {"model": {"kind": "genzprot", **small}},
            "ucg5-ca": {"model": {"kind": "cgvae", "latent": 3, **small}},
        },
        "backmap": {"members": MEMBERS, "shard_frames": SHARD, "batch_frames": 2},
    }
    (folder / "campaign.yaml").write_text(yaml.safe_dump(record))
    campaign = load_campaign(folder / "campaign.yaml")
    ingest(campaign, get_comm())
    ladder = open_store(campaign.path(campaign.store.path)).system("trpcage").ladder
    for rung, stage in campaign.stages.items():
        save_artifact(
            build_stage(rung, stage.model, [ladder], 3),
            campaign.path(f"stages/{rung}/artifact"),
            {},
        )
    return folder


def command(folder, ranks, *overrides):
    inner = [
        sys.executable,
        "-m",
        "hpcbackmap",
        "backmap",
        str(folder / "campaign.yaml"),
        *overrides,
    ]
    if ranks == 0:
        return inner
    mpirun = shutil.which(
        "mpirun", path=os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    )
    if mpirun is None:
        pytest.skip("no mpirun on this machine")
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    return [mpirun, *root, "--oversubscribe", "-n", str(ranks), *inner]


def run(folder, ranks, *overrides):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMPI_MCA_osc": "^ucx"}
    return subprocess.run(
        command(folder, ranks, *overrides),
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def alone(folder, *overrides, time_limit=None):
    """The same in this process, without MPI."""
    return backmap(load_campaign(folder / "campaign.yaml", list(overrides)), get_comm(), time_limit)


def contents(folder, name):
    store = open_store(folder / "work" / name)
    system = store.system("trpcage")
    rows = (0, system.n_frames)
    return [system.read(resolution, *rows) for resolution in store.resolutions] + [
        system.read_observable(key, *rows) for key in ("source_frame", "member")
    ]


@pytest.fixture(scope="module")
def undisturbed(campaign_folder):
    """The output of one process without MPI."""
    done = run(campaign_folder, 0, "backmap.output=alone.zarr")
    assert done.returncode == 0, done.stderr
    return contents(campaign_folder, "alone.zarr")


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_same_bits_on_any_number_of_ranks(campaign_folder, undisturbed, ranks):
    done = run(campaign_folder, ranks, f"backmap.output=ranks{ranks}.zarr")
    assert done.returncode == 0, done.stderr
    for mine, theirs in zip(
        contents(campaign_folder, f"ranks{ranks}.zarr"), undisturbed, strict=True
    ):
        assert np.array_equal(mine, theirs)


def test_output_is_accounted_for(campaign_folder, undisturbed):
    """Rows are (held-out frame, member), members differ, and the beads are the input's."""
    campaign = load_campaign(campaign_folder / "campaign.yaml")
    source = open_store(campaign.path(campaign.store.path)).system("trpcage")
    atoms, trace, frames, member = undisturbed
    assert len(atoms) % MEMBERS == 0 and np.array_equal(
        member, np.tile(range(MEMBERS), len(atoms) // MEMBERS)
    )
    held_out = np.arange(source.n_frames - len(atoms) // MEMBERS, source.n_frames)
    assert np.array_equal(frames, np.repeat(held_out, MEMBERS))
    assert np.abs(atoms[0::2] - atoms[1::2]).max() > 0.05
    beads = source.ladder.coarsen(atoms)["ucg5"]
    given = source.read("ucg5", int(held_out[0]), source.n_frames)
    assert np.abs(beads - np.repeat(given, MEMBERS, axis=0)).max() < 1e-5, "nm; 1e-4 Angstrom"
    assert np.abs(source.ladder.mapping("ca").apply(atoms) - trace).max() < 1e-5


def test_batch_shape_changes_rounding_only(campaign_folder, undisturbed):
    alone(campaign_folder, "backmap.output=batch.zarr", "backmap.batch_frames=3")
    trace = contents(campaign_folder, "batch.zarr")[1]
    assert np.abs(trace - undisturbed[1]).max() < 1e-5, "nm; 1e-4 Angstrom"


def test_killed_run_is_completed_to_the_same_bits(campaign_folder, undisturbed):
    output = campaign_folder / "work" / "killed.zarr"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMPI_MCA_osc": "^ucx"}
    running = subprocess.Popen(
        command(campaign_folder, 2, "backmap.output=killed.zarr"), env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while len(list(output.glob(".shards/*.json"))) < 2 and time.monotonic() < deadline:
        assert running.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    kill_descendants(running.pid)
    running.wait()
    with pytest.raises(InputError, match="unfinished"):
        open_store(output)
    done = run(campaign_folder, 3, "backmap.output=killed.zarr")
    assert done.returncode == 0, done.stderr
    for mine, theirs in zip(contents(campaign_folder, "killed.zarr"), undisturbed, strict=True):
        assert np.array_equal(mine, theirs)


def kill_descendants(pid: int) -> None:
    """SIGKILL a process and everything below it, whatever sessions they made."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True).stdout
    parents = dict(map(int, line.split()) for line in listing.splitlines())
    family, grown = {pid}, True
    while grown:
        more = {child for child, parent in parents.items() if parent in family} - family
        family |= more
        grown = bool(more)
    for member in family:
        try:
            os.kill(member, signal.SIGKILL)
        except ProcessLookupError:
            continue


def test_damaged_shard_is_computed_again(campaign_folder, undisturbed, caplog):
    alone(campaign_folder, "backmap.output=damaged.zarr")
    output = campaign_folder / "work" / "damaged.zarr"
    victim = next(output.glob("systems/*/particles/fg/position/value/c/1/0/0"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 0xFF
    victim.write_bytes(data)
    alone(campaign_folder, "backmap.output=damaged.zarr")
    assert "damaged and will be computed again" in caplog.text
    assert np.array_equal(contents(campaign_folder, "damaged.zarr")[0], undisturbed[0])


def test_another_plan_is_refused(campaign_folder, undisturbed):
    again = run(campaign_folder, 0, "backmap.output=alone.zarr")
    assert again.returncode == 0 and "nothing to do" in again.stderr
    other = run(campaign_folder, 0, "backmap.output=alone.zarr", "backmap.seed=9")
    assert other.returncode == 4
    assert (
        "made by another plan: seed (there 0, here 9)" in other.stderr
        and "Traceback" not in other.stderr
    )


def test_time_limit_stops_between_shards_and_continues(campaign_folder, undisturbed):
    with pytest.raises(Stopped, match="the same command continues"):
        alone(campaign_folder, "backmap.output=limited.zarr", time_limit=1e-3)
    alone(campaign_folder, "backmap.output=limited.zarr")
    assert np.array_equal(contents(campaign_folder, "limited.zarr")[0], undisturbed[0])


def test_unusable_frame_is_quarantined(campaign_folder, undisturbed, tmp_path):
    """A coarse frame that is not finite is listed and left empty; the others are as without it."""
    folder = tmp_path / "copy"
    shutil.copytree(campaign_folder, folder)
    path = folder / "work" / "frames.zarr"
    store = open_store(path)
    system = store.system("trpcage")
    beads = system.read("ucg5", 0, system.n_frames)
    beads[4, 2] = np.nan
    campaign = load_campaign(folder / "campaign.yaml")
    coarse = create_store(
        folder / "coarse.zarr", {"trpcage": system.ladder}, {"trpcage": len(beads)}, ["ucg5"],
        campaign.store, {}, shard_frames=len(beads),
    )  # fmt: skip
    coarse.system("trpcage").write_shard(0, {"ucg5": beads})
    coarse.mark_complete()
    output = folder / "work" / "partial.zarr"
    summary = alone(
        folder, f"backmap.input={folder / 'coarse.zarr'}", "backmap.output=partial.zarr"
    )
    assert {
        "system": "trpcage",
        "frame": 4,
        "member": 1,
        "reason": "input is not finite",
    } in summary["quarantined"]
    atoms = contents(folder, "partial.zarr")[0]
    assert np.isnan(atoms[8:10]).all() and np.isfinite(np.delete(atoms, [8, 9], axis=0)).all()
    record = json.loads(next((output / ".shards").glob("*.00000001.json")).read_text())
    assert len(record["quarantined"]) == MEMBERS
