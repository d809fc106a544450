"""Judge one trajectory (or store) against another: any backmapping tool against the truth."""

from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcbackmap.config import EvaluateConfig
from hpcbackmap.errors import InputError
from hpcbackmap.evaluation.judge import METRICS, judge
from hpcbackmap.evaluation.record import LABELS, versions
from hpcbackmap.evaluation.summary import summarise
from hpcbackmap.protein.topology import Topology, topology_from_mdtraj

__all__ = ["evaluate_files"]

BLOCK = 100
"""Frames read at once."""
BOND_NM = (0.1, 0.2)
"""Range of the median covalent bond of a protein."""
COMPARED = {
    "sequence": "sequence",
    "chain_index": "chains",
    "has_oxt": "terminal oxygens (OXT)",
}
"""Topology fields that two files of one molecule share, and what messages call them."""


class Structures(NamedTuple):
    """Heavy atoms of one system in our order; blocks of positions [n, A, 3], nm."""

    path: str
    topology: Topology
    blocks: Iterator[np.ndarray]


def evaluate_files(truth, generated, truth_top=None, generated_top=None) -> dict:
    """Judge ``generated`` against ``truth`` frame by frame.

    Each is a trajectory or a store of one system. Frame i answers for frame i; atoms are matched by
    residue and name, hydrogens and solvent ignored.
    Returns a record like that of a campaign, without baselines: rows ``model`` and ``truth``.
    Raises InputError that says what differs: sequence, atoms, number of frames, unit of length.
    """
    real, made = _open(truth, truth_top), _open(generated, generated_top)
    _require_same_molecule(real, made)
    judged: dict[str, list] = {"model": [], "truth": []}
    counts = np.zeros(2, dtype=int)
    for true_block, made_block in zip_longest(real.blocks, made.blocks):
        sizes = [0 if block is None else len(block) for block in (true_block, made_block)]
        counts += sizes
        if sizes[0] != sizes[1]:
            continue
        for structures, block in ((real, true_block), (made, made_block)):
            _require_numbers(structures, block)
        judged["model"].append(judge(real.topology, true_block, made_block[:, None]))
        judged["truth"].append(judge(real.topology, true_block, true_block[:, None]))
    if counts[0] != counts[1]:
        raise InputError(
            f"{made.path} has {counts[1]} frames, {real.path} has {counts[0]}; "
            "frame i must answer for frame i"
        )
    return _record(real, made, judged, int(counts[0]))


def _record(real: Structures, made: Structures, judged: dict[str, list], n_frames: int) -> dict:
    own = tuple(item for item in METRICS if not item.compares)
    rows = []
    for name, metrics in (("model", METRICS), ("truth", own)):
        joined = {
            key: np.concatenate([part[key] for part in judged[name]]) for key in judged[name][0]
        }
        summary = summarise(metrics, joined, EvaluateConfig().bootstrap, seed=0)
        label = "Generated" if name == "model" else LABELS[name]
        rows.append({"row": name, "label": label, "what": "two files", "metrics": summary})
    return {
        "truth": real.path,
        "generated": made.path,
        "what": "two files, frame by frame; whether the frames were held out is not known here",
        "atoms": "all heavy atoms, first and last residue included, matched by name",
        "n_residues": real.topology.n_residues,
        "n_frames": n_frames,
        "members": 1,
        "seeds": {"bootstrap": 0},
        "bootstrap": EvaluateConfig().bootstrap,
        "versions": versions(),
        "rows": rows,
    }


def _open(path, top) -> Structures:
    path = str(path)
    if "://" in path or Path(path).is_dir():
        return _open_store(path)
    import mdtraj

    try:
        trajectory = mdtraj.iterload(path, chunk=BLOCK, **({"top": str(top)} if top else {}))
        first = next(trajectory)
    except StopIteration:
        raise InputError(f"{path}: holds no frames") from None
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, ImportError) as error:
        hint = "" if top else "; a format without atom names needs a topology file"
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read: {reason}{hint}") from None
    topology, index, _ = topology_from_mdtraj(first.topology, first.xyz[0], path)
    if len(index) != topology.n_atoms:
        raise InputError(f"{path}: holds C-alpha atoms only; the judge compares heavy atoms")
    return Structures(path, topology, _blocks(path, chain([first], trajectory), index))


def _blocks(path: str, trajectory, index: np.ndarray) -> Iterator[np.ndarray]:
    try:
        for piece in trajectory:
            yield piece.xyz[:, index]
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path}: cannot be read to its end: {' '.join(str(error).split())}"
        ) from None


def _open_store(path: str) -> Structures:
    from hpcbackmap.evaluation.reading import read_blocks
    from hpcbackmap.frames.store import open_store

    store = open_store(path)
    if len(store.systems) != 1 or "fg" not in store.resolutions:
        raise InputError(
            f"{path}: two stores can be compared if each holds the heavy atoms (fg) of one system; "
            f"this one has {', '.join(store.resolutions)} of {len(store.systems)} system(s)"
        )
    system = store.system(store.systems[0])
    blocks = read_blocks(store, system.name, "fg", 0, system.n_frames, BLOCK)
    return Structures(path, system.ladder.topology, (positions for _, positions in blocks))


def _require_same_molecule(real: Structures, made: Structures) -> None:
    ours, theirs = real.topology, made.topology
    if ours.n_residues != theirs.n_residues:
        raise InputError(
            f"{made.path} has {theirs.n_residues} residues, {real.path} has {ours.n_residues}"
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


def _require_numbers(structures: Structures, positions: np.ndarray) -> None:
    if not np.isfinite(positions).all():
        raise InputError(f"{structures.path}: has coordinates that are not numbers")
    first, second = _inner_bonds(structures.topology).T
    length = float(np.median(np.linalg.norm(positions[0, first] - positions[0, second], axis=-1)))
    for factor, guess in ((10.0, "angstrom where nm belong"), (0.1, "nm where angstrom belong")):
        if BOND_NM[0] < length / factor < BOND_NM[1]:
            raise InputError(
                f"{structures.path}: the median bond is {length:.3g} nm long, ten times off: "
                f"probably {guess}; rescale the coordinates"
            )


def _inner_bonds(topology: Topology) -> np.ndarray:
    """Bonds within residues: a wrong unit breaks the others already when a topology is read."""
    same = (
        topology.atom_residue[topology.bonds[:, 0]] == topology.atom_residue[topology.bonds[:, 1]]
    )
    return topology.bonds[same]
