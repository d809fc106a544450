"""Molecules that the periodic box cuts, made whole along their bonds.

Shapes: F frames, N particles; positions and cells in nm, rows of a cell are its vectors.
"""

import itertools

import numpy as np

from hpcbackmap.trajectories.cells import usable_cells
from hpcbackmap.trajectories.checks import Links

__all__ = ["Mender", "whole_along_order", "written_whole"]

COMPLEX = 8
"""Chains that may belong together; more are a solution of molecules."""
ONE_BOX, ONE_COMPACT_BOX = 1.0, 1.5
"""Edges that particles extend over which were put into one box, or into the compact one of skewed edges."""
EDGE = 0.01
"""nm; particles at the edge of a box are rounded beyond it."""
AS_NEAR = 0.75
"""Of two images in reach, one nearer than this share of the other is told from it."""
_AROUND = np.array(list(itertools.product((-1, 0, 1), repeat=3)))


class Mender:
    """Makes frames of one system whole; the first particle stays where it is.

    links: known distances; particles that they join form a fragment. chains: of each particle, int [N];
    default: every fragment is one. Each further fragment of a chain, and of up to `COMPLEX` chains each further
    one, is taken in the image nearest to one that is placed: in frames that the box cuts, and with ``gather``
    in all frames that have a cell. More chains are a solution, and each stays where its first particle is.

    Links that may be longer than half a box look whole where they are cut. They are taken in the nearest image
    in frames that lie in one box, unless the input is known to be ``whole`` (`written_whole`).
    """

    def __init__(
        self,
        n_particles: int,
        links: Links,
        gather: bool,
        chains: np.ndarray | None = None,
        whole: bool = False,
    ):
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import breadth_first_order, connected_components

        self._links = links
        graph = coo_array(
            (np.ones(len(links.pairs)), (links.pairs[:, 0], links.pairs[:, 1])),
            shape=(n_particles, n_particles),
        ).tocsr()
        count, label = connected_components(graph, directed=False)
        self._fragments = [np.flatnonzero(label == k) for k in range(count)]
        self._fragments.sort(key=lambda particles: particles[0])
        self._parent = np.arange(n_particles)
        for particles in self._fragments:
            order, before = breadth_first_order(graph, particles[0], directed=False)
            self._parent[order[1:]] = before[order[1:]]
        firsts = np.array([particles[0] for particles in self._fragments])
        chain = np.arange(count) if chains is None else np.asarray(chains)[firsts]
        groups = [np.flatnonzero(chain == k) for k in dict.fromkeys(chain.tolist())]
        self._groups = [group for group in groups if len(group) > 1]
        if len(groups) <= COMPLEX:
            self._groups = [np.arange(count)] if count > 1 else []
        self._gather = gather and len(self._groups) > 0
        self._whole = whole
        self._reach = float(links.high.max(initial=0.0))

    def mend(
        self, positions: np.ndarray, cells: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions [F, N, 3] with whole molecules, and which frames had to be changed, bool [F].

        Frames without a cell [F, 3, 3], and those with positions that are no numbers, come back as they are.
        """
        changed = np.zeros(len(positions), dtype=bool)
        if cells is None:
            return positions, changed
        wanted = usable_cells(cells) & np.isfinite(positions).all(axis=(1, 2))
        cut = self._links.broken(positions).any(axis=1) | self._may_hide(positions, cells, wanted)
        if not self._gather:
            wanted &= cut
        if not wanted.any():
            return positions, changed
        here = positions[wanted].astype(np.float64)
        cell = cells[wanted].astype(np.float64)
        kept = self._far_reaching(cell) & ~cut[wanted]
        images = self._images(here, cell, kept)
        changed[wanted] = images.any(axis=(1, 2))
        whole = positions.copy()
        whole[wanted] = here + images @ cell
        return whole, changed

    def untold(self, positions: np.ndarray, cells: np.ndarray | None) -> dict[int, str]:
        """Why it is open where particles of frames [F, N, 3], as the file has them, are, by place: two images
        of a link are in reach and about as near.
        """
        if cells is None:
            return {}
        found = {}
        usable = usable_cells(cells) & np.isfinite(positions).all(axis=(1, 2))
        first, second = self._links.pairs.T
        for place in np.flatnonzero(self._may_hide(positions, cells, usable)).tolist():
            cell = cells[place].astype(np.float64)
            gaps = (positions[place, second] - positions[place, first]).astype(np.float64)
            gaps -= np.rint(gaps @ np.linalg.inv(cell)) @ cell
            lengths = np.sort(np.linalg.norm(gaps[:, None] + _AROUND @ cell, axis=-1), axis=1)
            near, next_near = lengths[:, 0], lengths[:, 1]
            alike = (near > AS_NEAR * next_near) & (next_near <= self._links.high)
            if alike.any():
                link = int(np.argmax(np.where(alike, near / next_near, 0)))
                a, b = (self._links.label(int(end)) for end in self._links.pairs[link])
                found[place] = (
                    f"{a} and {b} are {near[link]:.3g} nm apart or, across the periodic box, "
                    f"{next_near[link]:.3g}, and the file does not tell which; make molecules whole in it, or "
                    "take the box out if they are"
                )
        return found

    def _far_reaching(self, cells: np.ndarray) -> np.ndarray:
        """Whether a link may be longer than half a box, bool [F]; cells [F, 3, 3] are usable."""
        if not self._reach:
            return np.zeros(len(cells), dtype=bool)
        heights = 1 / np.linalg.norm(np.linalg.inv(cells.astype(np.float64)), axis=1)
        found: np.ndarray = self._reach > heights.min(axis=-1) / 2
        return found

    def _may_hide(self, positions: np.ndarray, cells: np.ndarray, usable: np.ndarray) -> np.ndarray:
        """Whether a box may cut links without their being too long, bool [F]."""
        found = np.zeros(len(positions), dtype=bool)
        if self._whole:
            return found
        rows = np.flatnonzero(usable)
        rows = rows[self._far_reaching(cells[rows])]
        for row in rows.tolist():
            found[row] = not written_whole(positions[row : row + 1], cells[row : row + 1])
        return found

    def _images(self, positions: np.ndarray, cells: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """Cell vectors to add to every particle, whole numbers [F, N, 3]; no link of frames ``kept`` [F]
        changes.
        """
        inverse = np.linalg.inv(cells)
        fractions = np.ascontiguousarray((positions @ inverse).transpose(1, 0, 2))
        steps = np.rint(fractions[self._parent] - fractions).astype(np.int16)
        for frame in np.flatnonzero(self._far_reaching(cells)).tolist():
            gaps = positions[frame] - positions[frame, self._parent]
            shape = (len(gaps), 3, 3)
            each = (np.broadcast_to(matrix[frame], shape) for matrix in (cells, inverse))
            steps[:, frame] = 0 if kept[frame] else nearest_image(gaps, *each)
        above = self._parent
        while not np.array_equal(above, above[above]):
            steps += steps[above]
            above = above[above]
        images: np.ndarray = steps.transpose(1, 0, 2).astype(np.float64)
        whole = positions + images @ cells
        for group in self._groups:
            fragments = [self._fragments[number] for number in group]
            centres = np.stack([whole[:, particles].mean(axis=1) for particles in fragments], 1)
            for frame in range(len(positions)):
                shifts = gathered(centres[frame], cells[frame], inverse[frame])
                for particles, shift in zip(fragments, shifts, strict=True):
                    images[frame, particles] += shift
        return images


def written_whole(positions: np.ndarray, cells: np.ndarray) -> bool:
    """Whether frames [F, N, 3] with usable cells extend further than one box: a program that puts each particle
    into it has not written them.
    """
    fractions = positions @ np.linalg.inv(cells.astype(np.float64))
    skewed = (np.abs(cells - cells * np.eye(3)) > EDGE).any()
    extent = fractions.max(axis=(0, 1)) - fractions.min(axis=(0, 1))
    heights = 1 / np.linalg.norm(np.linalg.inv(cells.astype(np.float64)), axis=1)
    most = (ONE_COMPACT_BOX if skewed else ONE_BOX) + EDGE / heights.min()
    return bool((extent > most).any())


def gathered(centres: np.ndarray, cell: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Whole numbers [n, 3] of cell vectors that bring centres [n, 3] together, the first one staying.

    Each is taken beside the nearest of those that are placed, in the order of their distances: a droplet stays
    one, whatever the order of its molecules in the file.
    """
    shifts = np.zeros((len(centres), 3))
    left = np.arange(1, len(centres))
    best, gaps = np.zeros((len(left), 3)), np.full(len(left), np.inf)
    newest = centres[0]
    while len(left):
        cells, inverses = (np.broadcast_to(each, (len(left), 3, 3)) for each in (cell, inverse))
        gap = centres[left] - newest
        shift = nearest_image(gap, cells, inverses)
        length = np.linalg.norm(gap + shift @ cell, axis=1)
        nearer = length < gaps
        best[nearer], gaps[nearer] = shift[nearer], length[nearer]
        place = int(gaps.argmin())
        number = left[place]
        shifts[number] = best[place]
        newest = centres[number] + best[place] @ cell
        left, best, gaps = (np.delete(each, place, axis=0) for each in (left, best, gaps))
    return shifts


def whole_along_order(positions: np.ndarray, cell: np.ndarray, chains: np.ndarray) -> np.ndarray:
    """One frame [N, 3] whose bonds are not yet known: each atom in the image nearest to the one before it.

    chains: of each atom, int [N]; each chain is taken near the one before it. Without a usable cell [3, 3],
    the frame as it is.
    """
    if not usable_cells(cell[None])[0]:
        return positions
    here, cell = positions.astype(np.float64), cell.astype(np.float64)
    images = -np.rint(np.diff(here, axis=0, prepend=here[:1]) @ np.linalg.inv(cell))
    images[1:][chains[1:] != chains[:-1]] = 0
    for chain in np.unique(chains):
        images[chains == chain] = images[chains == chain].cumsum(axis=0)
    here += images @ cell
    centre = None
    for chain in dict.fromkeys(chains.tolist()):
        atoms = chains == chain
        if centre is not None:
            gap = here[atoms].mean(axis=0) - centre
            here[atoms] += nearest_image(gap[None], cell[None], np.linalg.inv(cell)[None])[0] @ cell
        centre = here[atoms].mean(axis=0)
    return here.astype(positions.dtype)


def nearest_image(gap: np.ndarray, cells: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Whole numbers [F, 3] of cell vectors that make ``gap`` [F, 3] shortest, skewed cells included."""
    first = -np.rint(np.einsum("fi,fij->fj", gap, inverse))
    tried = first[:, None] + _AROUND
    lengths = np.linalg.norm(gap[:, None] + tried @ cells, axis=-1)
    # of images equally near the one found by rounding stays
    best = np.where(lengths < lengths[:, [13]] - 1e-9, lengths, np.inf)
    best[:, 13] = lengths[:, 13]
    return np.take_along_axis(tried, best.argmin(axis=1)[:, None, None], axis=1)[:, 0]
