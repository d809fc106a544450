"""Figures of distributions: generated structures beside the truth and the baselines.

Every function takes plain arrays and returns a matplotlib figure. Shapes: n structures, A atoms; nm.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcbackmap.evaluation.record import LABELS
from hpcbackmap.metrics.bonds import bond_lengths
from hpcbackmap.metrics.ramachandran import BINS, allowed_region
from hpcbackmap.metrics.registry import ANGSTROM
from hpcbackmap.protein.topology import Topology
from hpcbackmap.protein.torsions import dihedrals, is_symmetric, torsion_atoms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "DASHES",
    "STYLE",
    "Ensembles",
    "bond_length_figure",
    "legend",
    "panels",
    "ramachandran_figure",
    "rotamer_figure",
    "rotamer_map_figure",
]

COLOURS = {
    "truth": "#4b5563",
    "model": "#0072b2",
    "nearest_training_frame": "#d55e00",
    "bead_centre": "#cc79a7",
}
"""By row of a table; colours of Okabe and Ito, apart for every common kind of colour vision."""
DRAWN = ("truth", *(name for name in LABELS if name != "truth"))
"""Rows in the order of a figure."""
DASHES = {"nearest_training_frame": (4, 1.5), "bead_centre": (1.2, 1.2)}
"""Baselines are dashed, so that a figure also reads in grey."""
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9ca3af",
    "axes.labelcolor": "#374151",
    "axes.titlesize": 11,
    "axes.titlecolor": "#1f2430",
    "xtick.color": "#4b5563",
    "ytick.color": "#4b5563",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "figure.dpi": 150,
}
"""matplotlib settings for these figures, for ``rc_context``."""
TURN = (-180, 180)
ANGLE_CELLS = 72
"""Cells of 5 degrees along each side of a map of two angles."""
BOND_KINDS = {
    "C–C": (1.2, 1.7),
    "C–N": (1.2, 1.65),
    "C–O": (1.1, 1.55),
    "C–S": (1.65, 2.0),
    "S–S": (1.9, 2.2),
}
"""Elements joined by a bond, and the range of lengths that is shown, angstrom."""
Ensembles = list[tuple[Topology, dict[str, np.ndarray]]]
"""For each system its topology and positions [n, A, 3] by row name (``truth``, ``model``, …)."""


def ramachandran_figure(ensembles: Ensembles) -> "Figure":
    """phi against psi of all residues, a panel for each row, one colour scale."""

    def angles(topology: Topology, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        phi, phi_residue = torsion_atoms(topology, "phi")
        psi, psi_residue = torsion_atoms(topology, "psi")
        _, at_phi, at_psi = np.intersect1d(phi_residue, psi_residue, return_indices=True)
        return dihedrals(positions, phi[at_phi]), dihedrals(positions, psi[at_psi])

    figure = _angle_maps(_pooled(ensembles, angles), "φ / °", "ψ / °")
    region = np.pad(allowed_region(), 1, mode="wrap").T.astype(float)
    middles = np.linspace(TURN[0] - 2.5, TURN[1] + 2.5, BINS + 2)
    for ax in figure.axes[:-1]:
        ax.contour(middles, middles, region, levels=[0.5], colors="#111827", linewidths=0.7)
    return figure


def rotamer_map_figure(ensembles: Ensembles) -> "Figure":
    """chi1 against chi2 of the residues that have both, a panel for each row."""

    def angles(topology: Topology, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first, residues = _chi_angles(topology, positions, "chi1")
        second, owners = _chi_angles(topology, positions, "chi2")
        return first[:, np.isin(residues, owners)], second

    return _angle_maps(_pooled(ensembles, angles), "χ1 / °", "χ2 / °")


def rotamer_figure(ensembles: Ensembles) -> "Figure":
    """Distributions of the first and second side-chain torsion over all residues that have them."""
    figure, axes = panels(2, width=5, height=3)
    for ax, number in zip(axes, (1, 2), strict=True):

        def angles(
            topology: Topology, positions: np.ndarray, kind: str = f"chi{number}"
        ) -> tuple[np.ndarray]:
            return (_chi_angles(topology, positions, kind)[0],)

        for name, (found,) in _pooled(ensembles, angles).items():
            _steps(ax, np.rad2deg(found[np.isfinite(found)]), np.linspace(*TURN, 73), name)
        ax.set(xlabel=f"χ{number} / °", xlim=TURN, ylim=(0, None), yticks=[])
        ax.set_xticks(range(-180, 181, 60))
    axes[0].set_ylabel("density")
    legend(figure, axes[0])
    return figure


def bond_length_figure(ensembles: Ensembles) -> "Figure":
    """Bond lengths by the elements that they join; lengths out of range count at its ends."""
    kinds = [_bond_kinds(topology) for topology, _ in ensembles]
    present = [kind for kind in BOND_KINDS if any((own == kind).any() for own in kinds)]
    figure, axes = panels(len(present), width=10 / max(len(present), 3), height=2.9)
    for ax, kind in zip(axes, present, strict=True):
        low, high = BOND_KINDS[kind]

        def lengths(
            topology: Topology, positions: np.ndarray, kind: str = kind
        ) -> tuple[np.ndarray]:
            return (ANGSTROM * bond_lengths(topology, positions)[:, _bond_kinds(topology) == kind],)

        for name, (found,) in _pooled(ensembles, lengths).items():
            _steps(ax, np.clip(found, low, high), np.linspace(low, high, 61), name)
        ax.set(title=kind, xlabel="length / Å", xlim=(low, high), ylim=(0, None), yticks=[])
    axes[0].set_ylabel("density")
    legend(figure, axes[0])
    return figure


def panels(
    count: int, width: float, height: float, sharey: bool = False
) -> tuple["Figure", list["Axes"]]:
    """Figure and list of axes in one row; inches of one panel."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * count, height), layout="constrained")
    return figure, figure.subplots(1, count, sharey=sharey, squeeze=False)[0]


def _pooled(
    ensembles: Ensembles, measure: Callable[[Topology, np.ndarray], tuple[np.ndarray, ...]]
) -> dict[str, tuple[np.ndarray, ...]]:
    """What ``measure(topology, positions)`` returns, of all systems in one flat array each, by row."""
    names = [name for name in DRAWN if any(name in sets for _, sets in ensembles)]
    return {
        name: tuple(
            np.concatenate([part.ravel() for part in parts])
            for parts in zip(
                *(measure(topology, sets[name]) for topology, sets in ensembles if name in sets),
                strict=True,
            )
        )
        for name in names
    }


def _chi_angles(
    topology: Topology, positions: np.ndarray, kind: str
) -> tuple[np.ndarray, np.ndarray]:
    """Radians [n, Q] and residues [Q]; a symmetric torsion lies within a quarter turn of zero."""
    atoms, residues = torsion_atoms(topology, kind)
    angles = dihedrals(positions, atoms)
    folded = (angles + np.pi / 2) % np.pi - np.pi / 2
    return np.where(is_symmetric(topology, kind, residues), folded, angles), residues


def _angle_maps(angles: dict[str, tuple[np.ndarray, ...]], x_label: str, y_label: str) -> "Figure":
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import LogLocator

    shares = {name: _share(x, y) for name, (x, y) in angles.items()}
    seen = np.concatenate([share[share > 0] for share in shares.values()])
    norm = LogNorm(seen.min() / 2, seen.max()) if seen.size else None
    figure, axes = panels(len(shares), width=3.5, height=3.5, sharey=True)
    edges = np.linspace(*TURN, ANGLE_CELLS + 1)
    for ax, (name, share) in zip(axes, shares.items(), strict=True):
        cells = np.ma.masked_equal(share, 0)
        mesh = ax.pcolormesh(edges, edges, cells, norm=norm, cmap="viridis_r", rasterized=True)
        ax.axhline(0, color="#e5e7eb", lw=0.8, zorder=0)
        ax.axvline(0, color="#e5e7eb", lw=0.8, zorder=0)
        ax.set(title=LABELS[name], xlabel=x_label, aspect="equal", xlim=TURN, ylim=TURN)
        ax.set_xticks(range(-180, 181, 90))
        ax.set_yticks(range(-180, 181, 90))
    axes[0].set_ylabel(y_label)
    bar = figure.colorbar(
        mesh, ax=axes, shrink=0.8, pad=0.02, ticks=LogLocator(subs=(1, 2, 5)), format="%g"
    )
    bar.set_label("% of residues per 5° × 5°")
    bar.minorticks_off()
    return figure


def _share(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Percent of the residues in each cell, [y, x]; radians, undefined angles left out."""
    known = np.isfinite(x) & np.isfinite(y)
    counts, _, _ = np.histogram2d(
        np.rad2deg(y[known]), np.rad2deg(x[known]), bins=ANGLE_CELLS, range=(TURN, TURN)
    )
    found: np.ndarray = 100 * counts / max(counts.sum(), 1)
    return found


def _bond_kinds(topology: Topology) -> np.ndarray:
    """Elements of each bond in alphabetic order, as in ``C–N``, [B]."""
    pairs = np.array(topology.elements)[topology.bonds]
    return np.array(["–".join(sorted(pair)) for pair in pairs])


def _steps(ax: "Axes", values: np.ndarray, edges: np.ndarray, name: str) -> None:
    density, _ = (
        np.histogram(values, edges, density=True) if values.size else (np.zeros(len(edges) - 1), 0)
    )
    look: dict[str, Any]
    if name == "truth":
        look = {"fill": True, "alpha": 0.3}
    else:
        look = {"lw": 1.6, "linestyle": (0, DASHES[name]) if name in DASHES else "-"}
    ax.stairs(density, edges, color=COLOURS[name], label=LABELS[name], **look)


def legend(figure: "Figure", ax: "Axes") -> None:
    """The names of all lines above the panels."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
