"""What a store says of itself is checked: at the opening, at the reading, by `verify`; in one line, by name."""

import json
import shutil

import numpy as np
import pytest

from hpcbackmap.config.campaign import StoreConfig
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.mpi import LocalComm
from hpcbackmap.store.store import create_store, open_store
from hpcbackmap.store.verify import verify_store

FRAMES = 12
FG = "systems/p/particles/fg/position/value/zarr.json"
CONFIG = StoreConfig(quantise=True, chunk_mb=0.004)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Format 2: one system of its own in two shards, two in a pack."""
    path = tmp_path_factory.mktemp("store") / "s.zarr"
    ladders = {
        name: build_ladder(topology_from_sequence([sequence]), ["fg", "ca"])
        for name, sequence in {"p": "ACDEFGHIK", "q": "GGGG", "r": "AAAA"}.items()
    }
    frames = {"p": FRAMES, "q": 1, "r": 2}
    store = create_store(
        path, ladders, frames, ["fg", "ca"], CONFIG, {"note": "test"}, shard_frames=8,
        observables={"time": "float64"}, packed=True,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    levels = {
        name: ladder.coarsen(rng.normal(size=(frames[name], ladder.topology.n_atoms, 3)))
        for name, ladder in ladders.items()
    }
    times = {name: {"time": np.arange(count) * 1.0} for name, count in frames.items()}
    for shard in range(2):
        part = slice(8 * shard, 8 * shard + 8)
        store.system("p").write_shard(
            shard, {key: a[part] for key, a in levels["p"].items()}, {"time": times["p"]["time"][part]}
        )  # fmt: skip
    store.write_pack(0, levels, times)
    store.mark_complete()
    return path


@pytest.fixture
def store(made, tmp_path):
    return shutil.copytree(made, tmp_path / "s.zarr")


def change(store, file, work):
    record = json.loads((store / file).read_text())
    work(record)
    (store / file).write_text(json.dumps(record))


def root(**values):
    return lambda store: change(store, "zarr.json", lambda r: r["attributes"].update(values))


def without(key):
    return lambda store: change(store, "zarr.json", lambda r: r["attributes"].pop(key))


def system(number=0, **values):
    return lambda store: change(
        store, "zarr.json", lambda r: r["attributes"]["systems"][number].update(values)
    )


def array(work, file=FG):
    return lambda store: change(store, file, work)


def flip(file):
    def work(store):
        data = bytearray((store / file).read_bytes())
        data[len(data) // 3] ^= 16
        (store / file).write_bytes(data)

    return work


def inner_chunk(record):
    codec = next(item for item in record["codecs"] if item["name"] == "sharding_indexed")
    codec["configuration"]["chunk_shape"][0] = 3


AT_OPENING = {
    "format_version: text": (root(format_version="1"), "format_version"),
    "format_version: none": (without("format_version"), "format_version"),
    "format_version: below 1": (root(format_version=-1), "format_version"),
    "complete: none": (without("complete"), "complete"),
    "complete: text": (root(complete="yes"), "complete"),
    "systems: text": (root(systems="x"), "systems"),
    "systems: empty": (root(systems=[]), "systems"),
    "systems: the last two gone": (
        lambda s: change(s, "zarr.json", lambda r: r["attributes"]["systems"].__delitem__(slice(1, 3))),
        "packs",
    ),
    "digest: none": (without("digest"), "digest"),
    "digest: another": (root(digest="0" * 64), "digest"),
    "content: none": (without("content"), "content"),
    "hash of the ladders: none": (without("ladders_sha256"), "ladders_sha256"),
    "resolutions: another": (root(resolutions=["fg", "com"]), "digest"),
    "quantised: no": (root(quantised=False), "digest"),
    "provenance: another": (root(provenance={}), "digest"),
    "observables: no numbers": (root(observables={"time": "object"}), "observables"),
    "frames: fewer": (system(frames=5), "digest"),
    "frames: negative": (system(frames=-5), "systems.0.frames"),
    "frames: 10^12": (system(frames=10**12), "digest"),
    "frames: not a number": (system(frames="12"), "systems.0.frames"),
    "shards of no frames": (system(shard_frames=0), "systems.0.shard_frames"),
    "particles: others": (system(particles=[20, 9]), "digest"),
    "particles: of one resolution": (system(particles=[20]), "particles"),
    "name: a path": (system(name="../../x"), "systems.0.name"),
    "sources: text": (system(sources="x"), "systems.0.sources"),
    "pack: another": (system(1, pack=7), "pack"),
}  # fmt: skip
AT_READING = {
    "zarr.json missing": (lambda s: (s / FG).unlink(), "missing"),
    "zarr.json empty": (lambda s: (s / FG).write_text(""), "cannot be read"),
    "zarr.json halved": (lambda s: (s / FG).write_text((s / FG).read_text()[:300]), "cannot be"),
    "zarr.json a list": (lambda s: (s / FG).write_text("[]"), "cannot be read"),
    "codec unknown": (array(lambda r: r["codecs"].__setitem__(0, {"name": "other"})), "zarr.json"),
    "no codecs": (array(lambda r: r.update(codecs=[])), "zarr.json"),
    "shape": (array(lambda r: r["shape"].__setitem__(0, 10**12)), "shape"),
    "scale gone": (array(lambda r: r["attributes"].pop("scale")), "scale is missing"),
    "scale another": (array(lambda r: r["attributes"].update(scale=1.0)), "scale is 1.0"),
    "unit another": (array(lambda r: r["attributes"].update(unit="angstrom")), "unit is angstrom"),
    "type another": (array(lambda r: r.update(data_type="float32", fill_value="NaN")), "dtype"),
    "shards of others": (
        array(lambda r: r["chunk_grid"]["configuration"]["chunk_shape"].__setitem__(0, 4)), "shards",
    ),
    "shards of minus five": (
        array(lambda r: r["chunk_grid"]["configuration"]["chunk_shape"].__setitem__(0, -5)), "zarr",
    ),
    "chunks of three": (array(inner_chunk), "zarr.json"),
    "a group, no array": (array(lambda r: (r.clear(), r.update(zarr_format=3, node_type="group"))), "no array"),
}  # fmt: skip
BY_VERIFY = {
    "ladders flipped": (flip("ladders/c/0"), "ladders"),
    "ladders' metadata": (array(lambda r: r["shape"].__setitem__(0, 10**9), "ladders/zarr.json"), "ladders"),
    "checksums flipped": (flip("checksums/c/0/0"), "checksums"),
    "checksums gone": (lambda s: shutil.rmtree(s / "checksums"), "checksums"),
    "checksums' file gone": (lambda s: (s / "checksums/c/0/0").unlink(), "checksums"),
    "a shard gone": (lambda s: (s / FG.replace("zarr.json", "c/0/0/0")).unlink(), "shard 0 of systems/p"),
    "a pack gone": (lambda s: shutil.rmtree(s / "packs/0/particles/fg/position/value/c"), "packs/0"),
    "times gone": (lambda s: shutil.rmtree(s / "systems/p/particles/fg/position/time"), "position/time"),
}  # fmt: skip


@pytest.mark.parametrize("case", AT_OPENING)
def test_attributes_that_make_no_sense_are_named_at_the_opening(store, case):
    work, words = AT_OPENING[case]
    work(store)
    with pytest.raises(InputError, match=words):
        open_store(store)


@pytest.mark.parametrize("case", AT_READING)
def test_an_array_that_is_not_the_promised_one_is_named_at_the_reading(store, case):
    work, words = AT_READING[case]
    work(store)
    with pytest.raises(InputError, match=words) as error:
        open_store(store).system("p").read("fg", 0, 1)
    assert "systems/p/particles/fg/position/value" in str(error.value)
    with pytest.raises(InputError, match="systems/p/particles/fg/position/value"):
        verify_store(store, LocalComm())


@pytest.mark.parametrize("case", BY_VERIFY)
def test_verify_names_what_reading_a_frame_does_not_meet(store, case):
    work, words = BY_VERIFY[case]
    work(store)
    with pytest.raises(InputError, match=words):
        verify_store(store, LocalComm())


def test_numbers_that_were_written_anew_are_noticed(store):
    system = open_store(store, incomplete_ok=True).system("p")
    levels = {name: system.read(name, 0, 8) for name in ("fg", "ca")}
    levels["fg"][3, 0, 0] += 0.001
    system.write_shard(0, levels, {"time": np.arange(8) * 1.0})
    with pytest.raises(InputError, match="shard 0 of system p holds other numbers"):
        verify_store(store, LocalComm())


def test_writers_and_readers_have_the_same_digests(store, made):
    """Quantised positions and packs included: what was kept is what is found."""
    assert verify_store(made, LocalComm())["hashes"] == "as written"
    opened = open_store(made)
    kept = opened.read_checksums()
    found = [opened.system("p").digest(0), opened.system("p").digest(1)]
    assert kept == [*found, opened.system("q").digest(0), opened.system("r").digest(0)]


def as_format_1(store):
    for key in ("ladders_sha256", "content"):
        without(key)(store)
    root(format_version=1)(store)
    shutil.rmtree(store / "checksums")


def test_a_store_of_format_1_is_read_and_said_to_have_no_hashes(store, caplog):
    as_format_1(store)
    assert verify_store(store, LocalComm())["hashes"] == "none (format 1)"
    assert "keeps no hashes" in caplog.text
    system(frames=11)(store)
    with pytest.raises(InputError, match="shape is"):
        open_store(store).system("p").read("fg", 0, 1)


def test_frames_that_no_file_can_hold_are_not_believed(store):
    """Also where the array agrees: the last shard is looked for before anything is counted."""
    as_format_1(store)
    system(frames=10**12, sources=[["p", 0, 10**12]])(store)
    array(lambda r: r["shape"].__setitem__(0, 10**12))(store)
    for work in (open_store, lambda path: verify_store(path, LocalComm())):
        with pytest.raises(InputError, match=r"shard \d+ of systems/p.* missing|have changed"):
            work(store)
