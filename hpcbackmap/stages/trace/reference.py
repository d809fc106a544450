"""A known structure of a protein, laid on the residues of a topology by its sequence."""

from dataclasses import dataclass

import numpy as np

from hpcbackmap.protein.alignment import aligned, identity
from hpcbackmap.protein.residues import RESIDUES
from hpcbackmap.protein.topology import Topology
from hpcbackmap.runtime.errors import InputError

__all__ = ["Placed", "Reference"]

LEAST_IDENTITY = 0.7
"""Share of the shorter sequence below which a reference is that of another protein."""
NAMED = 5
"""Differences that are named."""


@dataclass(frozen=True)
class Placed:
    """calpha [N, 3]: nm, NaN where the reference has no residue. group [N]: residues whose places belong
    together; copies of one chain of the reference do not. words: what a user is told.
    """

    calpha: np.ndarray
    group: np.ndarray
    words: list[str]


@dataclass(frozen=True)
class Reference:
    """path: how messages call it. digest: of its coordinates and sequences. topology, calpha [R, 3]: nm."""

    path: str
    digest: str
    topology: Topology
    calpha: np.ndarray

    def placed(self, topology: Topology) -> Placed:
        """Raises InputError where no chain of the reference is that of a chain of ``topology``, saying how
        alike they are; chains that it lacks are said in words.
        """
        own, wanted = _chains(self.topology), _chains(topology)
        calpha = np.full((topology.n_residues, 3), np.nan)
        group, uses = np.zeros(topology.n_residues, dtype=np.int64), [0] * len(own)
        words, best_of_all = [], 0.0
        for name, (rows, letters) in zip(topology.chain_ids, wanted, strict=True):
            ranked = []
            for number, (_, theirs) in enumerate(own):
                pairs = aligned(letters, theirs)
                ranked.append((identity(letters, theirs, pairs), -uses[number], -number, pairs))
            share, _, chosen, pairs = max(ranked, key=lambda each: each[:3])
            best_of_all = max(best_of_all, share)
            if share < LEAST_IDENTITY:
                words.append(
                    f"{self.path}: chain {name}: not in the reference ({100 * share:.0f} % identity at most)"
                )
                continue
            there, theirs = own[-chosen]
            calpha[rows[pairs[:, 0]]] = self.calpha[there[pairs[:, 1]]]
            group[rows] = uses[-chosen]
            uses[-chosen] += 1
            of = self.topology.chain_ids[-chosen]
            words.append(
                f"{self.path}: chain {name}: as chain {of} of the reference, {100 * share:.0f} % identity"
                + _differences(topology, rows, letters, theirs, pairs)
            )
        if not any(uses):
            raise InputError(
                f"{self.path}: no reference of this protein: {100 * best_of_all:.0f} % of the residues are the "
                f"same at best, {100 * LEAST_IDENTITY:.0f} % at least are asked for; leave out --reference"
            )
        return Placed(calpha, group, words)


def _chains(topology: Topology) -> list[tuple[np.ndarray, str]]:
    """Residues and one-letter sequence of each chain."""
    chain = np.array(topology.chain_index)
    found = []
    for number in range(len(topology.chain_ids)):
        rows = np.flatnonzero(chain == number)
        found.append((rows, "".join(RESIDUES[topology.sequence[row]].letter for row in rows)))
    return found


def _differences(
    topology: Topology, rows: np.ndarray, letters: str, theirs: str, pairs: np.ndarray
) -> str:
    """What the reference has otherwise or not at all, in words."""
    other = [(int(a), int(b)) for a, b in pairs if letters[a] != theirs[b]]
    missing = np.setdiff1d(np.arange(len(letters)), pairs[:, 0])
    words = ""
    if other:
        named = ", ".join(
            f"{topology.label(int(rows[a]))} is {theirs[b]}" for a, b in other[:NAMED]
        )
        words += f"; {len(other)} other: {named}" + (", …" if len(other) > NAMED else "")
    if len(missing):
        runs = np.split(missing, np.flatnonzero(np.diff(missing) > 1) + 1)
        named = ", ".join(
            topology.label(int(rows[run[0]]))
            + (f" to {topology.label(int(rows[run[-1]]))}" if len(run) > 1 else "")
            for run in runs[:NAMED]
        )
        words += f"; {len(missing)} missing: {named}" + (", …" if len(runs) > NAMED else "")
    return words
