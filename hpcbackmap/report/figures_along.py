"""Figures along something: the chain, the frames, the training.

Shapes: F frames, M members, A atoms, R residues; nm. Answers are positions [F, M, A, 3] by row name.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from hpcbackmap.evaluation.record import LABELS
from hpcbackmap.metrics.clashes import OVERLAP, clashing_pairs
from hpcbackmap.metrics.close_pairs import close_atoms, pairs_within_two_bonds
from hpcbackmap.metrics.radius_of_gyration import radius_of_gyration
from hpcbackmap.metrics.registry import ANGSTROM
from hpcbackmap.metrics.rmsd import aligned_rmsd, superpose
from hpcbackmap.protein.topology import Topology
from hpcbackmap.report.figures import COLOURS, DASHES, legend, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["confidence_figure", "frame_figure", "residue_rmsd_figure", "training_figure"]

NAMED_RESIDUES = 60
"""Longest chain whose residues are named on the axis."""
NATS = {"log_likelihood": ("log likelihood", "#009e73"), "kl": ("KL", "#d55e00")}
"""Validation records in nats per frame: label and colour."""

Answers = dict[str, np.ndarray]


EXPECTED = "#d55e00"
"""Colour of what was expected."""


def confidence_figure(
    topology: Topology, truth: np.ndarray, members: np.ndarray, errors: np.ndarray
) -> "Figure":
    """Expected error of each residue [F, M, R] beside the error that members [F, M, A, 3] have."""
    figure, (ax,) = panels(1, width=10, height=3)
    squares = np.square(members - truth[:, None]).sum(-1).reshape(-1, topology.n_atoms).mean(0)
    counts = np.bincount(topology.atom_residue)
    seen = ANGSTROM * np.sqrt(np.bincount(topology.atom_residue, squares) / counts)
    flat = ANGSTROM * errors.reshape(-1, errors.shape[-1])
    expected = np.sqrt(np.square(flat).mean(0))
    residues = np.arange(1, topology.n_residues + 1)
    ax.plot(residues, seen, color=COLOURS["model"], lw=1.7, label="seen")
    ax.plot(residues, expected, color=EXPECTED, lw=1.7, dashes=(4, 2), label="expected")
    low, high = np.percentile(flat, (10, 90), axis=0)
    ax.fill_between(residues, low, high, color=EXPECTED, alpha=0.18, lw=0)
    ax.set(xlabel="residue", ylabel="error / Å", ylim=(0, None))
    _name_residues(ax, topology)
    legend(figure, ax)
    return figure


def residue_rmsd_figure(topology: Topology, truth: np.ndarray, answers: Answers) -> "Figure":
    """Heavy-atom RMSD of each residue after superposing the whole."""
    figure, (ax,) = panels(1, width=10, height=3)
    residues = np.arange(1, topology.n_residues + 1)
    for name, structures in answers.items():
        flat = structures.reshape(-1, *truth.shape[1:])
        beside = np.repeat(truth, structures.shape[1], axis=0)
        squares = ((superpose(flat, beside) - beside) ** 2).sum(-1)
        counts = np.bincount(topology.atom_residue)
        sums = np.stack([np.bincount(topology.atom_residue, row) for row in squares])
        error = ANGSTROM * np.sqrt(sums / counts)
        _line(ax, residues, error.mean(0), name)
        low, high = np.percentile(error, (10, 90), axis=0)
        ax.fill_between(residues, low, high, color=COLOURS[name], alpha=0.14, lw=0)
    ax.set(xlabel="residue", ylabel="RMSD / Å", ylim=(0, None))
    _name_residues(ax, topology)
    legend(figure, ax)
    return figure


def _name_residues(ax: "Axes", topology: Topology) -> None:
    """Their names below the axis where there is room, and lines between chains."""
    ax.set_xlim(0.5, topology.n_residues + 0.5)
    if topology.n_residues <= NAMED_RESIDUES:
        names = [
            f"{name[:1]}{name[1:].lower()} {number}"
            for name, number in zip(topology.sequence, topology.residue_numbers, strict=True)
        ]
        ax.set_xticks(np.arange(1, topology.n_residues + 1), names, rotation=90)
        ax.tick_params(axis="x", labelsize=8)
    for start in np.flatnonzero(np.diff(topology.chain_index)):
        ax.axvline(start + 1.5, color="#9ca3af", lw=0.8)


def frame_figure(
    topology: Topology, frames: np.ndarray, truth: np.ndarray, answers: Answers
) -> "Figure":
    """RMSD, radius of gyration and clashes of each frame [F]: mean and range over its members."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True)
    near = pairs_within_two_bonds(topology)
    everything = {"truth": truth[:, None], **answers}
    for name, structures in everything.items():
        shape = structures.shape[:2]
        flat = structures.reshape(-1, *truth.shape[1:])
        size = ANGSTROM * radius_of_gyration(topology, flat)
        clashes = [_clashes(topology, structure, near) for structure in flat]
        strips = {1: size, 2: np.array(clashes)}
        if name != "truth":
            strips[0] = ANGSTROM * aligned_rmsd(flat, np.repeat(truth, shape[1], axis=0))
        for row, values in strips.items():
            values = values.reshape(shape)
            _line(axes[row], frames, values.mean(1), name, marker="o", ms=2.5)
            axes[row].fill_between(
                frames, values.min(1), values.max(1), color=COLOURS[name], alpha=0.2, lw=0
            )
    axes[0].set(ylabel="RMSD / Å", ylim=(0, None))
    axes[1].set(ylabel="Rg / Å")
    axes[2].set(ylabel="clashes < 2 Å\nper 100 residues", xlabel="frame", ylim=(0, None))
    legend(figure, axes[1])
    return figure


def training_figure(curves: dict[str, list[dict[str, Any]]]) -> "Figure":
    """Loss, and validation nats per frame, against optimiser step; a column for each stage.

    curves: records of each stage's ``metrics.jsonl``.
    """
    from matplotlib.figure import Figure

    width = max(4.0, 10 / len(curves))
    figure = Figure(figsize=(width * len(curves), 5), layout="constrained")
    axes = figure.subplots(2, len(curves), squeeze=False, sharex="col")
    for (upper, lower), (stage, records) in zip(axes.T, curves.items(), strict=True):
        shown = [
            _curve(upper, records, "train", "loss", "training", "#9ca3af", 1.0),
            _curve(upper, records, "validation", "loss", "validation", COLOURS["model"], 2.0),
        ]
        values = np.concatenate(shown)
        if values.size:
            upper.set_ylim(*_robust_range(values))
            upper.legend(loc="best")
        for key, (label, colour) in NATS.items():
            _curve(lower, records, "validation", key, label, colour, 1.6)
        if lower.lines:
            _log_axis(lower)
            lower.legend(loc="best")
        upper.set(title=stage, ylabel="loss")
        lower.set(xlabel="step", ylabel="nats per frame,\nvalidation")
    return figure


def _log_axis(ax: "Axes") -> None:
    """Logarithmic beyond 1 on both sides, with ticks that say numbers however narrow the range."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, SymmetricalLogLocator

    ax.set_yscale("symlog", linthresh=1)
    low, high = ax.get_ylim()
    decades = max(abs(low), abs(high), 1) / max(min(abs(low), abs(high)), 1)
    subs: tuple[float, ...] = (1, 2, 5) if decades < 100 or low * high > 0 else (1,)
    if low * high > 0 and decades < 10:
        subs = (1, 1.5, 2, 3, 4, 5, 7)
    ax.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1, subs=subs))
    if low * high > 0 and decades < 2:
        ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def _curve(
    ax: "Axes",
    records: list[dict[str, Any]],
    kind: str,
    key: str,
    label: str,
    colour: str,
    width: float,
) -> np.ndarray:
    """Draws one curve and returns its values, [] if there is none."""
    points = [(r["step"], r[key]) for r in records if r.get("kind") == kind and _known(r.get(key))]
    if not points:
        return np.zeros(0)
    table = np.array(points)
    steps, values = table[:, 0], table[:, 1]
    ax.plot(steps, values, color=colour, lw=width, label=label)
    return values


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def _robust_range(values: np.ndarray) -> tuple[float, float]:
    """Leaves out the spikes of the first steps, which would flatten the rest."""
    low, high = np.percentile(values, (0, 97))
    margin = 0.08 * (high - low) or 1.0
    return low - margin, high + margin


def _clashes(topology: Topology, structure: np.ndarray, near: np.ndarray) -> float:
    """Per 100 residues, of one structure [A, 3]."""
    pairs = clashing_pairs(topology, close_atoms(structure, OVERLAP), near, OVERLAP)
    return 100 * len(pairs) / topology.n_residues


def _line(ax: "Axes", x: np.ndarray, y: np.ndarray, name: str, **look: Any) -> None:
    dashes: dict[str, Any] = {"dashes": DASHES[name]} if name in DASHES else {}
    ax.plot(x, y, color=COLOURS[name], lw=1.7, label=LABELS[name], **dashes, **look)
