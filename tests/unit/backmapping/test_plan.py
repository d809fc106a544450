"""The cutting of a backmapping run."""

from hpcbackmap.backmapping.plan import Plan


def test_frames_of_a_shard_walk_over_ranges():
    ranges = {"a": [[3, 7, 1], [20, 21, 1], [30, 50, 2]]}
    plan = Plan("", {}, "ca", [], ranges, {"ca-fg": 2}, False, 0, 1, 4, "cpu")
    found = [plan.local_frames(shard) for shard in plan.shards]
    assert [i for part in found for i in part] == [i for part in ranges["a"] for i in range(*part)]
    assert [len(part) for part in found] == [4, 4, 4, 3]
    assert plan.rows(plan.shards[1]) == (8, 16)
