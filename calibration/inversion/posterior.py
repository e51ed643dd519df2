"""What the data say about the parameters and the flux: Laplace posterior, samples, intervals, predictive bands."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from calibration.common.command_line import writing
from calibration.emulator.error import EmulatorErrors
from calibration.inversion.data import Observations, Stretch, combine_fluxes
from calibration.inversion.emulator_covariance import emulator_covariance
from calibration.inversion.error_model import ErrorModel, discrepancy_covariance
from calibration.inversion.methods import Fit
from calibration.inversion.problem import InversionProblem
from calibration.inversion.randomized_likelihood import Mode, metropolis, randomized_minima

if TYPE_CHECKING:
    from calibration.inversion.mcmc import Diagnostics
    from calibration.inversion.tempering import Tempering

INFORMED = 0.7  # posterior sd over prior sd below which a parameter counts as informed by the data
BORDERLINE = 0.05  # this near to INFORMED chance decides: the sd of 128 draws is known to 6 percent
COMBINED = 0.5  # absolute posterior correlation above which two parameters count as known only together
SAME_MODE = 4.0  # squared Mahalanobis distance within which two starts ended in the same place
LONELY = 0.1  # share of the posterior below which the estimate's place does not stand for it
PLACE = 0.01  # share of the posterior from which a mode is worth a word
MODE_COST = 10.0  # a mode this much less probable (log) than the best is left out
AT_BOUND = 0.02  # share of the range next to a bound


@dataclass
class Posterior:
    """Samples of the posterior: latent (sample, size), physical (sample, parameter), offsets in Mg C ha-1 day-1."""

    names: tuple[str, ...]
    free: np.ndarray  # (free,) indices into names
    latent: np.ndarray
    physical: np.ndarray
    offsets: np.ndarray  # (sample, offset)
    modes: np.ndarray  # (mode, size) where distinct starts ended
    mode_weights: np.ndarray  # (mode,)
    covariance: np.ndarray  # (size, size) Laplace covariance at the best mode
    eigenvalues: np.ndarray  # (size,) of the data part of the Gauss-Newton matrix, largest first
    method: str
    chains: np.ndarray | None = None  # (chain, draw, parameter) physical, of MCMC that converged, or populations
    diagnostics: "Diagnostics | Tempering | None" = None  # of MCMC or tempering, converged or not
    moving: float = 0.0  # share of the draws that were not at rest yet by a process model's own runs

    def interval(self, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Central interval of every parameter: (parameter,), (parameter,), physical units."""
        tail = 0.5 * (1 - level)
        # Of n draws the k-th has k / (n + 1) of the distribution below it: few draws do not narrow the interval.
        low, high = np.quantile(self.physical, [tail, 1 - tail], axis=0, method="weibull")
        return low, high

    @property
    def sd_ratio(self) -> np.ndarray:
        """(free,) posterior sd over prior sd (1 in latent units): 1 = the data say nothing."""
        return self.latent[:, : len(self.free)].std(axis=0)

    @property
    def correlation(self) -> np.ndarray:
        """(free, free) correlation of the free parameters' latent samples."""
        return np.atleast_2d(np.corrcoef(self.latent[:, : len(self.free)], rowvar=False))


def laplace_posterior(
    problem: InversionProblem, fit: Fit, samples: int, seed: int, draws: int = 0, dear: InversionProblem | None = None
) -> Posterior:
    """Gaussian around each distinct place where the starts ended, N(u, (J'J + I)^-1), weighted by its evidence.

    Tierney and Kadane (1986); the Gauss-Newton matrix stands for the Hessian. With `draws` above 0 the samples are that
    many randomized minima instead (inversion/randomized_likelihood.py), moved on by Metropolis steps where they are off
    and runs are cheap: they follow the bends of the posterior, and nearly all of them fit the data as a whole. Samples
    are clipped to the latent limit. dear: see randomized_minima.
    """
    modes = _distinct_modes(problem, fit)
    log_weight = np.array([np.linalg.slogdet(mode.factor)[1] - mode.cost for mode in modes])
    weights = np.exp(log_weight - log_weight.max())
    weights /= weights.sum()
    rng = np.random.default_rng(seed)
    counts = _share_out(draws or samples, weights)
    moving = 0.0
    if draws:
        latent, moving = randomized_minima(problem, modes, counts, rng, dear)
        if dear is None:
            latent = metropolis(problem, modes, np.clip(latent, -problem.latent.limit, problem.latent.limit), rng)
    else:
        latent = np.concatenate([
            mode.u + rng.standard_normal((count, problem.size)) @ mode.factor.T
            for mode, count in zip(modes, counts, strict=True)
        ])  # fmt: skip
    # Whoever takes the first few samples gets a fair share of every mode.
    latent = latent[rng.permutation(len(latent))]
    best = modes[0]
    eigenvalues = np.linalg.eigvalsh(best.white_jacobian.T @ best.white_jacobian)[::-1]
    method = "Laplace, randomized maximum likelihood" if draws else "Laplace"
    places = np.array([mode.u for mode in modes])
    return replace(_posterior(problem, latent, places, weights, best.covariance, eigenvalues, method), moving=moving)


def _share_out(count: int, weights: np.ndarray) -> np.ndarray:
    """(mode,) whole numbers that add up to `count`, as near to weights (mode,), which sum to 1, as can be."""
    return np.diff(np.round(np.cumsum(weights) * count).astype(int), prepend=0)


def ensemble_posterior(problem: InversionProblem, fit: Fit) -> Posterior:
    """The members of the ensemble method as posterior samples."""
    residual, stacked = problem.least_squares(fit.u[None], fit.predicted[None], fit.jacobian[None])
    data = stacked[0, : len(problem.observations)]
    members = fit.members
    return _posterior(
        problem, members, fit.u[None], np.ones(1), np.cov(members, rowvar=False).reshape(problem.size, -1),
        np.linalg.eigvalsh(data.T @ data)[::-1], "ensemble",
    )  # fmt: skip


def _posterior(problem, latent, modes, weights, covariance, eigenvalues, method) -> Posterior:
    limit, free = problem.latent.limit, len(problem.latent.free)
    latent = np.clip(latent, -limit, limit)
    return Posterior(
        problem.latent.names, problem.latent.free, latent, problem.latent.physical_array(latent[:, :free]),
        problem.offset_sd * latent[:, free:], modes, weights, covariance, eigenvalues, method,
    )  # fmt: skip


def _distinct_modes(problem: InversionProblem, fit: Fit) -> list[Mode]:
    """Places where starts ended that are not the same, best first."""
    order = [k for k in np.argsort(fit.start_costs) if fit.start_costs[k] < fit.cost + MODE_COST]
    modes: list[Mode] = []
    matrices: list[np.ndarray] = []
    for k in [None, *order]:
        if k is None:
            u, cost, predicted, jacobian = fit.u, fit.cost, fit.predicted, fit.jacobian
        else:
            u, cost = fit.starts[k], float(fit.start_costs[k])
            if any((u - m.u) @ h @ (u - m.u) < SAME_MODE for m, h in zip(modes, matrices, strict=True)):
                continue
            predicted, jacobian = problem.costs(u[None])[1][0], problem.central_jacobian(u)
        modes.append(mode_at(problem, u, cost, predicted, jacobian))
        inverse = np.linalg.inv(modes[-1].factor)
        matrices.append(inverse.T @ inverse)
    return modes


def mode_at(problem: InversionProblem, u: np.ndarray, cost: float, predicted: np.ndarray, jacobian: np.ndarray) -> Mode:
    """The Gaussian around u (size,), where the prediction is `predicted` (entry,) with slopes (entry, size)."""
    _, stacked = problem.least_squares(u[None], predicted[None], jacobian[None])
    # covariance = matrix^-1 = F F' with F = inverse transpose of the Cholesky factor
    factor = np.linalg.inv(np.linalg.cholesky(stacked[0].T @ stacked[0])).T
    return Mode(u, cost, predicted, -stacked[0, : len(problem.observations)], factor)


def all_days(stretches: Sequence[Stretch], target: str) -> Observations:
    """Entries for every day of the stretches, observed or not (value NaN), to predict `target` on."""
    days = [stretch.days for stretch in stretches]
    nat = np.datetime64("NaT", "D")
    total = sum(days)
    return Observations(
        np.full(total, np.nan), np.full(total, np.nan),
        np.repeat(np.arange(len(days)), days), np.concatenate([np.arange(n) for n in days]),
        np.zeros(total, dtype=int),
        np.concatenate([np.full(s.days, nat) if s.dates is None else s.dates for s in stretches]), (target,),
    )  # fmt: skip


def predict_days(problem: InversionProblem, latent: np.ndarray, target: str, forward=None) -> np.ndarray:
    """latent (sample, size) -> (sample, day of all stretches) of `target`, Mg C ha-1 day-1, offset included."""
    free = len(problem.latent.free)
    with torch.no_grad():
        fluxes = (forward or problem.forward)(problem.latent.physical(torch.as_tensor(latent[:, :free])))
    values = torch.cat([combine_fluxes(part, target) for part in fluxes], dim=1).numpy()
    if problem.offsets and target in problem.observations.targets:
        values = values + problem.offset_sd * latent[:, [free + problem.observations.targets.index(target)]]
    return values


def predictive_samples(
    problem: InversionProblem,
    sample: EmulatorErrors | None,
    latent: np.ndarray,
    target: str,
    seed: int,
    forward=None,
) -> np.ndarray:
    """Draws of the true flux (sample, day of all stretches), Mg C ha-1 day-1: prediction + what is wrong with it.

    The errors of emulator and model are correlated in time, so the residuals at observed days say what they are on
    the days around: conditional normal, e | y = C_qo S^-1 (y - f), C_qq - C_qo S^-1 C_oq (Rasmussen and Williams
    2006, eq. 2.19). `forward` may cover other days than the observed ones.
    """
    model = problem.error_model
    stretches = (forward or problem.forward).stretches
    query = all_days(stretches, target)
    prediction = predict_days(problem, latent, target, forward)
    observed = model.observations
    cross, inner = _structured(model, sample, query)
    if not np.any(inner):
        return prediction
    with torch.no_grad():
        residual = observed.value - problem.predict(torch.as_tensor(latent)).numpy()
    covariance = model.unweighted()
    solved = np.linalg.solve(covariance, np.column_stack([cross.T, residual.T]))
    count = len(query)
    mean = (cross @ solved[:, count:]).T
    spread = inner - cross @ solved[:, :count]
    values, vectors = np.linalg.eigh(0.5 * (spread + spread.T))
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    noise = np.random.default_rng(seed).standard_normal((len(latent), count))
    return prediction + mean + noise @ root.T


def _structured(model: ErrorModel, sample: EmulatorErrors | None, query: Observations):
    """Covariances of emulator error + discrepancy: query-observed (query, entry) and query-query."""
    observed = model.observations
    # The query's target may be one of several: index it among all, adding it when it is not observed itself.
    targets = observed.targets if query.targets[0] in observed.targets else (*observed.targets, *query.targets)
    which = targets.index(query.targets[0])
    joined = Observations(
        *(np.concatenate([getattr(observed, n), getattr(query, n)]) for n in ("value", "sd", "stretch", "day")),
        np.concatenate([observed.target, np.full(len(query), which)]),
        np.concatenate([observed.date, query.date]), targets,
    )  # fmt: skip
    total = np.zeros((len(joined), len(joined)))
    if model.emulator is not None and sample is not None:
        total += model.hyper.emulator_scale**2 * emulator_covariance(sample, joined, model.emulator_weight)
    extra = len(targets) - len(observed.targets)
    hyper = replace(model.hyper, discrepancy_sd=np.append(model.hyper.discrepancy_sd, np.zeros(extra)))
    if np.any(hyper.discrepancy_sd > 0):
        total += discrepancy_covariance(joined, hyper)
    n = len(observed)
    return total[n:, :n], total[n:, n:]


# --- identifiability and files ---------------------------------------------------------------------------------------


def identifiability(posterior: Posterior) -> dict[str, object]:
    """Which parameters the data inform, which not, which only in combination.

    `informed`: posterior sd below INFORMED prior sds. `combinations`: pairs that are not informed alone but whose
    posterior correlation exceeds COMBINED. `directions`: number of independent directions that the data fix better than
    the prior (eigenvalue of the data part of the Gauss-Newton matrix above 1).
    """
    names = [posterior.names[i] for i in posterior.free]
    ratio, correlation = posterior.sd_ratio, posterior.correlation
    informed = [name for name, r in zip(names, ratio, strict=True) if r < INFORMED]
    pairs = [
        (names[i], names[j], float(correlation[i, j]))
        for i in range(len(names))
        for j in range(i)
        if abs(correlation[i, j]) > COMBINED
    ]
    pairs.sort(key=lambda pair: -abs(pair[2]))
    paired = {name for pair in pairs for name in pair[:2]} - set(informed)
    return {
        "informed": informed,
        "combinations": pairs,
        "only_in_combination": sorted(paired),
        "uninformed": [name for name in names if name not in informed and name not in paired],
        "directions": int(np.sum(posterior.eigenvalues > 1.0)),
    }


def informed_words(ratio: float) -> str:
    """A posterior over prior sd in two digits; in three, and called borderline, where chance decides.

    >>> informed_words(0.561), informed_words(0.6963)
    ('0.56', '0.696, borderline')
    """
    return f"{ratio:.3f}, borderline" if abs(ratio - INFORMED) <= BORDERLINE else f"{ratio:.2f}"


def places_sentence(weights: np.ndarray) -> str:
    """In how many places the posterior lies, and whether the estimate's is one of them; '' where it is the only one.

    weights (mode,), summing to 1; the first is that of the estimate, which has the lowest cost.

    >>> places_sentence(np.array([0.6, 0.4])).partition(";")[0]
    "the starts ended in 2 places, which hold 60 and 40 percent of the posterior (the estimate's place 60)"
    >>> places_sentence(np.array([0.999, 0.001]))
    ''
    """
    shares = [f"{100 * weight:.0f}" for weight in np.sort(weights)[::-1] if weight >= PLACE]
    said = []
    if len(shares) > 1:
        said.append(
            f"the starts ended in {len(shares)} places, which hold {', '.join(shares[:-1])} and {shares[-1]} percent "
            f"of the posterior (the estimate's place {100 * weights[0]:.2g}); the intervals span all of them"
        )
    if weights[0] < LONELY:
        said.append(
            f"the estimate, the place of the lowest cost, is not where most of the posterior lies: it holds "
            f"{100 * weights[0]:.2g} percent of it. Use the intervals, or the posterior means"
        )
    return "; ".join(said)


def at_bounds(posterior_or_map, unit: np.ndarray) -> list[str]:
    """Names of free parameters whose estimate lies within 2 percent of the range from a bound; unit (free,) 0-1."""
    names = posterior_or_map.free_names
    near = (unit < AT_BOUND) | (unit > 1 - AT_BOUND)
    return [name for name, hit in zip(names, near, strict=True) if hit]


def save_posterior(path: str | Path, posterior: Posterior, **extra: np.ndarray) -> None:
    """Write posterior.npz: names, samples (sample, parameter) physical, latent, offsets, modes, covariance, extras."""
    with writing(path) as temporary:
        np.savez_compressed(
            temporary, names=np.array(posterior.names), free=posterior.free, samples=posterior.physical,
            latent=posterior.latent, offsets=posterior.offsets, modes=posterior.modes,
            mode_weights=posterior.mode_weights, covariance=posterior.covariance, method=posterior.method, **extra,
        )  # fmt: skip


def save_arviz(
    path: str | Path, posterior: Posterior, predictive: dict[str, np.ndarray], dates, observed: dict[str, np.ndarray]
) -> None:
    """Write a netCDF that arviz.from_netcdf reads: posterior, posterior_predictive, observed_data.

    The posterior has one chain, or those of MCMC or tempering, whose diagnostics are its attributes.

    predictive: name -> (sample, day), observed: name -> (day,), Mg C ha-1 day-1; dates (day,). What is predicted under
    the name of the observed flux has observation error, as arviz.plot_ppc and its relatives expect.
    arviz.InferenceData.to_netcdf is an xarray write of one group each, done here with h5netcdf so that importing arviz
    (seconds) is not needed.
    """
    import dask
    import xarray

    chains = posterior.physical[None] if posterior.chains is None else posterior.chains
    coordinates = {"day": dates.astype("datetime64[ns]")}
    groups = {
        "posterior": {name: (("chain", "draw"), chains[:, :, i]) for i, name in enumerate(posterior.names)},
        "posterior_predictive": {
            name: (("chain", "draw", "day"), draws[None].astype(np.float32)) for name, draws in predictive.items()
        },
        "observed_data": {name: (("day",), values) for name, values in observed.items()},
    }
    packed = io.BytesIO()  # HDF5 that cannot finish a file (a full disk) takes the whole process down
    for k, (group, variables) in enumerate(groups.items()):
        used = {d for dims, _ in variables.values() for d in dims}
        data = xarray.Dataset(variables, {c: v for c, v in coordinates.items() if c in used})
        data = data.assign_coords({d: np.arange(data.sizes[d]) for d in ("chain",) if d in data.sizes})
        if group == "posterior" and posterior.diagnostics is not None:
            data.attrs |= posterior.diagnostics.attributes()
        with dask.config.set(scheduler="synchronous"):  # xarray would ask a connected cluster for a lock on the memory
            data.to_netcdf(packed, group=group, mode="w" if k == 0 else "a", engine="h5netcdf")
    with writing(path) as temporary:
        temporary.write_bytes(packed.getbuffer())
