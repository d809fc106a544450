"""Secondary structure that a user knows of a protein, as the trace stage's denoiser takes it."""

from dataclasses import dataclass

import numpy as np

from hpcbackmap.protein.topology import Topology
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.stages.trace.system import STRUCTURES

__all__ = ["SecondaryStructure"]

LETTERS = {"H": "HGI", "E": "EB", "C": "CTSPL- ~", "?": "?X."}
"""DSSP's letters (Kabsch & Sander 1983) of each state; blank, ``-`` and ``~`` are what it leaves open."""
STATE_OF = {letter: STRUCTURES.index(state) for state, all_ in LETTERS.items() for letter in all_}
BETWEEN_CHAINS = "/"


@dataclass(frozen=True)
class SecondaryStructure:
    """letters: one for each residue, chains apart by ``/``, or those of one chain for all that are as long."""

    letters: str

    def __post_init__(self) -> None:
        """Raises InputError for other letters, or none."""
        for place, letter in enumerate(self.letters):
            if letter != BETWEEN_CHAINS and letter not in STATE_OF:
                raise InputError(
                    f"secondary structure: letter {place + 1} is {letter!r}; give H, E, C for each residue "
                    "(DSSP's G, I, B, T, S are taken as well), ? where it is not known"
                )
        if not self.letters.strip(BETWEEN_CHAINS):
            raise InputError("secondary structure: empty; give a letter for each residue")

    def states(self, topology: Topology) -> np.ndarray:
        """Of each residue which of `STRUCTURES`, int64 [N]. Raises InputError where the numbers differ."""
        lengths = np.bincount(topology.chain_index, minlength=len(topology.chain_ids)).tolist()
        parts = self.letters.split(BETWEEN_CHAINS)
        if len(parts) == 1 and len(parts[0]) == sum(lengths):
            return _states(parts[0])
        if len(parts) == 1:
            parts = parts * len(lengths)
        if [len(part) for part in parts] != lengths:
            wanted = ", ".join(
                f"{length} for chain {name}"
                for name, length in zip(topology.chain_ids, lengths, strict=True)
            )
            given = ", ".join(str(len(part)) for part in self.letters.split(BETWEEN_CHAINS))
            raise InputError(
                f"secondary structure: {given} letters; the protein has {sum(lengths)} residues ({wanted}); "
                f"chains are kept apart by {BETWEEN_CHAINS}"
            )
        return np.concatenate([_states(part) for part in parts])


def _states(letters: str) -> np.ndarray:
    return np.array([STATE_OF[letter] for letter in letters], dtype=np.int64)
