"""Judge trajectories (or stores) against another: any backmapping tool against the truth."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, count, takewhile
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpcbackmap.config.campaign import EvaluateConfig
from hpcbackmap.evaluation.bootstrap import Totals, block_numbers, summarise
from hpcbackmap.evaluation.reading import MOST_FRAMES, read_blocks
from hpcbackmap.evaluation.record import JUDGED_BY, LABELS
from hpcbackmap.metrics.judge import judge, judge_alone
from hpcbackmap.metrics.registry import METRICS
from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.protein.topology import Topology
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.versions import versions
from hpcbackmap.trajectories.checks import require_bonds, require_numbers
from hpcbackmap.trajectories.units import frame_bytes, wrong_unit

__all__ = ["evaluate_files", "evaluate_structures"]

log = logging.getLogger(__name__)

BLOCK_BYTES = 8e6
"""Coordinates of a file that are judged at once."""
BOND_NM = (0.1, 0.2)
"""Range of nearly all covalent bonds of a protein."""
COMPARED = {
    "sequence": "sequence",
    "chain_index": "chains",
    "has_oxt": "terminal oxygens (OXT)",
}
"""Topology fields that two files of one molecule share, and what messages call them."""


class Structures(NamedTuple):
    """Heavy atoms of one system in our order; blocks of positions [n, A, 3], nm, of any length n."""

    path: str
    topology: Topology
    n_frames: int
    blocks: Iterator[np.ndarray]


def evaluate_files(
    truth: str | PathLike[str],
    generated: str | PathLike[str] | Sequence[str | PathLike[str]],
    truth_top: str | PathLike[str] | None = None,
    generated_top: str | PathLike[str] | None = None,
) -> dict[str, Any]:
    """Judge ``generated`` against ``truth`` frame by frame.

    Each is a trajectory or a store of one system. Frame i answers for frame i; several files are members of
    every frame, and so are the structures of a file with a multiple of the frames, where those of one frame
    follow one another, as `export` writes them. Atoms are matched by residue and name, hydrogens and solvent
    ignored.
    Returns a record like that of a campaign, without baselines: rows ``model`` and ``truth``.
    Raises InputError that says what differs: sequence, atoms, number of frames, unit of length; or that names
    file and frame of coordinates that are not numbers, and of a truth whose bonds cannot be.
    """
    paths = _named(generated)
    real = _open(truth, truth_top, "--truth-top")
    made = [_open(path, generated_top, "--generated-top") for path in paths]
    each = [_members(real, file) for file in made]
    (blocks,) = block_numbers([np.arange(real.n_frames)], [[(0, real.n_frames)]])
    judged = {"model": Totals(METRICS), "truth": Totals(METRICS)}
    structure = frame_bytes(real.topology.n_atoms)
    size = max(1, min(MOST_FRAMES, int(BLOCK_BYTES / (structure * sum(each)))))
    start, bonded = 0, _bonded_in_any(real.topology, made)
    answers = (_of_size(file.blocks, size * k) for file, k in zip(made, each, strict=True))
    for true, *pieces in zip(_of_size(real.blocks, size), *answers, strict=True):
        _require_sound(real, true, start)
        for file, positions, k in zip(made, pieces, each, strict=True):
            _require_sound(file, positions, start * k)
        require_bonds(bonded, true, range(start, start + len(true)), real.path)
        part = blocks[start : start + len(true)]
        start += len(true)
        members = [piece.reshape(len(true), -1, *true.shape[1:]) for piece in pieces]
        judged["model"].add(judge(real.topology, true, np.concatenate(members, 1)), "", part)
        judged["truth"].add(judge_alone(real.topology, true), "", part)
    return _record(real, made, judged, int(blocks[-1]) + 1, sum(each))


def evaluate_structures(
    generated: str | PathLike[str] | Sequence[str | PathLike[str]],
    generated_top: str | PathLike[str] | None = None,
) -> dict[str, Any]:
    """Judge structures by themselves, without a truth: a row of the record for each trajectory or store.

    Raises InputError as `evaluate_files` does.
    """
    paths = _named(generated)
    rows = []
    for path in paths:
        file = _open(path, generated_top, "--generated-top")
        (blocks,) = block_numbers([np.arange(file.n_frames)], [[(0, file.n_frames)]])
        totals, start = Totals(METRICS), 0
        size = max(1, min(MOST_FRAMES, int(BLOCK_BYTES / frame_bytes(file.topology.n_atoms))))
        for positions in _of_size(file.blocks, size):
            _require_sound(file, positions, start)
            part = blocks[start : start + len(positions)]
            totals.add(judge_alone(file.topology, positions), "", part)
            start += len(positions)
        summary = summarise(totals, int(blocks[-1]) + 1, EvaluateConfig().bootstrap, seed=0)
        what = f"{file.n_frames} structures of {file.topology.n_residues} residues"
        label = Path(file.path).name
        rows.append({"row": file.path, "label": label, "what": what, "metrics": summary})
    return {
        "generated": ", ".join(str(path) for path in paths),
        "what": "structures by themselves, without a truth",
        "atoms": "all heavy atoms, matched by name",
        "seeds": {"bootstrap": 0},
        "bootstrap": EvaluateConfig().bootstrap,
        "versions": versions(*JUDGED_BY),
        "rows": rows,
    }


def _named(generated: str | PathLike[str] | Sequence[str | PathLike[str]]) -> list[str]:
    """Files to judge; for ``made.pdb`` that is not there, ``made_1.pdb`` and on, as a run names its members."""
    paths = [generated] if isinstance(generated, str | PathLike) else list(generated)
    named: list[str] = []
    for path in map(str, paths):
        whole = Path(path)
        numbered = (whole.with_name(f"{whole.stem}_{k}{whole.suffix}") for k in count(1))
        members = [str(file) for file in takewhile(Path.exists, numbered)]
        if "://" in path or whole.exists() or not members:
            members = [path]
        else:
            log.info("%s: its members are %s to %s", path, members[0], members[-1])
        named += members
    return named


def _members(real: Structures, made: Structures) -> int:
    """Structures of ``made`` for each frame of the truth."""
    _require_same_molecule(real, made)
    members, left = divmod(made.n_frames, real.n_frames)
    if left or not members:
        raise InputError(
            f"{made.path} has {made.n_frames} frames, {real.path} has {real.n_frames}; frame i must answer "
            "for frame i, or every frame have as many members as any other, one after another"
        )
    if members > 1:
        log.info(
            "%s: %d frames are %d members of each of %d frames, which follow one another",
            made.path, made.n_frames, members, real.n_frames,
        )  # fmt: skip
    return members


def _require_sound(structures: Structures, positions: np.ndarray, first: int) -> None:
    require_numbers(positions, range(first, first + len(positions)), structures.path)
    _require_unit(structures, positions)


def _of_size(blocks: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same frames in blocks of ``size``, the last one shorter."""
    held = None
    for block in blocks:
        held = block if held is None else np.concatenate([held, block])
        while len(held) >= size:
            yield held[:size]
            held = held[size:]
    if held is not None and len(held):
        yield held


def _record(
    real: Structures, made: list[Structures], judged: dict[str, Totals], n_blocks: int, members: int
) -> dict[str, Any]:
    rows = []
    for name, totals in judged.items():
        summary = summarise(totals, n_blocks, EvaluateConfig().bootstrap, seed=0)
        label = "Generated" if name == "model" else LABELS[name]
        rows.append({"row": name, "label": label, "what": "two files", "metrics": summary})
    return {
        "truth": real.path,
        "generated": ", ".join(file.path for file in made),
        "what": "two files, frame by frame; whether the frames were held out is not known here",
        "atoms": "all heavy atoms, first and last residue included, matched by name",
        "n_residues": real.topology.n_residues,
        "n_frames": real.n_frames,
        "members": members,
        "seeds": {"bootstrap": 0},
        "bootstrap": EvaluateConfig().bootstrap,
        "bootstrap_blocks": n_blocks,
        "versions": versions(*JUDGED_BY),
        "rows": rows,
    }


def _open(path: str | PathLike[str], top: str | PathLike[str] | None, option: str) -> Structures:
    """option: what a message calls the topology of this file."""
    path = str(path)
    if "://" in path or Path(path).is_dir():
        return _open_store(path)
    from hpcbackmap.trajectories.read_particles import load_topology
    from hpcbackmap.trajectories.reader import describe_file, holds_topology, read_frames

    if not top and not holds_topology(path):
        top = _topology_beside(Path(path))
    if not top and not holds_topology(path) and Path(path).exists():
        raise InputError(f"{path}: has no atom names; name a topology file with {option}")
    found = load_topology(str(top) if top else path)
    n_frames, first = describe_file(path, found)
    topology, index, _ = topology_from_mdtraj(found, first, path)
    if len(index) != topology.n_atoms:
        raise InputError(f"{path}: holds C-alpha atoms only; the judge compares heavy atoms")
    pieces = (positions for positions, *_ in read_frames(path, found, 0, n_frames, atoms=index))
    return Structures(path, topology, n_frames, chain([next(pieces)], pieces))


def _topology_beside(path: Path) -> Path | None:
    """``made_top.pdb`` of ``made.xtc`` and of its members ``made_1.xtc``, as a run names it, if it is there."""
    whole, _, number = path.stem.rpartition("_")
    stems = [path.stem, *([whole] if number.isdigit() else [])]
    beside = (path.with_name(f"{stem}_top.pdb") for stem in stems)
    found = next((top for top in beside if top.is_file()), None)
    if found:
        log.info("%s: names of its atoms are those of %s", path, found)
    return found


def _open_store(path: str) -> Structures:
    from hpcbackmap.store.store import open_store

    store = open_store(path)
    if len(store.systems) != 1 or "fg" not in store.resolutions:
        raise InputError(
            f"{path}: two stores can be compared if each holds the heavy atoms (fg) of one system; "
            f"this one has {', '.join(store.resolutions)} of {len(store.systems)} system(s)"
        )
    system = store.system(store.systems[0])
    topology = system.ladder.topology
    size = max(1, int(BLOCK_BYTES / frame_bytes(topology.n_atoms)))
    blocks = read_blocks(store, system.name, "fg", 0, system.n_frames, size)
    return Structures(path, topology, system.n_frames, (positions for _, positions in blocks))


def _require_same_molecule(real: Structures, made: Structures) -> None:
    ours, theirs = real.topology, made.topology
    if ours.n_residues != theirs.n_residues:
        common = zip(ours.sequence, theirs.sequence, strict=False)
        first = next((i for i, (a, b) in enumerate(common) if a != b), None)
        where = "one ends before the other"
        if first is not None:
            where = f"first difference at residue {first + 1}: {theirs.label(first)} and {ours.label(first)}"
        raise InputError(
            f"{made.path} has {theirs.n_residues} residues, {real.path} has {ours.n_residues}; {where}"
        )
    for field, name in COMPARED.items():
        pairs = zip(getattr(ours, field), getattr(theirs, field), strict=True)
        differing = [i for i, (a, b) in enumerate(pairs) if a != b]
        if differing:
            first = differing[0]
            raise InputError(
                f"{made.path} and {real.path} differ in their {name}, first at residue "
                f"{first + 1}: {theirs.label(first)} and {ours.label(first)}"
            )


def _bonded_in_any(real: Topology, made: list[Structures]) -> Topology:
    """The truth, with peptide bonds that its first frame lacks where the periodic box cuts it there."""
    bonds = zip(real.bonded, *(file.topology.bonded for file in made), strict=True)
    return replace(real, bonded=tuple(any(each) for each in bonds))


def _require_unit(structures: Structures, positions: np.ndarray) -> None:
    first, second = _inner_bonds(structures.topology).T
    lengths = np.linalg.norm(positions[0, first] - positions[0, second], axis=-1)
    guess = wrong_unit(structures.path, lengths, *BOND_NM)
    if guess:
        raise InputError(f"{structures.path}: bonds are ten times off: {guess}")


def _inner_bonds(topology: Topology) -> np.ndarray:
    """Bonds within residues: a wrong unit breaks the others already when a topology is read."""
    same = (
        topology.atom_residue[topology.bonds[:, 0]] == topology.atom_residue[topology.bonds[:, 1]]
    )
    found: np.ndarray = topology.bonds[same]
    return found
