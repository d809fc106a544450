"""Figures of every ladder and trivial answer for one unseen chain."""

import sys
from pathlib import Path

import numpy as np
from chains import Chain
from roads import answers_of, nats_of
from trivial import trivial_answers

from hpcbackmap.metrics.judge import METRICS, Metric, judge, judge_alone
from hpcbackmap.metrics.rmsd import aligned_rmsd
from hpcbackmap.stages.base import Stage

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "kstep"))
from relaxation import Relaxation

__all__ = ["MEASURES", "ONE", "judge_chain"]

ONE = ", one answer"
"""Ending of rows that are the one answer of a ladder instead of its members."""
NAMES = (
    "rmsd_aligned_angstrom", "rmsd_aligned_best_angstrom", "lddt_ca", "lddt", "bond_graph_ged",
    "bonds_off_percent", "peptide_bonds_off_percent", "cis_trans_wrong_percent", "ca_ca_off_percent",
    "clashes_severe_per_100_residues", "clashes_per_100_residues", "ramachandran_favoured_percent",
    "ramachandran_outliers_percent", "helix_recovered_percent", "chi1_right_percent",
    "rotamer_outliers_percent", "d_residues_percent", "spread_ratio",
)  # fmt: skip
MEASURES = (
    *(item for item in METRICS if item.name in NAMES),
    Metric("calpha_rmsd_angstrom", "Cα RMSD, superposed (Å)"),
    Metric("elbo_nats", "ELBO, nats per residue", digits=1),
    Metric("iwae_nats", "– importance-weighted bound of 8 draws", digits=1),
    Metric("energy_kj_per_mol_per_residue", "Energy after relaxation (kJ/mol per residue), median"),
    Metric("cpu_ms", "CPU ms per member", digits=0, compares=False),
)


def judge_chain(
    chain: Chain, top: int, roads: dict[str, list[Stage]], number: int, members: int, energy: bool
) -> dict[str, dict[str, list]]:
    """Rows [k] of each measure by method; roads: stages of the ladders from beads of ``top``."""
    once, two = (next(s for r, s in roads.items() if len(s) == count) for count in (1, 2))
    made = trivial_answers(chain, top, once[0], two[-1])
    extra: dict[str, dict[str, list]] = {}
    for road, stages in roads.items():
        answers = answers_of(stages, chain, top, number, members)
        made |= {road: answers.members, road + ONE: answers.one}
        nats = nats_of(stages, chain, road, number)
        extra[road] = {"elbo_nats": [nats["elbo"]], "iwae_nats": [nats["iwae"]]}
        extra[road] |= {f"nats_{name}": [value] for name, value in nats["rungs"].items()}
        extra[road]["cpu_ms"] = [1e3 * answers.seconds]
    found = {name: _figures(chain, x) | extra.get(name, {}) for name, x in made.items()}
    found["truth"] = _rows(judge_alone(chain.topology, chain.atoms[None]))
    if energy:
        relaxed = {"truth": chain.atoms[None, None], **made}
        del relaxed["bead centre"]
        field = Relaxation(chain.topology, chain.atoms)
        for name, positions in relaxed.items():
            value = field.energies(positions[0, :1])[0] / chain.topology.n_residues
            found[name]["energy_kj_per_mol_per_residue"] = [value if np.isfinite(value) else None]
    return found


def _figures(chain: Chain, made: np.ndarray) -> dict[str, list]:
    truth = chain.atoms[None].astype(np.float64)
    made = made.astype(np.float64)
    found = judge(chain.topology, truth, made)
    calpha = chain.topology.ca_index
    beside = np.repeat(truth[:, calpha], made.shape[1], axis=0)
    found["calpha_rmsd_angstrom"] = 10 * aligned_rmsd(made[0][:, calpha], beside)[None]
    return _rows(found)


def _rows(found: dict[str, np.ndarray]) -> dict[str, list]:
    wanted = {item.name for item in MEASURES}
    return {
        name: [float(x) if np.isfinite(x) else None for x in rows[0]]
        for name, rows in found.items()
        if name in wanted
    }
