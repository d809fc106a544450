"""Molecules that the periodic box cuts, made whole along their bonds.

Shapes: F frames, N particles; positions and cells in nm, rows of a cell are its vectors.
"""

import itertools

import numpy as np

from hpcbackmap.trajectories.cells import usable_cells
from hpcbackmap.trajectories.checks import Links

__all__ = ["Mender", "whole_along_order"]

COMPLEX = 8
"""Chains that may belong together; more are a solution of molecules."""
_AROUND = np.array(list(itertools.product((-1, 0, 1), repeat=3)))


class Mender:
    """Makes frames of one system whole; the first particle stays where it is.

    links: known distances; particles that they join form a fragment. chains: of each particle, int [N];
    default: every fragment is one. Each further fragment of a chain, and of up to `COMPLEX` chains each further
    one, is taken in the image nearest to one that is placed: in frames that the box cuts, and with ``gather``
    in all frames that have a cell. More chains are a solution, and each stays where its first particle is.
    """

    def __init__(
        self, n_particles: int, links: Links, gather: bool, chains: np.ndarray | None = None
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
        if not self._gather:
            wanted &= self._links.broken(positions).any(axis=1)
        if not wanted.any():
            return positions, changed
        here = positions[wanted].astype(np.float64)
        cell = cells[wanted].astype(np.float64)
        images = self._images(here, cell)
        changed[wanted] = images.any(axis=(1, 2))
        whole = positions.copy()
        whole[wanted] = here + images @ cell
        return whole, changed

    def _images(self, positions: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """Cell vectors to add to every particle, whole numbers [F, N, 3]."""
        inverse = np.linalg.inv(cells)
        fractions = np.ascontiguousarray((positions @ inverse).transpose(1, 0, 2))
        steps = np.rint(fractions[self._parent] - fractions).astype(np.int16)
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
