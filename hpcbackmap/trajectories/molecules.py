"""Where one residue ends and the next begins, and one molecule and the next.

Shapes: F frames, P particles, R residues; positions in nm.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np

from hpcbackmap.protein.residue_kinds import SMALL, residue_kind
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.trajectories.cells import usable_cells
from hpcbackmap.trajectories.text import Rows

__all__ = ["ChainRow", "ResidueRow", "residue_sites", "residue_steps", "split"]

SITES = {"CA": 0, "BB": 1}
"""Particles that stand for their residue, the first that is there."""
WRAPS = {9999, 99999}
"""Numbers after which files with four and five columns for them count from 0 or 1 again."""
NO_CHAIN = SMALL | {"lipid", "DNA", "RNA", "sugar", "ligand"}
"""Kinds of residues that ``--molecule`` does not count."""
FEW_LETTERS = 4
"""Residue names of one letter that are no code of amino acids: K may be potassium, W water."""
SHORTEST_COPY = 5
"""Residues of a molecule that is known again."""
PEPTIDE = 0.20
"""C-N distance (nm) up to which two residues are certainly bonded."""
NEIGHBOURS = 0.45
"""nm; C-alpha atoms of bonded residues are nearer; trans is 0.38."""
APART = 0.75
"""nm; one bead per residue: neighbours that follow each other in number are nearer, or twice their median."""


class ResidueRow(NamedTuple):
    """name, number, insertion: as in the file, a number that wrapped (9999, 0) counted on. chain: its row."""

    name: str
    number: int
    insertion: str
    chain: int


class ChainRow(NamedTuple):
    """One molecule. id: as in the file: a blank where the file has a blank, empty if its format has none.
    segment: segment or label of the file.
    """

    id: str
    segment: str


def split(
    rows: Rows, positions: np.ndarray | None, cells: np.ndarray | None, molecule: int | None = None
) -> tuple[np.ndarray, list[ResidueRow], list[ChainRow]]:
    """Residue of each particle (int64 [P]), residues and chains.

    positions: some frames [F, P, 3] with cells [F, 3, 3], or None. molecule: every so many residues, instead
    of what numbers and distances tell. Raises InputError where they do not come out even.
    """
    index, first = _residues(rows)
    index, first = _rejoined(rows, index, first)
    index, first = _untangled(rows, index, first, positions, cells)
    numbers = _counted_on([rows.numbers[p] for p in first])
    small = _small(rows, first, NO_CHAIN if molecule else SMALL)
    starts = _starts(rows, index, first, numbers, small, positions, cells, molecule)
    if molecule:
        _require_whole(rows, first, starts, small, molecule)
    else:
        starts = _repeats_parted(rows, first, starts)
    chain_of = np.searchsorted(starts, np.arange(len(first)), side="right") - 1
    chains = [ChainRow(rows.chains[first[r]], rows.segments[first[r]]) for r in starts]
    residues = [
        ResidueRow(rows.residue_names[p], number, rows.insertions[p], int(chain))
        for p, number, chain in zip(first, numbers, chain_of, strict=True)
    ]
    return index, residues, chains


def _residues(rows: Rows) -> tuple[np.ndarray, list[int]]:
    """A residue ends where its identity does, or where the name that began it comes again."""
    index, first = np.empty(len(rows.names), dtype=np.int64), []
    last = None
    keys = zip(
        rows.numbers, rows.residue_names, rows.insertions, rows.chains, rows.segments, rows.strands,
        strict=True,
    )  # fmt: skip
    for particle, key in enumerate(keys):
        if key != last or rows.names[particle] == rows.names[first[-1]]:
            first.append(particle)
            last = key
        index[particle] = len(first) - 1
    return index, first


def _rejoined(rows: Rows, index: np.ndarray, first: list[int]) -> tuple[np.ndarray, list[int]]:
    """Particles that a file lists after all the others of their molecule (virtual sites) go to their residues.

    A run of residues that says again number, insertion and name of residues before it, and has no particle
    name of theirs.
    """
    known: dict[tuple[Any, ...], int] = {}
    names: dict[int, set[str]] = {}
    target = np.arange(len(first))
    ends = [*first[1:], len(rows.names)]
    for r, (start, stop) in enumerate(zip(first, ends, strict=True)):
        key = tuple(
            column[start]
            for column in (rows.numbers, rows.residue_names, rows.insertions, rows.chains)
        )
        mine = set(rows.names[start:stop])
        before = known.get(key)
        if before is not None and before < r - 1 and not (names[before] & mine):
            target[r] = before
            names[before] |= mine
        else:
            known[key] = r
            names[r] = mine
    if (target == np.arange(len(first))).all():
        return index, first
    kept, order = np.unique(target, return_inverse=True)
    return order[index], [first[r] for r in kept]


def _untangled(
    rows: Rows,
    index: np.ndarray,
    first: list[int],
    positions: np.ndarray | None,
    cells: np.ndarray | None,
) -> tuple[np.ndarray, list[int]]:
    """Chains whose residues alternate in the file (A1 B1 A2 B2 …), or have ions between them, one after the
    other.

    A residue continues the chain of its letter when its number is the next one and it is near the last.
    """
    small = _small(rows, first)
    sites = residue_sites(rows.names, index, len(first))
    last: dict[tuple[Any, ...], int] = {}
    continues: list[tuple[int, int]] = []
    for r, p in enumerate(first):
        key = rows.chains[p], rows.segments[p], rows.strands[p]
        q = last.get(key, r)
        if q < r - 1 and not small[r] and rows.numbers[p] == rows.numbers[first[q]] + 1:
            continues.append((q, r))
        if not small[r]:
            last[key] = r
    if not continues:
        return index, first
    before, after = np.array(continues).T
    steps = _distances(sites[before], sites[after], positions, cells)[1:]
    far = max(APART, 2 * float(np.nanmedian(steps))) if np.isfinite(steps).any() else np.inf
    joined = dict(zip(after[~(steps > far)].tolist(), before[~(steps > far)].tolist(), strict=True))
    run = np.empty(len(first), dtype=np.int64)
    for r, p in enumerate(first):
        beside = r > 0 and small[r] == small[r - 1] and not _parted(rows, first[r - 1], p)
        run[r] = run[r - 1] if beside else run[joined[r]] if r in joined else r
    order = np.argsort(run, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return place[index], [first[r] for r in order]


def _small(rows: Rows, first: list[int], kinds: set[str] = SMALL) -> list[bool]:
    """Which residues are water or ions, or of other ``kinds``."""
    names = [rows.residue_names[p] for p in first]
    letters = len({name for name in names if len(name) == 1}) > FEW_LETTERS
    return [residue_kind(name) in kinds and not (letters and len(name) == 1) for name in names]


def _counted_on(numbers: list[int]) -> list[int]:
    """Numbers that wrapped at the width of their column, counted on."""
    offset, counted = 0, []
    for last, number in zip([numbers[0], *numbers[:-1]], numbers, strict=True):
        if last in WRAPS and number in (0, 1):
            offset += last + 1 - number
        elif number < last:
            offset = 0
        counted.append(number + offset)
    return counted


def _starts(
    rows: Rows,
    index: np.ndarray,
    first: list[int],
    numbers: list[int],
    small: list[bool],
    positions: np.ndarray | None,
    cells: np.ndarray | None,
    molecule: int | None,
) -> list[int]:
    """The residue that begins each molecule."""
    steps = residue_steps(rows.names, index, len(first), positions, cells)
    linked = _peptide_links(rows.names, index, len(first), positions, cells)
    far = max(APART, 2 * float(np.nanmedian(steps))) if np.isfinite(steps).any() else np.inf
    starts: list[int] = []
    seen: set[tuple[int, str]] = set()
    for r, p in enumerate(first):
        key = numbers[r], rows.insertions[p]
        new = r == 0 or small[r] != small[r - 1] or _parted(rows, first[r - 1], p)
        if molecule and not small[r]:
            new = new or r - starts[-1] == molecule
        elif not new and not small[r] and not linked[r]:
            step = numbers[r] - numbers[r - 1]
            near = steps[r] < NEIGHBOURS
            new = (step < 0 and (key in seen or not near)) or (step == 1 and steps[r] > far)
        if new:
            starts.append(r)
            seen = set()
        seen.add(key)
    return starts


def _require_whole(
    rows: Rows, first: list[int], starts: list[int], small: list[bool], molecule: int
) -> None:
    for begin, end in zip(starts, [*starts[1:], len(first)], strict=True):
        if end - begin != molecule and not small[begin]:
            name, number = rows.residue_names[first[begin]], rows.numbers[first[begin]]
            raise InputError(
                f"--molecule {molecule}: {end - begin} residues are left over from {name} {number} on, before "
                "the chain ends; give the number of residues of one molecule"
            )


def _repeats_parted(rows: Rows, first: list[int], starts: list[int]) -> list[int]:
    """Copies that touch: residues that are those of the molecule beside them several times over."""
    names = [rows.residue_names[p] for p in first]
    ends = [*starts[1:], len(first)]
    parts = [tuple(names[a:b]) for a, b in zip(starts, ends, strict=True)]
    found = list(starts)
    for k, part in enumerate(parts):
        for beside in (k - 1, k + 1):
            if not 0 <= beside < len(parts) or _parted(
                rows, first[starts[k]], first[starts[beside]]
            ):
                continue
            unit = parts[beside]
            times, rest = divmod(len(part), len(unit))
            if len(unit) >= SHORTEST_COPY and times > 1 and rest == 0 and part == unit * times:
                found += [starts[k] + len(unit) * copy for copy in range(1, times)]
                break
    return sorted(set(found))


def _parted(rows: Rows, p: int, q: int) -> bool:
    return any(column[p] != column[q] for column in (rows.chains, rows.segments, rows.strands))


def residue_steps(
    names: list[str],
    index: np.ndarray,
    count: int,
    positions: np.ndarray | None,
    cells: np.ndarray | None,
) -> np.ndarray:
    """Distance of each residue's C-alpha (else BB, else first particle) from the one before it, float64 [R].

    In the nearest image, the median of the frames; NaN for the first and without positions.
    """
    sites = residue_sites(names, index, count)
    return _distances(sites[:-1], sites[1:], positions, cells)


def residue_sites(names: list[str], index: np.ndarray, count: int) -> np.ndarray:
    """Particle that stands for each residue: its CA, else BB, else its first, int64 [R]."""
    rank = np.array([SITES.get(name, len(SITES)) for name in names])
    order = np.lexsort((np.arange(len(names)), rank, index))
    return order[np.searchsorted(index[order], np.arange(count))]


def _peptide_links(
    names: list[str],
    index: np.ndarray,
    count: int,
    positions: np.ndarray | None,
    cells: np.ndarray | None,
) -> np.ndarray:
    """Which residues are bonded to the one before them by C and N, bool [R]."""
    ends = np.full((2, count), -1)
    for particle, name in enumerate(names):
        if name in ("C", "N"):
            ends[0 if name == "C" else 1, index[particle]] = particle
    distance = _distances(ends[0, :-1], ends[1, 1:], positions, cells)
    both = np.concatenate([[False], (ends[0, :-1] >= 0) & (ends[1, 1:] >= 0)])
    return both & (distance < PEPTIDE)


def _distances(
    a: np.ndarray, b: np.ndarray, positions: np.ndarray | None, cells: np.ndarray | None
) -> np.ndarray:
    """Median over frames of the distances of particles a [R-1] and b, with NaN before them."""
    result = np.full(len(a) + 1, np.nan)
    if positions is None or len(positions) == 0 or len(a) == 0:
        return result
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # positions may be no numbers
        lengths = []
        for number, frame in enumerate(positions):
            gap = frame[b].astype(np.float64) - frame[a]
            if cells is not None and usable_cells(cells[number : number + 1])[0]:
                cell = cells[number]
                gap -= np.rint(gap @ np.linalg.inv(cell)) @ cell
            lengths.append(np.linalg.norm(gap, axis=1))
        result[1:] = np.nanmedian(lengths, axis=0)
    return result
