"""Molecules as matplotlib drawings: depth-sorted, shaded sticks, tubes and spheres.

Everything is projected along one view direction onto the page; near things cover far things, which
also fade towards white. Lengths are nm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hpcbackmap.protein.topology import Topology

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Scene", "View", "residue_colours"]

CHAIN_COLOURS = ("#34408b", "#2b7bba", "#2a9d8f", "#a3b83c", "#efb440", "#e76f51", "#a62639")
"""First to last residue."""
HETERO_COLOURS = {"N": "#2f5fd0", "O": "#d62f2f", "S": "#d9a400"}
LIGHT = np.array([-0.45, 0.65, 0.62])
"""Direction to the lamp: right, up, to the reader."""
FADE = 0.45
"""Share of white in the farthest thing."""


def residue_colours(n_residues: int) -> np.ndarray:
    """RGB [R, 3] from the first to the last residue."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("chain", CHAIN_COLOURS)
    return colours(np.linspace(0, 1, n_residues))[:, :3]


@dataclass(frozen=True)
class View:
    """How space lies on the page.

    rotation: [3, 3], columns right, up and to the reader. centre: [3], nm.
    """

    rotation: np.ndarray
    centre: np.ndarray

    @classmethod
    def along_axes(cls, positions: np.ndarray) -> "View":
        """The widest face of ``positions`` [N, 3] towards the reader, longest axis to the right."""
        mean = positions.mean(0)
        _, _, axes = np.linalg.svd(positions - mean, full_matrices=False)
        axes[2] = np.cross(axes[0], axes[1])
        return cls(axes.T, mean)

    def centred_on(self, positions: np.ndarray) -> "View":
        """The same direction with the box around ``positions`` in the middle of the page."""
        points = self.project(positions)
        return View(
            self.rotation, self.centre + self.rotation @ (points.min(0) + points.max(0)) / 2
        )

    def project(self, positions: np.ndarray) -> np.ndarray:
        """Page coordinates and height above the page, [..., 3]."""
        found: np.ndarray = (positions - self.centre) @ self.rotation
        return found


class Scene:
    """Collects what is to be drawn on one axes; `draw` puts it on the page.

    extent: half width and half height of the page around the centre of the view, nm; depth: half
    depth.
    """

    def __init__(self, ax: "Axes", view: View, extent: tuple[float, float], depth: float):
        self.ax, self.view, self.extent, self.depth = ax, view, extent, depth
        ax.set_xlim(-extent[0], extent[0])
        ax.set_ylim(-extent[1], extent[1])
        ax.set_aspect("equal")
        ax.axis("off")
        page = ax.get_figure(root=True)
        assert page is not None
        size, place = page.get_size_inches(), ax.get_position()
        width, height = size[0] * place.width, size[1] * place.height
        self.points_per_nm = 72 * min(width / extent[0], height / extent[1]) / 2
        self._segments: list[np.ndarray] = []
        self._widths: list[np.ndarray] = []
        self._colours: list[np.ndarray] = []
        self._order: list[np.ndarray] = []

    def sticks(
        self,
        topology: Topology,
        positions: np.ndarray,
        carbon: np.ndarray,
        radius: float = 0.022,
        alpha: float = 1.0,
    ) -> None:
        """Bonds of heavy atoms [A, 3]; carbons take ``carbon`` RGB [R, 3] of their residue."""
        from matplotlib.colors import to_rgb

        colours = carbon[topology.atom_residue].copy()
        for symbol, colour in HETERO_COLOURS.items():
            colours[np.array(topology.elements) == symbol] = to_rgb(colour)
        points = self.view.project(positions)
        for near, far in (topology.bonds.T, topology.bonds.T[::-1]):
            middle = (points[near] + points[far]) / 2
            self._add(points[near], middle, colours[near], radius, alpha)

    def tube(
        self,
        trace: np.ndarray,
        bonded: Sequence[bool] | np.ndarray,
        colours: np.ndarray,
        radius: float = 0.075,
        alpha: float = 1.0,
    ) -> None:
        """A smooth tube through [R, 3], a colour per point, cut where ``bonded`` [R] is false."""
        from scipy.interpolate import CubicSpline

        starts = [i for i in range(len(trace)) if i == 0 or not bonded[i]]
        for start, stop in zip(starts, [*starts[1:], len(trace)], strict=True):
            if stop - start < 2:
                continue
            knots = np.arange(start, stop)
            fine = np.linspace(start, stop - 1, 20 * (stop - start - 1) + 1)
            points = self.view.project(CubicSpline(knots, trace[start:stop])(fine))
            shades = np.stack([np.interp(fine, knots, colours[start:stop, k]) for k in range(3)], 1)
            self._add(points[:-1], points[1:], shades[:-1], radius, alpha)

    def balls(
        self, centres: np.ndarray, colours: np.ndarray, radius: float, alpha: float = 1.0
    ) -> None:
        """Small opaque balls at [N, 3]."""
        points = self.view.project(centres)
        self._add(points, points + [1e-4, 0, 0], colours, radius, alpha)

    def spheres(
        self,
        centres: np.ndarray,
        radii: np.ndarray,
        colours: np.ndarray,
        alpha: float = 0.75,
        behind: bool = False,
    ) -> None:
        """Large translucent shaded spheres at [N, 3]; ``behind``: under all sticks and tubes."""
        points = self.view.project(centres)
        for rank, k in enumerate(np.argsort(points[:, 2])):
            x, y, z = points[k]
            image = _sphere_image(self._faded(colours[k], z), alpha)
            box = (x - radii[k], x + radii[k], y - radii[k], y + radii[k])
            self.ax.imshow(
                image,
                extent=box,
                zorder=(0 if behind else 3) + 1e-3 * rank,
                interpolation="bilinear",
            )
        self.ax.set_xlim(-self.extent[0], self.extent[0])
        self.ax.set_ylim(-self.extent[1], self.extent[1])

    def draw(self) -> None:
        """Put sticks, tubes and balls on the page, far ones first."""
        from matplotlib.collections import LineCollection

        if not self._segments:
            return
        order = np.argsort(np.concatenate(self._order), kind="stable")
        self.ax.add_collection(
            LineCollection(
                list(np.concatenate(self._segments)[order]),
                linewidths=np.concatenate(self._widths)[order],
                colors=np.concatenate(self._colours)[order],
                capstyle="round",
                zorder=2,
            )
        )
        self._segments = []
        self._widths = []
        self._colours = []
        self._order = []

    def _add(
        self, start: np.ndarray, stop: np.ndarray, colours: np.ndarray, radius: float, alpha: float
    ) -> None:
        """Each rod is a dark rim, a body and two strips of light, at slightly different heights."""
        height = (start[:, 2] + stop[:, 2]) / 2
        body = self._faded(colours, height)
        length = np.linalg.norm(stop - start, axis=1)
        level = (1 - np.abs((stop - start)[:, 2]) / (length + 1e-9))[:, None] ** 3
        shadow = body * 0.76
        layers = (
            (body * 0.35, 2.0, -1.0, 0.0, 1.0),
            (shadow, 1.75, 0.0, 0.0, 1.0),
            (shadow + (body - shadow) * level, 1.15, 0.05, 0.6, 1.0),
            (1 - (1 - body) * 0.45, 0.45, 0.1, 1.2, 0.9 * level),
        )
        for shade, width, lift, aside, strength in layers:
            shift = 0.3 * aside * radius * LIGHT[:2]
            self._segments.append(np.stack([start[:, :2], stop[:, :2]], axis=1) + shift)
            self._widths.append(np.full(len(start), width * radius * self.points_per_nm))
            opacity = np.broadcast_to(alpha * strength, (len(start), 1))
            self._colours.append(np.hstack([np.clip(shade, 0, 1), opacity]))
            self._order.append(height + lift * 1.5 * radius)

    def _faded(self, colours: np.ndarray, height: np.ndarray | float) -> np.ndarray:
        far = np.clip((self.depth - np.asarray(height)) / (2 * self.depth), 0, 1)
        white = (FADE * far**1.3)[..., None]
        return colours * (1 - white) + white


def _sphere_image(colour: np.ndarray, alpha: float, size: int = 160) -> np.ndarray:
    """RGBA picture of a lit sphere, denser towards its rim."""
    axis = np.linspace(-1, 1, size)
    x, y = np.meshgrid(axis, axis[::-1])
    distance = np.hypot(x, y)
    z = np.sqrt(np.clip(1 - distance**2, 0, 1))
    light = LIGHT / np.linalg.norm(LIGHT)
    diffuse = np.clip(x * light[0] + y * light[1] + z * light[2], 0, 1)
    gloss = np.clip(diffuse, 0, 1) ** 40
    shade = colour * (0.5 + 0.55 * diffuse)[..., None] + 0.55 * gloss[..., None]
    opacity = alpha * (0.62 + 0.38 * (1 - z) ** 1.5) * np.clip((1 - distance) * size / 3, 0, 1)
    return np.dstack([np.clip(shade, 0, 1), opacity])
