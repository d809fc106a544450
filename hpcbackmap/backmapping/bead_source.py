"""Beads of several residues each as a source of coarse frames: files, a sequence, and what a bead is.

Shapes: F frames, P particles of the file, B beads; positions nm.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hpcbackmap.backmapping.request import Request
from hpcbackmap.backmapping.source import Coarse, FileSource, FileSystem, filled
from hpcbackmap.backmapping.trace_rules import SiteRules
from hpcbackmap.protein.neighbours import pairs_within
from hpcbackmap.protein.sequences import sequence_option
from hpcbackmap.resolution.build import DEFINITIONS, build_ladder, runs_spec
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.resolution.representations.ultra_coarse import read_ultra_coarse
from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.runtime.files import read_regular
from hpcbackmap.runtime.parsing import yaml_value
from hpcbackmap.trajectories.bead_links import bead_links, typical_steps
from hpcbackmap.trajectories.cells import usable_cells
from hpcbackmap.trajectories.checks import Links
from hpcbackmap.trajectories.formats import may_be_crystal
from hpcbackmap.trajectories.frames import FrameReader, Frames
from hpcbackmap.trajectories.particles import Particles
from hpcbackmap.trajectories.periodic import Mender, written_whole
from hpcbackmap.trajectories.units import fitting_unit, wrong_unit

__all__ = ["BeadSystem", "bead_source", "is_ultra_coarse"]

ULTRA = 1.5
"""A sequence of so many times more residues than the file has is that of beads of several residues."""
SAMPLED = 32
"""Frames, evenly spaced, whose distances tell the unit of length."""
TOGETHER = 0.02
"""nm; two beads are never that near."""
MEANINGS = {
    "ca": "the mean of its C-alpha atoms",
    "atoms": "the mean of its heavy atoms",
    "mass": "the mass centre of its heavy atoms",
}
"""What a bead is, by the word of `DEFINITIONS`."""


@dataclass(frozen=True, eq=False)
class BeadSystem(FileSystem):
    """Frames of files as beads of several residues. links: beads that follow each other, and their reach.
    mender: makes chains of them whole.
    """

    links: Links = field(kw_only=True)
    mender: Mender = field(kw_only=True)

    def coarse(self, frames: Sequence[int]) -> Coarse:
        """Raises InputError for a bad frame where these are to stop the run."""
        read = self.reader.read_at(frames)
        as_read = read.positions[:, self.chosen].astype(np.float32)
        beads, _ = self.mender.mend(as_read, read.cells)
        unusable = self._unusable(beads) | self.mender.untold(as_read, read.cells)
        if unusable and self.on_bad_frame == "stop":
            place, reason = min(unusable.items())
            raise InputError(
                f"{self.reader.label(frames[place])}: {reason}; leave such frames out with --on-bad-frame skip"
            )
        return Coarse(
            filled(beads, unusable, float(self.links.high.max(initial=1.0)) / 2),
            unusable,
            np.zeros(len(beads), np.float32),
            cells=read.cells,
        )

    def _unusable(self, beads: np.ndarray) -> dict[int, str]:
        """Why frames of beads [F, B, 3] cannot be backmapped, by place."""
        bad = ~np.isfinite(beads).all(axis=(1, 2))
        reasons = dict.fromkeys(np.flatnonzero(bad).tolist(), "input is not finite")
        lengths = self.links.lengths(np.where(bad[:, None, None], 0.0, beads))
        far = (lengths > self.links.high) & ~bad[:, None]
        for place in np.flatnonzero(far.any(axis=1)).tolist():
            link = int(np.argmax(lengths[place] - self.links.high))
            a, b = (self.links.label(int(bead)) for bead in self.links.pairs[link])
            reasons[place] = (
                f"{a} and {b} are {lengths[place, link]:.3g} nm apart, their residues reach "
                f"{self.links.high[link]:.3g} nm at most{_more(int(far[place].sum()))}; are sequence and "
                "--segments those of these beads?"
            )
        for place in np.flatnonzero(~bad).tolist():
            pairs = pairs_within(beads[place], TOGETHER)
            if len(pairs):
                a, b = (self.links.label(int(bead)) for bead in pairs[0])
                reasons.setdefault(place, f"{a} and {b} lie at one place{_more(len(pairs))}")
        return reasons


def is_ultra_coarse(request: Request, particles: Particles) -> bool:
    """Whether the particles are beads of several residues each: said so, or the sequence is far longer."""
    if request.representation == "ucg" or request.segments or request.beads:
        return True
    if request.representation != "auto" or request.sequence is None:
        return False
    letters = sum(len(chain) for chain in sequence_option(request.sequence))
    copies = len(particles.chains) if len(sequence_option(request.sequence)) == 1 else 1
    return letters * copies >= ULTRA * len(particles.residues)


def bead_source(
    reader: FrameReader,
    particles: Particles,
    path: str,
    request: Request,
    options: dict[str, Any],
    chosen: np.ndarray,
) -> FileSource:
    """A source of the ``chosen`` ones among ``particles`` as beads of several residues.

    Raises ConfigError for options that do not go together, InputError for beads that cannot be those of the
    sequence or are in another unit of length.
    """
    _check(request, path)
    subset = particles.subset(chosen)
    try:
        reading = read_ultra_coarse(
            subset, sequence_option(str(request.sequence)), *_segments(request, len(chosen))
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    runs = np.bincount(reading.sites["bead_of"])
    ladder = build_ladder(
        reading.topology, ["fg", "ca", runs_spec(runs.tolist(), request.bead_center)]
    )
    name = ladder.resolutions[-1]
    links, gather = bead_links(ladder, name), not may_be_crystal(path)
    chosen = chosen[reading.sites["ucg"]]
    sample = _sample(reader, chosen)
    mender = _mender(ladder, links, gather, sample)
    mended, _ = mender.mend(sample.positions, sample.cells)
    _require_unit(path, mended, links, *typical_steps(links, ladder, name))
    reading.words.extend(_cut_in_words(links, sample, mended))
    even = (
        ""
        if request.segments or request.beads
        else ", shared out evenly (--segments says otherwise)"
    )
    reading.words[0] += (
        f"{even}; a bead is taken as {MEANINGS[request.bead_center]} (--bead-center says otherwise)"
    )
    rules = SiteRules("ucg", 0.0, TOGETHER, np.inf)
    system = BeadSystem(
        reader, chosen, reading, ladder, rules, request.on_bad_frame, gather,
        periodic=sample.cells is not None, links=links, mender=mender,
    )  # fmt: skip
    return FileSource(path, system, options, resolutions=(name,))


def _check(request: Request, path: str) -> None:
    if request.sequence is None:
        raise ConfigError(
            f"{path}: beads of several residues do not say of which; give --sequence FASTA"
        )
    if request.representation not in ("auto", "ucg"):
        raise ConfigError(
            f"--segments and --beads are of beads of several residues, not of {request.representation}"
        )
    if request.segments and request.beads:
        raise ConfigError("give --segments or --beads, not both")
    if request.bead_center not in DEFINITIONS:
        raise ConfigError(f"--bead-center {request.bead_center}: give {', '.join(DEFINITIONS)}")
    if request.on_bad_frame == "repair":
        raise ConfigError("--on-bad-frame repair closes traces of C-alpha atoms; give stop or skip")


def _segments(request: Request, beads: int) -> tuple[int | None, list[int] | None]:
    """Residues of every bead, or the lengths of all runs; (None, None): evenly."""
    if request.beads:
        return None, _runs_of_file(request.beads)
    if not request.segments:
        return None, None
    words = request.segments.split(",")
    if not all(word.strip().isdigit() and int(word) > 0 for word in words):
        raise ConfigError(
            f"--segments {request.segments}: write the residues of each bead, 8,12,10,…, or one number for all"
        )
    lengths = [int(word) for word in words]
    return (lengths[0], None) if len(lengths) == 1 < beads else (None, lengths)


def _runs_of_file(path: str) -> list[int]:
    """Lengths of the runs of a mapping file: a list ``bead`` with the bead of each residue, from 0."""
    try:
        record = yaml_value(read_regular(path).decode())
        bead = np.array(record["bead"])
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{path}: a mapping file has a list `bead`, the bead of each residue from 0"
        ) from None
    if bead.dtype.kind not in "iu" or bead.ndim != 1 or not len(bead):
        raise InputError(f"{path}: bead is a list of whole numbers, one per residue")
    steps = np.diff(bead, prepend=-1)
    wrong = np.flatnonzero((steps < 0) | (steps > 1) | ((np.arange(len(bead)) == 0) & (steps != 1)))
    if len(wrong):
        raise InputError(
            f"{path}: beads are runs of residues in the order of the chain; residue {wrong[0] + 1} is of bead "
            f"{bead[wrong[0]]}"
        )
    return [int(length) for length in np.bincount(bead)]


def _sample(reader: FrameReader, chosen: np.ndarray) -> Frames:
    """Up to `SAMPLED` frames, evenly spaced, that are all numbers: of the ``chosen`` beads."""
    number = min(SAMPLED, reader.n_frames)
    sampled = np.unique(np.linspace(0, reader.n_frames - 1, number).astype(int))
    read = reader.read_at(sampled.tolist())
    beads = read.positions[:, chosen]
    good = np.isfinite(beads).all(axis=(1, 2))
    return Frames(beads[good], read.times[good], None if read.cells is None else read.cells[good])


def _mender(ladder: Ladder, links: Links, gather: bool, sample: Frames) -> Mender:
    mapping, chain = ladder.mappings[-1], np.array(ladder.topology.chain_index)
    first = np.unique(mapping.bead, return_index=True)[1]
    whole = False
    if sample.cells is not None and (boxed := usable_cells(sample.cells)).any():
        whole = written_whole(sample.positions[boxed], sample.cells[boxed])
    return Mender(mapping.n_coarse, links, gather, chain[first], whole)


def _cut_in_words(links: Links, sample: Frames, mended: np.ndarray) -> list[str]:
    """A sentence where chains of beads were put together across the box and another way is in reach."""
    if sample.cells is None:
        return []
    before, after = links.lengths(sample.positions), links.lengths(mended)
    hidden = (np.abs(before - after) > TOGETHER) & (before <= links.high)
    if not hidden.any():
        return []
    count = int(hidden.any(axis=1).sum())
    return [
        f"the periodic box cuts chains of beads in {count} of {len(mended)} frames looked at, up to "
        f"{before[hidden].max():.3g} nm apart in the file: each is taken in its image nearest to the bead "
        f"before it, up to {after.max():.3g} nm; if beads may be farther apart, make molecules whole there"
    ]


def _require_unit(path: str, beads: np.ndarray, links: Links, low: float, high: float) -> None:
    """Refuse distances of beads [F, B, 3] that fit after a factor of ten."""
    if not len(links.pairs):
        return
    median = float(np.median(links.lengths(beads))) if len(beads) else np.nan
    if not (median < low or median > high):
        return
    guess = wrong_unit(path, np.array([median]), low, high)
    if guess is None:
        return
    option = fitting_unit(path, np.array([median]), low, high)
    raise InputError(
        f"{path}: beads that follow each other are {median:.3g} nm apart (median), {low:.3g} to {high:.3g} nm "
        f"are possible: {guess}, or say --unit {option}"
    )


def _more(count: int) -> str:
    return f" ({count} such pairs)" if count > 1 else ""
