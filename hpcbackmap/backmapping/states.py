"""Protonation states of the molecules of a run.

All of its structures share them: a trajectory has one set of atoms.
"""

from typing import TYPE_CHECKING

import numpy as np

from hpcbackmap.backmapping.plan import Plan, Shard
from hpcbackmap.backmapping.source import Source, read_coarse
from hpcbackmap.finishing.protonation import protonation_states, states_need_structures

if TYPE_CHECKING:
    from hpcbackmap.backmapping.chain import Chains

__all__ = ["states_of_run"]

LOOKED_AT = 5
"""Frames, evenly spaced, whose most likely structures say which nitrogen of a histidine has the hydrogen."""


def states_of_run(plan: Plan, source: Source, chains: "Chains", ph: float) -> dict[str, list[str]]:
    """Of every system, see `Topology.protonation`."""
    states = {}
    for name in plan.frames:
        topology = source.system(name).ladder.topology
        heavy = (
            _likely(plan, source, chains, name) if states_need_structures(topology, ph) else None
        )
        states[name] = list(protonation_states(topology, heavy, ph))
    return states


def _likely(plan: Plan, source: Source, chains: "Chains", name: str) -> np.ndarray:
    """The most likely structures [F, A, 3] of some frames of a system."""
    system, count = source.system(name), plan.n_frames(name)
    local = plan.local_frames(Shard(name, 0, 0, count))
    chosen = np.unique(np.linspace(0, count - 1, min(LOOKED_AT, count)).astype(int))
    found = []
    for place in chosen.tolist():
        coarse = read_coarse(system, plan.start, [local[place]])
        if not coarse.unusable:
            (levels,) = chains[name].run_members(
                coarse.positions, [local[place]], [None], plan.seed, coarse.given
            )
            found.append(levels["fg"])
    shape = (0, system.ladder.topology.n_atoms, 3)
    heavy = np.concatenate([np.zeros(shape, dtype=np.float32), *found])
    result: np.ndarray = heavy[np.isfinite(heavy).all(axis=(1, 2))]
    return result
