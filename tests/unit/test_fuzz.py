"""Whatever a file holds, the answer is a result or one error in words; never another exception."""

import json
import shutil
import warnings

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mutations import ODD, bounded, broken_json, broken_text

from hpcbackmap.backmapping.plan import Plan
from hpcbackmap.backmapping.records import Records
from hpcbackmap.cli.inspection import describe_folder
from hpcbackmap.cluster.ledger import Ledger
from hpcbackmap.cluster.submission import dry_run
from hpcbackmap.config.campaign import CgvaeConfig, StoreConfig
from hpcbackmap.config.load import load_campaign
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.errors import HpcbackmapError
from hpcbackmap.runtime.mpi import LocalComm
from hpcbackmap.stages.artifact import load_artifact, save_artifact
from hpcbackmap.stages.build import build_stage
from hpcbackmap.store.store import create_store, open_store
from hpcbackmap.store.verify import verify_store
from hpcbackmap.training.checkpoints.checkpoints import Checkpoints, Progress, verified_manifest
from hpcbackmap.training.checkpoints.publish import finished_training
from hpcbackmap.trajectories.read_particles import load_topology, read_particles
from hpcbackmap.trajectories.reader import describe_file

FRAMES = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def survives(work, *arguments) -> None:
    """An error of the user, in one line that says something, or nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            work(*arguments)
        except HpcbackmapError as error:
            assert len(str(error)) > 10  # noqa: PT017  # most inputs raise nothing


# Campaigns.


@pytest.fixture(scope="module")
def campaign(example_dir):
    record = yaml.safe_load((example_dir / "campaign.yaml").read_text())
    record["systems"][0]["beads"] = [0, 1]
    record["systems"][0]["resolution"] = "ucg5"
    record["node_groups"] = {
        "ingest": {"time": "1-02:03:04", "sbatch": ["--qos=high"], "mem": "4G"}
    }
    record["backmap"] = {"frames": "0:9:2", "members": {"ucg5-ca": 2}, "keep": ["fg"]}
    return record


def submit(path) -> None:
    scripts = "\n".join(dry_run(load_campaign(path), path, []))
    for line in scripts.splitlines():
        assert line.startswith(("#", "export ", "exec ", "nothing")) or not line.strip()


@bounded(100)
@given(st.data())
def test_campaigns(folder, campaign, data):
    path = folder / "campaign.yaml"
    path.write_text(data.draw(broken_json(campaign)))
    survives(submit, path)


@bounded(80)
@given(st.data())
def test_campaigns_as_text(folder, campaign, data):
    path = folder / "text.yaml"
    path.write_bytes(data.draw(broken_text(yaml.safe_dump(campaign))))
    survives(submit, path)


@bounded(60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["name", "systems.0.stride", "backmap.members", "stages.ca-fg.train", "a..b", ""]),
            st.one_of(st.text(max_size=20), st.sampled_from([json.dumps(value) for value in ODD])),
        ),
        max_size=3,
    )
)  # fmt: skip
def test_overrides(example_dir, pairs):
    words = [f"{key}={value}" for key, value in pairs]
    survives(load_campaign, example_dir / "campaign.yaml", words)


# Frame stores.


@pytest.fixture(scope="module")
def store(folder):
    path = folder / "whole.zarr"
    ladders = {
        name: build_ladder(topology_from_sequence([sequence]), ["fg", "ca"])
        for name, sequence in {"p": "ACDEFGHIK", "q": "GGGG", "r": "AAAA"}.items()
    }
    frames = {"p": FRAMES, "q": 1, "r": 2}
    made = create_store(
        path, ladders, frames, ["fg", "ca"], StoreConfig(quantise=True, chunk_mb=0.004), {"note": "x"},
        shard_frames=8, observables={"time": "float64"}, packed=True,
    )  # fmt: skip
    levels = {
        name: ladder.coarsen(np.ones((frames[name], ladder.topology.n_atoms, 3)))
        for name, ladder in ladders.items()
    }
    times = {name: {"time": np.arange(count) * 1.0} for name, count in frames.items()}
    for shard, part in enumerate((slice(0, 8), slice(8, 12))):
        made.system("p").write_shard(
            shard, {key: a[part] for key, a in levels["p"].items()}, {"time": times["p"]["time"][part]}
        )  # fmt: skip
    made.write_pack(0, levels, times)
    made.mark_complete()
    return path


def look_into(path) -> None:
    opened = open_store(path)
    for name in opened.systems:
        system = opened.system(name)
        system.read(opened.resolutions[0], 0, 1)
        assert system.ladder.topology.n_atoms
        list(system.observables)


@pytest.mark.parametrize("old", [False, True], ids=["format 2", "format 1"])
@pytest.mark.parametrize(
    "name",
    ["zarr.json", "systems/p/particles/fg/position/value/zarr.json", "ladders/zarr.json",
     "checksums/zarr.json", "packs/0/particles/ca/position/value/zarr.json"],
)  # fmt: skip
@bounded(20)
@given(st.data())
def test_metadata_of_a_store(folder, store, name, old, data):
    path = folder / "broken.zarr"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(store, path)
    if old:
        root = json.loads((path / "zarr.json").read_text())
        for key in ("ladders_sha256", "content"):
            del root["attributes"][key]
        root["attributes"]["format_version"] = 1
        (path / "zarr.json").write_text(json.dumps(root))
    record = json.loads((path / name).read_text())
    (path / name).write_text(data.draw(broken_json(record)))
    for work in (look_into, describe_folder, lambda place: verify_store(place, LocalComm())):
        survives(work, path)


# Artifacts.


@pytest.fixture(scope="module")
def artifact(folder):
    ladder = build_ladder(topology_from_sequence(["ACDEFGHIK"]), ["fg", "ca", "ucg:3"])
    stage = build_stage("ucg3-ca", CgvaeConfig(width=8, layers=1, latent=2), [ladder], 0)
    return save_artifact(stage, folder / "artifact", {"data": "none"})


@pytest.mark.parametrize("old", [False, True], ids=["format 2", "format 1"])
@bounded(100)
@given(st.data())
def test_configuration_of_an_artifact(folder, artifact, old, data):
    path = folder / "broken"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(artifact, path)
    record = json.loads((path / "config.json").read_text())
    if old:
        del record["sha256"]
        record["format"] = 1
    (path / "config.json").write_text(data.draw(broken_json(record)))
    survives(load_artifact, path)
    survives(describe_folder, path)


# Records of work that is done.


@bounded(80)
@given(st.data())
def test_manifest_of_a_checkpoint(folder, data):
    kept = Checkpoints(
        folder / "checkpoints", {"stage": "ca-fg", "train": {"seed": 0}}, frozenset()
    )
    shutil.rmtree(kept.folder, ignore_errors=True)
    kept.prepare("step_3")
    kept.publish("step_3", {}, Progress(step=3), 1, {"stage": "ca-fg"})
    path = kept.folder / "step_3" / "manifest.json"
    record = json.loads(path.read_text())
    if data.draw(st.booleans()):
        record = {key: it for key, it in record.items() if key != "sha256"} | {"format": 1}
    path.write_text(data.draw(broken_json(record)))
    survives(kept.newest)
    survives(verified_manifest, path.parent)


@bounded(60)
@given(st.data())
def test_record_of_a_finished_training(folder, data):
    place = folder / "stage"
    (place / "artifact").mkdir(parents=True, exist_ok=True)
    identity = {"stage": "ca-fg", "model": {"kind": "genzprot", "width": 8}, "train": {"seed": 0}}
    record = {"identity": identity, "result": {"steps": 3}}
    (place / "done.json").write_text(data.draw(broken_json(record)))
    survives(finished_training, place, identity)


@bounded(60)
@given(st.data())
def test_record_of_a_shard(folder, store, data):
    plan = Plan("a", {}, "ca", ["fg", "ca"], {"p": [[0, FRAMES, 1]]}, {}, True, 0, 1, 8, "cpu")
    records = Records(plan, folder / "output")
    records.folder.mkdir(parents=True, exist_ok=True)
    record = {"plan": plan.digest, "rows": 8, "sha256": "0" * 64, "quarantined": []}
    for shard in plan.shards:
        records.path(shard).write_text(data.draw(broken_json(record)))
    survives(lambda: [records.is_done(open_store(store), shard) for shard in plan.shards])
    survives(records.audit)
    survives(records.checksums)


@bounded(60)
@given(st.data())
def test_ledger_of_jobs(folder, campaign, data):
    path = folder / "ledger.yaml"
    path.write_text(yaml.safe_dump(campaign | {"workdir": str(folder / "work")}))
    loaded = load_campaign(path)
    jobs = loaded.path("slurm/jobs.json")
    jobs.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "id": 3,
        "component": 0,
        "job_name": "x",
        "log": "l",
        "submitted": "2026",
        "after": [],
    }
    jobs.write_text(data.draw(broken_json({"ingest": record})))
    survives(Ledger, loaded)


# Structures, through the reader of everything.

GRO = """Trp-cage, t= 1.0
    6
    1ASN      N    1   1.000   2.000   3.000
    1ASN     CA    2   1.100   2.100   3.000
    1ASN      C    3   1.200   2.000   3.100
    2LEU      N    4   1.300   2.100   3.100
    2LEU     CA    5   1.400   2.000   3.200
    2LEU      C    6   1.500   2.100   3.200
   4.00000   4.00000   4.00000
"""
ATOMS = ("group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id",
         "label_entity_id", "label_seq_id", "pdbx_PDB_ins_code", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy",
         "auth_seq_id", "auth_comp_id", "auth_asym_id", "auth_atom_id", "pdbx_PDB_model_num")  # fmt: skip


def mmcif(pdb: str) -> str:
    rows = [line for line in pdb.splitlines() if line.startswith("ATOM")][:60]
    lines = [
        "data_x",
        "_cell.length_a 40.0",
        "_cell.angle_alpha 90",
        "loop_",
        *(f"_atom_site.{key}" for key in ATOMS),
    ]
    for number, row in enumerate(rows, 1):
        name, residue, chain, at = (
            row[12:16].strip(),
            row[17:20],
            row[21].strip() or "A",
            int(row[22:26]),
        )
        place = " ".join(row[30:54].split())
        lines.append(
            f"ATOM {number} {name[0]} {name} . {residue} {chain} 1 {at} ? {place} 1.0 {at} {residue} {chain} "
            f"{name} 1"
        )
    return "\n".join([*lines, "#", ""])


@pytest.fixture(scope="module")
def structures(example_dir):
    lines = (example_dir / "trpcage_top.pdb").read_text().splitlines()
    pdb = "\n".join(
        [line for line in lines if line.startswith(("CRYST1", "ATOM"))][:60] + ["TER", "END", ""]
    )
    cell = "CRYST1   40.000   40.000   40.000  90.00  90.00  90.00 P 1           1\n"
    return {
        "pdb": cell + "SSBOND   1 CYS A    3    CYS A   40\n" + pdb,
        "gro": GRO,
        "cif": mmcif(pdb),
    }


@pytest.mark.parametrize("suffix", ["pdb", "gro", "cif"])
@bounded(100)
@given(st.data())
def test_structures(folder, structures, suffix, data):
    path = folder / f"s.{suffix}"
    path.write_bytes(data.draw(broken_text(structures[suffix])))
    for work in (read_particles, load_topology, lambda it: describe_file(it, load_topology(it))):
        survives(work, str(path))


TRAJECTORIES = {
    "xyz": '5\nLattice="40 0 0 0 40 0 0 0 40"\n' + "CA 1.0 2.0 3.0\n" * 5,
    "lammpstrj": "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n5\nITEM: BOX BOUNDS xy xz yz pp pp pp\n"
    + "0 50 1.5\n" * 3
    + "ITEM: ATOMS id mol type xs ys zs ix iy iz\n"
    + "".join(f"{i} 1 {i} 0.1 0.{i} 0.3 0 -1 0\n" for i in (3, 1, 5, 2, 4)),
    "data": "by hand\n\n5 atoms\n2 atom types\n\n0 50 xlo xhi\n0 50 ylo yhi\n0 60 zlo zhi\n\n"
    "Masses\n\n1 71.08 # ALA\n2 57.05 # GLY\n\nAtoms # full\n\n"
    + "".join(f"{i} 1 {1 + i % 2} 0.0 {3.8 * i} 1.0 1.0 0 0 0\n" for i in range(1, 6))
    + "\nBonds\n\n1 1 1 2\n",
}


@pytest.mark.parametrize("suffix", TRAJECTORIES)
@bounded(100)
@given(st.data())
def test_trajectories_as_text(folder, suffix, data):
    path = folder / f"t.{suffix}"
    text = TRAJECTORIES[suffix]
    path.write_bytes(data.draw(broken_text(text if suffix == "data" else 2 * text)))
    if suffix == "xyz":
        survives(describe_file, str(path), topology_from_sequence(["G"]))
    else:
        survives(lambda: describe_file(str(path), read_particles(str(path))))
