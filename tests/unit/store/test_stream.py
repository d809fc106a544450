"""The stream: one order for any number of ranks and any restart, within its memory."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import accumulate, islice

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hpcbackmap.config.campaign import SplitConfig, StoreConfig
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.store.split import FrameRange, split_frames
from hpcbackmap.store.store import create_store, open_store
from hpcbackmap.store.stream import FrameStream

LENGTHS = {
    "a": ("ACDEFGHIKL", 83),
    "b": ("MNPQRSTVWYAC", 40),
    "c": ("GGGGG", 1),
    "d": ("AAAAAA", 2),
}
"""Two systems with shards of their own, two in a pack."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Every coordinate of global frame i is i."""
    path = tmp_path_factory.mktemp("stream") / "s.zarr"
    ladders = {
        name: build_ladder(topology_from_sequence([letters]), ["fg", "ca", "ucg:3"])
        for name, (letters, _) in LENGTHS.items()
    }
    counts = {name: count for name, (_, count) in LENGTHS.items()}
    config = StoreConfig(chunk_mb=0.01, shard_mb=0.03)
    new = create_store(path, ladders, counts, ("fg", "ca", "ucg3"), config, {}, packed=True)
    assert new.packs == [["c", "d"]]

    def levels(name):
        system = new.system(name)
        values = (system.first_frame + np.arange(system.n_frames, dtype=np.float32))[:, None, None]
        return {r: np.tile(values, (1, system.n_particles(r), 3)) for r in new.resolutions}

    for name in ("a", "b"):
        system, size = new.system(name), new.system(name).shard_frames
        for shard in range(system.n_shards):
            part = slice(shard * size, (shard + 1) * size)
            system.write_shard(shard, {key: array[part] for key, array in levels(name).items()})
    new.write_pack(0, {name: levels(name) for name in ("c", "d")}, {"c": {}, "d": {}})
    new.mark_complete()
    return open_store(path)


def everything(store):
    return [FrameRange(name, 0, store.system(name).n_frames) for name in store.systems]


def stream(store, rank=0, world=1, batch_size=6, budget_mb=0.08, ranges=None, **options):
    ranges = ranges or everything(store)
    return FrameStream(
        store, ranges, "fg", "ucg3", batch_size, 5, rank, world, budget_mb, **options
    )


def check_contents(store, batch):
    """Positions are those of the frames and systems that the batch claims."""
    owners = [
        max(n for n in store.systems if store.system(n).first_frame <= i) for i in batch.frames
    ]
    for level, array in (("fg", batch.fine), ("ucg3", batch.coarse)):
        assert array.dtype == np.float32
        if len(batch.systems) == 1:
            assert set(owners) == set(batch.systems)
            assert array.shape == (len(batch.frames), store.system(owners[0]).n_particles(level), 3)
            expected = np.broadcast_to(batch.frames[:, None, None], array.shape)
        else:
            assert owners == batch.systems
            assert array.shape[0] == 1
            sizes = [store.system(name).n_particles(level) for name in owners]
            expected = np.broadcast_to(np.repeat(batch.frames, sizes)[None, :, None], array.shape)
        np.testing.assert_array_equal(array, expected)


@dataclass
class Numbered:
    """Stands in for a stored system: every coordinate of global frame i is i."""

    first_frame: int
    n_frames: int
    chunk: int
    particles: int

    def n_particles(self, level):
        return self.particles if level == "fg" else 1

    def block_frames(self, level):
        return self.chunk


class NumberedStore:
    """Stands in for a store where many need to be tried. shapes: (frames, frames per chunk) of each system."""

    path = "numbered"

    def __init__(self, shapes):
        starts = [0, *accumulate(count for count, _ in shapes)]
        self._systems = {
            f"s{i}": Numbered(starts[i], count, chunk, 1 + i)
            for i, (count, chunk) in enumerate(shapes)
        }
        self.systems = tuple(self._systems)

    def system(self, name):
        return self._systems[name]

    def read_together(self, pieces):
        arrays = []
        for name, level, start, stop in pieces:
            system = self.system(name)
            assert 0 <= start < stop <= system.n_frames
            values = system.first_frame + np.arange(start, stop, dtype=np.float32)
            arrays.append(np.tile(values[:, None, None], (1, system.n_particles(level), 3)))
        return arrays


@st.composite
def cases(draw):
    """A store, ranges of it, ranks (no more than samples), a batch size, and a budget of some batches."""
    shapes = st.tuples(st.integers(1, 60), st.integers(1, 16))
    store = NumberedStore(draw(st.lists(shapes, min_size=1, max_size=4)))
    ranges = []
    for name in store.systems:
        cut = draw(st.integers(0, store.system(name).n_frames - 1))
        ranges.append(FrameRange(name, cut, store.system(name).n_frames))
    world = draw(st.sampled_from([1, 2, 3, 7]))
    batch_size = draw(st.integers(7, 40))
    frame_mb = 12e-6 * max(store.system(name).n_particles("fg") + 1 for name in store.systems)
    budget_mb = 2.01 * batch_size * frame_mb * draw(st.sampled_from([1, 2, 5, 100]))
    clusters = draw(st.sampled_from([None, None, {"s0": "c", "s1": "c"}]))
    options = {"ranges": ranges, "batch_size": batch_size, "budget_mb": budget_mb}
    options["clusters"] = clusters
    assume(stream(store, **options).n_samples >= world)
    return store, world, options


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(0, 200), st.integers(0, 8))
def test_one_order_for_any_ranks_and_any_start(case, start, batches):
    """Every global batch is the union of the ranks' shares, in order; a restart at any sample goes on."""
    store, world, options = case
    batch_size = options["batch_size"]
    whole = stream(store, **options)
    needed = -(-(start + batches * batch_size) // batch_size)
    expected = np.concatenate([[], *[part.frames for part in islice(whole, needed)]])
    ranks = [stream(store, r, world, start=start, **options) for r in range(world)]
    for number, parts in enumerate(islice(zip(*ranks, strict=True), batches)):
        first = start + number * batch_size
        seen = np.concatenate([part.frames for part in parts])
        np.testing.assert_array_equal(seen, expected[first : first + batch_size])
        for part in parts:
            assert part.position == first + batch_size
            assert len(part.frames) in (batch_size // world, -(-batch_size // world))
            check_contents(store, part)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_no_frame_is_lost_or_doubled_in_an_epoch(case):
    store, _, options = case
    flow = stream(store, **options | {"clusters": None})
    n, size = flow.n_samples, flow.batch_size
    seen = np.concatenate([part.frames for part in islice(flow, -(-3 * n // size))])
    wanted = sorted(
        store.system(part.system).first_frame + i
        for part in options["ranges"]
        for i in range(part.start, part.stop)
    )
    for epoch in range(3):
        assert sorted(seen[epoch * n : (epoch + 1) * n]) == wanted


def test_stored_frames_come_as_their_batches_claim(store):
    """What the stand-ins above cannot show: arrays of their own, packs, reading several at once."""
    expected = [batch.frames for batch in islice(stream(store, batch_size=8), 30)]
    ranks = [stream(store, r, 3, 8, start=16) for r in range(3)]
    for number, parts in enumerate(islice(zip(*ranks, strict=True), 28), start=2):
        np.testing.assert_array_equal(
            np.concatenate([part.frames for part in parts]), expected[number]
        )
        for part in parts:
            check_contents(store, part)


def test_epochs_and_seeds_have_orders_of_their_own():
    numbered = NumberedStore([(100, 8)])
    ranges = everything(numbered)
    orders = {
        tuple(np.concatenate([b.frames for b in islice(flow, 10)]))
        for seed in (5, 6)
        for start in (0, 100)
        for flow in [FrameStream(numbered, ranges, "fg", "ca", 10, seed, 0, 1, 0.08, start=start)]
    }
    assert len(orders) == 4


def test_batches_mix_like_a_random_permutation():
    """Distances in the store between neighbours in a batch, from windows of a twentieth of the store."""
    n = 20480
    numbered = NumberedStore([(n, 8)])
    flow = stream(numbered, ranges=everything(numbered), batch_size=32, budget_mb=0.05)
    assert flow.window <= n / 19
    batches = np.stack([batch.frames for batch in islice(flow, n // 32)])
    mixed = np.abs(np.diff(batches, axis=1)).ravel()
    shuffled = np.random.default_rng(0).permutation(n).reshape(-1, 32)
    random = np.abs(np.diff(shuffled, axis=1)).ravel()
    for percent in (10, 25, 50, 75, 90):
        assert np.percentile(mixed, percent) == pytest.approx(
            np.percentile(random, percent), rel=0.15
        )
    assert np.mean(mixed < 8) < 0.02, "from one block"


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(0, 60))
def test_unshuffled_pass_is_in_order_and_leaves_no_rank_out(case, start):
    store, world, options = case
    options = options | {"clusters": None, "shuffle": False}
    stored = stream(store, **options).n_samples
    if stored - start < world:
        return
    ranks = [stream(store, r, world, start=start, **options) for r in range(world)]
    batches = list(zip(*ranks, strict=True))
    frames = [part.frames for parts in batches for part in parts]
    assert all(len(part) for part in frames)
    every = [
        store.system(part.system).first_frame + i
        for part in options["ranges"]
        for i in range(part.start, part.stop)
    ]
    np.testing.assert_array_equal(np.concatenate(frames), every[start:])
    assert batches[-1][0].position == stored


CLUSTERS = {"a": "family", "c": "family"}
"""b and d name none: each is its own."""


def test_every_cluster_once_per_epoch_its_systems_in_turn(store):
    order = stream(store, batch_size=3, clusters=CLUSTERS)
    assert order.n_samples == 3
    epochs = [batch.frames for batch in islice(order, 30)]
    first = {name: store.system(name).first_frame for name in store.systems}
    owners = [
        {max(name for name in first if first[name] <= i) for i in frames} for frames in epochs
    ]
    assert all({"b", "d"} < names and len(names) == 3 for names in owners)
    related = ["".join(names - {"b", "d"}) for names in owners]
    assert {related[2 * i] + related[2 * i + 1] for i in range(15)} == {"ac", "ca"}
    assert len({i for frames in epochs for i in frames if first["b"] <= i < first["c"]}) > 15
    other = FrameStream(store, everything(store), "fg", "ca", 3, 6, 0, 1, 0.08, clusters=CLUSTERS)
    assert [list(batch.frames) for batch in islice(other, 30)] != [list(f) for f in epochs]


def test_clusters_keep_to_the_ranges(store):
    """Two ranges of one system: all of their frames are drawn, and no other."""
    ranges = [FrameRange("a", 5, 8), FrameRange("a", 20, 22), FrameRange("b", 3, 4)]
    flow = stream(store, batch_size=2, ranges=ranges, clusters={"a": "one"})
    seen = {int(i) for batch in islice(flow, 100) for i in batch.frames}
    assert seen == {5, 6, 7, 20, 21, 83 + 3}


BUDGET_MB = 4.0
READER = f"""
import sys
from pathlib import Path
from hpcbackmap.runtime.allocator import keep_freed_memory
from hpcbackmap.store.split import FrameRange
from hpcbackmap.store.store import open_store
from hpcbackmap.store.stream import FrameStream

def resident_mb(kind):
    status = Path("/proc/self/status").read_text()
    return int(status.split(kind + ":")[1].split()[0]) * 1.024e-3

keep_freed_memory()
store = open_store(sys.argv[1])
frames = store.system("p").n_frames
store.system("p").read("fg", 0, 1)
before = resident_mb("VmRSS")
seen = 0
for batch in FrameStream(
    store, [FrameRange("p", 0, frames)], "fg", "ca", 16, 0, 0, 1, {BUDGET_MB}
):
    seen += len(batch.frames)
    if seen >= frames:
        break
print(seen, resident_mb("VmHWM") - before)
"""
"""Prints the frames of a pass and by how many MB it made the process grow at most."""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_a_process_stays_in_the_budget(tmp_path):
    """Resident memory, at its peak, for a store of twenty budgets."""
    of = build_ladder(topology_from_sequence(["ACDEFGHIKLMNPQRSTVWY" * 10]), ["fg", "ca"])
    n = 3840
    config = StoreConfig(chunk_mb=0.25, shard_mb=64)
    new = create_store(tmp_path / "s.zarr", {"p": of}, {"p": n}, ["fg", "ca"], config, {})
    system = new.system("p")
    sizes = {level: system.n_particles(level) for level in ("fg", "ca")}
    assert 12e-6 * n * sum(sizes.values()) > 20 * BUDGET_MB
    for shard in range(system.n_shards):
        rows = min(system.shard_frames, n - shard * system.shard_frames)
        system.write_shard(
            shard, {level: np.ones((rows, size, 3), np.float32) for level, size in sizes.items()}
        )
    new.mark_complete()
    command = [sys.executable, "-c", READER, str(tmp_path / "s.zarr")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seen, grown_mb = done.stdout.split()
    assert int(seen) == n
    assert float(grown_mb) < BUDGET_MB + 16, "and some 10 MB for Zarr's threads, at any budget"


def test_a_damaged_shard_is_named(store, tmp_path):
    copy = shutil.copytree(store.path, tmp_path / "s.zarr")
    file = next(copy.glob("systems/a/particles/fg/position/value/c/1/*/*"))
    content = bytearray(file.read_bytes())
    content[20] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"shard 1 of systems/a/particles/fg.* is damaged"):
        for _ in islice(stream(open_store(copy)), 30):
            pass
    file.unlink()
    with pytest.raises(InputError, match=r"shard 1 of systems/a/particles/fg.* is missing"):
        for _ in islice(stream(open_store(copy)), 30):
            pass


def test_impossible_streams_are_refused(store):
    with pytest.raises(ConfigError, match="batch of 2 frames cannot be divided over 3 ranks"):
        stream(store, world=3, batch_size=2)
    with pytest.raises(ConfigError, match="budget_mb"):
        stream(store, batch_size=50, budget_mb=0.01)
    with pytest.raises(InputError, match="0 frames"):
        FrameStream(store, [], "fg", "ca", 1, 0, 0, 1, 1.0)
    with pytest.raises(InputError, match="no resolution 'com'"):
        FrameStream(store, everything(store), "com", "ca", 1, 0, 0, 1, 1.0)


def covered(store, ranges):
    frames = {
        kind: {
            store.system(r.system).first_frame + i for r in parts for i in range(r.start, r.stop)
        }
        for kind, parts in ranges.items()
    }
    total = sum(store.system(name).n_frames for name in store.systems)
    assert sorted(i for part in frames.values() for i in part) == list(range(total))
    return frames


def test_split_by_time_takes_the_last_blocks(store):
    ranges = split_frames(store, SplitConfig())
    covered(store, ranges)
    assert ranges["test"][0] == FrameRange("a", 67, 83)
    assert ranges["validation"][0] == FrameRange("a", 59, 67)
    assert FrameRange("d", 0, 2) in ranges["train"], "too short to be cut"


def test_split_by_system(store):
    named = SplitConfig(by="system", test_names=["b"], validation_names=["c"])
    ranges = split_frames(store, named)
    covered(store, ranges)
    assert [part.system for part in ranges["test"]] == ["b"]
    assert [part.system for part in ranges["validation"]] == ["c"]
    by_fraction = split_frames(store, SplitConfig(by="system", test=0.5, validation=0.25))
    covered(store, by_fraction)
    assert [len(by_fraction[kind]) for kind in ("train", "validation", "test")] == [1, 1, 2]


def test_split_by_source(tmp_path):
    of = build_ladder(topology_from_sequence(["ACDEF"]), ["fg", "ca"])
    sources = [(f"run{i}", 10 * i, 10 * i + 10) for i in range(5)]
    new = create_store(
        tmp_path / "s.zarr", {"p": of}, {"p": 50}, ["ca"], StoreConfig(), {}, sources={"p": sources}
    )
    ranges = split_frames(new, SplitConfig(by="source", test_names=["run1"]))
    covered(new, ranges)
    assert ranges["test"] == [FrameRange("p", 10, 20)]
    assert ranges["validation"] == [FrameRange("p", 40, 50)], "the last of the others"
    assert split_frames(new, SplitConfig(by="source"))["test"] == [FrameRange("p", 40, 50)]
    with pytest.raises(ConfigError, match="no source 'run9'; there are run0, run1"):
        split_frames(new, SplitConfig(by="source", test_names=["run9"]))


def test_contradictory_splits_are_refused(store):
    with pytest.raises(ConfigError, match="below 1"):
        split_frames(store, SplitConfig(validation=0.5, test=0.5))
    with pytest.raises(ConfigError, match="'b' is in both"):
        split_frames(store, SplitConfig(by="system", test_names=["b"], validation_names=["b"]))
    with pytest.raises(ConfigError, match="by: source"):
        split_frames(store, SplitConfig(test_names=["b"]))
