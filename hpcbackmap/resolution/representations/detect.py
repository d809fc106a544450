"""What the particles of a file are: told from their names and, of one bead per residue, from their distances.

Shapes: F frames, P particles, R residues; positions in nm.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hpcbackmap.protein.residue_kinds import modified_parent, residue_kind, sirah_parent
from hpcbackmap.protein.residues import (
    BACKBONE,
    RESIDUES,
    standard_atom_name,
    standard_residue_name,
)
from hpcbackmap.protein.topology import Topology, named_chains
from hpcbackmap.resolution.representations.bead_tables import residue_masses
from hpcbackmap.resolution.representations.bond_statistics import (
    KINDS,
    bond_nats,
    kinds_of_residues,
    types_of,
)
from hpcbackmap.resolution.representations.reading import (
    BACKBONE_SLOTS,
    Particles,
    Reading,
    ResidueRow,
    SideBeads,
)
from hpcbackmap.resolution.representations.registry import (
    COM_NAMES,
    REPRESENTATIONS,
    SIDE_NAMES,
    Representation,
)
from hpcbackmap.runtime.errors import ConfigError, InputError

__all__ = ["detect", "kind_word", "read_as"]

SURE = 0.7
"""Nats a bond by which one reading must be likelier than the next to be taken without asking."""
ALONE = ("ca", "com", "bb", "sc")
"""Readings of one bead per residue: its name does not matter."""
FEW_BONDS = 3
FEW_PARTICLES = 3
"""Residues of more particles have atoms, among which some are hydrogens; a bead may be called HIS."""
BONDED = 0.17
"""nm; CA and CB as atoms are nearer (0.153), a side-chain centre of that name is farther in most residues."""
MOST = 0.9
"""Share of residues that make a rule."""
LONGEST = {"ca": 0.6, "backbone": 0.6, "com": 1.3, "bb": 0.65, "sc": 2.0}
"""nm; sites of residues that follow each other in number are bonded when nearer."""
FAR_IN_NUMBER = {"ca": 0.45, "backbone": 0.45, "com": 0.0, "bb": 0.45, "sc": 0.0}
"""nm; the same where the numbers leave a gap."""
SIRAH_ATOMS = {"GN": "N", "GC": "CA", "GO": "O"}
"""Backbone beads of SIRAH, which sit on these atoms (Darré et al. 2015)."""
CHARGE_SITES = ("SCP", "SCN", "BBM", "BBP")
"""Extra sites of polarisable Martini beads."""


@dataclass(frozen=True)
class _Protein:
    """The residues of a file that are protein: rows in the file's list, standard names, particles by name."""

    particles: Particles
    rows: np.ndarray
    sequence: tuple[str, ...]
    members: list[dict[str, int]]
    left_out: Counter
    words: list[str]

    def label(self, residue: int) -> str:
        row = self.particles.residues[self.rows[residue]]
        chain = self.particles.chains[row.chain].id
        return (f"{chain}:" if chain else "") + f"{row.name}{row.number}{row.insertion}"

    def share(self, *names: str) -> float:
        """Share of the residues that have a particle of one of these names."""
        return float(np.mean([any(name in own for name in names) for own in self.members]))


def detect(particles: Particles, frames: np.ndarray | None = None) -> Reading:
    """The reading that names and distances speak for.

    frames: some frames [F, P, 3] for the distances; default: the first. Raises ConfigError that shows the
    readings between which they do not decide, InputError where there is no protein or a residue cannot be read.
    """
    protein = _protein(particles)
    protein.words.clear()
    name, why = _by_names(protein)
    if name is None:
        name, why = _by_distances(protein, _sample(protein, frames))
    reading = _read(name, _protein(particles), frames)
    return _with_words(reading, [f"read as {name}: {REPRESENTATIONS[name].meaning} ({why})"])


def read_as(name: str, particles: Particles, frames: np.ndarray | None = None) -> Reading:
    """The same, taken as ``name``. Raises ConfigError for an unknown name, InputError where it does not fit."""
    if name not in REPRESENTATIONS:
        raise ConfigError(
            f"--representation {name}: not known; there are {', '.join(REPRESENTATIONS)}"
        )
    return _read(name, _protein(particles), frames)


def _with_words(reading: Reading, words: list[str]) -> Reading:
    reading.words[:0] = words
    return reading


# what is protein


def _protein(particles: Particles) -> _Protein:
    """Residues of protein with their particles; the rest is counted by kind. InputError if there is none."""
    letters = _one_letter(particles)
    of_residue: list[dict[str, int]] = [{} for _ in particles.residues]
    left_out: Counter = Counter()
    names = [_parent(row.name, letters) for row in particles.residues]
    twice, sizes = None, np.bincount(particles.residue, minlength=len(names))
    for particle, residue in enumerate(particles.residue.tolist()):
        parent, own = names[residue], of_residue[residue]
        if parent is None:
            left_out[kind_word(particles.residues[residue].name)] += 1
            continue
        name = _particle_name(particles, particle, parent)
        if sizes[residue] > FEW_PARTICLES and _is_hydrogen(particles, particle, name):
            left_out["hydrogen"] += 1
        elif name in CHARGE_SITES:
            left_out[f"charge site {name}"] += 1
        elif name in own:
            twice = twice or (residue, name)
        else:
            own[name] = particle
    if any("BB" in own for own in of_residue):
        _drop_virtual_sites(of_residue, left_out)
    rows = np.array([i for i, own in enumerate(of_residue) if own], dtype=np.int64)
    if not len(rows):
        seen = sorted({row.name for row in particles.residues})
        raise InputError(
            "no protein residues; the residue names are "
            + ", ".join(seen[:8])
            + (" …" if len(seen) > 8 else "")
            + ": give the sequence with --sequence where names say nothing"
        )
    protein = _Protein(
        particles, rows, tuple(names[i] for i in rows), [of_residue[i] for i in rows], left_out, []
    )
    if twice:
        here = int(np.searchsorted(rows, twice[0]))
        raise InputError(f"{protein.label(here)} has two particles named {twice[1]}")
    protein.words.extend(_modified_words(protein, letters))
    return protein


def _particle_name(particles: Particles, particle: int, parent: str) -> str:
    name = standard_atom_name(parent, particles.names[particle])
    if sirah_parent(particles.residues[particles.residue[particle]].name):
        return SIRAH_ATOMS.get(name, name)
    return name


def _one_letter(particles: Particles) -> bool:
    """Whether residues are named by one letter: nucleotides have four or five of these, proteins more.

    Beside residues with names of three letters, W is water and K potassium.
    """
    names = {row.name.strip().upper() for row in particles.residues}
    if any(standard_residue_name(name) for name in names):
        return False
    known = {template.letter for template in RESIDUES.values()}
    single = {name for name in names if len(name) == 1}
    return len(single - set("ACGUTN")) > 0 and single <= known


def _parent(name: str, letters: bool) -> str | None:
    if parent := sirah_parent(name):
        return parent
    name = name.strip().upper()
    if letters and len(name) == 1:
        return next(key for key, row in RESIDUES.items() if row.letter == name)
    return standard_residue_name(name) or modified_parent(name)


def kind_word(name: str) -> str:
    """What a residue that is no protein is, and its name: how ``left_out`` calls it."""
    kind = residue_kind(name)
    return f"{kind} {name}"


def _is_hydrogen(particles: Particles, particle: int, name: str) -> bool:
    if particles.elements[particle]:
        return particles.elements[particle] in ("H", "D")
    return name.lstrip("0123456789").startswith("H") and len(name) > 1


def _drop_virtual_sites(of_residue: list[dict[str, int]], left_out: Counter) -> None:
    """Sites named CA beside beads named BB are virtual sites of a Gō model."""
    for own in of_residue:
        if "CA" in own and ("BB" in own or set(own) == {"CA"}):
            del own["CA"]
            left_out["virtual site CA of a Gō model"] += 1


def _modified_words(protein: _Protein, letters: bool) -> list[str]:
    changed: Counter[tuple[str, str]] = Counter()
    for row, parent in zip(protein.rows, protein.sequence, strict=True):
        own = protein.particles.residues[row].name.strip()
        name = own.upper()
        named = (letters and len(name) == 1) or sirah_parent(own)
        if not named and standard_residue_name(name) is None:
            changed[name, parent] += 1
    return [
        f"{count} {name} built as {parent}, which it was made from"
        for (name, parent), count in sorted(changed.items())
    ]


# which representation


def _by_names(protein: _Protein) -> tuple[str | None, str]:
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


def _beyond_backbone() -> tuple[str, ...]:
    names = {name for row in RESIDUES.values() for name in row.atoms}
    return tuple(sorted(names - set(BACKBONE_SLOTS)))


def _beside_calpha(protein: _Protein, others: Counter) -> tuple[str, str]:
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


def _median_gap(protein: _Protein, first: str, second: str) -> float:
    rows = np.array(
        [(own[first], own[second]) for own in protein.members if {first, second} <= set(own)]
    )
    positions = protein.particles.positions
    if positions is None:
        return float("nan")
    gap = positions[rows[:, 0]] - positions[rows[:, 1]]
    return float(np.median(np.linalg.norm(gap, axis=-1)))


def _martini(protein: _Protein) -> tuple[str, str]:
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


def _by_distances(protein: _Protein, frames: np.ndarray) -> tuple[str, str]:
    """Reading of one bead per residue. Raises ConfigError where two are about as likely."""
    beads = np.array([next(iter(own.values())) for own in protein.members])
    first, _, lengths, nats = _bonds(protein, beads, frames)
    names = sorted({next(iter(own)) for own in protein.members})
    called = "named " + ", ".join(names[:4]) + (" …" if len(names) > 4 else "")
    if len(first) < FEW_BONDS:
        if names == ["CA"]:
            return "ca", "the name, too few bonds to tell by distance"
        raise ConfigError(
            f"one bead per residue, {called}: too few neighbours to tell C-alpha atoms from centres of mass; "
            "say which with --representation ca or --representation com"
        )
    seen = f"one bead per residue, {called}, neighbours {lengths.mean():.3f} ± {lengths.std():.3f} nm apart"
    mean = nats.mean(0)
    if names == ["CA"]:
        mean[:, KINDS.index("bb")] -= SURE
    total = mean.mean(0)
    mixed = kinds_of_residues(mean, first, len(beads))
    gain = mean[np.arange(len(first)), mixed[first]].mean() - total.max()
    if {KINDS[kind] for kind in np.unique(mixed)} == {"ca", "com"} and gain > SURE / 2:
        centres = int((mixed == 1).sum())
        return "com", f"{seen}: centres of mass in {centres} residues, C-alpha atoms in the others"
    order = np.argsort(-total)
    best, second = (KINDS[k] for k in order[:2])
    likely, next_likely = total[order[0]], total[order[1]]
    if likely - next_likely < SURE:
        raise ConfigError(
            f"{seen}: as likely {REPRESENTATIONS[best].meaning} (log likelihood {likely:.2f} a bond) as "
            f"{REPRESENTATIONS[second].meaning} ({next_likely:.2f}); say which with "
            f"--representation {best} or --representation {second}"
        )
    return best, f"{seen}, as those of {REPRESENTATIONS[best].meaning} are"


def _sample(protein: _Protein, frames: np.ndarray | None) -> np.ndarray:
    """Frames [F, P, 3] to measure: those that were given and are all numbers, else the first of the file."""
    if frames is not None:
        good = np.isfinite(frames).all(axis=(1, 2))
        return frames[good] if good.any() else frames
    if protein.particles.positions is None:
        raise InputError("no frame to tell what the particles are; give a trajectory")
    return protein.particles.positions[None]


def _bonds(
    protein: _Protein, beads: np.ndarray, frames: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """First and second residue of each bond [L], lengths [F, L] and their `bond_nats`."""
    rows = protein.particles.residues
    follows = [
        rows[a].chain == rows[b].chain and 0 <= rows[b].number - rows[a].number <= 1
        for a, b in pairwise(protein.rows)
    ]
    first = np.flatnonzero(follows)
    gap = frames[:, beads[first + 1]].astype(np.float64) - frames[:, beads[first]]
    lengths = np.linalg.norm(_shortest(gap, protein.particles.cell), axis=-1)
    types = types_of(protein.sequence)
    return first, first + 1, lengths, bond_nats(lengths, types[first], types[first + 1])


def _shortest(gap: np.ndarray, cell: np.ndarray | None) -> np.ndarray:
    """The nearest image of vectors [..., 3] in a cell whose rows are vectors."""
    if cell is None or abs(np.linalg.det(cell)) < 1e-9:
        return gap
    return gap - np.round(gap @ np.linalg.inv(cell)) @ cell


def _unclear(protein: _Protein) -> ConfigError:
    names = Counter(name for own in protein.members for name in own)
    shown = ", ".join(f"{name} ({count})" for name, count in names.most_common(6))
    return ConfigError(
        f"particles named {shown} in {len(protein.members)} residues fit no representation; choose particles "
        f"with --select, or say what they are with --representation {' | '.join(REPRESENTATIONS)}"
    )


# what a reading holds


def _read(name: str, protein: _Protein, frames: np.ndarray | None) -> Reading:
    entry = REPRESENTATIONS[name]
    sites = _sites(name, entry, protein)
    anchor = sites["backbone"][:, 1] if entry.site == "backbone" else sites[entry.site]
    kinds = _kinds(name, protein, anchor, frames)
    if kinds is not None:
        sites["calpha"] = kinds
    beads = _side_beads(entry, protein, sites)
    if beads is not None:
        sites["side_chain"] = beads.particles
    used = set(anchor.tolist()) | set(beads.particles.tolist() if beads else ())
    used |= set(sites["backbone"].ravel().tolist()) if "backbone" in sites else set()
    unused = Counter(
        word for own in protein.members for word, particle in own.items() if particle not in used
    )
    left_out = dict(protein.left_out)
    if unused:
        left_out[f"not part of {name}: " + ", ".join(sorted(unused)[:6])] = sum(unused.values())
    topology = _topology(protein, entry.site, anchor, _sample(protein, frames))
    return Reading(name, topology, sites, beads, left_out, list(protein.words))


def _sites(name: str, entry: Representation, protein: _Protein) -> dict[str, np.ndarray]:
    """Particle of each residue by role; residues that lack theirs are refused by name."""
    site = []
    for residue, own in enumerate(protein.members):
        found = next((own[one] for one in entry.names if one in own), None)
        if found is None and name in ALONE and len(own) == 1:
            found = next(iter(own.values()))
        if found is None:
            wanted = " or ".join(entry.names) or "a single bead"
            raise InputError(
                f"residue {protein.label(residue)} has no {wanted}, which {name} needs; it has "
                f"{' '.join(sorted(own))}. Complete the model, or leave the residue out with --select"
            )
        site.append(found)
    sites = {entry.site: np.array(site, dtype=np.int64)}
    if entry.site == "backbone":
        rows = [[own.get(atom, -1) for atom in BACKBONE_SLOTS] for own in protein.members]
        sites = {"backbone": np.array(rows, dtype=np.int64)}
        missing = np.argwhere(sites["backbone"][:, :3] < 0)
        if len(missing):
            residue, slot = missing[0]
            raise InputError(
                f"residue {protein.label(residue)} has no {BACKBONE[slot]}, which backbone needs; leave the "
                "residue out with --select, or use --representation ca"
            )
    return sites


def _kinds(
    name: str, protein: _Protein, anchor: np.ndarray, frames: np.ndarray | None
) -> np.ndarray | None:
    """Of centres of mass: residues whose bead is a C-alpha atom, bool [R]."""
    if name != "com":
        return None
    first, _, _, nats = _bonds(protein, anchor, _sample(protein, frames))
    if not len(first):
        return np.zeros(len(anchor), dtype=bool)
    return kinds_of_residues(nats[..., :2].mean(0), first, len(anchor)) == 0


def _side_beads(entry: Representation, protein: _Protein, sites: dict) -> SideBeads | None:
    if entry.side is None:
        return None
    rows: list[tuple[int, int, np.ndarray]] = []
    for residue, (name, own) in enumerate(zip(protein.sequence, protein.members, strict=True)):
        if entry.site_restrains:
            if entry.site == "com" and not sites["calpha"][residue]:
                rows.append((int(sites["com"][residue]), residue, residue_masses(name)))
            elif entry.site == "sc" and (masses := entry.side(name, "SC")) is not None:
                rows.append((int(sites["sc"][residue]), residue, masses))
            continue
        for bead, particle in own.items():
            if (masses := entry.side(name, bead)) is not None:
                rows.append((particle, residue, masses))
    if not rows:
        return None
    particles, residues, table = (np.array(column) for column in zip(*rows, strict=True))
    weights = table.sum(-1)
    return SideBeads(particles, residues, table / weights[:, None], weights, entry.tolerance)


def _topology(protein: _Protein, site: str, anchor: np.ndarray, frames: np.ndarray) -> Topology:
    rows = [protein.particles.residues[i] for i in protein.rows]
    used = sorted({row.chain for row in rows})
    chain = tuple(used.index(row.chain) for row in rows)
    bonded = _bonded(protein, rows, site, frames[:, anchor])
    ends = [i + 1 == len(rows) or chain[i + 1] != chain[i] for i in range(len(rows))]
    place = {int(row): i for i, row in enumerate(protein.rows)}
    codes = tuple(row.insertion for row in rows)
    return Topology(
        sequence=protein.sequence,
        chain_index=chain,
        chain_ids=named_chains(protein.particles.chains[c].id for c in used),
        residue_numbers=tuple(row.number for row in rows),
        bonded=bonded,
        has_oxt=tuple(ends),
        disulphides=tuple(
            (place[a], place[b]) for a, b in protein.particles.disulphides if {a, b} <= set(place)
        ),
        insertion_codes=codes if any(codes) else (),
    )


def _bonded(
    protein: _Protein, rows: list[ResidueRow], site: str, places: np.ndarray
) -> tuple[bool, ...]:
    """To the residue before: in one chain, and not so far apart, as the median of frames ``places`` [F, R,
    3], that a piece must be missing.
    """
    gap = np.diff(places.astype(np.float64), axis=1)
    far = np.median(np.linalg.norm(_shortest(gap, protein.particles.cell), axis=-1), axis=0)
    bonded = [False]
    for i in range(1, len(rows)):
        consecutive = 0 <= rows[i].number - rows[i - 1].number <= 1
        limit = (LONGEST if consecutive else FAR_IN_NUMBER)[site]
        bonded.append(bool(rows[i].chain == rows[i - 1].chain and not far[i - 1] > limit))
    return tuple(bonded)
