"""Export: what other programs read is what the store holds."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import mdtraj
import numpy as np
import pytest

from hpcbackmap.config.campaign import Campaign, StoreConfig
from hpcbackmap.ingest.ingest import ingest
from hpcbackmap.runtime.errors import ConfigError, InputError, Interrupted, OutputError
from hpcbackmap.runtime.mpi import LocalComm
from hpcbackmap.store import export as module
from hpcbackmap.store.export import export
from hpcbackmap.store.layout import CELL, cell_columns
from hpcbackmap.store.store import create_store, open_store


@pytest.fixture(scope="module")
def store(example_dir, tmp_path_factory):
    campaign = Campaign(
        name="t",
        workdir=str(tmp_path_factory.mktemp("export")),
        ladder=["fg", "ca", "ucg:5"],
        systems=[
            {
                "name": "trpcage",
                "topology": str(example_dir / "trpcage_top.pdb"),
                "trajectories": [str(example_dir / "trpcage.xtc")],
                "stride": 15,
            }
        ],
    )
    ingest(campaign, LocalComm())
    return open_store(campaign.path("frames.zarr"))


@pytest.mark.parametrize("suffix", ["xtc", "dcd", "pdb"])
@pytest.mark.parametrize("resolution", ["fg", "ca", "ucg5"])
def test_round_trip(store, tmp_path, monkeypatch, suffix, resolution):
    """Whole, a stretch with stride, and one frame as topology; in pieces of a few frames."""
    monkeypatch.setattr(module, "PIECE_BYTES", 10_000)
    system = store.system("trpcage")
    n = system.n_frames
    top = tmp_path / "top.pdb"
    assert export(store, resolution, top, stop=1) == 1
    for start, stop, stride in ((0, None, 1), (7, n - 2, 4)):
        output = tmp_path / f"out.{suffix}"
        expected = system.read(resolution, 0, n)[start:stop:stride]
        written = export(
            store, resolution, output, start=start, stop=stop, stride=stride, force=True
        )
        assert written == len(expected)
        found = mdtraj.load(str(output), top=str(top))
        assert found.n_frames == written
        np.testing.assert_allclose(found.xyz, expected, rtol=0, atol=5.1e-4)
    beside = set() if suffix == "pdb" else {"out_top.pdb"}
    assert {path.name for path in tmp_path.iterdir()} == {f"out.{suffix}", "top.pdb"} | beside
    if beside:
        assert mdtraj.load(str(output), top=str(tmp_path / "out_top.pdb")).n_frames == written


def test_a_file_of_members_says_which_is_which(store, tmp_path):
    """Rows without numbers are left out of the file, and of its table."""
    members = create_store(
        tmp_path / "made.zarr", {"trpcage": store.system("trpcage").ladder}, {"trpcage": 6}, ["fg"],
        StoreConfig(), {}, shard_frames=6, observables={"source_frame": "int64", "member": "int64"},
    )  # fmt: skip
    positions = store.system("trpcage").read("fg", 0, 6).copy()
    positions[3] = np.nan
    observed = {"source_frame": np.repeat([4, 7, 9], 2), "member": np.tile([0, 1], 3)}
    members.system("trpcage").write_shard(0, {"fg": positions}, observed)
    export(members, "fg", tmp_path / "out.dcd")
    rows = (tmp_path / "out.dcd.rows.csv").read_text().split()
    assert rows == ["frame,source_frame,member", "0,4,0", "1,4,1", "2,7,0", "3,9,0", "4,9,1"]
    (tmp_path / "out_top.pdb").write_text("ATOM      1  CA  ALA A   1       0.0     0.0     0.0\n")
    with pytest.raises(ConfigError, match=r"out_top.pdb: there is another topology of this name"):
        export(members, "fg", tmp_path / "out.xtc")
    assert not (tmp_path / "out.xtc").exists()


@pytest.mark.parametrize("suffix", ["xtc", "dcd", "pdb", "gro"])
def test_boxes_of_frames_are_written(store, tmp_path, suffix):
    """Where the store keeps them, of the first frame in the topology beside."""
    kept = create_store(
        tmp_path / "boxes.zarr", {"trpcage": store.system("trpcage").ladder}, {"trpcage": 5}, ["fg"],
        StoreConfig(), {}, shard_frames=5, observables=dict.fromkeys(CELL, "float32"),
    )  # fmt: skip
    cells = np.eye(3) * (4 + np.arange(5))[:, None, None]
    positions = store.system("trpcage").read("fg", 0, 5)
    kept.system("trpcage").write_shard(0, {"fg": positions}, cell_columns(cells, 5))
    export(kept, "fg", tmp_path / f"out.{suffix}", start=1, stride=2)
    top = tmp_path / "out_top.pdb" if suffix in ("xtc", "dcd") else tmp_path / f"out.{suffix}"
    assert mdtraj.load(str(top)).unitcell_lengths[0].tolist() == [5, 5, 5]
    found = mdtraj.load(str(tmp_path / f"out.{suffix}"), top=str(top)).unitcell_lengths[:, 0]
    np.testing.assert_allclose(found, [5, 5] if suffix == "pdb" else [5, 7], atol=1e-5)


def test_names_and_times(store, tmp_path):
    export(store, "fg", tmp_path / "a.pdb", stop=2)
    atoms = mdtraj.load(str(tmp_path / "a.pdb")).topology
    ours = store.system("trpcage").ladder.topology
    assert tuple(atom.name for atom in atoms.atoms) == ours.atom_names
    assert tuple(residue.name for residue in atoms.residues) == ours.sequence
    export(store, "ca", tmp_path / "a.pdb", stop=1, force=True)
    assert [atom.name for atom in mdtraj.load(str(tmp_path / "a.pdb")).topology.atoms] == [
        "CA"
    ] * 20
    export(store, "ucg5", tmp_path / "a.pdb", stop=1, force=True)
    beads = mdtraj.load(str(tmp_path / "a.pdb")).topology
    assert [(atom.name, atom.residue.name) for atom in beads.atoms] == [("CG", "BEA")] * 5
    export(store, "fg", tmp_path / "a.xtc")
    times = mdtraj.load(str(tmp_path / "a.xtc"), top=atoms).time
    np.testing.assert_allclose(
        times, store.system("trpcage").read_observable("time", 0, len(times))
    )


def test_impossible_exports_are_refused(store, tmp_path):
    with pytest.raises(
        ConfigError, match=r"a.trr: can write .xtc, .dcd, .pdb, .cif, .gro, not .trr"
    ):
        export(store, "fg", tmp_path / "a.trr")
    with pytest.raises(ConfigError, match=r"s3://bucket/a.xtc: export writes files"):
        export(store, "fg", "s3://bucket/a.xtc")
    with pytest.raises(InputError, match="no resolution 'com'"):
        export(store, "com", tmp_path / "a.xtc")
    with pytest.raises(InputError, match="no system 'q'"):
        export(store, "fg", tmp_path / "a.xtc", system="q")
    last = store.system(store.systems[0]).n_frames - 1
    with pytest.raises(InputError, match=f"frames 0 to {last}, not 40 to {last + 1}"):
        export(store, "fg", tmp_path / "a.xtc", start=40, stop=last + 2)


@pytest.mark.parametrize("suffix", ["xtc", "dcd", "pdb"])
def test_failed_export_leaves_the_old_file(store, tmp_path, full_disk, suffix):
    output = tmp_path / f"a.{suffix}"
    output.write_text("old")
    with full_disk(9_000), pytest.raises(OutputError, match=f"a.{suffix}"):
        export(store, "fg", output, force=True)
    with pytest.raises(OutputError, match="exists already"):
        export(store, "fg", output)
    assert output.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == [output.name]
    with pytest.raises(OutputError, match="Not a directory"):
        export(store, "fg", output / f"b.{suffix}")
    with pytest.raises(OutputError, match=f"nowhere/b.{suffix}: No such file"):
        export(store, "fg", tmp_path / "nowhere" / f"b.{suffix}")


def test_a_file_for_every_frame(store, tmp_path):
    assert export(store, "fg", tmp_path / "at-{frame}.pdb", start=5, stop=12, stride=3) == 3
    width = len(str(store.system("trpcage").n_frames - 1))
    expected = [f"at-{number:0{width}d}.pdb" for number in (5, 8, 11)]
    assert sorted(path.name for path in tmp_path.iterdir()) == expected
    found = mdtraj.load(str(tmp_path / expected[1])).xyz[0]
    np.testing.assert_allclose(found, store.system("trpcage").read("fg", 8, 9)[0], atol=5.1e-4)


def test_a_stride_holds_no_more_than_a_block_of_the_frames_between(store, tmp_path, monkeypatch):
    system, block, spans = store.system("trpcage"), 8, []
    read = type(system).read

    def noted(self, resolution, start, stop):
        spans.append(stop - start)
        return read(self, resolution, start, stop)

    monkeypatch.setattr(type(system), "block_frames", lambda *_: block)
    monkeypatch.setattr(type(system), "read", noted)
    assert export(store, "ca", tmp_path / "a.xtc", stride=5) == len(range(0, system.n_frames, 5))
    assert max(spans) <= block


def test_a_stop_signal_leaves_no_file(store, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PIECE_BYTES", 10_000)
    system = store.system("trpcage")
    read = type(system).read

    def interrupted(self, resolution, start, stop):
        if start > 20:
            os.kill(os.getpid(), signal.SIGTERM)
        return read(self, resolution, start, stop)

    monkeypatch.setattr(type(system), "read", interrupted)
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        export(store, "fg", tmp_path / "a.xtc")
    assert not list(tmp_path.iterdir())


def test_another_thread_exports(store, tmp_path):
    """Where stop signals cannot be had, as in the cell of a notebook that runs beside others."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(export, store, "ca", tmp_path / "a.xtc", stop=5).result() == 5


def test_frames_without_numbers_are_left_out_and_told(store, tmp_path, monkeypatch, caplog):
    """As a backmapped store has them where structures are quarantined."""
    system = store.system("trpcage")
    read = type(system).read

    def with_a_hole(self, resolution, start, stop):
        positions = read(self, resolution, start, stop).copy()
        if start <= 4 < stop:
            positions[4 - start] = np.nan
        return positions

    monkeypatch.setattr(type(system), "read", with_a_hole)
    assert export(store, "ca", tmp_path / "a.xtc", stop=10) == 9
    assert "1 frame(s) without numbers were left out" in caplog.text
    export(store, "ca", tmp_path / "top.pdb", stop=1)
    with mdtraj.open(str(tmp_path / "a.xtc")) as file:
        assert 4 not in file.read()[2]
        assert file.tell() == 9
    with pytest.raises(InputError, match="none of the frames"):
        export(store, "ca", tmp_path / "b.xtc", start=4, stop=5)
