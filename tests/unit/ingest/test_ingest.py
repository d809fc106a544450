"""Ingest: real trajectories in, a whole store out, and one clear line for everything that is wrong."""

import errno
import gzip
import logging
import shutil
import subprocess
import sys
import time
from pathlib import Path

import mdtraj
import numpy as np
import pytest

from hpcbackmap.config.campaign import Campaign
from hpcbackmap.ingest.ingest import ingest
from hpcbackmap.ingest.shard_records import only_ingest
from hpcbackmap.runtime.errors import ConfigError, InputError, OutputError, ResourceError
from hpcbackmap.runtime.mpi import LocalComm
from hpcbackmap.store.store import open_store

CHUNKS = {"chunk_mb": 0.05, "shard_mb": 0.1}
"""Several shards even of small systems."""


@pytest.fixture(scope="module")
def trpcage(example_run):
    return example_run


@pytest.fixture
def top(example_dir):
    return str(example_dir / "trpcage_top.pdb")


def campaign(folder, *systems, ladder=("fg", "ca", "ucg:5"), **settings):
    systems = [{"name": f"s{i}"} | system for i, system in enumerate(systems)]
    store = CHUNKS | settings.pop("store", {})
    return Campaign(
        name="t", workdir=str(folder), ladder=ladder, systems=systems, store=store, **settings
    )


def run(folder, *systems, **settings):
    made = campaign(folder, *systems, **settings)
    return ingest(made, LocalComm()), made


def store_of(made):
    return open_store(made.path(made.store.path))


def in_order(trajectory, topology):
    """Positions of an mdtraj trajectory in the order of our topology, atom by atom name."""
    place = {(atom.residue.index, atom.name): atom.index for atom in trajectory.topology.atoms}
    names = zip(topology.atom_residue, topology.atom_names, strict=True)
    return trajectory.xyz[:, [place[residue, name] for residue, name in names]]


def refused(folder, error, match, *systems, **settings):
    with pytest.raises(error, match=match) as caught:
        run(folder, *systems, **settings)
    assert "\n" not in str(caught.value)
    assert list(Path(folder).glob("frames.zarr*")) == [], "nothing half-made is left"


def test_adenylate_kinase_from_several_files(data_dir, tmp_path):
    folder = data_dir / "adenylate_kinase"
    files = [str(folder / f"adk_{path}.xtc") for path in ("dims_a", "tmd")]
    top = str(folder / "adk_dims_a_top.pdb")
    system = {"topology": top, "trajectories": files, "stride": 3}
    summary, made = run(tmp_path, system, store={"shard_mb": 1.0})
    assert summary["status"] == "written"
    assert (summary["chains"], summary["residues"]) == (1, 214)
    assert (summary["frames_in"], summary["frames_out"]) == (198, 33 + 34)
    assert summary["dropped_atoms"] == {"hydrogen": 3341 - 1656}
    system = store_of(made).system("s0")
    assert system.sources == [("adk_dims_a", 0, 33), ("adk_tmd", 33, 67)]
    read = [mdtraj.load(file, top=top)[::3] for file in files]
    expected = mdtraj.join(read, check_topology=False)
    positions = system.read("fg", 0, 67)
    np.testing.assert_array_equal(positions, in_order(expected, system.ladder.topology))
    levels = system.ladder.coarsen(positions)
    for resolution in ("ca", "ucg5"):
        np.testing.assert_array_equal(system.read(resolution, 0, 67), levels[resolution])
    np.testing.assert_array_equal(system.read_observable("step", 31, 36), [93, 96, 0, 3, 6])
    np.testing.assert_allclose(system.read_observable("time", 0, 67), expected.time)


@pytest.mark.parametrize("suffix", ["xtc", "dcd", "trr", "pdb", "pdb.gz"])
@pytest.mark.parametrize("stride", [1, 4])
def test_every_format_gives_every_frame(trpcage, top, tmp_path, capfd, suffix, stride):
    part = trpcage[:23]
    file = tmp_path / f"t.{suffix}"
    part.save(str(file))
    summary, made = run(
        tmp_path / "w", {"topology": top, "trajectories": [str(file)], "stride": stride}
    )
    system = store_of(made).system("s0")
    expected = in_order(part, system.ladder.topology)[::stride]
    assert summary["frames_out"] == len(expected)
    assert system.sources == [("t", 0, len(expected))]
    found = system.read("fg", 0, len(expected))
    np.testing.assert_allclose(found, expected, rtol=0, atol=6e-4)
    shown = capfd.readouterr()
    assert shown.out == "", "standard output is for results"
    assert "plugin" not in shown.err


def test_rerun_has_nothing_to_do_and_another_campaign_is_refused(trpcage, top, tmp_path):
    file = tmp_path / "t.xtc"
    trpcage[:20].save(str(file))
    system = {"topology": top, "trajectories": [str(file)]}
    _, made = run(tmp_path, system)
    marker = tmp_path / "frames.zarr" / "zarr.json"
    before = marker.stat().st_mtime_ns
    summary, _ = run(tmp_path, system, store={"budget_mb": 7})
    assert summary["status"] == "nothing to do"
    assert summary["frames_out"] == 20
    for change in ({"ladder": ("fg", "ca", "ucg:4")}, {"store": {"quantise": True}}):
        with pytest.raises(ConfigError, match=r"made from other input.*(ladder|store).*remove it"):
            run(tmp_path, system, **change)
    trpcage[5:25].save(str(file))
    with pytest.raises(ConfigError, match=r"differs in: systems"):
        run(tmp_path, system)
    assert marker.stat().st_mtime_ns == before
    assert store_of(made).system("s0").n_frames == 20


def test_many_small_systems_are_packed(data_dir, tmp_path):
    files = sorted(
        (data_dir / "static_bm5").glob("*.pdb.gz"), key=lambda path: path.stat().st_size
    )[:12]
    systems = [{"name": file.name.split(".")[0], "trajectories": [str(file)]} for file in files]
    _, made = run(tmp_path, *systems, ladder=("fg", "ca"), store={"shard_mb": 0.02})
    store = store_of(made)
    assert len(store.packs) > 1
    for system, file in zip(systems, files, strict=True):
        stored = store.system(system["name"])
        expected = mdtraj.load(str(file))
        assert stored.n_frames == 1
        np.testing.assert_array_equal(
            stored.read("ca", 0, 1), expected.xyz[:, expected.topology.select("name CA")]
        )


def test_calpha_files_make_a_coarse_store(trpcage, tmp_path):
    sites = trpcage.atom_slice(trpcage.topology.select("name CA"))
    sites[:30].save(str(tmp_path / "ca.pdb"))
    system = {"trajectories": [str(tmp_path / "ca.pdb")]}
    _, made = run(tmp_path, system, ladder=("fg", "ca", "ucg:5:blobs"))
    store = store_of(made)
    assert store.resolutions == ("ca", "ucg5")
    positions = store.system("s0").read("ca", 0, 30)
    np.testing.assert_allclose(positions, sites.xyz[:30], atol=1e-4)
    beads = store.system("s0").ladder.coarsen(positions, start="ca")["ucg5"]
    np.testing.assert_array_equal(store.system("s0").read("ucg5", 0, 30), beads)
    assert store.system("s0").read_observable("step", 3, 5).tolist() == [3, 4]
    refused(tmp_path / "n", InputError, "C-alpha atoms only", system, ladder=("fg", "ucg:5"))


def test_boxes_of_frames_are_kept_where_there_are_any(trpcage, top, tmp_path):
    """Their sides and tilt differ from frame to frame; a system beside has none."""
    boxed, free = trpcage[:30], trpcage[:6]
    boxed.unitcell_vectors = np.tile([[4.0, 0, 0], [1.0, 5.0, 0], [-1.0, 1.0, 6.0]], (30, 1, 1))
    boxed.unitcell_vectors *= 1 + 0.01 * np.arange(30)[:, None, None]
    free.unitcell_vectors = None
    boxed.save(str(tmp_path / "boxed.xtc"))
    free.save(str(tmp_path / "free.dcd"))
    both = [
        {"trajectories": [str(tmp_path / name)], "topology": top}
        for name in ("boxed.xtc", "free.dcd")
    ]
    run(tmp_path / "both", *both)
    _, made = run(tmp_path / "both", *both)
    store = store_of(made)
    cells = store.system("s0").read_cells_at([3, 4, 20])
    np.testing.assert_allclose(cells, boxed.unitcell_vectors[[3, 4, 20]], atol=1e-4)
    assert not store.system("s1").read_cells_at([0, 5]).any()
    _, made = run(tmp_path / "one", both[1])
    assert store_of(made).system("s0").read_cells_at([0]) is None
    assert store_of(made).system("s0").observables == ("step", "time")


def test_beads_from_structures_never_see_test_frames(trpcage, top, tmp_path):
    """Changing the held-out frames must not change the ladder."""
    ladders = []
    for tail in (slice(80, 100), slice(120, 140)):
        folder = tmp_path / str(tail.start)
        folder.mkdir()
        mdtraj.join([trpcage[:80], trpcage[tail]]).save(str(folder / "t.xtc"))
        system = {"topology": top, "trajectories": [str(folder / "t.xtc")]}
        split = {"test": 0.2, "validation": 0.0}
        _, made = run(folder, system, ladder=("fg", "ca", "ucg:4:blobs"), split=split)
        ladders.append(store_of(made).system("s0").ladder.digest)
    assert ladders[0] == ladders[1]


def test_quantised_beads_are_those_of_the_stored_atoms(trpcage, top, tmp_path):
    (trpcage[:20]).save(str(tmp_path / "t.trr"))
    file = {"topology": top, "trajectories": [str(tmp_path / "t.trr")]}
    _, made = run(tmp_path, file, store={"quantise": True})
    system = store_of(made).system("s0")
    atoms = system.read("fg", 0, 20)
    np.testing.assert_array_equal(system.read("ucg5", 0, 20), system.ladder.coarsen(atoms)["ucg5"])


def test_wrong_files_are_named(trpcage, top, tmp_path, data_dir):
    def system(file, **more):
        return {"topology": top, "trajectories": [str(file)]} | more

    good = tmp_path / "good.xtc"
    trpcage[:10].save(str(good))
    out = tmp_path / "w"
    refused(out, InputError, "gone.xtc: no such trajectory", system(tmp_path / "gone.xtc"))
    refused(out, InputError, "no_top.pdb", system(good, topology=str(tmp_path / "no_top.pdb")))
    refused(out, InputError, "good.xtc: this format names no atoms", {"trajectories": [str(good)]})
    refused(
        out,
        ConfigError,
        "listed twice",
        system(good, trajectories=[str(good), str(tmp_path / "g*.xtc")]),
    )
    refused(out, ConfigError, "two are called 'x'", system(good, name="x"), system(good, name="x"))
    refused(out, ConfigError, "not understood", system(good, selection="nonsense words here"))
    refused(out, ConfigError, "selects no atom", system(good, selection="resname TIP3"))
    other = str(data_dir / "adenylate_kinase" / "adk_tmd_top.pdb")
    refused(
        out, InputError, "good.xtc: 154 atoms, the topology has 3341", system(good, topology=other)
    )
    empty = tmp_path / "empty.xtc"
    empty.write_bytes(b"")
    refused(out, InputError, "README.md: not a trajectory", system(data_dir / "README.md"))
    refused(out, InputError, "no such trajectory", system(tmp_path))
    refused(out, InputError, "empty.xtc: the file is empty", system(empty))
    text = tmp_path / "text.dcd"
    text.write_text("this is no trajectory\n" * 50)
    refused(out, InputError, "text.dcd", system(text))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("e.pdb", b"", "the file is empty"),
        ("e.pdb.gz", gzip.compress(b"\n", mtime=0), "the file is empty"),
        ("e.gro", b"", "the file is empty"),
        ("h.pdb", b"<!DOCTYPE html><html>Not found</html>", "holds HTML or XML"),
        ("h.cif", b"\n<html>", "holds HTML or XML"),
        ("n.pdb", b"HEADER    OF A FILE\nEND\n", "no ATOM line"),
    ],
)
def test_text_that_is_no_structure_is_told_as_such(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    system = {"trajectories": [str(tmp_path / name)]}
    refused(tmp_path / "w", InputError, f"{name}: {reason}", system)


@pytest.mark.parametrize("suffix", ["xtc", "dcd", "trr", "pdb.gz"])
def test_truncated_trajectories_are_refused(trpcage, top, tmp_path, suffix):
    """Cut anywhere inside the last frame."""
    whole = tmp_path / f"t.{suffix}"
    trpcage[:8].save(str(whole))
    content, cut = whole.read_bytes(), tmp_path / f"cut.{suffix}"
    for missing in (1, 5, 100, 400, 600, 670):
        cut.write_bytes(content[:-missing])
        refused(
            tmp_path / "w",
            InputError,
            f"cut.{suffix}",
            {"topology": top, "trajectories": [str(cut)]},
        )


def test_unusable_coordinates_are_refused(trpcage, top, tmp_path):
    for name, frame, value in (("nan", 5, np.nan), ("inf", 0, np.inf)):
        bad = trpcage[:9]
        bad.xyz = bad.xyz.copy()
        bad.xyz[frame, 17, 1] = value
        bad.save(str(tmp_path / f"{name}.trr"))
        system = {"topology": top, "trajectories": [str(tmp_path / f"{name}.trr")]}
        refused(tmp_path / "w", InputError, f"{name}.trr: frame {frame} has coordinates", system)
    large = trpcage[:3]
    large.xyz = large.xyz * 10
    large.save(str(tmp_path / "big.xtc"))
    system = {"topology": top, "trajectories": [str(tmp_path / "big.xtc")]}
    refused(tmp_path / "w", InputError, "big.xtc.*seems to be in Angstrom", system)
    for factor, reason in (
        (10, "3[89].* Angstrom apart.*ten times too large: .pdb is in Angstrom; divide"),
        (0.1, "0.3[89].* Angstrom apart.*seems to be in nm; convert it to Angstrom"),
    ):
        scaled = trpcage[:1]
        scaled.xyz = scaled.xyz * factor
        scaled.save(str(tmp_path / "scaled.pdb"))
        system = {"trajectories": [str(tmp_path / "scaled.pdb")]}
        refused(tmp_path / "w", InputError, f"scaled.pdb: .*{reason}", system)


def test_bonds_that_cannot_be_are_refused(trpcage, top, tmp_path):
    """Another atom order with every C-alpha in place, and a molecule cut by the periodic box later on."""
    swapped = trpcage[:3]
    index = {str(atom): atom.index for atom in swapped.topology.atoms}
    pair = [index["TRP6-CB"], index["TRP6-CH2"]]
    swapped.xyz[:, pair] = swapped.xyz[:, pair[::-1]]
    cut = trpcage[:9]
    cut.xyz[5, 80:] += np.array([5.0, 0, 0], dtype=np.float32)
    for name, frames, fault in (("order", swapped, "frame 0: .*TRP6"), ("cut", cut, "frame 5: ")):
        frames.save(str(tmp_path / f"{name}.xtc"))
        system = {"topology": top, "trajectories": [str(tmp_path / f"{name}.xtc")]}
        refused(tmp_path / "w", InputError, f"{name}.xtc: {fault}.*bonded, but", system)


def test_files_that_disagree_with_the_topology_are_refused(trpcage, top, tmp_path):
    text = Path(top).read_text().replace("TRP A   6", "PHE A   6")
    assert text != Path(top).read_text()
    with gzip.open(tmp_path / "mutant.pdb.gz", "wt") as file:
        file.write(text)
    system = {"topology": top, "trajectories": [str(tmp_path / "mutant.pdb.gz")]}
    refused(
        tmp_path / "w", InputError, "mutant.pdb.gz: atom .* of PHE6, .* it is N of A:TRP6", system
    )
    mixed = [{"topology": top, "trajectories": [top]}, {"trajectories": [str(tmp_path / "ca.pdb")]}]
    trpcage[0].atom_slice(trpcage.topology.select("name CA")).save(str(tmp_path / "ca.pdb"))
    refused(tmp_path / "w", InputError, "system s1 has C-alpha atoms only", *mixed)


def test_unwritable_places(trpcage, top, tmp_path, full_disk):
    trpcage.save(str(tmp_path / "t.xtc"))
    system = {"topology": top, "trajectories": [str(tmp_path / "t.xtc")]}
    with pytest.raises(OutputError, match=r"Not a directory|File exists"):
        run(tmp_path / "t.xtc", system)
    with (
        full_disk(20_000),
        pytest.raises(OutputError, match=r"partial.*large; what is written stays"),
    ):
        run(tmp_path / "w", system)
    summary, made = run(tmp_path / "w", system)
    assert summary["status"] == "written"
    assert store_of(made).complete


INGEST = (
    "import sys; from hpcbackmap.config.campaign import Campaign; from hpcbackmap.ingest.ingest import ingest\n"
    "from hpcbackmap.runtime.mpi import LocalComm\n"
    "ingest(Campaign.model_validate_json(sys.argv[1]), LocalComm())"
)


def content(store):
    files = sorted(item for item in store.rglob("*") if item.is_file())
    return {str(file.relative_to(store)): file.read_bytes() for file in files}


@pytest.mark.trains
def test_killed_ingest_is_continued(trpcage, top, tmp_path, caplog):
    """Kill it while it writes and damage a shard: the rest is done, and the store is the undisturbed one."""
    system = {"topology": top, "trajectories": [str(tmp_path / "t.xtc")]}
    store = {"shard_mb": 0.3}
    mdtraj.join([trpcage] * 2).save(str(tmp_path / "t.xtc"))
    made = campaign(tmp_path / "w", system, store=store)
    process = subprocess.Popen([sys.executable, "-c", INGEST, made.model_dump_json()])
    partial = tmp_path / "w" / "frames.zarr.partial"
    deadline = time.monotonic() + 60
    while len(records := sorted(partial.glob(".written/*.json"))) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not (tmp_path / "w" / "frames.zarr").exists()
    with pytest.raises(InputError, match="unfinished"):
        open_store(partial)
    first, second = (
        partial / f"systems/s0/particles/fg/position/value/c/{shard}/0/0" for shard in (0, 1)
    )
    untouched = first.stat().st_mtime_ns
    second.write_bytes(second.read_bytes()[:-5])
    assert len(records) >= 3
    with caplog.at_level(logging.INFO):
        summary, _ = run(tmp_path / "w", system, store=store)
    assert "continuing" in caplog.text
    assert "shard.s0.1: damaged" in caplog.text
    assert summary["status"] == "written"
    assert summary["frames_out"] == 2 * trpcage.n_frames
    whole = tmp_path / "w" / "frames.zarr"
    assert (whole / first.relative_to(partial)).stat().st_mtime_ns == untouched
    run(tmp_path / "undisturbed", system, store=store)
    assert content(whole) == content(tmp_path / "undisturbed" / "frames.zarr")


def test_a_second_ingest_of_one_store_is_refused(trpcage, top, tmp_path):
    trpcage[:5].save(str(tmp_path / "t.xtc"))
    system = {"topology": top, "trajectories": [str(tmp_path / "t.xtc")]}
    with (
        only_ingest(tmp_path / "w" / "frames.zarr"),
        pytest.raises(ResourceError, match=r"process .* is writing it"),
    ):
        run(tmp_path / "w", system)
    assert run(tmp_path / "w", system)[0]["status"] == "written"


def test_a_disk_error_at_the_lock_is_no_file_system_without_locks(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("fcntl.flock", fail)
    with pytest.raises(OutputError, match="Input/output error"), only_ingest(tmp_path / "f.zarr"):
        pass


@pytest.mark.trains
def test_unfinished_ingest_of_other_input_is_begun_anew(trpcage, top, tmp_path, full_disk):
    trpcage.save(str(tmp_path / "t.xtc"))
    system = {"topology": top, "trajectories": [str(tmp_path / "t.xtc")]}
    with full_disk(20_000), pytest.raises(OutputError):
        run(tmp_path, system)
    assert (tmp_path / "frames.zarr.partial").exists()
    summary, made = run(tmp_path, system, ladder=("fg", "ca", "ucg:4"))
    assert summary["status"] == "written"
    assert store_of(made).resolutions == ("fg", "ca", "ucg4")
    assert [item.name for item in tmp_path.glob("frames.zarr*")] == ["frames.zarr"]


def test_frames_are_counted_in_the_log(trpcage, top, tmp_path, caplog):
    trpcage[:10].save(str(tmp_path / "t.xtc"))
    shutil.copy(tmp_path / "t.xtc", tmp_path / "u.xtc")
    with caplog.at_level(logging.INFO):
        run(tmp_path, {"topology": top, "trajectories": [str(tmp_path / "?.xtc")]})
    assert "20 residues, 1 chain(s), 20 frames from 2 file(s)" in caplog.text
    assert "20 of 20 frames" in caplog.text
