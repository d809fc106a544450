"""The measures of the judge: name, label, and how rows per frame become one number.

The unit is in the name. `judge` makes the rows.
"""

from typing import NamedTuple

from hpcbackmap.metrics.divergence import ANGLE_BINS, PLANE_BINS
from hpcbackmap.metrics.reduction import (
    DIVERSITY,
    LARGEST,
    MEAN,
    ROOT_RATIO,
    TOTAL_VARIATION,
    Reduction,
    divergence,
)

__all__ = ["ANGSTROM", "METRICS", "Metric", "metric"]

ANGSTROM = 10.0
"""Angstrom per nm."""
UNITS = {
    "_angstrom": "Å",
    "_percent": "%",
    "_nats": "nats",
    "_per_100_residues": "1/(100 residues)",
    "_per_structure": "1/structure",
}
"""Endings of metric names."""


class Metric(NamedTuple):
    """One measure: how its rows [F, k] reduce to a number, and how a table shows it.

    compares: against the truth, so that the truth itself has no value of its own.
    """

    name: str
    label: str
    reduce: Reduction = MEAN
    digits: int = 2
    compares: bool = True

    @property
    def unit(self) -> str:
        """``1`` for a ratio without unit."""
        return next((unit for end, unit in UNITS.items() if self.name.endswith(end)), "1")


_ANGLE = divergence(ANGLE_BINS)
_PLANE = divergence(PLANE_BINS)

METRICS = (
    Metric("rmsd_aligned_angstrom", "Heavy-atom RMSD, superposed (Å)"),
    Metric("rmsd_aligned_backbone_angstrom", "– backbone (Å)"),
    Metric("rmsd_aligned_side_chain_angstrom", "– side chains (Å)"),
    Metric("rmsd_aligned_best_angstrom", "– best member of each frame (Å)"),
    Metric("rmsd_angstrom", "Heavy-atom RMSD, as it lies (Å)"),
    Metric("rmsd_backbone_angstrom", "– backbone (Å)"),
    Metric("rmsd_side_chain_angstrom", "– side chains (Å)"),
    Metric("lddt", "lDDT, heavy atoms", digits=3),
    Metric("lddt_ca", "lDDT, Cα", digits=3),
    Metric("contacts_recovered_percent", "Cα contacts of the truth recovered (%)", digits=1),
    Metric("contacts_false_percent", "Cα contacts that the truth lacks (%)", digits=1),
    Metric("bond_graph_ged", "Bond graph, edit distance ratio", digits=4),
    Metric("bond_graph_net_ratio", "– net count, the reference's form", digits=4),
    Metric("bond_graph_exact_percent", "– graphs without error (%)", digits=1),
    Metric("bonds_off_percent", "Bond lengths more than 10 % off (%)"),
    Metric("bond_rmsd_angstrom", "Bond lengths, root mean square error (Å)", digits=3),
    Metric("bond_fraction_auc", "Bond lengths, area under share within 0–20 %", digits=3),
    Metric("peptide_bonds_off_percent", "Peptide C–N more than 0.2 Å off (%)"),
    Metric("omega_nonplanar_percent", "Peptide ω not planar where the truth is (%)"),
    Metric("cis_trans_wrong_percent", "Peptide bonds cis for trans or trans for cis (%)"),
    Metric("cis_peptide_bonds_per_structure", "cis peptide bonds per structure", compares=False),
    Metric("ca_ca_error_angstrom", "Cα–Cα distance, mean error (Å)", digits=3),
    Metric("ca_ca_off_percent", "Cα–Cα more than 10 % off (%)"),
    Metric("cb_deviation_angstrom", "Cβ deviation from ideal (Å)", digits=3, compares=False),
    Metric("cb_deviation_outliers_percent", "– above 0.25 Å (%)", compares=False),
    Metric("clashes_severe_per_100_residues", "Clashes < 1.2 Å per 100 residues", compares=False),
    Metric("clashes_per_100_residues", "Clashes < 2.0 Å per 100 residues", compares=False),
    Metric(
        "clashscore",
        "Clashscore: overlaps with hydrogens per 1,000 atoms",
        digits=1,
        compares=False,
    ),
    Metric("residues_clashing_severe_percent", "Residues in a clash < 1.2 Å (%)", compares=False),
    Metric("residues_clashing_percent", "Residues in a clash < 2.0 Å (%)", compares=False),
    Metric(
        "residues_clashing_reference_percent",
        "– < 1.2 Å, the reference's form (%)",
        compares=False,
    ),
    Metric("clashing_pairs_severe_percent", "Pairs within 5 Å: < 1.2 Å (%)", MEAN, 4, False),
    Metric("clashing_pairs_percent", "Pairs within 5 Å: < 2.0 Å (%)", MEAN, 4, False),
    Metric("steric_pairs_reference_percent", "Steric pairs, GenZProt's form (%)", digits=4),
    Metric("interaction_score_angstrom", "Interaction score, GenZProt's form (Å)", digits=3),
    Metric("pierced_rings_per_structure", "Pierced rings per structure", MEAN, 3, False),
    Metric("secondary_structure_percent", "Secondary structure as in the truth (%)", digits=1),
    Metric("helix_recovered_percent", "Helix of the truth recovered (%)", digits=1),
    Metric("ramachandran_favoured_percent", "Ramachandran favoured (%)", digits=1, compares=False),
    Metric("ramachandran_outliers_percent", "– outliers (%)", compares=False),
    Metric("ramachandran_jsd_nats", "Ramachandran divergence, φ ψ mean (nats)", _ANGLE, 4),
    Metric("ramachandran_joint_jsd_nats", "– φ and ψ jointly, 20° bins (nats)", _PLANE, 4),
    Metric("phi_jsd_nats", "– φ (nats)", _ANGLE, 4),
    Metric("psi_jsd_nats", "– ψ (nats)", _ANGLE, 4),
    Metric("omega_jsd_nats", "– ω (nats)", _ANGLE, 4),
    Metric("chi1_jsd_nats", "χ1 divergence (nats)", _ANGLE, 4),
    Metric("chi2_jsd_nats", "– χ2 (nats)", _ANGLE, 4),
    Metric("chi3_jsd_nats", "– χ3 (nats)", _ANGLE, 4),
    Metric("chi4_jsd_nats", "– χ4 (nats)", _ANGLE, 4),
    Metric("chi1_right_percent", "χ1 within 40° of the truth (%)", digits=1),
    Metric("chi12_right_percent", "χ1 and χ2 within 40° of the truth (%)", digits=1),
    Metric("rotamers_favoured_percent", "Rotamers favoured (%)", digits=1, compares=False),
    Metric("rotamer_outliers_percent", "– outliers (%)", compares=False),
    Metric("rotamer_tvd", "Rotamer populations by residue, total variation", TOTAL_VARIATION, 3),
    Metric("rotamer_chi1_tvd", "– of χ1 alone", TOTAL_VARIATION, 3),
    Metric("d_residues_percent", "D residues (%)", compares=False),
    Metric("flat_residues_percent", "Cα without handedness (%)", compares=False),
    Metric("cb_inverted_percent", "Ile/Thr Cβ inverted (%)", compares=False),
    Metric("radius_of_gyration_angstrom", "Radius of gyration (Å)", compares=False),
    Metric("radius_of_gyration_error_angstrom", "– mean error (Å)"),
    Metric("diversity", "Diversity DIV (0 as diverse as wrong, 1 deterministic)", DIVERSITY),
    Metric("spread_ratio", "Spread over error of the members (1 calibrated)", ROOT_RATIO),
    Metric("crps_angstrom", "CRPS of a coordinate (Å)", digits=3),
    Metric("bead_error_angstrom", "Bead error, largest of a structure (Å)", digits=5),
    Metric("bead_error_max_angstrom", "– largest of all (Å)", LARGEST, 5),
)


def metric(name: str) -> Metric:
    """The entry of `METRICS` with this name."""
    return next(item for item in METRICS if item.name == name)
