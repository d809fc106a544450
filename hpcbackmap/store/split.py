"""Which frames train, validate and test: whole blocks of time, whole files or whole systems."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from hpcbackmap.config.campaign import SplitConfig
from hpcbackmap.runtime.errors import ConfigError

__all__ = ["FrameRange", "split_frames", "split_systems"]

SETS = ("train", "validation", "test")


@dataclass(frozen=True)
class FrameRange:
    """Frames ``start`` to ``stop`` (after the last) of one system."""

    system: str
    start: int
    stop: int


class Splittable(Protocol):
    """A system. sources: file, first frame, frame after the last."""

    @property
    def name(self) -> str: ...
    @property
    def n_frames(self) -> int: ...
    @property
    def sources(self) -> Sequence[tuple[str, int, int]]: ...


class _Systems(Protocol):
    """A store, or a source of frames."""

    @property
    def systems(self) -> Sequence[str]: ...

    def system(self, name: str) -> Splittable: ...


def split_frames(store: _Systems, config: SplitConfig) -> dict[str, list[FrameRange]]:
    """The frames of a store as ``train``, ``validation`` and ``test``; no frame is in two of them.

    time: in every system the last ``test`` of the frames, before them ``validation``; a system too short
    for both trains whole. source: files, system: systems, by their names or else by fractions (files from
    the end, systems in an order that hashes of their names give); of few, a fraction above 0 is one.
    Raises ConfigError for names that do not exist or are in two sets, for fractions that leave nothing, and
    where there are too few files or systems to hold one out.
    """
    return split_systems([store.system(name) for name in store.systems], config)


def split_systems(
    systems: Iterable[Splittable], config: SplitConfig
) -> dict[str, list[FrameRange]]:
    """`split_frames` of systems."""
    if config.validation + config.test >= 1:
        raise ConfigError("split: validation and test together must stay below 1")
    twice = set(config.test_names) & set(config.validation_names)
    if twice:
        raise ConfigError(f"split: {sorted(twice)[0]!r} is in both test_names and validation_names")
    systems = list(systems)
    if config.by == "time":
        if config.test_names or config.validation_names:
            raise ConfigError(
                "split: test_names and validation_names need `by: source` or `by: system`"
            )
        pieces = [piece for system in systems for piece in _by_time(system, config)]
    elif config.by == "source":
        _require_names(
            config, {name for system in systems for name, _, _ in system.sources}, "source"
        )
        pieces = [piece for system in systems for piece in _by_source(system, config)]
    else:
        names = [system.name for system in systems]
        _require_names(config, set(names), "system")
        shuffled = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
        chosen = _choose(shuffled, config)
        pieces = [(chosen[s.name], FrameRange(s.name, 0, s.n_frames)) for s in systems]
    found = {kind: [part for owner, part in pieces if owner == kind] for kind in SETS}
    if config.by != "time":
        _require_test_set(config, systems, found["test"])
    return found


def _by_time(system: Splittable, config: SplitConfig) -> Iterator[tuple[str, FrameRange]]:
    n = system.n_frames
    test, validation = int(n * config.test), int(n * config.validation)
    too_short = (config.test and not test) or (config.validation and not validation)
    if too_short:
        test = validation = 0
    edges = (0, n - test - validation, n - test, n)
    for kind, start, stop in zip(SETS, edges, edges[1:], strict=False):
        if stop > start:
            yield kind, FrameRange(system.name, start, stop)


def _by_source(system: Splittable, config: SplitConfig) -> Iterator[tuple[str, FrameRange]]:
    chosen = _choose([name for name, _, _ in system.sources], config)
    for name, start, stop in system.sources:
        yield chosen[name], FrameRange(system.name, start, stop)


def _choose(names: list[str], config: SplitConfig) -> dict[str, str]:
    """The set of each name: as named, or else by fractions of ``names`` from the end."""
    chosen = dict.fromkeys(config.test_names, "test")
    chosen |= dict.fromkeys(config.validation_names, "validation")
    left = [name for name in names if name not in chosen]
    fractions = (
        ("test", 0.0 if config.test_names else config.test),
        ("validation", 0.0 if config.validation_names else config.validation),
    )
    for kind, fraction in fractions:
        count = max(1, round(len(names) * fraction)) if fraction else 0
        if count < len(left):
            for name in left[len(left) - count :]:
                chosen[name] = kind
            left = left[: len(left) - count]
    return {name: chosen.get(name, "train") for name in names}


def _require_test_set(
    config: SplitConfig, systems: list[Splittable], test: list[FrameRange]
) -> None:
    if config.test and not config.test_names and systems and not test:
        what = "has one file" if config.by == "source" else "is the only system"
        raise ConfigError(
            f"split: by {config.by} nothing can be held out: {systems[0].name} {what}; "
            "use `by: time`, or set split.test to 0"
        )


def _require_names(config: SplitConfig, known: set[str], what: str) -> None:
    for name in config.test_names + config.validation_names:
        if name not in known:
            raise ConfigError(f"split: no {what} {name!r}; there are {', '.join(sorted(known))}")
