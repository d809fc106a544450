"""Which shards are done: those whose record is of this plan, and whose data are what it says."""

import pytest

from hpcbackmap.backmapping.plan import Plan
from hpcbackmap.backmapping.records import Records, only_run
from hpcbackmap.runtime.errors import IncompleteError, InputError, ResourceError
from hpcbackmap.runtime.parsing import sealed, unsealed


class Store:
    """Digests of shards, as if they were data."""

    def __init__(self):
        self.data = {}

    def system(self, name):
        return self

    def digest(self, number):
        if number not in self.data:
            raise InputError(f"shard {number} is missing")
        return self.data[number]


@pytest.fixture
def made(tmp_path):
    """Ten frames in shards of four, all recorded."""
    plan = Plan("a", {}, "ca", ["fg", "ca"], {"p": [[0, 10, 1]]}, {}, True, 0, 1, 4, "cpu")
    records, store = Records(plan, tmp_path), Store()
    records.folder.mkdir()
    for shard in plan.shards:
        store.data[shard.number] = f"digest {shard.number}"
        facts = {"clashes": 2, "most_passes": 5 + shard.number}
        records.publish(store, shard, [{"frame": shard.start}] if shard.number == 1 else [], facts)
    return records, store


def test_all_that_was_published_is_done_and_adds_up(made):
    records, store = made
    assert len(records.plan.shards) == 3
    assert all(records.is_done(store, shard) for shard in records.plan.shards)
    assert records.audit() == (0, [{"frame": 4}])
    assert records.facts() == {"clashes": 6, "most_passes": 7}


@pytest.mark.parametrize("spoil", ["data", "lost data", "record", "no record", "other plan"])
def test_a_shard_that_is_not_what_was_written_is_made_again(made, spoil, caplog):
    records, store = made
    shard = records.plan.shards[1]
    path = records.path(shard)
    if spoil == "data":
        store.data[1] = "changed"
    elif spoil == "lost data":
        del store.data[1]
    elif spoil == "record":
        path.write_text(path.read_text().replace('"rows": 4', '"rows": 3'))
    elif spoil == "no record":
        path.unlink()
    else:
        other = Plan("b", {}, "ca", ["fg", "ca"], {"p": [[0, 10, 1]]}, {}, True, 0, 1, 4, "cpu")
        records = Records(other, records.output)
    assert not records.is_done(store, shard)
    told = "p/1 is damaged and will be computed again" in caplog.text
    assert told is (spoil in ("data", "lost data", "record"))


def test_a_missing_shard_counts_and_a_false_sum_is_an_error(made):
    records, _ = made
    path = records.path(records.plan.shards[2])
    record = unsealed(path.read_text())
    path.unlink()
    assert records.audit()[0] == 1
    path.write_text(sealed(record | {"rows": 1}))
    with pytest.raises(IncompleteError, match="9 structures written, 10 expected"):
        records.audit()


def test_parts_of_one_size_work_side_by_side_and_nothing_else(tmp_path):
    with only_run(tmp_path, 0, 2), only_run(tmp_path, 1, 2):
        for index, count in ((0, 2), (0, 1), (2, 3)):
            with (
                pytest.raises(ResourceError, match="is writing it"),
                only_run(tmp_path, index, count),
            ):
                pass
    with only_run(tmp_path, 0, 1):
        pass
