"""Which cysteines of the input are bonded: as its file or the user says, or as distances propose."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np

from hpcbackmap.backmapping.source import FileSource
from hpcbackmap.finishing.options import PAIR
from hpcbackmap.protein.topology import Topology
from hpcbackmap.runtime.errors import InputError

__all__ = ["with_disulphides"]

log = logging.getLogger(__name__)

FARTHEST = 0.95
"""nm between C-alpha atoms, which no disulphide spans: 0.76 nm do, the rest is for noise."""
ALPHA, BETA = (0.38, 0.70), (0.30, 0.47)
"""nm between C-alpha, and between C-beta atoms that the trace implies, of bonded cysteines."""
SAMPLED = 9
"""Frames, evenly spaced, whose median distances count."""


def with_disulphides(source: FileSource, text: str | None, path: str) -> FileSource:
    """The source with the disulphides that ``text`` names; None: those of the file.

    Raises InputError for cysteines that are not there, or too far apart.
    """
    topology = source.only.ladder.topology
    if text is None:
        pairs = topology.disulphides
    elif text == "none":
        pairs = ()
    else:
        pairs = _proposed(source, path) if text == "auto" else _named(source, text, path)
    if pairs:
        words = ", ".join(f"{topology.label(a)}-{topology.label(b)}" for a, b in pairs)
        log.info("%s: %d disulphide(s): %s", path, len(pairs), words)
    elif text == "auto":
        log.info("%s: no two cysteines are near enough for a disulphide", path)
    if pairs == topology.disulphides:
        return source
    changed = replace(topology, disulphides=pairs)
    only = replace(
        source.only,
        ladder=replace(source.only.ladder, topology=changed),
        reading=replace(source.only.reading, topology=changed),
    )
    return replace(source, only=only)


def _named(source: FileSource, text: str, path: str) -> tuple[tuple[int, int], ...]:
    topology, pairs = source.only.ladder.topology, []
    for word in text.split(","):
        match = PAIR.fullmatch(word.strip())
        groups = match.groups() if match else ()
        ends = [_cysteine(topology, groups[i : i + 3], word, path) for i in (0, 3)]
        pairs.append((min(ends), max(ends)))
    ends_of_all = [end for pair in pairs for end in pair]
    for end in ends_of_all:
        if ends_of_all.count(end) > 1:
            raise InputError(f"{path}: --disulphides: {topology.label(end)} is in two of them")
    calpha = _calpha(source)
    for a, b in pairs:
        if calpha is None:
            break
        gap = float(np.median(np.linalg.norm(calpha[:, a] - calpha[:, b], axis=-1)))
        if gap > FARTHEST:
            raise InputError(
                f"{path}: --disulphides: {topology.label(a)} and {topology.label(b)} are {10 * gap:.1f} A "
                f"apart (C-alpha), a disulphide spans {10 * FARTHEST:.1f} at most; leave it out, or give auto"
            )
    return tuple(sorted(pairs))


def _cysteine(topology: Topology, end: tuple[Any, ...], word: str, path: str) -> int:
    chain, number, insertion = end
    found = [
        i
        for i in range(topology.n_residues)
        if topology.residue_numbers[i] == int(number)
        and topology.insertion(i) == insertion
        and chain in (None, topology.chain_ids[topology.chain_index[i]])
    ]
    if len(found) != 1:
        why = "is no residue" if not found else "is in more than one chain: write chain:number"
        raise InputError(f"{path}: --disulphides {word}: {chain or ''}{number}{insertion} {why}")
    if topology.sequence[found[0]] != "CYS":
        raise InputError(f"{path}: --disulphides {word}: {topology.label(found[0])} is no cysteine")
    return found[0]


def _proposed(source: FileSource, path: str) -> tuple[tuple[int, int], ...]:
    """Pairs whose median distances are those of disulphides, the nearest first, each cysteine once."""
    topology, calpha = source.only.ladder.topology, _calpha(source)
    if calpha is None:
        raise InputError(
            f"{path}: --disulphides auto needs a bead for each residue; name them: A:5-A:55"
        )
    beta = _implied_beta(calpha)
    cysteines = [i for i, name in enumerate(topology.sequence) if name == "CYS"]
    found = []
    for k, a in enumerate(cysteines):
        for b in cysteines[k + 1 :]:
            far, near = (
                np.median(np.linalg.norm(x[:, a] - x[:, b], axis=-1)) for x in (calpha, beta)
            )
            if ALPHA[0] < far < ALPHA[1] and BETA[0] < near < BETA[1]:
                found.append((abs(float(near) - 0.385), a, b))
    pairs: list[tuple[int, int]] = []
    for _, a, b in sorted(found):
        if not {a, b} & {end for pair in pairs for end in pair}:
            pairs.append((a, b))
    return tuple(sorted(pairs))


def _calpha(source: FileSource) -> np.ndarray | None:
    """C-alpha atoms [F, R, 3] of some frames; None where the input has none."""
    if source.resolutions != ("ca",):
        return None
    frames = np.unique(np.linspace(0, source.only.n_frames - 1, SAMPLED).astype(int))
    return source.only.read_at("ca", frames.tolist()).astype(np.float64)


def _implied_beta(calpha: np.ndarray) -> np.ndarray:
    """C-beta atoms [F, R, 3] that a trace implies: away from the neighbours, on the side of L residues (means
    of adenylate kinase, within 0.04 nm).
    """
    before = np.roll(calpha, 1, axis=1)
    after = np.roll(calpha, -1, axis=1)
    out = 2 * calpha - before - after
    side = np.cross(calpha - before, after - calpha)
    out /= np.linalg.norm(out, axis=-1, keepdims=True).clip(1e-6)
    side /= np.linalg.norm(side, axis=-1, keepdims=True).clip(1e-6)
    found: np.ndarray = calpha + 0.113 * out - 0.096 * side
    return found
