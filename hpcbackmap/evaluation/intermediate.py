"""Where on the ladder an error arises: what can be judged at an intermediate resolution."""

import numpy as np

from hpcbackmap.metrics.beads import bead_error
from hpcbackmap.metrics.bonds import off_lengths
from hpcbackmap.metrics.diversity import crps, member_spread, spread_and_error
from hpcbackmap.metrics.lddt import lddt
from hpcbackmap.metrics.peptide import calpha_distances
from hpcbackmap.metrics.registry import ANGSTROM, Metric, metric
from hpcbackmap.metrics.rmsd import aligned_rmsd, rmsd
from hpcbackmap.resolution.ladder import Ladder

__all__ = ["RUNG_METRICS", "judge_rung"]


RUNG_METRICS = (
    Metric("rmsd_aligned_angstrom", "RMSD, superposed (Å)"),
    Metric("rmsd_angstrom", "RMSD, as it lies (Å)"),
    metric("lddt_ca"),
    metric("ca_ca_error_angstrom"),
    metric("ca_ca_off_percent"),
    metric("bead_error_angstrom"),
    metric("diversity"),
    metric("spread_ratio"),
    metric("crps_angstrom"),
)


def judge_rung(
    ladder: Ladder, resolution: str, truth: np.ndarray, generated: np.ndarray, beads: np.ndarray
) -> dict[str, np.ndarray]:
    """Rows of `RUNG_METRICS`; truth [F, N, 3], generated [F, M, N, 3] at ``resolution``, nm."""
    frames, members = generated.shape[:2]
    flat = generated.reshape(-1, *generated.shape[2:])
    beside = np.repeat(truth, members, axis=0)
    values = {
        "rmsd_aligned_angstrom": ANGSTROM * aligned_rmsd(flat, beside),
        "rmsd_angstrom": ANGSTROM * rmsd(flat, beside),
        "bead_error_angstrom": ANGSTROM
        * bead_error(ladder, flat, np.repeat(beads, members, axis=0), resolution),
    }
    if resolution == "ca":
        trace = calpha_distances(ladder.topology, flat)
        true_trace = calpha_distances(ladder.topology, beside)
        values["ca_ca_error_angstrom"] = ANGSTROM * np.abs(trace - true_trace).mean(-1)
        values["ca_ca_off_percent"] = 100 * off_lengths(trace, true_trace)
        each = np.arange(ladder.topology.n_residues)
        values["lddt_ca"] = np.concatenate(
            [lddt(real, made, each) for real, made in zip(truth, generated, strict=True)]
        )
    rows = {name: value.reshape(frames, members) for name, value in values.items()}
    if members > 1:
        spread = ANGSTROM * member_spread(generated)
        rows["diversity"] = np.stack([spread, rows["rmsd_aligned_angstrom"].mean(1)], axis=1)
        rows["spread_ratio"] = spread_and_error(generated, truth)
        rows["crps_angstrom"] = ANGSTROM * crps(generated, truth)[:, None]
    return rows
