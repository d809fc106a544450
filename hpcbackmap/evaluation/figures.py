"""Figures of distributions: generated structures beside the truth and the nearest training frame.

Every function takes plain arrays and returns a matplotlib figure. Shapes: F frames, M members, A
atoms; nm.
"""

import numpy as np

from hpcbackmap.evaluation.bonds import bond_lengths
from hpcbackmap.evaluation.judge import ANGSTROM
from hpcbackmap.evaluation.rmsd import superpose
from hpcbackmap.evaluation.shape import radius_of_gyration
from hpcbackmap.evaluation.torsions import dihedrals, torsion_atoms
from hpcbackmap.protein.topology import Topology

__all__ = [
    "STYLE",
    "bond_length_figure",
    "chi1_figure",
    "radius_figure",
    "ramachandran_figure",
    "residue_rmsd_figure",
    "training_figure",
]

COLOURS = {"truth": "#4b5563", "model": "#0e7490", "nearest": "#d97706"}
NAMES = {"truth": "truth", "model": "this model", "nearest": "nearest training frame"}
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9ca3af",
    "axes.labelcolor": "#374151",
    "axes.titlesize": 11,
    "axes.titlecolor": "#1f2430",
    "xtick.color": "#6b7280",
    "ytick.color": "#6b7280",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "figure.dpi": 160,
}
"""matplotlib settings for these figures, for ``rc_context``."""
TURN = (-180, 180)
ANGLE_CELLS = 72
"""Cells of 5 degrees along each side of a Ramachandran plot."""

Structures = dict[str, np.ndarray]
"""Positions [n, A, 3] by ``truth``, ``model`` and ``nearest``."""


def ramachandran_figure(topology: Topology, structures: Structures):
    """phi against psi of all residues, a panel for each set, one colour scale."""
    from matplotlib.colors import LogNorm

    phi, phi_residue = torsion_atoms(topology, "phi")
    psi, psi_residue = torsion_atoms(topology, "psi")
    _, at_phi, at_psi = np.intersect1d(phi_residue, psi_residue, return_indices=True)
    shares = {
        name: _share(dihedrals(positions, phi[at_phi]), dihedrals(positions, psi[at_psi]))
        for name, positions in structures.items()
    }
    seen = np.concatenate([share[share > 0] for share in shares.values()])
    norm = LogNorm(seen.min() / 2, seen.max()) if seen.size else None
    figure, axes = _panels(len(structures), width=3.5, height=3.5, sharey=True)
    edges = np.linspace(*TURN, ANGLE_CELLS + 1)
    for ax, (name, share) in zip(axes, shares.items(), strict=True):
        cells = np.ma.masked_equal(share, 0)
        mesh = ax.pcolormesh(edges, edges, cells, norm=norm, cmap="viridis_r", rasterized=True)
        ax.axhline(0, color="#e5e7eb", lw=0.8, zorder=0)
        ax.axvline(0, color="#e5e7eb", lw=0.8, zorder=0)
        ax.set(title=NAMES[name], xlabel="φ / °", aspect="equal", xlim=TURN, ylim=TURN)
        ax.set_xticks(range(-180, 181, 90))
        ax.set_yticks(range(-180, 181, 90))
    axes[0].set_ylabel("ψ / °")
    figure.colorbar(mesh, ax=axes, shrink=0.8, pad=0.02, label="% of residues per 5° × 5°")
    return figure


def chi1_figure(topology: Topology, structures: Structures):
    """Distribution of the first side-chain torsion over all residues that have one."""
    atoms, _ = torsion_atoms(topology, "chi1")
    figure, (ax,) = _panels(1, width=10, height=3)
    for name, positions in structures.items():
        angles = np.rad2deg(dihedrals(positions, atoms)).ravel()
        _steps(ax, angles[np.isfinite(angles)], np.linspace(*TURN, 73), name)
    ax.set(xlabel="χ1 / °", ylabel="density", xlim=TURN, ylim=(0, None))
    ax.set_xticks(range(-180, 181, 60))
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(structures))
    return figure


def bond_length_figure(topology: Topology, structures: Structures):
    """Bond lengths by the elements that they join."""
    elements = np.array(topology.elements)
    kinds = np.array(["–".join(sorted(pair)) for pair in elements[topology.bonds]])
    present = [kind for kind in ("C–C", "C–N", "C–O", "C–S", "S–S") if (kinds == kind).any()]
    figure, axes = _panels(len(present), width=2.9, height=2.8)
    for ax, kind in zip(axes, present, strict=True):
        low, high = (1.65, 2.0) if kind == "C–S" else (1.9, 2.2) if kind == "S–S" else (1.1, 1.7)
        for name, positions in structures.items():
            lengths = ANGSTROM * bond_lengths(topology, positions)[:, kinds == kind].ravel()
            _steps(ax, np.clip(lengths, low, high), np.linspace(low, high, 61), name)
        ax.set(title=kind, xlabel="length / Å", xlim=(low, high), ylim=(0, None), yticks=[])
    axes[0].set_ylabel("density")
    axes[-1].legend(loc="upper right", fontsize=8, bbox_to_anchor=(1.05, 1.05))
    return figure


def residue_rmsd_figure(topology: Topology, truth: np.ndarray, answers: dict[str, np.ndarray]):
    """Heavy-atom RMSD of each residue after superposing the whole; answers [F, M, A, 3] by name."""
    figure, (ax,) = _panels(1, width=10, height=3)
    residues = np.arange(1, topology.n_residues + 1)
    for name, structures in answers.items():
        flat = structures.reshape(-1, *truth.shape[1:])
        beside = np.repeat(truth, structures.shape[1], axis=0)
        squares = ((superpose(flat, beside) - beside) ** 2).sum(-1)
        counts = np.bincount(topology.atom_residue)
        sums = np.stack([np.bincount(topology.atom_residue, row) for row in squares])
        error = ANGSTROM * np.sqrt(sums / counts)
        ax.plot(residues, error.mean(0), color=COLOURS[name], lw=1.8, label=NAMES[name])
        low, high = np.percentile(error, (10, 90), axis=0)
        ax.fill_between(residues, low, high, color=COLOURS[name], alpha=0.15, lw=0)
    ax.set(xlabel="residue", ylabel="RMSD / Å", xlim=(1, len(residues)), ylim=(0, None))
    if len(residues) <= 60:
        ax.set_xticks(
            residues, [name[:1] + name[1:].lower() for name in topology.sequence], rotation=90
        )
        ax.tick_params(axis="x", labelsize=8)
    ax.legend(loc="upper center", ncols=2)
    return figure


def radius_figure(topology: Topology, truth: np.ndarray, answers: dict[str, np.ndarray]):
    """Radius of gyration of each generated structure against that of its true frame."""
    figure, (ax,) = _panels(1, width=4, height=4)
    real = ANGSTROM * radius_of_gyration(topology, truth)
    for name, structures in reversed(answers.items()):
        made = ANGSTROM * radius_of_gyration(topology, structures.reshape(-1, *truth.shape[1:]))
        beside = np.repeat(real, structures.shape[1])
        ax.scatter(beside, made, s=14, color=COLOURS[name], alpha=0.55, lw=0, label=NAMES[name])
    ends = [min(ax.get_xlim()[0], ax.get_ylim()[0]), max(ax.get_xlim()[1], ax.get_ylim()[1])]
    ax.plot(ends, ends, color="#9ca3af", lw=1, zorder=0)
    ax.set(xlim=ends, ylim=ends, aspect="equal", xlabel="truth: Rg / Å", ylabel="generated: Rg / Å")
    ax.legend(loc="upper left")
    return figure


def training_figure(curves: dict[str, list[dict]]):
    """Loss against optimiser step; one panel per stage, from its ``metrics.jsonl``."""
    figure, axes = _panels(len(curves), width=4.2, height=3)
    for ax, (stage, records) in zip(axes, curves.items(), strict=True):
        shown = [("loss", "training loss", "#9ca3af", 1.0)]
        shown += [("validation_loss", "validation loss", COLOURS["model"], 2.0)]
        values = []
        for key, label, colour, width in shown:
            points = [(r["step"], r[key]) for r in records if _is_number(r.get(key))]
            if points:
                steps, losses = np.array(points).T
                ax.plot(steps, losses, color=colour, lw=width, label=label)
                values.append(losses)
        if values:
            ax.set_ylim(*_robust_range(np.concatenate(values)))
            ax.legend(loc="upper right")
        ax.set(title=stage, xlabel="step", ylabel="loss" if ax is axes[0] else None)
    return figure


def _share(phi: np.ndarray, psi: np.ndarray) -> np.ndarray:
    """Percent of the residues in each cell, [psi, phi]; angles in radians, undefined ones left out."""
    known = np.isfinite(phi) & np.isfinite(psi)
    x, y = np.rad2deg(phi[known]), np.rad2deg(psi[known])
    counts, _, _ = np.histogram2d(y, x, bins=ANGLE_CELLS, range=(TURN, TURN))
    return 100 * counts / max(counts.sum(), 1)


def _is_number(value) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def _robust_range(values: np.ndarray) -> tuple[float, float]:
    """Leaves out the spikes of the first steps, which would flatten the rest."""
    low, high = np.percentile(values, (0, 97))
    margin = 0.08 * (high - low) or 1.0
    return low - margin, high + margin


def _steps(ax, values: np.ndarray, edges: np.ndarray, name: str) -> None:
    density, _ = (
        np.histogram(values, edges, density=True) if values.size else (np.zeros(len(edges) - 1), 0)
    )
    fill = name == "truth"
    colour = COLOURS[name]
    ax.stairs(
        density, edges, fill=fill, color=colour, alpha=0.3 if fill else 1, lw=1.6, label=NAMES[name]
    )


def _panels(count: int, width: float, height: float, sharey: bool = False):
    """Figure and list of axes in one row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * count, height), layout="constrained")
    return figure, figure.subplots(1, count, sharey=sharey, squeeze=False)[0]
