"""The comparison as Markdown: what was run and where, and the tables."""

import sys
from pathlib import Path

from plots import plot_kstep

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from header import header

__all__ = ["cell", "header", "kstep_record", "table"]

LABELS = {
    "truth": "truth",
    "bead_centre": "bead centre",
    "nearest_training_frame": "nearest training frame",
    "ridge": "ridge to all atoms",
    "kernel_ridge": "kernel ridge to all atoms",
    "k_NN_blend": "k-NN blend to all atoms",
    "ridge_closed": "ridge to Cα, closed",
    "kernel_ridge_closed": "kernel ridge to Cα, closed",
    "k_NN_blend_closed": "k-NN blend to Cα, closed",
    "kernel_ridge_closed_then_ca_fg": "kernel ridge to Cα, closed, then ca-fg of the 2-step",
    "one_step": "**1-step**",
    "two_step": "**2-step**",
    "three_step": "**3-step**",
    "two_step_from_shipped": "**2-step, ca-fg from shipped weights**",
    "two_step_shipped": "2-step with the shipped ca-fg (another budget)",
    "kernel_ridge_closed_then_shipped": "kernel ridge to Cα, closed, then the shipped ca-fg",
}
LABELS |= {
    f"{name}_{ending}": f"{label}, {words}"
    for name, label in LABELS.items()
    for ending, words in (("one_answer", "one answer"), ("mean", "mean of 20 members"))
}
COLUMNS = (
    ("metrics", "rmsd_aligned_angstrom", "RMSD Å"),
    ("metrics", "rmsd_aligned_best_angstrom", "best of 5"),
    ("metrics", "rmsd_aligned_backbone_angstrom", "backbone"),
    ("calpha", "rmsd_aligned_angstrom", "Cα"),
    ("metrics", "lddt", "lDDT"),
    ("metrics", "bond_graph_ged", "GED"),
    ("metrics", "bonds_off_percent", "bonds off %"),
    ("metrics", "clashes_per_100_residues", "clashes/100"),
    ("metrics", "ramachandran_jsd_nats", "φψ JSD"),
    ("metrics", "chi1_jsd_nats", "χ1 JSD"),
    ("metrics", "d_residues_percent", "D %"),
    ("metrics", "diversity", "DIV"),
    ("energy", "median_kj_per_mol_per_residue", "energy"),
)


def kstep_record(record: dict, folder: Path) -> str:
    """Markdown of `kstep.py`; draws the pictures into ``folder`` on the way."""
    pictures = [path.name for path in plot_kstep(record, folder)]
    lines = header("k-step against one-step")
    lines += [
        f"{record['seconds']:g} CPU seconds of training per ladder, an equal share for every stage. Prior "
        "samples, 5 members, or one answer (mode). Value and 95 % bootstrap interval over held-out frames.",
        "",
    ]
    for case in record["cases"]:
        lines += [
            f"## {case['protein']}, {case['residues']} residues, {case['beads']} beads",
            "",
            f"{case['frames']} held-out frames, {case['training_frames']} training frames.",
            "",
            *table(
                ["row", *(label for *_, label in COLUMNS)],
                [
                    [LABELS[name], *(cell(row, part, metric) for part, metric, _ in COLUMNS)]
                    for name, row in case["rows"].items()
                ],
            ),
            "",
        ]
    lines += ["## Likelihood and cost", "", *_costs(record["cases"]), ""]
    lines += [f"![{name}]({name})" for name in pictures]
    return "\n".join(lines)


def _costs(cases: list[dict]) -> list[str]:
    head = [
        *(
            "protein",
            "beads",
            "ladder",
            "ELBO nats/atom",
            "IWAE",
            "KL",
            "collapse",
            "steps trained",
        ),
        *("CPU s", "wall s", "peak MB (libraries)", "parameters", "ms per structure"),
    ]
    rows = []
    for case in cases:
        for name, row in case["rows"].items():
            if "training" in row:
                place = [case["protein"], str(case["beads"]), LABELS[name]]
                rows.append([*place, *_likelihood(row["elbo"]), *_cost(row)])
    return table(head, rows)


def _likelihood(elbo: dict) -> list[str]:
    ladder = elbo["ladder"]
    atoms = ladder["elbo_nats_per_frame"] / ladder["elbo_nats_per_particle"]
    low, high = (x / atoms for x in ladder["elbo_interval_95"])
    collapsed = [f"{row['stage']}: {row['collapse']}" for row in elbo["rows"] if row["collapse"]]
    return [
        f"{ladder['elbo_nats_per_particle']:.3f} [{low:.3f}, {high:.3f}]",
        f"{ladder['iwae_nats_per_frame'] / atoms:.3f}",
        f"{ladder['kl_nats_per_frame'] / atoms:.3f}",
        "; ".join(collapsed) or "–",
    ]


def _cost(row: dict) -> list[str]:
    cost = row["training"]
    return [
        ", ".join(f"{stage} {count}" for stage, count in reversed(cost["steps"].items())),
        f"{cost['budget_cpu_seconds']:.0f} (all: {cost['cpu_seconds']:.0f})",
        f"{cost['wall_seconds']:.0f}",
        f"{cost['peak_mb']:.0f} ({cost['libraries_peak_mb']:.0f})",
        f"{cost['parameters']:,}",
        f"{1000 * row['cpu_seconds_per_structure']:.0f}",
    ]


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def cell(row: dict, part: str, name: str) -> str:
    """Value [interval] of a figure of a row, or a dash."""
    entry = row.get(part)
    if not isinstance(entry, dict):
        return "–"
    if part != "energy":
        entry = entry.get(name) or {}
    value = entry.get(name) if part == "energy" else entry.get("value")
    if value is None:
        return "–"
    interval = entry.get("interval_95")
    spread = f" [{interval[0]:.3g}, {interval[1]:.3g}]" if interval else ""
    failed = f" ({entry['failed']} failed)" if entry.get("failed") else ""
    return f"{value:.3g}{spread}{failed}"
