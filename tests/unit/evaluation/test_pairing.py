"""Which stored structure is judged by which true frame; what cannot be judged is named."""

import numpy as np
import pytest

from hpcbackmap.config.campaign import StoreConfig
from hpcbackmap.evaluation.pairing import (
    Pairs,
    pair_stores,
    read_members,
    require_held_out,
    thin,
)
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.store.split import FrameRange
from hpcbackmap.store.store import create_store

FRAMES = {"one": 6, "two": 5}


def ladder(sequence="AG"):
    return build_ladder(topology_from_sequence([sequence]), ["fg", "ca"])


@pytest.fixture
def truth(tmp_path):
    """Two systems; frames of the second are counted on from those of the first."""
    store = create_store(
        tmp_path / "truth.zarr", dict.fromkeys(FRAMES, ladder()), FRAMES, ["ca"], StoreConfig(), {}
    )
    return store


@pytest.fixture
def stored(tmp_path):
    """A function: a store of structures of these frames, each C-alpha atom at its row in nm."""

    def make(sources: dict[str, list[int]], sequence="AG"):
        ladders = dict.fromkeys(sources, ladder(sequence))
        counts = {name: len(frames) for name, frames in sources.items()}
        store = create_store(
            tmp_path / "made.zarr", ladders, counts, ["ca"], StoreConfig(), {},
            shard_frames=100, observables={"source_frame": "int64"},
        )  # fmt: skip
        for name, frames in sources.items():
            rows = np.arange(len(frames), dtype=np.float32)
            positions = np.broadcast_to(rows[:, None, None], (len(rows), len(sequence), 3))
            observed = {"source_frame": np.array(frames, dtype=np.int64)}
            store.system(name).write_shard(0, {"ca": positions}, observed)
        store.mark_complete()
        return store

    return make


def test_members_of_a_frame_stand_together_whatever_the_order_of_rows(truth, stored):
    made = stored({"one": [4, 2, 4, 2], "two": [10, 6, 6, 10]})
    pairs = {pair.system: pair for pair in pair_stores(truth, made)}
    assert pairs["one"].frames.tolist() == [2, 4]
    assert pairs["one"].rows.tolist() == [[1, 3], [0, 2]]
    assert pairs["two"].frames.tolist() == [0, 4], "numbers within the system"
    members = read_members(made, pairs["two"], "ca")
    assert members.shape == (2, 2, 2, 3)
    np.testing.assert_allclose(members[..., 0, 0], [[1, 2], [0, 3]], atol=1e-3)


@pytest.mark.parametrize(
    ("sources", "sequence", "said"),
    [
        ({"three": [0]}, "AG", "has no system three to judge it by"),
        ({"one": [0]}, "GA", "system one has another sequence or ladder than in"),
        ({"one": [0, 6]}, "AG", "source frame 6 of system one is not in the truth"),
        ({"two": [5, 6]}, "AG", "source frame -1 of system two is not in the truth"),
        ({"one": [0, 0, 3]}, "AG", "frame 3 of system one has 1 members, others 2; finish the"),
    ],
)
def test_what_cannot_be_judged_is_named(truth, stored, sources, sequence, said):
    if "two" in sources:
        sources = {"one": [0], **sources}
    with pytest.raises(InputError, match=said):
        pair_stores(truth, stored(sources, sequence))


def test_frames_of_training_are_no_test(truth):
    pairs = [Pairs("one", np.array([1, 3, 4]), np.zeros((3, 1), int))]
    ranges = [FrameRange("one", 1, 2), FrameRange("one", 3, 5), FrameRange("two", 0, 5)]
    require_held_out(pairs, ranges, "made")
    with pytest.raises(InputError, match=r"1 of 3 frames of system one .* \(first: 4\)"):
        require_held_out(pairs, [*ranges[:1], FrameRange("one", 3, 4), ranges[2]], "made")


def test_a_subset_is_even_and_leaves_no_system_out():
    def pair(system: str, count: int) -> Pairs:
        return Pairs(system, np.arange(count), np.arange(2 * count).reshape(count, 2))

    long, short = thin([pair("long", 901), pair("short", 3)], 10)
    assert long.frames.tolist() == np.linspace(0, 900, 9).round().tolist()
    assert short.frames.tolist() == [0]
    assert (long.rows[:, 0] == 2 * long.frames).all()
    assert len(thin([pair("long", 901)], None)[0].frames) == 901
