"""All measures of generated structures against the truth, frame by frame.

`judge` returns one array per measure with a row per input frame, so that blocks of frames and
shares of ranks join by concatenation and a bootstrap resamples rows. `METRICS` says how rows become
one number.
Shapes: F input frames, M members, A heavy atoms. Positions nm; a measure has the unit in its name.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hpcbackmap.evaluation.beads import bead_error
from hpcbackmap.evaluation.bonds import (
    BOND_RANGE,
    bond_lengths,
    graph_edit_ratio,
    inferred_bonds,
    net_bond_ratio,
    off_lengths,
)
from hpcbackmap.evaluation.chirality import chiral_volumes, handedness
from hpcbackmap.evaluation.clashes import (
    OVERLAP,
    SEVERE_OVERLAP,
    clashing_pairs,
    clashing_residues,
)
from hpcbackmap.evaluation.contacts import close_atoms, pairs_within_two_bonds
from hpcbackmap.evaluation.divergence import ANGLE_BINS, angle_counts, jensen_shannon
from hpcbackmap.evaluation.diversity import diversity, member_spread
from hpcbackmap.evaluation.peptide import (
    calpha_distances,
    cis_bonds,
    link_lengths,
    nonplanar,
    omega_angles,
)
from hpcbackmap.evaluation.rmsd import rmsd, superpose
from hpcbackmap.evaluation.shape import radius_of_gyration
from hpcbackmap.evaluation.torsions import TORSIONS, dihedrals, torsion_atoms
from hpcbackmap.protein.residues import BACKBONE
from hpcbackmap.protein.topology import Topology
from hpcbackmap.resolution.ladder import Ladder

__all__ = ["ANGSTROM", "METRICS", "Metric", "judge", "mean", "metric"]

ANGSTROM = 10.0
"""Angstrom per nm."""
LINK_TOLERANCE = 0.02
"""nm by which a C-N peptide bond may differ from the truth."""


def mean(rows: np.ndarray) -> float:
    """Mean of the defined entries, NaN if there are none."""
    known = rows[np.isfinite(rows)]
    return float(known.mean()) if known.size else float("nan")


def _largest(rows: np.ndarray) -> float:
    known = rows[np.isfinite(rows)]
    return float(known.max()) if known.size else float("nan")


def _divergence(rows: np.ndarray) -> float:
    """Mean over angles; rows [F, angles * 2 * ANGLE_BINS]: generated, truth, next angle."""
    counts = rows.sum(0).reshape(-1, 2, ANGLE_BINS)
    return float(np.mean([jensen_shannon(generated, truth) for generated, truth in counts]))


def _diversity(rows: np.ndarray) -> float:
    return diversity(rows[:, 0], rows[:, 1])


class Metric(NamedTuple):
    """One measure: how its rows [F, k] reduce to a number, and how a table shows it.

    compares: against the truth, so that the truth itself has no value of its own.
    """

    name: str
    label: str
    reduce: Callable[[np.ndarray], float] = mean
    digits: int = 2
    compares: bool = True


METRICS = (
    Metric("rmsd_aligned_angstrom", "Heavy-atom RMSD, superposed (Å)"),
    Metric("rmsd_aligned_backbone_angstrom", "– backbone (Å)"),
    Metric("rmsd_aligned_side_chain_angstrom", "– side chains (Å)"),
    Metric("rmsd_aligned_best_angstrom", "– best member of each frame (Å)"),
    Metric("rmsd_angstrom", "Heavy-atom RMSD, as it lies (Å)"),
    Metric("rmsd_backbone_angstrom", "– backbone (Å)"),
    Metric("rmsd_side_chain_angstrom", "– side chains (Å)"),
    Metric("bond_graph_ged", "Bond graph, edit distance ratio", digits=4),
    Metric("bond_graph_net_ratio", "– net count, the reference's form", digits=4),
    Metric("bond_graph_exact_percent", "– graphs without error (%)", digits=1),
    Metric("bonds_off_percent", "Bond lengths more than 10 % off (%)"),
    Metric("peptide_bonds_off_percent", "Peptide C–N more than 0.2 Å off (%)"),
    Metric("omega_nonplanar_percent", "Peptide ω not planar where the truth is (%)"),
    Metric("cis_peptide_bonds", "cis peptide bonds per structure", compares=False),
    Metric("ca_ca_error_angstrom", "Cα–Cα distance, mean error (Å)", digits=3),
    Metric("ca_ca_off_percent", "Cα–Cα more than 10 % off (%)"),
    Metric("clashes_severe_per_100_residues", "Clashes < 1.2 Å per 100 residues", compares=False),
    Metric("clashes_per_100_residues", "Clashes < 2.0 Å per 100 residues", compares=False),
    Metric("residues_clashing_severe_percent", "Residues in a clash < 1.2 Å (%)", compares=False),
    Metric("residues_clashing_percent", "Residues in a clash < 2.0 Å (%)", compares=False),
    Metric("ramachandran_jsd_nats", "Ramachandran divergence, φ ψ mean (nats)", _divergence, 4),
    Metric("phi_jsd_nats", "– φ (nats)", _divergence, 4),
    Metric("psi_jsd_nats", "– ψ (nats)", _divergence, 4),
    Metric("omega_jsd_nats", "– ω (nats)", _divergence, 4),
    Metric("chi1_jsd_nats", "χ1 divergence (nats)", _divergence, 4),
    Metric("d_residues_percent", "D residues (%)", compares=False),
    Metric("flat_residues_percent", "Cα without handedness (%)", compares=False),
    Metric("cb_inverted_percent", "Ile/Thr Cβ inverted (%)", compares=False),
    Metric("radius_of_gyration_angstrom", "Radius of gyration (Å)", compares=False),
    Metric("radius_of_gyration_error_angstrom", "– mean error (Å)"),
    Metric("diversity", "Diversity DIV (0 as diverse as wrong, 1 deterministic)", _diversity),
    Metric("bead_error_angstrom", "Bead error, largest of a structure (Å)", digits=5),
    Metric("bead_error_max_angstrom", "– largest of all (Å)", _largest, 5),
)


def metric(name: str) -> Metric:
    """The entry of `METRICS` with this name."""
    return next(item for item in METRICS if item.name == name)


def judge(
    topology: Topology,
    truth: np.ndarray,
    generated: np.ndarray,
    ladder: Ladder | None = None,
    beads: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Rows [F, k] of every metric; k is M or what its ``reduce`` expects.

    truth: [F, A, 3]; generated: [F, M, A, 3]; nm, same atom order. beads: input beads [F, B, 3] of
    the coarsest resolution of ``ladder``; without them there is no bead error.
    """
    frames, members = generated.shape[:2]
    flat = generated.reshape(-1, *generated.shape[2:])
    beside = np.repeat(truth, members, axis=0)
    values = _deviations(topology, flat, beside)
    values |= _graphs_and_clashes(topology, flat, truth)
    values |= _geometry(topology, flat, beside)
    if ladder is not None and beads is not None:
        error = ANGSTROM * bead_error(ladder, flat, np.repeat(beads, members, axis=0))
        values |= {"bead_error_angstrom": error, "bead_error_max_angstrom": error}
    rows = {name: value.reshape(frames, members) for name, value in values.items()}
    rows |= _angles(topology, flat, truth)
    if members > 1:
        rows["rmsd_aligned_best_angstrom"] = rows["rmsd_aligned_angstrom"].min(1, keepdims=True)
        spread = ANGSTROM * member_spread(generated)
        rows["diversity"] = np.stack([spread, rows["rmsd_aligned_angstrom"].mean(1)], axis=1)
    return rows


def _deviations(
    topology: Topology, generated: np.ndarray, truth: np.ndarray
) -> dict[str, np.ndarray]:
    """One superposition, on all heavy atoms, serves backbone and side chains."""
    backbone = np.isin(topology.atom_names, (*BACKBONE, "OXT"))
    aligned = superpose(generated, truth)
    values = {}
    for prefix, structure in (("rmsd", generated), ("rmsd_aligned", aligned)):
        values[f"{prefix}_angstrom"] = ANGSTROM * rmsd(structure, truth)
        for part, atoms in (("backbone", backbone), ("side_chain", ~backbone)):
            value = np.full(len(truth), np.nan)
            if atoms.any():
                value = ANGSTROM * rmsd(structure[:, atoms], truth[:, atoms])
            values[f"{prefix}_{part}_angstrom"] = value
    return values


def _graphs_and_clashes(
    topology: Topology, generated: np.ndarray, truth: np.ndarray
) -> dict[str, np.ndarray]:
    members = len(generated) // len(truth)
    near = pairs_within_two_bonds(topology)
    graphs = [inferred_bonds(topology, close_atoms(frame, BOND_RANGE)) for frame in truth]
    names = (
        "bond_graph_ged",
        "bond_graph_net_ratio",
        "clashes_severe_per_100_residues",
        "clashes_per_100_residues",
        "residues_clashing_severe_percent",
        "residues_clashing_percent",
    )
    table = np.empty((len(generated), len(names)))
    for k, frame in enumerate(generated):
        close = close_atoms(frame, BOND_RANGE)
        graph, reference = inferred_bonds(topology, close), graphs[k // members]
        clashes = [clashing_pairs(topology, close, near, cut) for cut in (SEVERE_OVERLAP, OVERLAP)]
        table[k] = (
            graph_edit_ratio(graph, reference),
            net_bond_ratio(graph, reference),
            *(100 * len(pairs) / topology.n_residues for pairs in clashes),
            *(100 * clashing_residues(topology, pairs) for pairs in clashes),
        )
    values = dict(zip(names, table.T, strict=True))
    values["bond_graph_exact_percent"] = 100.0 * (values["bond_graph_ged"] == 0)
    return values


def _geometry(
    topology: Topology, generated: np.ndarray, truth: np.ndarray
) -> dict[str, np.ndarray]:
    link = (
        np.abs(link_lengths(topology, generated) - link_lengths(topology, truth)) > LINK_TOLERANCE
    )
    omega, true_omega = omega_angles(topology, generated), omega_angles(topology, truth)
    trace, true_trace = calpha_distances(topology, generated), calpha_distances(topology, truth)
    size, true_size = radius_of_gyration(topology, generated), radius_of_gyration(topology, truth)
    inverted, flat = handedness(chiral_volumes(topology, generated))
    return {
        "bonds_off_percent": 100
        * off_lengths(bond_lengths(topology, generated), bond_lengths(topology, truth)),
        "peptide_bonds_off_percent": 100 * link.mean(-1),
        "omega_nonplanar_percent": 100 * nonplanar(omega, true_omega),
        "cis_peptide_bonds": cis_bonds(omega),
        "ca_ca_error_angstrom": ANGSTROM * np.abs(trace - true_trace).mean(-1),
        "ca_ca_off_percent": 100 * off_lengths(trace, true_trace),
        "d_residues_percent": 100 * inverted,
        "flat_residues_percent": 100 * flat,
        "cb_inverted_percent": 100 * handedness(chiral_volumes(topology, generated, "CB"))[0],
        "radius_of_gyration_angstrom": ANGSTROM * size,
        "radius_of_gyration_error_angstrom": ANGSTROM * np.abs(size - true_size),
    }


def _angles(topology: Topology, generated: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    rows = {}
    for kind in TORSIONS:
        atoms, _ = torsion_atoms(topology, kind)
        counts = (
            angle_counts(dihedrals(generated, atoms)).reshape(len(truth), -1, ANGLE_BINS).sum(1)
        )
        rows[f"{kind}_jsd_nats"] = np.hstack([counts, angle_counts(dihedrals(truth, atoms))])
    rows["ramachandran_jsd_nats"] = np.hstack([rows["phi_jsd_nats"], rows["psi_jsd_nats"]])
    return rows
