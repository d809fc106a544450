"""Which frames train, validate and test: none in two sets, none lost, and what cannot be held out is told."""

from dataclasses import dataclass, field

import pytest

from hpcbackmap.config.campaign import SplitConfig
from hpcbackmap.runtime.errors import ConfigError
from hpcbackmap.store.split import split_systems


@dataclass
class Run:
    """A system of some files with as many frames each."""

    name: str
    lengths: tuple[int, ...]
    n_frames: int = field(init=False)

    def __post_init__(self):
        self.n_frames = sum(self.lengths)

    @property
    def sources(self):
        ends = [sum(self.lengths[: k + 1]) for k in range(len(self.lengths))]
        names = (f"{self.name}{k}.xtc" for k in range(len(ends)))
        return [
            (name, end - n, end) for name, end, n in zip(names, ends, self.lengths, strict=True)
        ]


def frames(parts) -> list[tuple[str, int]]:
    return [(part.system, frame) for part in parts for frame in range(part.start, part.stop)]


@pytest.mark.parametrize("by", ["time", "source", "system"])
def test_every_frame_is_in_one_set(by):
    runs = [Run("a", (7, 9, 30)), Run("b", (1, 2, 3, 4)), Run("c", (100, 1)), Run("d", (5, 5))]
    found = split_systems(runs, SplitConfig(by=by, validation=0.2, test=0.3))
    everything = [frame for parts in found.values() for frame in frames(parts)]
    assert sorted(everything) == [(run.name, k) for run in runs for k in range(run.n_frames)]
    assert found["train"]
    assert found["test"]


def test_by_time_the_last_frames_test_and_those_before_validate():
    found = split_systems([Run("a", (10,))], SplitConfig(by="time", validation=0.1, test=0.2))
    assert [[(p.start, p.stop) for p in found[kind]] for kind in ("train", "validation", "test")] == [
        [(0, 7)], [(7, 8)], [(8, 10)],
    ]  # fmt: skip
    short = split_systems([Run("a", (4,))], SplitConfig(by="time", validation=0.1, test=0.3))
    assert [len(frames(short[kind])) for kind in ("train", "validation", "test")] == [4, 0, 0]


def test_what_is_named_is_held_out_and_nothing_else():
    runs = [Run("a", (3, 3)), Run("b", (4,)), Run("c", (5,))]
    found = split_systems(runs, SplitConfig(by="system", test_names=["b"], validation=0))
    assert frames(found["test"]) == [("b", k) for k in range(4)]
    assert found["validation"] == []
    files = split_systems(runs, SplitConfig(by="source", test_names=["a0.xtc"], validation=0))
    assert frames(files["test"]) == [("a", 0), ("a", 1), ("a", 2)]


def test_systems_that_join_do_not_move_the_others_between_named_sets():
    """The order comes from hashes of names, so it does not follow the order of the campaign."""
    runs = [Run(name, (5,)) for name in "abcdefgh"]
    config = SplitConfig(by="system", validation=0.25, test=0.25)
    assert all(
        {part.system for part in split_systems(runs, config)[kind]}
        == {part.system for part in split_systems(runs[::-1], config)[kind]}
        for kind in ("train", "validation", "test")
    )


@pytest.mark.parametrize(
    ("runs", "settings", "said"),
    [
        ([Run("a", (9,))], {"by": "time", "validation": 0.5, "test": 0.5}, "stay below 1"),
        ([Run("a", (9,))], {"by": "time", "test_names": ["a"]}, "need `by: source` or"),
        ([Run("a", (9,))], {"by": "source"}, "a has one file; use `by: time`"),
        ([Run("a", (9,))], {"by": "system"}, "a is the only system"),
        ([Run("a", (9, 1))], {"by": "source", "test_names": ["x"]}, "no source 'x'; there are a0.xtc, a1"),
        ([Run("a", (9,))], {"by": "system", "test_names": ["a"], "validation_names": ["a"]}, "'a' is in both"),
    ],
)  # fmt: skip
def test_what_cannot_be_split_is_told(runs, settings, said):
    with pytest.raises(ConfigError, match=said):
        split_systems(runs, SplitConfig(**settings))
