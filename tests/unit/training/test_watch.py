"""Who of the ranks of a training is missed, told from what they say and when."""

import pytest

from hpcbackmap.training.ranks.watch import Watch
from hpcbackmap.training.ranks.world import rank_names


def listen(watch: Watch, beats: list[int], places: list[int], now: float) -> None:
    for rank, (beat, place) in enumerate(zip(beats, places, strict=True)):
        watch.hear(rank, beat, place, "forward pass", now)


def test_a_rank_without_a_beat_is_missed():
    watch = Watch(3, 10.0)
    for now in range(0, 30, 2):
        listen(watch, [now, min(now, 8), now], [0, 0, 0], now)
        assert watch.silent(now) == ([1] if now > 18 else [])
        assert watch.behind(now) == ([], 0.0), "nobody is ahead"


def test_a_rank_that_stays_behind_is_missed_by_those_that_wait():
    watch = Watch(3, 10.0)
    for now in range(0, 30, 2):
        listen(watch, [now] * 3, [min(now, 6), min(now, 5), min(now, 6)], now)
        late, waited = watch.behind(now)
        assert (late, waited) == (([1], now - 6) if now > 16 else ([], 0.0))
    assert watch.silent(28) == []


def test_ranks_that_are_all_at_long_work_are_not_missed():
    watch = Watch(2, 10.0)
    for now in range(0, 100, 2):
        listen(watch, [now, now], [7, 7], now)
    assert watch.behind(98) == ([], 0.0)


def test_a_process_that_was_away_itself_misses_nobody():
    """As all are that a batch system suspends and wakes."""
    watch = Watch(2, 10.0)
    listen(watch, [1, 1], [1, 0], 0.0)
    assert watch.silent(500.0) == [0, 1]
    watch.wait_anew(500.0)
    assert watch.silent(505.0) == []
    assert watch.behind(505.0) == ([], 0.0)


@pytest.mark.parametrize(
    ("ranks", "words"),
    [([1], "rank 1"), ([0, 2], "ranks 0, 2"), (list(range(200)), ", 15, … (200 in all)")],
)
def test_names(ranks, words):
    assert rank_names(ranks).endswith(words)
