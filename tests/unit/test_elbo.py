"""The k-step ELBO against a linear-Gaussian ladder, where everything is known in closed form.

At every rung the decoder is x = lift(X) + P U z + noise on the fibre, z ~ N(0, I), with P the projection
that leaves the beads alone. The code under test is the ELBO of the Cartesian stage; only its networks are
replaced by linear maps.
"""

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch

from hpcbackmap.config import CgvaeConfig
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.stages.base import Normal, collate, kl_divergence
from hpcbackmap.stages.cgvae import Cgvae
from hpcbackmap.stages.closing import recentre
from hpcbackmap.stages.elbo import ladder_log_volume

SPREAD = 0.07
LATENT = 2


class LinearStage(Cgvae):
    """Linear decoder, standard-normal prior, and the posterior that is handed in."""

    def __init__(self, fine, coarse, ladder, seed):
        super().__init__(fine, coarse, CgvaeConfig(width=4, layers=1, latent=LATENT), ladder)
        mapping = ladder.mapping(coarse)
        self.mixing = (
            torch.randn(
                mapping.n_fine,
                3,
                mapping.n_coarse * LATENT,
                generator=torch.Generator().manual_seed(seed),
            ).double()
            * 0.1
        )

    def _context(self, coarse, system):
        return {}

    def _prior(self, context):
        shape = (1, self.n_beads, LATENT)
        return Normal(torch.zeros(shape).double(), torch.zeros(shape).double())

    def _decode(self, context, z, coarse, system):
        shift = torch.einsum("ndk,fk->fnd", self.mixing, z.flatten(1))
        spread = torch.full(coarse.shape[:2], float(np.log(SPREAD)), dtype=torch.float64)
        return coarse[:, system.bead_of] + recentre(shift, system), spread

    def _posterior(self, context, fine, coarse, system):
        return Normal(*(x.expand(len(fine), -1, -1) for x in (self.given.mean, self.given.log_std)))


def basis_of_fibre(matrix):
    return np.kron(scipy.linalg.null_space(matrix), np.eye(3))


def exact_rung(stage, system, ladder, fine, coarse):
    """log p(fine | coarse), the exact posterior of z (mean, covariance), by linear algebra."""
    mapping = ladder.mapping(stage.coarse)
    matrix = mapping.matrix.toarray()
    null = basis_of_fibre(matrix)
    columns = recentre(stage.mixing.permute(2, 0, 1), system).flatten(1).T.numpy()
    design = null.T @ columns
    shift = null.T @ (fine - coarse[mapping.bead]).ravel()
    covariance = design @ design.T + SPREAD**2 * np.eye(null.shape[1])
    density = scipy.stats.multivariate_normal(np.zeros(len(shift)), covariance).logpdf(shift)
    precision = np.eye(design.shape[1]) + design.T @ design / SPREAD**2
    mean = np.linalg.solve(precision, design.T @ shift) / SPREAD**2
    return density, mean, np.linalg.inv(precision), design, null


def expected_elbo(stage, system, fine, coarse):
    """The ELBO averaged over the posterior exactly: it is quadratic in z, so 2 L cubature points do."""
    n = stage.n_beads * LATENT
    points = torch.cat([torch.eye(n), -torch.eye(n)]).double() * np.sqrt(n)
    noise = points.reshape(2 * n, stage.n_beads, LATENT)
    many = [torch.from_numpy(x).expand(2 * n, -1, -1) for x in (fine, coarse)]
    return float(stage.elbo(*many, system, noise).total.mean())


def rungs(specs, seed):
    ladder = build_ladder(topology_from_sequence(["GAGAGAGAGAGA"]), specs)
    stages = []
    for i in range(len(ladder.mappings)):
        stage = LinearStage(
            ladder.resolutions[i], ladder.resolutions[i + 1], ladder, seed + i
        ).double()
        stage.n_beads = ladder.mappings[i].n_coarse
        system = collate([stage.describe(ladder)])
        system = system.apply(lambda x: x.double() if x.is_floating_point() else x)
        system.weight = torch.from_numpy(ladder.mappings[i].weight)
        stages.append((stage, system))
    return ladder, stages


LADDERS = {
    1: ["fg", "ucg:4"],
    2: ["fg", "ca", "ucg:4"],
    3: ["fg", "com", "ucg:6", "ucg:3"],
    5: ["fg", "ca", "ucg:10", "ucg:7", "ucg:5", "ucg:3"],
}


@pytest.mark.parametrize("k", LADDERS)
def test_sum_of_stages_is_the_exact_log_density(k):
    """With diagonal exact posteriors the bound is tight: rung by rung and as the k-step total."""
    ladder, stages = rungs(LADDERS[k], seed=0)
    rng = np.random.default_rng(1)
    atoms = rng.normal(size=(ladder.topology.n_atoms, 3))
    levels = list(ladder.coarsen(atoms).values())
    total = 0.0
    for (stage, system), fine, coarse in zip(stages, levels[:-1], levels[1:], strict=True):
        stage.mixing = whitened(stage, system)
        density, z, covariance, *_ = exact_rung(stage, system, ladder, fine, coarse)
        assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-10
        stage.given = Normal(
            torch.from_numpy(z).view(1, -1, LATENT),
            0.5 * torch.from_numpy(np.log(np.diag(covariance))).view(1, -1, LATENT),
        )
        assert expected_elbo(stage, system, fine, coarse) == pytest.approx(density, abs=1e-7)
        total += density
    total -= ladder_log_volume(ladder).sum()
    assert total == pytest.approx(exact_ladder(ladder, stages, levels), abs=1e-6)


def whitened(stage, system):
    """Decoder columns made orthogonal, so that the posterior of z is diagonal as the stage's is."""
    n, _, columns = stage.mixing.shape
    projected = recentre(stage.mixing.permute(2, 0, 1), system).flatten(1).T
    rank = min(columns, int(system.freedom.sum()))
    q, _ = torch.linalg.qr(projected)
    q = q[:, :columns] * torch.linspace(0.1, 0.3, columns).double()
    q[:, rank:] = 0
    return q.reshape(n, 3, columns)


def exact_ladder(ladder, stages, levels):
    """log p(x_0 | x_k) as one Gaussian on the fibre of the whole ladder.

    x_{i-1} = lift_i(x_i) + B_i w_i with w_i ~ N(0, C_i) in an orthonormal basis B_i of fibre i. The map from
    (w_1 .. w_k) to coordinates on the whole fibre is linear; the density follows from its determinant.
    """
    whole = basis_of_fibre(ladder.composed(ladder.resolutions[-1]).matrix.toarray())
    carried = np.eye(3 * ladder.topology.n_atoms)
    columns, log_density = [], 0.0
    for i, ((stage, system), fine, coarse) in enumerate(
        zip(stages, levels[:-1], levels[1:], strict=True)
    ):
        density, _, _, _, null = exact_rung(stage, system, ladder, fine, coarse)
        log_density += density
        columns.append(carried @ null)
        lift = np.zeros((len(fine), len(coarse)))
        lift[np.arange(len(fine)), ladder.mappings[i].bead] = 1
        carried = carried @ np.kron(lift, np.eye(3))
    jacobian = whole.T @ np.concatenate(columns, axis=1)
    assert jacobian.shape[0] == jacobian.shape[1]
    return log_density - np.linalg.slogdet(jacobian)[1]


def test_gap_is_the_posterior_divergence():
    ladder, [(stage, system)] = rungs(["fg", "ucg:4"], seed=3)
    stage.mixing = whitened(stage, system)
    atoms = np.random.default_rng(2).normal(size=(ladder.topology.n_atoms, 3))
    fine, coarse = ladder.coarsen(atoms).values()
    density, z, covariance, *_ = exact_rung(stage, system, ladder, fine, coarse)
    exact = Normal(
        *(torch.from_numpy(x).view(1, -1, LATENT) for x in (z, 0.5 * np.log(np.diag(covariance))))
    )
    stage.given = Normal(exact.mean + 0.3, exact.log_std - 0.2)
    gap = float(kl_divergence(stage.given, exact).sum())
    assert gap > 1
    assert expected_elbo(stage, system, fine, coarse) == pytest.approx(density - gap, abs=1e-7)
