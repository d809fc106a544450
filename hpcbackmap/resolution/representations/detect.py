"""What the particles of a file are: told from their names and, of one bead per residue, from their distances.

Shapes: F frames, P particles, R residues; positions in nm.
"""

from collections import Counter

import numpy as np

from hpcbackmap.protein.residue_kinds import sirah_parent
from hpcbackmap.protein.residues import RESIDUES, TRANS
from hpcbackmap.resolution.representations.bond_statistics import (
    KINDS,
    kinds_of_residues,
)
from hpcbackmap.resolution.representations.protein_part import (
    Protein,
    bonds,
    measured_frames,
    protein_of,
)
from hpcbackmap.resolution.representations.reading import (
    BACKBONE_SLOTS,
    Particles,
    Reading,
)
from hpcbackmap.resolution.representations.reading_of import reading_of
from hpcbackmap.resolution.representations.registry import (
    COM_NAMES,
    REPRESENTATIONS,
    SIDE_NAMES,
)
from hpcbackmap.runtime.errors import ConfigError

__all__ = ["detect", "read_as"]

SURE = 0.5
"""Nats a bond by which one reading must be likelier than the next to be taken without asking."""
SURE_OF_BOTH = 0.35
"""The same by which both together must be likelier than one alone."""
SEVERAL_BONDS, OFF = 4, 0.045
"""Of more bonds than these, the median of C-alpha atoms is never so far from 0.38, nm."""
FEW_BONDS = 3
BONDED = 0.20
"""nm; CA and CB as atoms are nearer (0.153, of beads that jitter by 0.1 more), the centre of a side chain of
that name is farther in `LARGE` ones.
"""
LARGE = {"ARG", "LYS", "GLN", "GLU", "MET", "PHE", "TYR", "TRP", "HIS", "LEU", "ILE", "ASN", "ASP"}
BACKBONES = 0.372
"""nm; neighbouring centres of backbones are nearer in the median, jitter of 0.1 included. Beads named BB that
are farther apart are held to be what their distances say.
"""
MOST = 0.9
"""Share of residues that make a rule."""


def detect(particles: Particles, frames: np.ndarray | None = None) -> Reading:
    """The reading that names and distances speak for.

    frames: some frames [F, P, 3] for the distances; default: the first. Raises ConfigError that shows the
    readings between which they do not decide, InputError where there is no protein or a residue cannot be read.
    """
    protein = protein_of(particles)
    protein.words.clear()
    name, why = _by_names(protein)
    if name is None or (name == "bb" and _too_far_apart(protein, measured_frames(protein, frames))):
        name, why = _by_distances(protein, measured_frames(protein, frames))
    reading = reading_of(name, protein_of(particles), frames)
    return _with_words(reading, [f"read as {name}: {REPRESENTATIONS[name].meaning} ({why})"])


def read_as(name: str, particles: Particles, frames: np.ndarray | None = None) -> Reading:
    """The same, taken as ``name``. Raises ConfigError for an unknown name, InputError where it does not fit."""
    if name not in REPRESENTATIONS:
        raise ConfigError(
            f"--representation {name}: not known; there are {', '.join(REPRESENTATIONS)}"
        )
    return reading_of(name, protein_of(particles), frames)


def _with_words(reading: Reading, words: list[str]) -> Reading:
    reading.words[:0] = words
    return reading


def _by_names(protein: Protein) -> tuple[str | None, str]:
    """Representation and reason, where the names of the particles tell; else None."""
    sizes = np.array([len(own) for own in protein.members])
    if protein.share("BB") >= MOST:
        return _martini(protein)
    if protein.share("N") >= MOST and protein.share("C") >= MOST and protein.share("CA") >= MOST:
        if protein.share(*_beyond_backbone()) > 0.3:
            return "ca", (
                "all atoms are there, of which only CA is used; --representation backbone keeps N, CA, C and O"
            )
        return "backbone", "N, CA and C in every residue and no side chains"
    if (sizes == 1).mean() >= MOST:
        if protein.share("CB") >= MOST:
            raise ConfigError(
                "one bead per residue, named CB: C-beta atoms alone are not read, which place C-alpha atoms to "
                "1 A; if these are centres of side chains, say --representation sc"
            )
        if protein.share(*SIDE_NAMES[:4]) >= MOST:
            return "sc", "one bead per residue with the name of a side chain"
        return None, ""
    if protein.share("CA") >= MOST and protein.share("CO") >= MOST:
        return "ca", (
            "N, CA and CO are sites of PRIMO, of which only CA is an atom that is used; its SC beads are not"
        )
    if protein.share("CA") >= MOST:
        others = Counter(name for own in protein.members for name in own if name != "CA")
        return _beside_calpha(protein, others)
    raise _unclear(protein)


def _too_far_apart(protein: Protein, frames: np.ndarray) -> bool:
    """Whether beads named BB, one a residue, are no centres of backbones."""
    if any(set(own) != {"BB"} for own in protein.members):
        return False
    lengths = bonds(protein, np.array([own["BB"] for own in protein.members]), frames)[2]
    return lengths.size >= FEW_BONDS and float(np.median(lengths)) > BACKBONES


def _beyond_backbone() -> tuple[str, ...]:
    names = {name for row in RESIDUES.values() for name in row.atoms}
    return tuple(sorted(names - set(BACKBONE_SLOTS)))


def _beside_calpha(protein: Protein, others: Counter[str]) -> tuple[str, str]:
    side_chains = sum(name != "GLY" for name in protein.sequence)
    present = [name for name, count in others.items() if count >= MOST * side_chains]
    if "CB" in present and _median_gap(protein, "CA", "CB") < BONDED:
        return "ca+cb", "CA and CB, a bond apart"
    for representation, names in (("ca+com", COM_NAMES), ("ca+sc", SIDE_NAMES)):
        for name in set(names) & set(present):
            return representation, f"CA and {name} in every residue"
    if any(sirah_parent(protein.particles.residues[row].name) for row in protein.rows):
        return (
            "ca",
            "GC beads of SIRAH, which sit on the C-alpha atoms; its other beads are not used",
        )
    return "ca", f"CA in every residue; {', '.join(sorted(others)[:6])} beside it are not used"


def _median_gap(protein: Protein, first: str, second: str) -> float:
    """Of large side chains, if there are any: of small ones CB and the centre are one place."""
    both = [
        (kind, (own[first], own[second]))
        for kind, own in zip(protein.sequence, protein.members, strict=True)
        if {first, second} <= set(own)
    ]
    large = [pair for kind, pair in both if kind in LARGE]
    rows = np.array(large or [pair for _, pair in both])
    positions = protein.particles.positions
    if positions is None:
        return float("nan")
    gap = positions[rows[:, 0]] - positions[rows[:, 1]]
    return float(np.median(np.linalg.norm(gap, axis=-1)))


def _martini(protein: Protein) -> tuple[str, str]:
    """Martini 3 gives alanine a side-chain bead, tyrosine four, tryptophan five; Martini 2 does not."""
    beads = Counter(
        (residue, name)
        for residue, own in zip(protein.sequence, protein.members, strict=True)
        for name in own
        if name.startswith("SC")
    )
    if not beads:
        return "bb", "BB beads alone"
    several = {"ARG", "LYS", "HIS", "PHE", "TYR", "TRP"} & set(protein.sequence)
    if several and not any((residue, "SC2") in beads for residue in several):
        return "bb+sc", "BB and never more than one side-chain bead"
    marks = {("ALA", "SC1"), ("TYR", "SC4"), ("TRP", "SC5")}
    if any(mark in beads for mark in marks):
        return "martini3", "BB and SC beads, as many as Martini 3 has"
    if {residue for residue, _ in marks} & set(protein.sequence):
        return "martini2", "BB and SC beads, as many as Martini 2 has"
    return "martini3", "BB and SC beads; --representation martini2 if that is what they are"


def _by_distances(protein: Protein, frames: np.ndarray) -> tuple[str, str]:
    """Reading of one bead per residue. Raises ConfigError where two are about as likely."""
    beads = np.array([next(iter(own.values())) for own in protein.members])
    first, _, lengths, nats = bonds(protein, beads, frames)
    names = sorted({next(iter(own)) for own in protein.members})
    called = "named " + ", ".join(names[:4]) + (" …" if len(names) > 4 else "")
    if names == ["CA"] and not len(first):
        return "ca", (
            "the name; no neighbours to tell by distance, --representation com if these are centres of mass"
        )
    if names != ["CA"] and len(first) < FEW_BONDS:
        raise ConfigError(
            f"one bead per residue, {called}: too few neighbours to tell C-alpha atoms from centres of mass; "
            "say which with --representation ca or --representation com"
        )
    typical = float(np.nanmedian(lengths))
    spread = 1.4826 * float(np.nanmedian(np.abs(lengths - typical)))
    seen = f"one bead per residue, {called}, neighbours {typical:.3f} ± {spread:.3f} nm apart"
    mean = nats.mean(0)
    if names == ["CA"]:
        mean[:, KINDS.index("bb")] -= SURE
    if names == ["BB"]:
        mean[:, KINDS.index("bb")] += SURE
    total = mean.mean(0)
    mixed = kinds_of_residues(mean, first, len(beads))
    gain = mean[np.arange(len(first)), mixed[first]].mean() - total.max()
    if {KINDS[kind] for kind in np.unique(mixed)} == {"ca", "com"} and gain > SURE_OF_BOTH:
        centres = int((mixed == 1).sum())
        return "com", f"{seen}: centres of mass in {centres} residues, C-alpha atoms in the others"
    order = np.argsort(-total)
    best, second = (KINDS[k] for k in order[:2])
    likely, next_likely = total[order[0]], total[order[1]]
    if likely - next_likely < SURE:
        raise ConfigError(
            f"{seen}: as likely {REPRESENTATIONS[best].meaning} (log likelihood {likely:.2f} a bond) as "
            f"{REPRESENTATIONS[second].meaning} ({next_likely:.2f}); say which with "
            + ", ".join(f"--representation {kind}" for kind in KINDS)
        )
    if best == "ca" and len(first) > SEVERAL_BONDS and abs(typical - TRANS) > OFF:
        raise ConfigError(
            f"{seen}: neither C-alpha atoms ({TRANS:.2f}) nor centres of these residues are so far apart; are "
            "names and order of the residues right? --representation ca takes them for that all the same"
        )
    return best, f"{seen}, as those of {REPRESENTATIONS[best].meaning} are"


def _unclear(protein: Protein) -> ConfigError:
    names = Counter(name for own in protein.members for name in own)
    shown = ", ".join(f"{name} ({count})" for name, count in names.most_common(6))
    return ConfigError(
        f"particles named {shown} in {len(protein.members)} residues fit no representation; choose particles "
        f"with --select, or say what they are with --representation {' | '.join(REPRESENTATIONS)}"
    )
