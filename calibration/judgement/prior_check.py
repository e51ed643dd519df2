"""The prior against the data, before anything is fitted: what would the model predict, and does the record agree?"""

from collections.abc import Sequence

import numpy as np
from scipy.linalg import cholesky

from calibration.inversion.data import OBSERVABLE, Stretch
from calibration.inversion.error_model import make_error_model
from calibration.inversion.posterior import predict_days
from calibration.judgement.fit import Conflict, prior_conflict
from inverse_estimator import StaticParameterInverter


def conflict_before_fit(
    inverter: StaticParameterInverter,
    stretches: Sequence[Stretch],
    prior: np.ndarray,
    free: Sequence[str] | None = None,
    fix: Sequence[str] = (),
    draws: int = StaticParameterInverter.prior_draws,
) -> Conflict:
    """Prior-predictive check of the first target on its observed days.

    `draws` of the prior run through the emulator; the emulator's error and the observation error (per day where given,
    else the day-to-day scatter) are added. No fitted constant: the data meet the model itself.
    """
    problem = inverter.problem(prior, stretches, False, free, fix)
    target = inverter.config.targets[0]
    rng = np.random.default_rng(inverter.config.seed)
    limit = problem.latent.limit
    latent = np.clip(problem.prior + rng.standard_normal((draws, problem.size)), -limit, limit)
    latent[:, len(problem.latent.free) :] = 0.0
    column = OBSERVABLE.index(target)
    days = np.concatenate([s.mask[:, column] for s in stretches])
    dates = np.concatenate([s.dates for s in stretches])[days]
    observed = np.concatenate([s.observed[:, column] for s in stretches])[days]
    flux = predict_days(problem, latent, target)[:, days]

    errors = make_error_model(problem.observations, inverter.errors, inverter.config.error_model)
    here = problem.observations.of(target)  # in the order of the stretches' days, as `observed`
    if errors.emulator is not None:  # neighbouring days err alike, so a mean over days does not average it out
        covariance = errors.emulator[np.ix_(here, here)]
        root = cholesky(covariance + 1e-6 * np.trace(covariance) / len(covariance) * np.eye(len(covariance)))
        flux = flux + rng.standard_normal(flux.shape) @ root
    noisy = flux + np.sqrt(errors.observation_variance[here]) * rng.standard_normal(flux.shape)
    return prior_conflict(dates, observed, noisy, flux)
