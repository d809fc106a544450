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

from hpcbackmap.config.campaign import CgvaeConfig
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.stages.base import Normal, collate, kl_divergence
from hpcbackmap.stages.cgvae.model import Cgvae
from hpcbackmap.stages.collapse import active_units
from hpcbackmap.stages.ladder_volume import importance_bound, ladder_log_volume
from hpcbackmap.stages.layers.close_trace import recentre

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
    """With diagonal exact posteriors the bound is tight: rung by rung and as the k-step total.

    Then every single log weight is the log density, so the importance-weighted bound is, too.
    """
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
        weights = draw_log_weights(stage, system, fine, coarse, 7)
        np.testing.assert_allclose(weights, density, atol=1e-7)
        assert float(importance_bound(weights)) == pytest.approx(density, abs=1e-7)
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


def draw_log_weights(stage, system, fine, coarse, count):
    """Log weights of ``count`` draws from the given posterior, [count]."""
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(count, stage.n_beads, LATENT, generator=generator).double()
    many = [torch.from_numpy(x).expand(count, -1, -1) for x in (fine, coarse)]
    return stage.log_weight(*many, system, noise)[:, 0]


def wrong_posterior(stage, system, ladder, fine, coarse, shift):
    """Log density, and the divergence of the posterior that the stage is given from the exact one.

    shift: of its means, in standard deviations of the exact posterior; its own are 0.8 of these.
    """
    stage.mixing = whitened(stage, system)
    density, z, covariance, *_ = exact_rung(stage, system, ladder, fine, coarse)
    exact = Normal(
        *(torch.from_numpy(x).view(1, -1, LATENT) for x in (z, 0.5 * np.log(np.diag(covariance))))
    )
    stage.given = Normal(exact.mean + shift * exact.log_std.exp(), exact.log_std + np.log(0.8))
    return density, float(kl_divergence(stage.given, exact).sum())


@pytest.mark.parametrize("k", LADDERS)
def test_gap_of_the_ladder_is_the_sum_of_posterior_divergences(k):
    ladder, stages = rungs(LADDERS[k], seed=3)
    atoms = np.random.default_rng(2).normal(size=(ladder.topology.n_atoms, 3))
    levels = list(ladder.coarsen(atoms).values())
    total, gaps = -ladder_log_volume(ladder).sum(), 0.0
    for (stage, system), fine, coarse in zip(stages, levels[:-1], levels[1:], strict=True):
        _, gap = wrong_posterior(stage, system, ladder, fine, coarse, shift=0.7)
        assert gap > 0.3
        total += expected_elbo(stage, system, fine, coarse)
        gaps += gap
    assert total == pytest.approx(exact_ladder(ladder, stages, levels) - gaps, abs=1e-6)


def test_importance_bound_rises_from_the_elbo_towards_the_log_density():
    ladder, [(stage, system)] = rungs(["fg", "ucg:4"], seed=3)
    atoms = np.random.default_rng(2).normal(size=(ladder.topology.n_atoms, 3))
    fine, coarse = ladder.coarsen(atoms).values()
    density, gap = wrong_posterior(stage, system, ladder, fine, coarse, shift=0.5)
    weights = draw_log_weights(stage, system, fine, coarse, 20_000)
    error = 4 * float(weights.std()) / np.sqrt(len(weights))
    assert float(weights.mean()) == pytest.approx(density - gap, abs=error)
    bounds = [float(importance_bound(weights.view(-1, n).T).mean()) for n in (1, 5, 50, 500)]
    assert bounds[0] == pytest.approx(float(weights.mean()))
    assert bounds[0] < bounds[1] < bounds[2] < bounds[3] < density
    assert density - bounds[2] < 0.2 * gap


def test_information_adds_up_to_the_kl_and_counts_the_units_in_use():
    """Posterior and prior differ in the first latent of every bead and in the second of bead 2 alone."""
    ladder, [(stage, system)] = rungs(["fg", "ucg:4"], seed=3)
    mean = torch.zeros(1, stage.n_beads, LATENT).double()
    mean[..., 0], mean[0, 2, 1] = 1.0, 0.5
    log_std = torch.zeros_like(mean)
    log_std[0, 1, 1] = 0.05
    stage.given = Normal(mean, log_std)
    atoms = np.random.default_rng(2).normal(size=(3, ladder.topology.n_atoms, 3))
    fine, coarse = (torch.from_numpy(x) for x in ladder.coarsen(atoms).values())
    information = stage.information(fine, coarse, system)
    assert information.shape == (3, 4, LATENT)
    assert information[0, 0, 0] == pytest.approx(0.5)
    assert information[0, 2, 1] == pytest.approx(0.125)
    kl = stage.elbo(fine, coarse, system, torch.zeros(3, 4, LATENT).double()).kl
    torch.testing.assert_close(information.sum((1, 2)), kl[:, 0])
    assert float(active_units(information.mean(0))) == 5 / 4, "0.0024 nats of log_std do not count"
