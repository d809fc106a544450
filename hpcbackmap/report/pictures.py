"""Pictures of structures: one frame down the ladder, and members over the truth."""

from typing import TYPE_CHECKING

import numpy as np

from hpcbackmap.report.drawing import Scene, View, residue_colours
from hpcbackmap.resolution.ladder import Ladder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["ladder_picture", "members_picture"]

INK, QUIET = "#1f2430", "#6b7280"
GREY = 0.45
"""Of the truth behind members, 0 black to 1 white."""
PANEL = 4.2
"""Width of one panel, inches."""
HEADING = 0.85
"""Height of the captions, inches."""
MARGIN = 0.18
"""nm around a structure."""


def ladder_picture(
    ladder: Ladder,
    truth: np.ndarray,
    levels: dict[str, np.ndarray],
    members: np.ndarray | None = None,
) -> "Figure":
    """One held-out frame on its way down the ladder, and its truth; a matplotlib figure.

    truth: heavy atoms [A, 3]. levels: positions by resolution, from the input beads (coarsest) to
    one member's heavy atoms (``fg``). members: heavy atoms [M, A, 3] whose backbones are laid over
    the true one in a panel of their own; nm.
    """
    from matplotlib.figure import Figure

    names = [name for name in reversed(ladder.resolutions) if name in levels]
    drawn = np.empty((0, *truth.shape)) if members is None else members
    panels = [*names, *(["members"] if len(drawn) else []), "truth"]
    beads = _rims(ladder, truth, names[0], levels[names[0]])
    shown = np.concatenate([*levels.values(), drawn.reshape(-1, 3), beads])
    view, extent, depth = _framing(truth, shown)
    height = PANEL * extent[1] / extent[0] + HEADING
    figure = Figure(figsize=(PANEL * len(panels), height), dpi=160, facecolor="white")
    colours = residue_colours(ladder.topology.n_residues)
    for k, name in enumerate(panels):
        ax = figure.add_axes((k / len(panels), 0.0, 1 / len(panels), 1 - HEADING / height))
        scene = Scene(ax, view, extent, depth)
        if name not in (names[0], "members"):
            _beads(scene, ladder, truth, levels[names[0]], colours, alpha=0.13)
        if name == "truth":
            scene.sticks(ladder.topology, truth, colours)
        elif name == "members":
            _backbones(scene, ladder, truth, drawn, colours)
        else:
            _level(scene, ladder, name, levels[name], truth, colours)
        scene.draw()
        title, line = (
            (f"{len(drawn)} members", "their backbones over the true one, grey")
            if name == "members"
            else _caption_of(ladder, name, names)
        )
        _caption(figure, ax, title, line, arrow=name in names[1:])
    return figure


def members_picture(ladder: Ladder, truth: np.ndarray, members: np.ndarray) -> "Figure":
    """Backbones of the members [M, A, 3] over the true one, and their heavy atoms."""
    from matplotlib.figure import Figure

    topology = ladder.topology
    view, extent, depth = _framing(truth, members.reshape(-1, 3))
    height = PANEL * extent[1] / extent[0] + HEADING
    figure = Figure(figsize=(2 * PANEL, height), dpi=160, facecolor="white")
    colours = residue_colours(topology.n_residues)
    captions = (
        ("Backbones", f"truth grey, answers in colour ({len(members)})"),
        ("Heavy atoms", "the same structures"),
    )
    for k, caption in enumerate(captions):
        ax = figure.add_axes((k / 2, 0.0, 0.5, 1 - HEADING / height))
        scene = Scene(ax, view, extent, depth)
        if k == 0:
            _backbones(scene, ladder, truth, members, colours)
        else:
            scene.sticks(topology, truth, np.full_like(colours, GREY), 0.018)
            for member in members:
                scene.sticks(topology, member, colours, 0.7 * 0.018)
        scene.draw()
        _caption(figure, ax, *caption, arrow=False)
    return figure


def _backbones(
    scene: Scene, ladder: Ladder, truth: np.ndarray, members: np.ndarray, colours: np.ndarray
) -> None:
    topology = ladder.topology
    scene.tube(truth[topology.ca_index], topology.bonded, np.full_like(colours, GREY), 0.05)
    for member in members:
        scene.tube(member[topology.ca_index], topology.bonded, colours, 0.7 * 0.05)


def _framing(truth: np.ndarray, others: np.ndarray) -> tuple[View, tuple[float, float], float]:
    everything = np.concatenate([truth, others])
    view = View.along_axes(truth).centred_on(everything)
    reach = np.abs(view.project(everything)).max(0)
    return view, (reach[0] + MARGIN, reach[1] + MARGIN), reach[2]


def _level(
    scene: Scene,
    ladder: Ladder,
    name: str,
    positions: np.ndarray,
    truth: np.ndarray,
    colours: np.ndarray,
) -> None:
    topology = ladder.topology
    if name == "fg":
        scene.sticks(topology, positions, colours)
    elif len(positions) == topology.n_residues:
        scene.tube(positions, topology.bonded, colours)
        scene.balls(positions, colours, 0.11)
    else:
        _beads(scene, ladder, truth, positions, colours, alpha=0.8, name=name)
        shades = _bead_colours(ladder, name, colours)
        scene.tube(positions, _follows(ladder, name), shades * 0.8, 0.035)


def _beads(
    scene: Scene,
    ladder: Ladder,
    truth: np.ndarray,
    beads: np.ndarray,
    colours: np.ndarray,
    alpha: float,
    name: str | None = None,
) -> None:
    name = name or ladder.resolutions[-1]
    radii = _bead_radii(ladder, name, truth)
    scene.spheres(beads, radii, _bead_colours(ladder, name, colours), alpha, behind=alpha < 0.5)


def _bead_radii(ladder: Ladder, name: str, truth: np.ndarray) -> np.ndarray:
    """Four fifths of the ball that is spread as widely as the atoms of the bead, nm, [B]."""
    bead = ladder.composed(name).bead
    spread = _bead_means(bead, (truth - _bead_means(bead, truth)[bead]) ** 2).sum(1)
    found: np.ndarray = 0.8 * np.sqrt(5 / 3 * spread)
    return found


def _bead_colours(ladder: Ladder, name: str, colours: np.ndarray) -> np.ndarray:
    return _bead_means(ladder.composed(name).bead, colours[ladder.topology.atom_residue])


def _follows(ladder: Ladder, name: str) -> np.ndarray:
    """Whether each bead is the next stretch of the chain after the bead before it, [B]."""
    topology = ladder.topology
    bead = ladder.composed(name).bead[topology.ca_index]
    starts = np.flatnonzero(np.diff(bead, prepend=-1))
    follows = np.zeros(bead.max() + 1, dtype=bool)
    if len(starts) == len(follows):
        after = starts[1:]
        follows[bead[after]] = np.array(topology.bonded)[after] & (
            bead[after] == bead[after - 1] + 1
        )
    return follows


def _bead_means(bead: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean of atom values [A, 3] over each bead, [B, 3]."""
    counts = np.bincount(bead)
    return np.stack([np.bincount(bead, values[:, k]) / counts for k in range(3)], axis=1)


def _rims(ladder: Ladder, truth: np.ndarray, name: str, beads: np.ndarray) -> np.ndarray:
    """Points on the outlines of the bead spheres as seen in the picture."""
    axes = View.along_axes(truth).rotation[:, :2].T
    reach = _bead_radii(ladder, name, truth)[:, None, None] * np.concatenate([axes, -axes])
    found: np.ndarray = (beads[:, None] + reach).reshape(-1, 3)
    return found


def _caption_of(ladder: Ladder, name: str, names: list[str]) -> tuple[str, str]:
    if name == "truth":
        return "Truth", "the held-out frame itself"
    count = ladder.n_particles(name)
    if name == names[0]:
        return f"{count} beads", "all that the model is given"
    if name == "fg":
        return f"{count} heavy atoms", "sampled"
    return (f"{count} Cα" if name == "ca" else f"{count} particles"), "sampled"


def _caption(figure: "Figure", ax: "Axes", title: str, line: str, arrow: bool) -> None:
    box = ax.get_position()
    middle = (box.x0 + box.x1) / 2
    figure.text(middle, 1 - 0.32 / figure.get_figheight(), title, ha="center", va="center",
                fontsize=17, color=INK, weight="bold")  # fmt: skip
    figure.text(middle, 1 - 0.62 / figure.get_figheight(), line, ha="center", va="center",
                fontsize=12, color=QUIET)  # fmt: skip
    if arrow:
        figure.text(box.x0, 1 - 0.36 / figure.get_figheight(), "→", ha="center", va="center",
                    fontsize=26, color=QUIET)  # fmt: skip
