"""The posterior by tempering against known ones: linear-Gaussian, two valleys and a bent ridge by quadrature."""

from dataclasses import replace
from types import SimpleNamespace

import arviz
import numpy as np
import pytest
import torch
from linear_emulator import UNBOUNDED, LinearEmulator, inverter, scalers, window_data
from linear_emulator import problem as linear_problem

from calibration.common.command_line import UserError, silent
from calibration.inversion import tempering
from calibration.inversion.posterior import save_arviz
from calibration.inversion.tempering import Particles, Tempering, populations_r_hat, temper


class FewFluxes:
    """A problem whose fluxes `predict` gives: u (batch, size) -> (batch, entry); each is known within `sd`."""

    def __init__(self, predict, value, sd, size, prior=0.0, limit=5.0):
        self.predict, self.value, self.sd, self.size = predict, np.array(value), sd, size
        self.prior, self.latent = np.full(size, prior), SimpleNamespace(limit=limit)

    def costs(self, u):
        predicted = self.predict(u)
        misfit = np.sum(((self.value - predicted) / self.sd) ** 2, axis=1)
        return 0.5 * np.sum((u - self.prior) ** 2, axis=1) + 0.5 * misfit, predicted

    def jacobian(self, u, predicted):
        moved = u[:, None, :] + 1e-4 * np.eye(self.size)
        values = self.predict(moved.reshape(-1, self.size)).reshape(len(u), self.size, -1)
        return ((values - predicted[:, None, :]) / 1e-4).transpose(0, 2, 1)

    def least_squares(self, u, predicted, jacobian):
        data, prior = (self.value - predicted) / self.sd, u - self.prior
        both = np.concatenate([-jacobian / self.sd, np.repeat(np.eye(self.size)[None], len(u), axis=0)], axis=1)
        return np.concatenate([data, prior], axis=1), both


def exact(problem, limit=5.0):
    """Mean and sd of the first two of u by quadrature, and the grid's weights; the others are not informed."""
    axis = np.linspace(-limit, limit, 1001)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    full = np.full((len(grid), problem.size), problem.prior)
    full[:, :2] = grid
    cost = problem.costs(full)[0]
    weight = np.exp(cost.min() - cost)
    weight /= weight.sum()
    mean = weight @ grid
    return mean, np.sqrt(weight @ (grid - mean) ** 2), grid, weight


def draws_of(problem, seeds=4):
    """Draws (draw, size) of several seeds, and how each run went."""
    runs = [temper(problem, seed, 600.0, silent)[1:] for seed in range(seeds)]
    return np.concatenate([draws.reshape(-1, problem.size) for draws, _ in runs]), [found for _, found in runs]


def test_a_bent_ridge_is_followed_to_its_ends():
    """Of twelve parameters the data see only u1 - u0^2 within 0.05: randomized draws need help there."""
    problem = FewFluxes(lambda u: (u[:, 1] - u[:, 0] ** 2)[:, None], [0.3], 0.05, 12)
    mean, sd, *_ = exact(problem)
    draws, found = draws_of(problem)
    assert (np.abs(draws[:, :2].mean(axis=0) - mean) < 0.15 * sd).all()
    np.testing.assert_allclose(draws[:, :2].std(axis=0), sd, rtol=0.12)
    # what the data do not see is as in the prior
    assert np.abs(draws[:, 2:].mean(axis=0)).max() < 0.15 and np.abs(draws[:, 2:].std(axis=0) - 1).max() < 0.1
    assert all(tempered.converged for tempered in found)


def test_each_of_two_valleys_holds_its_share():
    def predict(u):
        return np.stack([u[:, 0] ** 2, 0.25 * u[:, 0] + 0.1 * u[:, 1]], axis=1)

    problem = FewFluxes(predict, [2.25, 0.25], 0.3, 8)
    mean, sd, grid, weight = exact(problem)
    left = weight[grid[:, 0] < 0].sum()
    assert 0.02 < left < 0.3
    draws, _ = draws_of(problem, seeds=8)
    assert abs((draws[:, 0] < 0).mean() - left) < 0.05
    assert (np.abs(draws[:, :2].mean(axis=0) - mean) < 0.15 * sd).all()


def test_a_sharp_linear_posterior_is_exact_in_all_directions():
    """Twenty parameters, of which six directions are known to a few percent, six to one half, eight hardly."""
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.standard_normal((20, 20)))[0]
    matrix = (rotation * np.repeat([30.0, 1.5, 0.2], [6, 6, 8])).T
    truth, prior = rng.standard_normal(20), 0.3
    problem = FewFluxes(lambda u: u @ matrix.T, matrix @ truth, 1.0, 20, prior)
    covariance = np.linalg.inv(matrix.T @ matrix + np.eye(20))
    mean = covariance @ (matrix.T @ matrix @ truth + prior)
    draws, found = draws_of(problem)
    white = np.linalg.solve(np.linalg.cholesky(covariance), (draws - mean).T)
    assert np.abs(white.mean(axis=1)).max() < 0.3
    assert np.abs(np.linalg.eigvalsh(np.cov(white)) - 1).max() < 0.35
    assert all(tempered.degrees > 4 for tempered in found)


def test_populations_in_different_valleys_do_not_agree():
    rng = np.random.default_rng(1)
    together = rng.standard_normal((2, 768, 3))
    apart = together + np.array([[[0.0, 0.0, 1.5]], [[0.0, 0.0, -1.5]]])
    assert populations_r_hat(together).max() < 1.02
    found = Tempering(populations_r_hat(apart), 0.2, 256, 1.0, 5, 40, 20_000, 9.0, 0.0)
    assert not found.converged
    unlike = replace(found, r_hat=populations_r_hat(together), evidence=3.0)
    assert not unlike.converged and replace(unlike, evidence=0.5).converged
    assert "ITS POPULATIONS DIFFER in their evidence (asked" in unlike.sentence(["a", "b", "c"])
    cut = replace(unlike, degree=0.999)  # the time ran out among the last moves
    assert "99 percent of the log likelihood let in" in cut.sentence(["a", "b", "c"])
    assert "ITS POPULATIONS DIFFER in tree_topt (asked" in found.sentence(["tree_lue", "tree_pmax", "tree_topt"])
    assert "ITS POPULATIONS DIFFER in offset 1 (asked" in found.sentence(["tree_lue", "tree_pmax"])


def test_every_move_leaves_the_posterior_as_it_is():
    """Particles that are exact stay exact: twelve directions, ten of them informed, against the sd of their number."""
    scale = np.array([3.0] * 10 + [0.1, 0.1])
    problem = FewFluxes(lambda u: u * scale, np.zeros(12), 1.0, 12)
    sd = 1 / np.sqrt(1 + scale**2)
    spread = []
    for seed in range(24):
        particles = Particles(problem, 256, seed)
        particles.degree = 1.0
        particles.u = sd * particles.rng.standard_normal((256, 12))
        particles.likelihood = particles._likelihood(particles.u)
        particles.look()
        assert particles.informed.shape[1] == 10
        for _ in range(12):
            particles.cycle()
        spread.append(np.mean((particles.u / sd)[:, :10] ** 2))
    assert abs(np.mean(spread) - 1) < 3 * np.sqrt(2 / (24 * 2560)), np.mean(spread)


def test_where_the_cost_is_not_finite_no_particle_stays():
    def predict(u):
        return np.where(u[:, :1] < -0.3, np.nan, u[:, :1] + u[:, 1:2])

    problem = FewFluxes(predict, [0.5], 0.2, 6)
    problem.costs = lambda u, costs=problem.costs: tuple(np.nan_to_num(x, nan=np.inf) for x in costs(u))
    draws, found = draws_of(problem)
    assert draws[:, 0].min() >= -0.3 and all(tempered.degree == 1.0 for tempered in found)
    problem.costs = lambda u: (np.full(len(u), np.inf), predict(u))
    with pytest.raises(UserError, match="the cost is not finite"):
        temper(problem, 0, 60.0, silent)


def test_populations_that_do_not_agree_begin_again_with_more_particles(monkeypatch):
    monkeypatch.setattr(tempering, "AGREED", 0.0)
    problem, said = FewFluxes(lambda u: u[:, :1], [0.5], 0.2, 4), []
    _, draws, found = temper(problem, 0, 2.0, said.append)
    assert found.particles >= 512 and not found.converged and len(said) == 1
    assert draws.shape == (2, 768, 4)  # as many draws, from more particles


def inverted(model=None, y=None, prior=0.0, **config):
    """Info of an inversion of the linear emulator (or `model`, fluxes `y`) with --posterior tempered."""
    model = model or LinearEmulator()
    context, future, observed, mask = linear_problem(model)
    if y is not None:
        (context, future), observed, mask = window_data(60), y, np.ones((1, 60))
    static, _ = scalers()
    asked = inverter(model, {**UNBOUNDED, "posterior": "tempered", **config})
    return asked.invert(static.mean + prior * static.scale, context, future, observed, mask)[1]


def test_an_inversion_hands_on_the_particles(tmp_path):
    info, plain = inverted(), inverted(posterior="draws")
    posterior, reference = info["posterior"], plain["posterior"]
    sd = np.sqrt(np.diag(reference.covariance))  # exact: the emulator is linear
    assert posterior.method == "tempered" and posterior.diagnostics.converged
    assert (np.abs(posterior.latent.mean(axis=0) - reference.modes[0]) < 0.25 * sd).all()
    np.testing.assert_allclose(posterior.latent.std(axis=0), sd, rtol=0.2)
    assert any("tempering finished, and its populations agree" in note for note in info["notes"])
    dates = np.datetime64("2020-01-01") + np.arange(2)
    save_arviz(tmp_path / "posterior.nc", posterior, {"true_nep": np.zeros((4, 2))}, dates, {"nep": np.zeros(2)})
    read = arviz.from_netcdf(tmp_path / "posterior.nc").posterior
    assert read.sizes["chain"] == 2 and read.attrs["sampler"] == "tempering"


def test_where_the_time_does_not_do_the_draws_stand():
    info, plain = inverted(mcmc_minutes=1e-5), inverted(posterior="draws")
    np.testing.assert_array_equal(info["posterior"].latent, plain["posterior"].latent)
    assert not info["posterior"].diagnostics.converged
    assert any("TEMPERING NOT FINISHED, the randomized draws stand" in note for note in info["notes"])


def test_the_search_goes_on_from_a_better_valley():
    """One start ends in the shallow valley of three parameters; the particles know the deep one."""

    class TwoValleys(LinearEmulator):
        def simulate(self, static_x, dynamic_x, warmup):
            bent = torch.where(static_x > 0, static_x - 2, 1.2 * (static_x + 1))
            return super().simulate(bent, dynamic_x, warmup)

    y = np.zeros((1, 60, 4))  # both +2 and -1 fit; the prior, 0.3, lies nearer to -1, uphill from there
    plain = inverted(TwoValleys(), y, prior=0.3, posterior="draws", starts=1)
    tempered = inverted(TwoValleys(), y, prior=0.3, starts=1)
    assert tempered["best_loss"] < plain["best_loss"] - tempering.LOWER
    assert any("A second search, from them too, ended lower" in note for note in tempered["notes"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"method": "ensemble"}, "posterior is 'tempered', allowed is draws with method ensemble"),
        ({"lambda_prior": 0.1}, "posterior is 'tempered', allowed is draws where lambda_prior is a number"),
    ],
)
def test_what_cannot_be_tempered(config, message):
    with pytest.raises(UserError, match=message):
        inverted(**config)
