"""The cutting of a backmapping run."""

from hpcbackmap.backmapping.plan import Plan


def test_frames_of_a_shard_walk_over_ranges():
    ranges = {"a": [(3, 7), (20, 21), (30, 40)]}
    plan = Plan("", {}, [], ranges, 1, False, 0, 1, 4, "cpu")
    found = [plan.local_frames(shard) for shard in plan.shards]
    assert [i for part in found for i in part] == [
        i for start, stop in ranges["a"] for i in range(start, stop)
    ]
    assert [len(part) for part in found] == [4, 4, 4, 3]
