"""All measures of generated structures against the truth, frame by frame.

`judge` returns one array per measure with a row per input frame; `METRICS` says how rows become one
number, and `accumulate` adds them up as they come.
Shapes: F input frames, M members, A heavy atoms. Positions nm; a measure has the unit in its name.
"""

import numpy as np

from hpcbackmap.metrics.beads import bead_error
from hpcbackmap.metrics.bonds import (
    BOND_RANGE,
    bond_fraction_auc,
    bond_lengths,
    bond_rmsd,
    graph_edit_ratio,
    inferred_bonds,
    net_bond_ratio,
    off_lengths,
)
from hpcbackmap.metrics.close_pairs import (
    CloseAtoms,
    close_atoms,
    count_pairs,
    pairs_within_two_bonds,
)
from hpcbackmap.metrics.contact_map import calpha_contacts, compare_contacts
from hpcbackmap.metrics.divergence import angle_counts, plane_counts
from hpcbackmap.metrics.diversity import crps, member_spread, spread_and_error
from hpcbackmap.metrics.lddt import lddt
from hpcbackmap.metrics.peptide import calpha_distances, cis_trans_wrong, link_lengths, nonplanar
from hpcbackmap.metrics.radius_of_gyration import radius_of_gyration
from hpcbackmap.metrics.reference_forms import (
    NEIGHBOURHOOD,
    interaction_pairs,
    interaction_score,
    steric_pair_ratio,
)
from hpcbackmap.metrics.registry import ANGSTROM, METRICS, Metric, metric
from hpcbackmap.metrics.rmsd import rmsd, superpose
from hpcbackmap.metrics.rotamers import chi_right, rotamer_rows, rotamer_states
from hpcbackmap.metrics.secondary import agreement, helix_recovered, secondary_structure
from hpcbackmap.metrics.single_structure import own_values
from hpcbackmap.metrics.symmetry import renamed_like
from hpcbackmap.protein.residues import BACKBONE
from hpcbackmap.protein.topology import Topology
from hpcbackmap.protein.torsions import (
    TORSIONS,
    dihedrals,
    is_symmetric,
    omega_angles,
    torsion_atoms,
)
from hpcbackmap.resolution.ladder import Ladder

__all__ = ["ANGSTROM", "METRICS", "Metric", "judge", "judge_alone", "metric"]

LINK_TOLERANCE = 0.02
"""nm by which a C-N peptide bond may differ from the truth."""


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
    close = [close_atoms(frame, BOND_RANGE) for frame in flat]
    values = _deviations(topology, flat, beside)
    values |= own_values(topology, flat, close)
    values |= _geometry(topology, flat, beside)
    values |= _structure(topology, flat, truth)
    values |= _frame_by_frame(topology, generated, truth, close)
    if ladder is not None and beads is not None:
        error = ANGSTROM * bead_error(ladder, flat, np.repeat(beads, members, axis=0))
        values |= {"bead_error_angstrom": error, "bead_error_max_angstrom": error}
    rows = {name: value.reshape(frames, members) for name, value in values.items()}
    rows |= _angles(topology, flat, truth)
    for name, chi2 in (("rotamer_tvd", True), ("rotamer_chi1_tvd", False)):
        states = rotamer_states(topology, flat, chi2).reshape(frames, members, -1)
        rows[name] = rotamer_rows(states, rotamer_states(topology, truth, chi2))
    if members > 1:
        rows["rmsd_aligned_best_angstrom"] = rows["rmsd_aligned_angstrom"].min(1, keepdims=True)
        spread = ANGSTROM * member_spread(generated)
        rows["diversity"] = np.stack([spread, rows["rmsd_aligned_angstrom"].mean(1)], axis=1)
        rows["spread_ratio"] = spread_and_error(generated, truth)
        rows["crps_angstrom"] = ANGSTROM * crps(generated, truth)[:, None]
    return rows


def judge_alone(topology: Topology, positions: np.ndarray) -> dict[str, np.ndarray]:
    """Rows [F, 1] of the metrics that need no truth; positions [F, A, 3], nm."""
    close = [close_atoms(frame, BOND_RANGE) for frame in positions]
    values = own_values(topology, positions, close)
    return {name: value[:, None] for name, value in values.items()}


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


def _geometry(
    topology: Topology, generated: np.ndarray, truth: np.ndarray
) -> dict[str, np.ndarray]:
    link = (
        np.abs(link_lengths(topology, generated) - link_lengths(topology, truth)) > LINK_TOLERANCE
    )
    lengths, true_lengths = bond_lengths(topology, generated), bond_lengths(topology, truth)
    omega, true_omega = omega_angles(topology, generated), omega_angles(topology, truth)
    trace, true_trace = calpha_distances(topology, generated), calpha_distances(topology, truth)
    size, true_size = radius_of_gyration(topology, generated), radius_of_gyration(topology, truth)
    right = chi_right(topology, generated, truth)
    return {
        "bonds_off_percent": 100 * off_lengths(lengths, true_lengths),
        "bond_rmsd_angstrom": ANGSTROM * bond_rmsd(lengths, true_lengths),
        "bond_fraction_auc": bond_fraction_auc(lengths, true_lengths),
        "peptide_bonds_off_percent": 100 * link.mean(-1),
        "omega_nonplanar_percent": 100 * nonplanar(omega, true_omega),
        "cis_trans_wrong_percent": 100 * cis_trans_wrong(omega, true_omega),
        "ca_ca_error_angstrom": ANGSTROM * np.abs(trace - true_trace).mean(-1),
        "ca_ca_off_percent": 100 * off_lengths(trace, true_trace),
        "radius_of_gyration_error_angstrom": ANGSTROM * np.abs(size - true_size),
        "chi1_right_percent": 100 * right["chi1"],
        "chi12_right_percent": 100 * right["chi12"],
    }


def _structure(
    topology: Topology, generated: np.ndarray, truth: np.ndarray
) -> dict[str, np.ndarray]:
    members = len(generated) // len(truth)
    states = secondary_structure(topology, generated)
    true_states = np.repeat(secondary_structure(topology, truth), members, axis=0)
    return {
        "secondary_structure_percent": 100 * agreement(states, true_states),
        "helix_recovered_percent": 100 * helix_recovered(states, true_states),
    }


def _frame_by_frame(
    topology: Topology, generated: np.ndarray, truth: np.ndarray, close: list[CloseAtoms]
) -> dict[str, np.ndarray]:
    """What needs lists of pairs: bond graphs, lDDT, contacts, the reference's pair ratios.

    close: pairs within `BOND_RANGE` of every member, frame after frame.
    """
    names = (
        "lddt",
        "lddt_ca",
        "contacts_recovered_percent",
        "contacts_false_percent",
        "bond_graph_ged",
        "bond_graph_net_ratio",
        "steric_pairs_reference_percent",
        "interaction_score_angstrom",
    )
    table = np.empty((*generated.shape[:2], len(names)))
    near, trace = pairs_within_two_bonds(topology), topology.ca_index
    for f, (real, answers) in enumerate(zip(truth, generated, strict=True)):
        reference = inferred_bonds(topology, close_atoms(real, BOND_RANGE))
        contacts = calpha_contacts(topology, real[trace])
        interactions = interaction_pairs(topology, real)
        n_near = count_pairs(real, NEIGHBOURHOOD)
        named = renamed_like(topology, answers, np.broadcast_to(real, answers.shape))
        table[f, :, 0] = lddt(real, named, topology.atom_residue)
        table[f, :, 1] = lddt(real[trace], answers[:, trace], np.arange(len(trace)))
        for m, answer in enumerate(answers):
            pairs = close[f * len(answers) + m]
            graph = inferred_bonds(topology, pairs)
            agreed = compare_contacts(calpha_contacts(topology, answer[trace]), contacts)
            steric = steric_pair_ratio(topology, answer, pairs, real, n_near, near)
            table[f, m, 2:] = (
                100 * agreed.recovered,
                100 * agreed.false,
                graph_edit_ratio(graph, reference),
                net_bond_ratio(graph, reference),
                100 * steric,
                ANGSTROM * interaction_score(interactions, answer),
            )
    values = {name: table[..., k].ravel() for k, name in enumerate(names)}
    values["bond_graph_exact_percent"] = 100.0 * (values["bond_graph_ged"] == 0)
    return values


def _angles(topology: Topology, generated: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Histograms of the members and of the truth, side by side."""
    rows, frames = {}, len(truth)
    for kind in TORSIONS:
        atoms, residues = torsion_atoms(topology, kind)
        fold = np.where(is_symmetric(topology, kind, residues), np.pi, 2 * np.pi)
        made, true = (
            angle_counts((dihedrals(positions, atoms) + np.pi) % fold - np.pi)
            for positions in (generated, truth)
        )
        rows[f"{kind}_jsd_nats"] = _beside(made, true, frames)
    rows["ramachandran_jsd_nats"] = np.hstack([rows["phi_jsd_nats"], rows["psi_jsd_nats"]])
    (phi, of_phi), (psi, of_psi) = (torsion_atoms(topology, kind) for kind in ("phi", "psi"))
    phi, psi = phi[np.isin(of_phi, of_psi)], psi[np.isin(of_psi, of_phi)]
    made, true = (
        plane_counts(dihedrals(positions, phi), dihedrals(positions, psi))
        for positions in (generated, truth)
    )
    rows["ramachandran_joint_jsd_nats"] = _beside(made, true, frames)
    return rows


def _beside(generated: np.ndarray, truth: np.ndarray, frames: int) -> np.ndarray:
    """Counts of all members of a frame, then of its truth: [F, 2 * bins]."""
    return np.hstack([generated.reshape(frames, -1, generated.shape[1]).sum(1), truth])
