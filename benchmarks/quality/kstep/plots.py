"""Pictures of the comparison, one for each protein: a measure a panel, against the number of beads."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

__all__ = ["plot_exposure", "plot_kstep"]

LINES = {
    "one_step": ("1 step", "#D55E00", "o"),
    "two_step": ("2 steps", "#0072B2", "s"),
    "three_step": ("3 steps", "#009E73", "^"),
    "two_step_shipped": ("2 steps, shipped ca-fg", "#56B4E9", "v"),
    "kernel_ridge": ("kernel ridge to all atoms", "#999999", "d"),
    "nearest_training_frame": ("nearest training frame", "#E69F00", "x"),
}
"""Label, colour (Okabe and Ito) and marker of a row."""
PANELS = (
    ("metrics", "rmsd_aligned_angstrom", "heavy-atom RMSD (Å)", "linear"),
    ("metrics", "lddt", "lDDT, heavy atoms", "linear"),
    ("metrics", "bonds_off_percent", "bonds > 10 % off (%)", "symlog"),
    ("metrics", "clashes_per_100_residues", "clashes < 2 Å per 100 residues", "symlog"),
    ("metrics", "ramachandran_jsd_nats", "Ramachandran JSD (nats)", "linear"),
    ("energy", "median_kj_per_mol_per_residue", "energy (kJ/mol per residue)", "symlog"),
)
EXPOSED = ("rmsd_aligned_angstrom", "lddt", "clashes_per_100_residues", "ramachandran_jsd_nats")


def plot_kstep(record: dict, folder: Path) -> list[Path]:
    """``kstep-<protein>.png`` for every protein of a record."""
    paths = []
    for protein in dict.fromkeys(case["protein"] for case in record["cases"]):
        cases = [case for case in record["cases"] if case["protein"] == protein]
        figure, axes = plt.subplots(2, 3, figsize=(10, 5.6), layout="constrained")
        for ax, panel in zip(axes.flat, PANELS, strict=True):
            _panel(ax, cases, *panel)
        figure.suptitle(f"{protein}: prior samples from N beads, mean and 95 % interval")
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        paths.append(folder / f"kstep-{protein}.png")
        figure.savefig(paths[-1], dpi=80)
        plt.close(figure)
    return paths


def _panel(ax, cases: list[dict], part: str, name: str, label: str, scale: str) -> None:
    for row, (text, colour, marker) in LINES.items():
        points = [
            (case["beads"], *point) for case in cases if (point := _value(case, row, part, name))
        ]
        if not points:
            continue
        beads, values, low, high = zip(*points, strict=True)
        errors = [
            [max(0.0, v - at) for v, at in zip(values, low, strict=True)],
            [max(0.0, at - v) for v, at in zip(values, high, strict=True)],
        ]
        ax.errorbar(
            beads, values, errors, label=text, color=colour, marker=marker, ms=5, lw=1.2, capsize=2
        )
    truth = [_value(case, "truth", part, name) for case in cases]
    if any(truth):
        ax.axhline(next(value[0] for value in truth if value), color="black", lw=1, ls=":")
    ax.set_xscale("log")
    ax.set_yscale(scale)
    if scale == "symlog" and part == "metrics":
        ax.set_ylim(bottom=0)
    counts = [case["beads"] for case in cases]
    ax.set_xticks(counts, [str(count) for count in counts])
    ax.minorticks_off()
    ax.set_xlabel("beads")
    ax.set_title(label, fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)


def _value(case: dict, row: str, part: str, name: str) -> tuple[float, float, float] | None:
    found = case["rows"].get(row, {}).get(part)
    if not isinstance(found, dict):
        return None
    entry = found if part == "energy" else found.get(name, {})
    value = entry.get(name) if part == "energy" else entry.get("value")
    if value is None:
        return None
    return value, *(entry.get("interval_95") or (value, value))


def plot_exposure(record: dict, path: Path) -> None:
    """Measures against the noise in training, for true and generated traces; a row for each protein."""
    shown = [panel for panel in PANELS if panel[1] in EXPOSED]
    size = (10, 2.7 * len(record["cases"]))
    figure, axes = plt.subplots(
        len(record["cases"]), len(shown), figsize=size, squeeze=False, layout="constrained"
    )
    for case, line in zip(record["cases"], axes, strict=True):
        for ax, (_, name, label, _) in zip(line, shown, strict=True):
            for source, colour in (("true", "#0072B2"), ("generated", "#D55E00")):
                rows = [row for row in case["rows"] if row["input"] == source]
                values = [row["metrics"][name]["value"] for row in rows]
                ax.plot([row["noise"] for row in rows], values, "o-", color=colour, label=source)
            ax.set_title(f"{case['protein']}: {label}", fontsize=9)
            ax.set_xlabel("noise in training (nm)")
            ax.set_ylim(bottom=0)
            ax.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(title="Cα traces", frameon=False)
    figure.savefig(path, dpi=80)
    plt.close(figure)
