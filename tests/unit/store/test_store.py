"""The frame store: what is written comes back, and what is not whole is refused."""

import json

import numpy as np
import pytest

from hpcbackmap.config.campaign import StoreConfig
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.errors import ConfigError, IncompleteError, InputError, OutputError
from hpcbackmap.store.store import create_store, open_store

SEQUENCE = "ACDEFGHIKLMNPQRSTVWY"
SMALL = StoreConfig(chunk_mb=0.01, shard_mb=0.04)


def ladder(length=20):
    return build_ladder(topology_from_sequence([SEQUENCE[:length]]), ["fg", "ca", "ucg:4"])


def frames(of, count, seed=0):
    atoms = (
        np.random.default_rng(seed).normal(size=(count, of.topology.n_atoms, 3)).astype(np.float32)
    )
    return of.coarsen(atoms)


def write(store, name, levels):
    system = store.system(name)
    for shard in range(system.n_shards):
        part = slice(shard * system.shard_frames, (shard + 1) * system.shard_frames)
        rows = np.arange(system.n_frames)[part]
        observables = {"source_frame": rows // 3, "member": rows % 3}
        system.write_shard(shard, {key: a[part] for key, a in levels.items()}, observables)


@pytest.fixture
def stored(tmp_path):
    """A finished store of 77 frames in three shards, and what it should hold."""
    of, n = ladder(), 77
    store = create_store(
        tmp_path / "s.zarr", {"p": of}, {"p": n}, of.resolutions, SMALL, {"input": "abc"},
        shard_frames=30, observables={"source_frame": "int64", "member": "int64"},
    )  # fmt: skip
    levels = frames(of, n)
    write(store, "p", levels)
    store.mark_complete()
    return tmp_path / "s.zarr", levels


def test_frames_come_back_exactly(stored):
    path, levels = stored
    store = open_store(path)
    system = store.system("p")
    assert store.resolutions == ("fg", "ca", "ucg4")
    assert system.n_shards == 3
    for resolution, expected in levels.items():
        for start, stop in ((0, 77), (29, 31), (60, 77), (5, 5)):
            found = system.read(resolution, start, stop)
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, expected[start:stop])
    np.testing.assert_array_equal(system.read_observable("member", 28, 33), np.arange(28, 33) % 3)
    assert system.ladder.digest == ladder().digest


def test_chunks_divide_shards_and_stay_near_their_size(stored):
    system = open_store(stored[0]).system("p")
    for resolution in ("fg", "ca", "ucg4"):
        frames_per_chunk = system.block_frames(resolution)
        assert system.shard_frames % frames_per_chunk == 0
        assert frames_per_chunk * system.n_particles(resolution) * 12 <= 1.01e4


def test_quantised_positions_are_rounded_and_smaller(tmp_path):
    of, n, sizes = ladder(), 200, []
    atoms = frames(of, n)["fg"]
    for quantise in (False, True):
        config = StoreConfig(quantise=quantise)
        path = tmp_path / f"{quantise}.zarr"
        store = create_store(path, {"p": of}, {"p": n}, of.resolutions, config, {})
        levels = of.coarsen(atoms)
        levels["fg"][3, 4] = np.nan
        for shard in range(store.system("p").n_shards):
            store.system("p").write_shard(shard, levels)
        store.mark_complete()
        sizes.append(
            sum(item.stat().st_size for item in (path / "systems/p/particles/fg").rglob("*"))
        )
    found = open_store(path).system("p").read("fg", 0, n)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(levels["fg"]))
    np.testing.assert_allclose(found, levels["fg"], rtol=0, atol=5.01e-4)
    np.testing.assert_array_equal(open_store(path).system("p").read("ca", 0, n), levels["ca"])
    assert sizes[1] < 0.6 * sizes[0]


def test_many_small_systems_share_files(tmp_path):
    names = [f"s{i}" for i in range(120)]
    ladders = {name: ladder(5 + i % 16) for i, name in enumerate(names)}
    levels = {name: frames(ladders[name], 1 + i % 2, seed=i) for i, name in enumerate(names)}
    counts = {name: len(levels[name]["fg"]) for name in names}
    sources = {name: [(name, 0, counts[name])] for name in names}
    path = tmp_path / "many.zarr"
    store = create_store(
        path, ladders, counts, ("fg", "ca", "ucg4"), StoreConfig(shard_mb=0.2), {},
        observables={"step": "int64"}, sources=sources, packed=True,
    )  # fmt: skip
    assert sum(len(pack) for pack in store.packs) == 120
    for number, pack in enumerate(store.packs):
        steps = {name: {"step": np.arange(counts[name])} for name in pack}
        store.write_pack(number, {name: levels[name] for name in pack}, steps)
    store.mark_complete()
    assert sum(item.is_file() for item in path.rglob("*")) < 60
    store, first = open_store(path), 0
    for name in names:
        system = store.system(name)
        assert system.first_frame == first
        first += system.n_frames
        for resolution in store.resolutions:
            found = system.read(resolution, 0, system.n_frames)
            np.testing.assert_array_equal(found, levels[name][resolution])
        assert system.read_observable("step", 0, system.n_frames).tolist() == list(
            range(counts[name])
        )
    assert store.system("s7").ladder.topology.n_residues == 12


def test_one_damaged_byte_is_noticed_and_named(stored):
    path, levels = stored
    file = path / "systems/p/particles/ca/position/value/c/1/0/0"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    system = open_store(path).system("p")
    np.testing.assert_array_equal(system.read("ca", 0, 30), levels["ca"][:30])
    np.testing.assert_array_equal(system.read("fg", 0, 77), levels["fg"])
    with pytest.raises(InputError, match=r"shard 1 of systems/p/particles/ca.* damaged"):
        system.read("ca", 0, 77)


def test_lost_shard_is_noticed(stored):
    path, _ = stored
    (path / "systems/p/particles/fg/position/value/c/2/0/0").unlink()
    with pytest.raises(InputError, match=r"shard 2 of systems/p/particles/fg.* missing"):
        open_store(path).system("p").read("fg", 60, 77)


def test_damaged_shard_can_be_written_again(stored):
    path, levels = stored
    file = path / "systems/p/particles/fg/position/value/c/2/0/0"
    file.write_bytes(b"torn")
    write(open_store(path, incomplete_ok=True), "p", levels)
    np.testing.assert_array_equal(open_store(path).system("p").read("fg", 0, 77), levels["fg"])


def test_unfinished_store_does_not_open(tmp_path):
    of = ladder()
    store = create_store(
        tmp_path / "s.zarr", {"p": of}, {"p": 60}, ["fg"], SMALL, {}, shard_frames=30
    )
    store.system("p").write_shard(0, {"fg": frames(of, 30)["fg"]})
    with pytest.raises(InputError, match="unfinished"):
        open_store(tmp_path / "s.zarr")
    with pytest.raises(IncompleteError, match="shard 1 of system p"):
        store.mark_complete()
    again = open_store(tmp_path / "s.zarr", incomplete_ok=True)
    again.system("p").write_shard(
        1, {"fg": np.full((30, of.topology.n_atoms, 3), np.nan, np.float32)}
    )
    again.mark_complete()
    assert np.isnan(open_store(tmp_path / "s.zarr").system("p").read("fg", 30, 60)).all()


def test_newer_foreign_and_missing_stores_are_refused(stored, tmp_path):
    path, _ = stored
    record = json.loads((path / "zarr.json").read_text())
    record["attributes"]["format_version"] = 99
    (path / "zarr.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"format 99.*up to 3"):
        open_store(path)
    record["attributes"] = {}
    (path / "zarr.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="not a frame store"):
        open_store(path)
    (path / "zarr.json").write_text("{")
    with pytest.raises(InputError, match="not a frame store"):
        open_store(path)
    with pytest.raises(InputError, match="no such"):
        open_store(tmp_path / "nothing.zarr")


def test_what_does_not_exist_is_named(stored, tmp_path):
    path, _ = stored
    store = open_store(path)
    with pytest.raises(InputError, match="no system 'q'; there are p"):
        store.system("q")
    with pytest.raises(InputError, match="no resolution 'ucg9'"):
        store.system("p").read("ucg9", 0, 1)
    with pytest.raises(InputError, match="frames 0 to 76"):
        store.system("p").read("fg", 0, 78)
    with pytest.raises(InputError, match="no observable 'time'; there are source_frame, member"):
        store.system("p").read_observable("time", 0, 1)
    with pytest.raises(OutputError, match="already exists"):
        create_store(path, {"p": ladder()}, {"p": 1}, ["fg"], SMALL, {})
    with pytest.raises(ConfigError, match="a/b"):
        create_store(tmp_path / "n.zarr", {"a/b": ladder()}, {"a/b": 1}, ["fg"], SMALL, {})


def test_failed_writes_name_the_place(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file"):
        create_store(tmp_path / "file" / "s.zarr", {"p": ladder()}, {"p": 1}, ["fg"], SMALL, {})


def test_digest_is_of_content_not_of_versions(tmp_path):
    def digest(name, provenance, count=9):
        store = create_store(
            tmp_path / name, {"p": ladder()}, {"p": count}, ["fg"], SMALL, provenance
        )
        return store.digest

    first = digest("a", {"input": "x", "versions": {"zarr": "3.1"}})
    assert digest("b", {"input": "x", "versions": {"zarr": "3.4"}}) == first
    assert digest("c", {"input": "y", "versions": {"zarr": "3.1"}}) != first
    assert digest("d", {"input": "x", "versions": {"zarr": "3.1"}}, count=8) != first
