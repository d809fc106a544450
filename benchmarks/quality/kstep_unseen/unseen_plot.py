"""One picture: a measure a panel, against the number of steps."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from judged import ONE

__all__ = ["plot"]

PANELS = (
    ("rmsd_aligned_angstrom", "heavy-atom RMSD (Å)", "linear"),
    ("lddt_ca", "lDDT, Cα", "linear"),
    ("lddt", "lDDT, heavy atoms", "linear"),
    ("bond_graph_ged", "bond graph distance", "symlog"),
    ("clashes_per_100_residues", "clashes < 2 Å per 100 residues", "symlog"),
    ("ramachandran_favoured_percent", "Ramachandran favoured (%)", "linear"),
    ("chi1_right_percent", "χ1 right (%)", "linear"),
    ("energy_kj_per_mol_per_residue", "energy, relaxed (kJ/mol per residue)", "symlog"),
    ("elbo_nats", "ELBO (nats per residue)", "linear"),
)
COLOURS = {"10": "#0072B2", "20": "#D55E00"}
"""Okabe and Ito."""
SHIFT = 0.05
THRESHOLD = {"bond_graph_ged": 0.001, "energy_kj_per_mol_per_residue": 100}


def plot(record: dict, path: Path) -> None:
    figure, axes = plt.subplots(3, 3, figsize=(10, 8), layout="constrained")
    for ax, panel in zip(axes.flat, PANELS, strict=True):
        _panel(ax, record["tops"], *panel)
    shown = dict(
        pair
        for ax in axes.flat
        for pair in zip(*reversed(ax.get_legend_handles_labels()), strict=True)
    )
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(
        "Unseen proteins: steps from beads to atoms, equal training time; 95 % intervals"
    )
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _panel(ax, tops: dict, name: str, label: str, scale: str) -> None:
    for top, part in tops.items():
        for ending, style, sign in (("", "o-", -1), (ONE, "s--", 1)):
            points = [
                (int(road.split("-")[1]), *part["table"][road + ending][name])
                for road in part["costs"]
                if name in part["table"][road + ending]
            ]
            if not points:
                continue
            steps, values, low, high = zip(*points, strict=True)
            x = [step + sign * SHIFT * (1 + (top == "20")) for step in steps]
            errors = [
                [max(0.0, v - at) for v, at in zip(values, low, strict=True)],
                [max(0.0, at - v) for v, at in zip(values, high, strict=True)],
            ]
            what = "one answer" if ending else "members"
            face = "white" if ending else COLOURS[top]
            ax.errorbar(
                x, values, errors, fmt=style, color=COLOURS[top], mfc=face, ms=5, lw=1.2, capsize=2,
                label=f"beads of {top}, {what}",
            )  # fmt: skip
        base = part["table"].get("closed spline, mean places", {}).get(name)
        if base:
            ax.axhline(base[0], color=COLOURS[top], lw=0.8, ls=":", label=f"spline, beads of {top}")
    truth = next(iter(tops.values()))["table"]["truth"].get(name)
    if truth:
        ax.axhline(truth[0], color="black", lw=1, ls="-.", label="truth")
    if scale == "symlog":
        ax.set_yscale("symlog", linthresh=THRESHOLD.get(name, 1))
        if "energy" not in name:
            ax.set_ylim(bottom=0)
    ax.set_xticks(range(1, 5))
    ax.set_xlabel("steps")
    ax.set_title(label, fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
