"""A reference carried onto beads: neighbourhoods stay as rigid as possible, beads are met exactly.

As-rigid-as-possible deformation (Sorkine and Alexa 2007): rotations of all neighbourhoods by singular value
decomposition, then all positions by one sparse linear solve, in turns. Near neighbours weigh most. Links that
stretch are let go (weights of Geman and McClure), so that domains move as bodies and hinges bend. What the
stage answers holds on by weak springs: it decides where the reference says nothing or was let go.
Shapes: N residues, B beads, E edges; nm.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sparse
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

__all__ = ["Carried", "Elastic"]

REACH, STEEPNESS = 1.2, 8
"""Edges are that long at most (nm), and weigh as (link length / length) to this power."""
LINK = 0.38
LOOSE = 0.3
"""Weight of an edge that does not lie within helices and strands."""
LET_GO = 0.02
"""nm per residue of a bead: an edge that is off by so much has a quarter of its weight."""
ROUNDS, WEIGHED = 40, 5
"""Rounds, and after how many of them edges are weighed again."""
FLAT, FLAT_ROUNDS = 2, 20
"""Steepness of the first rounds, in which far neighbours turn domains at once."""
AROUND, LEANING = 1.0, 0.02
"""nm around a residue whose beads say how it starts, and how much it leans on all beads."""
SPRING = 5e-6
"""Weight of the stage's answer, times nm^4 over the fourth power of its expected error."""
ANCHOR, SMALLEST_ERROR = 1e-9, 0.05
BEYOND = 3
"""Residues along the chain that one missing in the reference is tied to, as the stage has them."""
CONTACT, KEPT = 0.8, 0.1
"""nm: residues of the reference in contact, and by how much a contact that is kept may change."""
LEAST_KEPT = 0.6
"""Share of contacts that a reference of the right fold keeps; set on NMR ensembles and pairs of crystals."""
BASE, POWER, STRAIN = 0.0235, 0.65, 0.8
"""Expected error, nm: base * length^power of beads of that length, and this share of the strain."""
GIVES, ASKED, SMOOTH = 15, 1.0, 0.0002
"""Of members: rounds, pushes relative to the expected error, springs relative to the mean stiffness."""


@dataclass(frozen=True)
class Carried:
    """positions [N, 3]: with the beads exact. known [N]: residues that the reference has. kept: share of its
    contacts. strain: root mean square change of near distances, nm. error: expected, root mean square, nm.
    open: positions that give way to others which are asked for, [N, 3]; beads stay.
    """

    positions: np.ndarray
    known: np.ndarray
    kept: float
    strain: float
    error: float
    open: Callable[[np.ndarray], np.ndarray]

    @property
    def fits(self) -> bool:
        return self.kept >= LEAST_KEPT

    def member(self, white: np.ndarray, deviation: np.ndarray) -> np.ndarray:
        """A member: the answer moved by the expected error.

        white [N, 3]: standard normals that push the residues of the reference; it gives way where it is soft.
        deviation [N, 3]: of a member of the stage, for the residues that the reference lacks.
        """
        pushed = np.where(self.known[:, None], ASKED * self.error * white, deviation)
        move = self.open(self.positions + pushed) - self._at_rest
        found: np.ndarray = self.positions + move * (
            self.error / max(_size(move[self.known]), 1e-9)
        )
        return found

    @cached_property
    def _at_rest(self) -> np.ndarray:
        return self.open(self.positions)


class Elastic:
    """The elastic network of a reference [N, 3], NaN where it has no residue.

    group [N]: see `reference.Placed`. chain [N]: of each residue. bead_of [N], weight [N]: the beads.
    """

    def __init__(
        self,
        reference: np.ndarray,
        group: np.ndarray,
        chain: np.ndarray,
        bead_of: np.ndarray,
        weight: np.ndarray,
    ):
        self.reference, self.group, self.chain = reference, group, chain
        self.known = np.isfinite(reference).all(-1)
        self.bead_of, n = bead_of, len(bead_of)
        beads = int(bead_of.max()) + 1
        self.mapping = sparse.csr_matrix((weight, (bead_of, np.arange(n))), shape=(beads, n))
        self.length = n / beads
        self.edges = _edges(reference, self.known, group)
        self.vectors = reference[self.edges[:, 0]] - reference[self.edges[:, 1]]
        size = np.linalg.norm(self.vectors, axis=-1)
        regular = _regular(reference, chain)
        loose = np.where(regular[self.edges].all(-1), 1.0, LOOSE)
        near = LINK / np.maximum(size, 0.2)
        self.stiffness, self.flat = loose * near**STEEPNESS, loose * near**FLAT
        apart = np.abs(self.edges[:, 0] - self.edges[:, 1]) > 2
        self.contacts = (size < CONTACT) & (
            apart | (chain[self.edges[:, 0]] != chain[self.edges[:, 1]])
        )
        self.sizes = size
        self.ties = _ties(self.known, chain)

    def carry(self, beads: np.ndarray, answer: np.ndarray, error: np.ndarray) -> Carried:
        """Onto beads [B, 3]. answer [N, 3], error [N]: of the stage, and how far it may be off (nm)."""
        (i, j), (a, b) = self.edges.T, self.ties.T
        springs = SPRING / np.maximum(error, SMALLEST_ERROR) ** 4 + ANCHOR
        tied = answer[a] - answer[b]
        x, asked = self._start(beads, answer), self.vectors
        for number in range(ROUNDS):
            if number % WEIGHED == 0:
                stiffness = self.flat if number < FLAT_ROUNDS else self.stiffness
                if number:
                    off = np.linalg.norm(x[i] - x[j] - asked, axis=-1)
                    stiffness = stiffness / (1 + (off / (LET_GO * self.length)) ** 2)
                solve = self._solver(stiffness, springs)
            asked = self._turned(x, stiffness)
            pull = springs[:, None] * answer + _pulls(stiffness, i, j, asked, len(x))
            x = solve(pull + _pulls(np.ones(len(a)), a, b, tied, len(x)), beads)
        change = np.linalg.norm(x[i] - x[j], axis=-1) - self.sizes
        near = self.sizes < CONTACT
        kept = float((np.abs(change[self.contacts]) < KEPT).mean()) if self.contacts.any() else 1.0
        strain = (
            float(np.sqrt(np.minimum(change[near] ** 2, KEPT**2).mean())) if near.any() else 0.0
        )
        expected = np.hypot(BASE * self.length**POWER, STRAIN * strain)
        soft = SMOOTH * (stiffness.sum() + len(a)) / len(x)
        loosened = self._solver(stiffness, np.full(len(x), soft))

        def give_way(target: np.ndarray) -> np.ndarray:
            y = target
            for _ in range(GIVES):
                pull = soft * target + _pulls(stiffness, i, j, self._turned(y, stiffness), len(y))
                y = loosened(pull + _pulls(np.ones(len(a)), a, b, tied, len(y)), beads)
            return y

        return Carried(x, self.known, kept, strain, float(expected), give_way)

    def _start(self, beads: np.ndarray, answer: np.ndarray) -> np.ndarray:
        """Residues of the reference moved as the beads around them have; others as the stage has them."""
        x = answer.copy()
        for group in np.unique(self.group):
            own = np.flatnonzero(self.known & (self.group == group))
            if len(own):
                bead, back = np.unique(self.bead_of[own], return_inverse=True)
                sums = sparse.csr_matrix((1 / np.bincount(back)[back], (back, np.arange(len(own)))))
                x[own] = _moved(self.reference[own], sums @ self.reference[own], beads[bead])
        return x

    def _turned(self, x: np.ndarray, stiffness: np.ndarray) -> np.ndarray:
        """Edges of the reference as the neighbourhoods of both ends have turned, [E, 3]."""
        i, j = self.edges.T
        outer = (stiffness[:, None, None] * self.vectors[:, :, None]) * (x[i] - x[j])[:, None, :]
        total = (_incidence(i, j, len(x)) @ outer.reshape(-1, 9)).reshape(-1, 3, 3)
        turn = _rotations(total)
        found: np.ndarray = np.einsum("ea,eab->eb", self.vectors, 0.5 * (turn[i] + turn[j]))
        return found

    def _solver(
        self, stiffness: np.ndarray, springs: np.ndarray
    ) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """Positions [N, 3] of least energy for pulls [N, 3], with these beads [B, 3]."""
        i, j = np.concatenate([self.edges, self.ties]).T
        weight, n = np.concatenate([stiffness, np.ones(len(self.ties))]), len(springs)
        both = (np.concatenate([i, j, i, j]), np.concatenate([i, j, j, i]))
        values = np.concatenate([weight, weight, -weight, -weight])
        energy = sparse.coo_matrix((values, both), shape=(n, n)) + sparse.diags(springs)
        system = sparse.bmat([[energy, self.mapping.T], [self.mapping, None]], format="csc")
        factors = splu(system)
        return lambda pulls, beads: factors.solve(np.concatenate([pulls, beads]))[:n]


def _moved(points: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """``points`` [N, 3] as the beads ``old`` [B, 3] near each became ``new``, by weighted superposition."""
    gap = np.square(points[:, None] - old).sum(-1)
    weight = np.exp(-0.5 * gap / AROUND**2) + 1e-6
    weight /= weight.sum(1, keepdims=True)
    before, after = weight @ old, weight @ new
    pairs = (old[:, :, None] * new[:, None, :]).reshape(len(old), 9)
    spread = (weight @ pairs).reshape(-1, 3, 3) - before[:, :, None] * after[:, None, :]
    body = _rotations(((old - old.mean(0)).T @ (new - new.mean(0)))[None])
    turn = _rotations(spread + LEANING * AROUND**2 * body)
    found: np.ndarray = np.einsum("ni,nij->nj", points - before, turn) + after
    return found


def _rotations(outer: np.ndarray) -> np.ndarray:
    """Nearest rotations of sums of outer products [..., 3, 3], to be multiplied from the right."""
    u, _, v = np.linalg.svd(outer)
    u[..., 2] *= np.where(np.linalg.det(u @ v) < 0, -1.0, 1.0)[..., None]
    found: np.ndarray = u @ v
    return found


def _size(move: np.ndarray) -> float:
    """Root mean square length of [N, 3]."""
    return float(np.sqrt(np.square(move).sum(-1).mean()))


def _edges(reference: np.ndarray, known: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Pairs of known residues of one group within reach, int64 [E, 2]."""
    rows = np.flatnonzero(known)
    pairs = cKDTree(reference[rows]).query_pairs(REACH, output_type="ndarray")
    pairs = rows[pairs.astype(np.int64).reshape(-1, 2)]
    pairs = np.sort(pairs[group[pairs[:, 0]] == group[pairs[:, 1]]], axis=1)
    return pairs[np.lexsort(pairs.T[::-1])]


def _ties(known: np.ndarray, chain: np.ndarray) -> np.ndarray:
    """Pairs along a chain of which the reference lacks one, int64 [ties, 2]."""
    found = []
    for step in range(1, BEYOND + 1):
        first = np.arange(len(known) - step)
        same = chain[first] == chain[first + step]
        first = first[same & ~(known[first] & known[first + step])]
        found.append(np.stack([first, first + step], axis=1))
    return np.concatenate(found)


def _regular(reference: np.ndarray, chain: np.ndarray) -> np.ndarray:
    """Residues of helices (three residues span 0.44 to 0.6 nm) and strands (four span 1.15), bool [N]."""
    regular = np.zeros(len(reference), dtype=bool)
    for step, low, high in ((3, 0.44, 0.60), (4, 1.15, np.inf)):
        span = np.linalg.norm(reference[step:] - reference[:-step], axis=-1)
        start = np.flatnonzero((span > low) & (span < high) & (chain[step:] == chain[:-step]))
        for place in range(step + 1):
            regular[start + place] = True
    return regular


def _incidence(i: np.ndarray, j: np.ndarray, n: int) -> sparse.csr_matrix:
    edge = np.arange(len(i))
    rows, columns = np.concatenate([i, j]), np.concatenate([edge, edge])
    return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(n, len(i)))


def _pulls(
    weight: np.ndarray, i: np.ndarray, j: np.ndarray, asked: np.ndarray, n: int
) -> np.ndarray:
    """Of edges that want to be ``asked`` [E, 3], on each residue [N, 3]."""
    force = weight[:, None] * asked
    edge = np.arange(len(i))
    signs = np.concatenate([np.ones(len(i)), -np.ones(len(j))])
    rows, columns = np.concatenate([i, j]), np.concatenate([edge, edge])
    found: np.ndarray = sparse.csr_matrix((signs, (rows, columns)), shape=(n, len(i))) @ force
    return found
