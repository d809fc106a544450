"""The MPI driver under a real mpirun: same bits on any number of ranks, nothing lost when killed."""

import json
import os
import shutil
import signal
import subprocess
import time

import mdtraj
import numpy as np
import pytest
import under_mpirun
import yaml
from under_mpirun import ENVIRONMENT, in_turn, launched

from hpcbackmap.backmapping.driver import backmap
from hpcbackmap.config.load import load_campaign
from hpcbackmap.ingest.ingest import ingest
from hpcbackmap.runtime.errors import InputError, OutputError, ResourceError, Stopped
from hpcbackmap.runtime.mpi import get_comm
from hpcbackmap.stages.artifact import save_artifact
from hpcbackmap.stages.build import build_stage
from hpcbackmap.store.export import export
from hpcbackmap.store.store import create_store, open_store

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
                "stride": 70,
            }
        ],
        "split": {"by": "time", "validation": 0.2, "test": 0.4},
        "stages": {
            "ca-fg": {"model": {"kind": "genzprot", "rounds": 1, "redraws": 1, **small}},
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
    return launched(ranks, "backmap", str(folder / "campaign.yaml"), *overrides)


def run(folder, ranks, *overrides):
    return under_mpirun.run(ranks, "backmap", str(folder / "campaign.yaml"), *overrides)


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


GROUPS = {"1,1": 2, "1,2": 3, "2,1": 3}
"""Ranks of each stage, and their sum."""
COHERENT = "backmap.coherence=4"
COHERENT_ON = {2: ["--pipeline", "1,1"], 3: []}
SUFFIXES = ("xtc", "dcd", "pdb")


@pytest.fixture(scope="module")
def together(campaign_folder, undisturbed):
    """Every command of the tests below that ranks share, by the number of ranks; and a folder of exports."""
    exports = campaign_folder / "exports"
    exports.mkdir()
    backmap = ["backmap", str(campaign_folder / "campaign.yaml")]
    planned = {ranks: [[*backmap, f"backmap.output=ranks{ranks}.zarr"]] for ranks in range(1, 5)}
    for groups, ranks in GROUPS.items():
        output = f"backmap.output={name_of(groups)}"
        planned[ranks].append([*backmap, output, "--pipeline", groups])
    for ranks, more in COHERENT_ON.items():
        planned[ranks].append([*backmap, f"backmap.output=coherent{ranks}.zarr", COHERENT, *more])
    store = str(campaign_folder / "work" / "alone.zarr")
    for suffix in SUFFIXES:
        output = str(exports / suffix / f"3.{suffix}")
        (exports / suffix).mkdir()
        planned[3].append(["export", store, "-o", output, "--stride", "2"])
    for ranks, commands in planned.items():
        in_turn(ranks, *commands)
    return exports


def name_of(groups: str) -> str:
    return f"groups{groups.replace(',', '')}.zarr"


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_same_bits_on_any_number_of_ranks(campaign_folder, undisturbed, together, ranks):
    for mine, theirs in zip(
        contents(campaign_folder, f"ranks{ranks}.zarr"), undisturbed, strict=True
    ):
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("groups", GROUPS)
def test_stages_on_ranks_of_their_own_give_the_same_bits(
    campaign_folder, undisturbed, together, groups
):
    for mine, theirs in zip(contents(campaign_folder, name_of(groups)), undisturbed, strict=True):
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_ranks_export_one_file_in_order(campaign_folder, together, suffix):
    store = campaign_folder / "work" / "alone.zarr"
    tmp_path = together / suffix
    one, three = tmp_path / f"1.{suffix}", tmp_path / f"3.{suffix}"
    written = export(open_store(store), "fg", one, stride=2)
    title = slice(92, 264) if suffix == "dcd" else slice(0)  # has a date in it
    first, second = (bytearray(path.read_bytes()) for path in (one, three))
    del first[title], second[title]
    assert first == second
    if suffix != "pdb":
        export(open_store(store), "fg", tmp_path / "top.pdb", stop=1)
        assert mdtraj.load(str(three), top=str(tmp_path / "top.pdb")).n_frames == written
    tables = {f"{path.name}.rows.csv" for path in (one, three)}
    assert {path.name for path in tmp_path.iterdir()} <= tables | {
        one.name, three.name, "top.pdb", "top.pdb.rows.csv", "1_top.pdb", "3_top.pdb",
    }  # fmt: skip
    first, second = ((tmp_path / name).read_text() for name in sorted(tables))
    assert first == second


def test_output_is_accounted_for(campaign_folder, undisturbed):
    """Rows are (held-out frame, member), members differ, and the beads are the input's."""
    campaign = load_campaign(campaign_folder / "campaign.yaml")
    source = open_store(campaign.path(campaign.store.path)).system("trpcage")
    atoms, trace, frames, member = undisturbed
    assert len(atoms) % MEMBERS == 0
    assert np.array_equal(member, np.tile(range(MEMBERS), len(atoms) // MEMBERS))
    held_out = np.arange(source.n_frames - len(atoms) // MEMBERS, source.n_frames)
    assert np.array_equal(frames, np.repeat(held_out, MEMBERS))
    assert np.abs(atoms[0::2] - atoms[1::2]).max() > 0.05
    beads = source.ladder.coarsen(atoms)["ucg5"]
    given = source.read("ucg5", int(held_out[0]), source.n_frames)
    assert np.abs(beads - np.repeat(given, MEMBERS, axis=0)).max() < 1e-5, "nm; 1e-4 Angstrom"
    assert np.abs(source.ladder.mapping("ca").apply(atoms) - trace).max() < 1e-5


def test_batch_shape_changes_rounding_only(campaign_folder, undisturbed):
    """But where a repair ends by a tolerance, rounding may decide whether it goes on: in few frames."""
    alone(campaign_folder, "backmap.output=batch.zarr", "backmap.batch_frames=3")
    trace = contents(campaign_folder, "batch.zarr")[1]
    apart = np.abs(trace - undisturbed[1]).max((1, 2))
    assert (apart < 1e-5).mean() > 0.95, "nm; 1e-4 Angstrom"


def test_killed_run_is_completed_to_the_same_bits(campaign_folder, undisturbed):
    output = campaign_folder / "work" / "killed.zarr"
    environment = os.environ | ENVIRONMENT
    running = subprocess.Popen(
        command(campaign_folder, 2, "backmap.output=killed.zarr"), env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(output.glob(".shards/*.json")) and time.monotonic() < deadline:
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
    assert again.returncode == 0
    assert "nothing to do" in again.stderr
    other = run(campaign_folder, 0, "backmap.output=alone.zarr", "backmap.seed=9")
    assert other.returncode == 4
    assert "made by another plan: seed was 0, is 9" in other.stderr
    assert "Traceback" not in other.stderr


def test_coherent_members_are_the_same_on_any_ranks_and_after_a_loss(
    campaign_folder, undisturbed, together
):
    coherent = ("backmap.output=coherent.zarr", COHERENT)
    alone(campaign_folder, *coherent)
    made = contents(campaign_folder, "coherent.zarr")
    assert np.abs(made[0] - undisturbed[0]).max() > 0.05
    for ranks in COHERENT_ON:
        for mine, theirs in zip(
            contents(campaign_folder, f"coherent{ranks}.zarr"), made, strict=True
        ):
            assert np.array_equal(mine, theirs)
    (campaign_folder / "work/coherent.zarr/.shards/trpcage.00000002.json").unlink()
    alone(campaign_folder, *coherent)
    assert np.array_equal(contents(campaign_folder, "coherent.zarr")[0], made[0])
    with pytest.raises(OutputError, match="coherence was 4, is 1"):
        alone(campaign_folder, coherent[0])


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
    given = (f"backmap.input={folder / 'coarse.zarr'}", "backmap.frames=0:7")
    summary = alone(folder, "backmap.output=partial.zarr", *given)
    assert {
        "system": "trpcage",
        "frame": 4,
        "member": 1,
        "stage": None,
        "reason": "input is not finite",
    } in summary["quarantined"]
    atoms = contents(folder, "partial.zarr")[0]
    assert np.isnan(atoms[8:10]).all()
    assert np.isfinite(np.delete(atoms, [8, 9], axis=0)).all()
    record = json.loads(next((output / ".shards").glob("*.00000001.json")).read_text())
    assert len(record["quarantined"]) == MEMBERS


def test_tree_of_samples_and_a_second_run_from_a_rung(campaign_folder):
    """Members share the trace that they come from; kept traces give the same kind of second run."""
    draws = "backmap.members={ucg5-ca: 2, ca-fg: 3}"
    alone(campaign_folder, "backmap.output=tree.zarr", draws, "backmap.frames=0:8:3")
    atoms, trace, frames, member = contents(campaign_folder, "tree.zarr")
    assert len(np.unique(frames)) == 3
    assert np.array_equal(np.diff(np.unique(frames)), [3, 3])
    assert np.array_equal(member, np.tile(range(6), 3))
    by_trace = trace.reshape(3, 2, 3, *trace.shape[1:])
    assert (by_trace == by_trace[:, :, :1]).all()
    assert np.abs(by_trace[:, 0] - by_trace[:, 1]).max() > 1e-3
    leaves = atoms.reshape(18, -1)
    assert len(np.unique(leaves, axis=0)) == 18

    traces = ("backmap.output=traces.zarr", "backmap.keep=[ca]", "backmap.members=2")
    alone(campaign_folder, *traces, "backmap.frames=0:4")
    store = open_store(campaign_folder / "work" / "traces.zarr")
    assert store.resolutions == ("ca",)
    alone(
        campaign_folder, "backmap.output=second.zarr", "backmap.start=ca", "backmap.members=1",
        f"backmap.input={campaign_folder / 'work' / 'traces.zarr'}",
    )  # fmt: skip
    given = store.system("trpcage")
    made = contents(campaign_folder, "second.zarr")[0]
    mapped = given.ladder.mapping("ca").apply(made)
    assert np.abs(mapped - given.read("ca", 0, given.n_frames)).max() < 1e-5


def test_runs_share_the_shards_of_one_plan(campaign_folder, undisturbed):
    """As the tasks of a job array do; the last one completes the output, and nobody writes beside them."""
    from hpcbackmap.backmapping.records import only_run

    name = "backmap.output=array.zarr"
    campaign = load_campaign(campaign_folder / "campaign.yaml", [name])
    first = backmap(campaign, get_comm(), part=(0, 2))
    assert first["shards_missing"] > 0
    output = campaign_folder / "work" / "array.zarr"
    with pytest.raises(InputError, match="unfinished"):
        open_store(output)
    with only_run(output, 0, 2), pytest.raises(ResourceError, match="is writing it"):
        backmap(campaign, get_comm())
    with only_run(output, 0, 2), pytest.raises(ResourceError, match="is writing it"):
        backmap(campaign, get_comm(), part=(2, 3))
    with only_run(output, 0, 2), only_run(output, 1, 2):
        pass
    last = run(campaign_folder, 0, name, "--part", "1/2", "--json")
    assert json.loads(last.stdout)["shards_missing"] == 0
    assert np.array_equal(contents(campaign_folder, "array.zarr")[0], undisturbed[0])
    refused = run(campaign_folder, 0, name, "--part", "2/2")
    assert refused.returncode == 2
    assert "--part 2/2: write I/N" in refused.stderr


def test_measured_sizes_stay_in_the_plan(campaign_folder):
    sizes = ("backmap.batch_frames=auto", "backmap.shard_frames=auto")
    alone(campaign_folder, "backmap.output=auto.zarr", *sizes)
    plan = open_store(campaign_folder / "work" / "auto.zarr").attributes["provenance"]["plan"]
    assert plan["shard_frames"] % plan["batch_frames"] == 0
    again = alone(campaign_folder, "backmap.output=auto.zarr", *sizes)
    assert again["shards_missing"] == 0
    with pytest.raises(OutputError, match="another plan: batch_frames"):
        alone(campaign_folder, "backmap.output=auto.zarr", "backmap.batch_frames=999", sizes[1])


def test_structure_without_numbers_is_drawn_again_then_quarantined(
    campaign_folder, undisturbed, monkeypatch
):
    """One that fails once is replaced; one that always fails is listed with its stage."""
    from hpcbackmap.backmapping import chain

    held_out = undisturbed[2][0]
    draw = chain.frame_noise

    def broken(seed, stream, frames, member, *shape):
        noise = draw(seed, stream, frames, member, *shape)
        if stream == "ucg5-ca" and member == 1 and held_out in frames:
            noise[frames.index(held_out)] = np.nan
        if stream.startswith("ca-fg") and member == 0 and held_out + 1 in frames:
            noise[frames.index(held_out + 1)] = np.nan
        return noise

    monkeypatch.setattr(chain, "frame_noise", broken)
    summary = alone(campaign_folder, "backmap.output=broken.zarr")
    assert [(item["frame"], item["member"], item["stage"]) for item in summary["quarantined"]] == [
        (held_out + 1, 0, "ca-fg")
    ]
    atoms = contents(campaign_folder, "broken.zarr")[0]
    assert np.isnan(atoms[2]).all()
    assert np.isfinite(np.delete(atoms, 2, axis=0)).all()
    assert np.abs(atoms[1] - undisturbed[0][1]).max() > 1e-3, "another draw"
    same_batch, later = [0, 3], slice(4, None)
    assert np.abs(atoms[same_batch] - undisturbed[0][same_batch]).max() < 1e-4, "rounding at most"
    assert np.array_equal(atoms[later], undisturbed[0][later])
