"""The stream: one order for any number of ranks and any restart, within its memory."""

import tracemalloc
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcbackmap.config import SplitConfig, StoreConfig
from hpcbackmap.errors import ConfigError, InputError
from hpcbackmap.frames.split import FrameRange, split_frames
from hpcbackmap.frames.store import create_store, open_store
from hpcbackmap.frames.stream import FrameStream
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder

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
            assert owners == batch.systems and array.shape[0] == 1
            sizes = [store.system(name).n_particles(level) for name in owners]
            expected = np.broadcast_to(np.repeat(batch.frames, sizes)[None, :, None], array.shape)
        np.testing.assert_array_equal(array, expected)


@settings(max_examples=12, deadline=None)
@given(
    world=st.integers(1, 3),
    batch_size=st.integers(3, 50),
    restart=st.integers(0, 9),
    budget_mb=st.sampled_from([0.15, 0.3, 5.0]),
)
def test_order_is_the_same_for_all_ranks_and_restarts(store, world, batch_size, restart, budget_mb):
    count = 12
    single = stream(store, batch_size=batch_size, budget_mb=budget_mb)
    expected = [batch.frames for batch in islice(single, count)]
    start = restart * batch_size
    ranks = [stream(store, r, world, batch_size, budget_mb, start=start) for r in range(world)]
    for number, parts in enumerate(
        islice(zip(*ranks, strict=True), count - restart), start=restart
    ):
        np.testing.assert_array_equal(
            np.concatenate([part.frames for part in parts]), expected[number]
        )
        for part in parts:
            assert part.position == (number + 1) * batch_size
            assert len(part.frames) in (batch_size // world, batch_size // world + 1)
            check_contents(store, part)


def test_every_frame_once_per_epoch_in_another_order(store):
    n = sum(store.system(name).n_frames for name in store.systems)
    seen = np.concatenate([batch.frames for batch in islice(stream(store), -(-3 * n // 6))])
    epochs = [seen[i * n : (i + 1) * n] for i in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(n))
    assert not np.array_equal(epochs[0], epochs[1])
    other = FrameStream(store, everything(store), "fg", "ca", 6, 6, 0, 1, 0.08)
    assert not np.array_equal(next(iter(other)).frames, seen[:6])


def test_batches_mix_distant_frames(store):
    """Frames of a batch come from all over a window, not from one stored block."""
    ranges = [FrameRange("a", 0, 83)]
    spreads = [
        np.ptp(batch.frames) for batch in islice(stream(store, ranges=ranges, budget_mb=5.0), 10)
    ]
    assert np.median(spreads) > 40


@settings(max_examples=12, deadline=None)
@given(
    world=st.integers(1, 3),
    batch_size=st.integers(3, 30),
    stop=st.integers(3, 83),
    start=st.integers(0, 2),
)
def test_unshuffled_pass_is_in_order_and_leaves_no_rank_out(store, world, batch_size, stop, start):
    ranges = [FrameRange("a", 0, stop)]
    start = start * batch_size
    if stop - start < world:
        return
    ranks = [
        stream(store, r, world, batch_size, 1.0, ranges=ranges, shuffle=False, start=start)
        for r in range(world)
    ]
    batches = list(zip(*ranks, strict=True))
    frames = [part.frames for parts in batches for part in parts]
    assert all(len(part) for part in frames)
    np.testing.assert_array_equal(np.concatenate(frames), np.arange(start, stop))
    assert batches[-1][0].position == stop


CLUSTERS = {"a": "family", "c": "family"}
"""b and d name none: each is its own."""


@settings(max_examples=12, deadline=None)
@given(
    world=st.integers(1, 3),
    batch_size=st.integers(3, 9),
    restart=st.integers(0, 9),
    budget_mb=st.sampled_from([0.15, 5.0]),
)
def test_order_of_clusters_is_the_same_for_all_ranks_and_restarts(
    store, world, batch_size, restart, budget_mb
):
    count = 12
    options = {"batch_size": batch_size, "budget_mb": budget_mb, "clusters": CLUSTERS}
    expected = [batch.frames for batch in islice(stream(store, **options), count)]
    start = restart * batch_size
    ranks = [stream(store, r, world, start=start, **options) for r in range(world)]
    for number, parts in enumerate(
        islice(zip(*ranks, strict=True), count - restart), start=restart
    ):
        seen = np.concatenate([part.frames for part in parts])
        np.testing.assert_array_equal(seen, expected[number])
        for part in parts:
            check_contents(store, part)


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


def test_memory_stays_in_the_budget(tmp_path):
    """A pass over twelve times the budget."""
    of = build_ladder(topology_from_sequence(["ACDEFGHIKLMNPQRSTVWY" * 5]), ["fg", "ca"])
    n, budget_mb = 4096, 3.0
    config = StoreConfig(chunk_mb=0.1, shard_mb=2)
    new = create_store(tmp_path / "s.zarr", {"p": of}, {"p": n}, ["fg", "ca"], config, {})
    system = new.system("p")
    block = of.coarsen(np.zeros((system.shard_frames, of.topology.n_atoms, 3), np.float32))
    for shard in range(system.n_shards):
        system.write_shard(shard, block)
    new.mark_complete()
    total_mb = 12e-6 * n * (of.topology.n_atoms + 100)
    assert total_mb > 12 * budget_mb
    flow = FrameStream(
        open_store(tmp_path / "s.zarr"), [FrameRange("p", 0, n)], "fg", "ca", 16, 0, 0, 1, budget_mb
    )
    tracemalloc.start()
    for batch in islice(flow, n // 16):
        assert batch.fine.shape[0] == 16
    peak_mb = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    assert peak_mb < budget_mb + 1.5, "budget, one batch and one decoded chunk"


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
