"""What can be said of an inversion, or of given parameters, on the observed days, before any file is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch

from calibration.common.units import FLUX_UNIT
from calibration.inversion.config import target_label
from calibration.inversion.data import DAY, OBSERVABLE, Stretch, combine_fluxes
from calibration.inversion.posterior import identifiability, predict_days, predictive_samples
from calibration.judgement.fit import Conflict, residual_autocorrelation, skill_table, verdict
from inverse_estimator import InversionResult, StaticParameterInverter

JUDGED = "judged"  # in tables, days on which given parameters were tried: nothing was fitted to them
BAND_DRAWS = 200  # posterior draws behind predictive bands


@dataclass
class Case:
    """The data of one inversion."""

    fitted: list[Stretch]
    holdout: list[Stretch]  # the same stretches with the held-out days' mask, or empty
    description: str
    windows: int
    truth: np.ndarray | None = None  # (parameter,) in simulation mode
    shown: Mapping[str, str] = field(default_factory=dict)  # parameters that reports write otherwise (Emulator.shown)

    def without_noise(self, result: InversionResult) -> bool:
        """Whether the observations are a run's own fluxes, and the inversion was not told to suppose noise in them."""
        return self.truth is not None and result.config.error_model.observation_sd is None

    def written(self, names: Sequence[str]) -> list[str]:
        """Parameter names as reports and figures write them."""
        return [self.shown.get(name, name) for name in names]


@dataclass
class Judged:
    """One flux over the days of the stretches, (day,) each, Mg C ha-1 day-1, and how well it is described."""

    target: str
    dates: np.ndarray
    observed: np.ndarray
    valid: np.ndarray  # observed, fitted or held out
    fitted: np.ndarray
    prior: np.ndarray
    optimized: np.ndarray
    band: tuple[np.ndarray, np.ndarray] | None  # of the true flux, 90 percent
    observed_band: tuple[np.ndarray, np.ndarray] | None  # the same with observation error
    table: pd.DataFrame
    autocorrelation: dict[int, float]
    coverage: dict[str, float]  # share of observed days inside observed_band
    given: bool = False  # the parameters were given: `fitted` days are those that the baselines were fitted to

    @property
    def estimate(self) -> str:
        """What figures call the parameters."""
        return "given parameters" if self.given else "estimate"


def judge_flux(
    target: str,
    fitted: Sequence[Stretch],
    holdout: Sequence[Stretch],
    prior: np.ndarray,
    optimized: np.ndarray,
    draws: np.ndarray | None = None,
    noise_sd: float | None = None,
    seed: int = 0,
) -> Judged:
    """Compare prior and optimized (day of all stretches,) with the observed days of `target`.

    `holdout`: the same stretches with the held-out days' mask (or empty). draws: (sample, day) of the true flux for
    the band; noise_sd: observation error that is added for the band of observations and its coverage.
    """
    column = OBSERVABLE.index(target)
    observed = np.concatenate([s.observed[:, column] for s in fitted])
    used = np.concatenate([s.mask[:, column] for s in fitted])
    held = np.concatenate([s.mask[:, column] for s in holdout]) if holdout else np.zeros_like(used)
    dates = np.concatenate([
        s.dates if s.dates is not None else np.datetime64("1970-01-01") + np.arange(s.days) for s in fitted
    ])  # fmt: skip
    valid = used | held
    table = skill_table(
        dates[valid], observed[valid], used[valid], {"prior": prior[valid], "optimized": optimized[valid]}
    )
    days = used if used.any() else valid
    lagged = residual_autocorrelation(dates[days], (optimized - observed)[days])
    band, observed_band, coverage = None, None, {}
    if draws is not None:
        band = tuple(np.quantile(draws, [0.05, 0.95], axis=0))
        if noise_sd is not None:
            low, high = np.quantile(with_observation_error(draws, noise_sd, seed, copies=5), [0.05, 0.95], axis=0)
            observed_band = (low, high)
            inside = (observed >= low) & (observed <= high)
            for name, here in (("fitted", used), ("holdout", held)):
                if here.any():
                    coverage[name] = float(inside[here].mean())
    return Judged(target, dates, observed, valid, used, prior, optimized, band, observed_band, table, lagged, coverage)


def with_observation_error(draws: np.ndarray, noise_sd: float, seed: int, copies: int = 1) -> np.ndarray:
    """Draws of what would be observed (copies * sample, day) from draws of the true flux (sample, day); one unit."""
    repeated = np.tile(draws, (copies, 1))
    return repeated + noise_sd * np.random.default_rng(seed).standard_normal(repeated.shape)


@dataclass(frozen=True)
class Judgement:
    """How parameters describe the data of a case. The first flux is the one that the verdict is about."""

    case: Case
    names: tuple[str, ...]
    prior: np.ndarray  # (parameter,)
    optimized: np.ndarray  # (parameter,) estimated or given
    fluxes: list[Judged]
    verdict: str
    conflict: Conflict | None = None
    result: InversionResult | None = None  # None: the parameters were given, not fitted
    informed: list[str] | None = None  # None without a posterior
    draws: dict[str, np.ndarray] = field(default_factory=dict)  # target -> (sample, day) of the true flux
    shares: dict[str, dict[str, float]] = field(default_factory=dict)  # of ErrorModel.shares, by target
    test: str = ""  # of given parameters: whether these days are a test out of sample

    @property
    def main(self) -> Judged:
        """The flux that the verdict is about."""
        return self.fluxes[0]


def judge_inversion(
    case: Case, inverter: StaticParameterInverter, result: InversionResult, conflict: Conflict | None
) -> Judgement:
    """Judge an inversion: NEP first, then the other targets, as far as they are observed."""
    problem, posterior = result.problem, result.posterior
    shares = result.error_model.shares() if problem.lambda_prior is None else {}
    both = np.stack([problem.prior, result.fit.u])
    fluxes, draws = [], {}
    for target in observed_targets(case, result.config.targets):
        prior_flux, optimized_flux = predict_days(problem, both, target)
        noise = None
        if posterior is not None:
            latent = posterior.latent[:BAND_DRAWS]
            draws[target] = predictive_samples(problem, inverter.errors, latent, target, result.config.seed)
            noise = shares[target]["observation_sd"] if target in shares else None
        both_fluxes = prior_flux, optimized_flux
        fluxes.append(judge_flux(target, case.fitted, case.holdout, *both_fluxes, draws.get(target), noise))
    main = fluxes[0]
    informed = identifiability(posterior)["informed"] if posterior is not None else None
    share = shares.get(main.target, {})
    emulator_sd = share.get("emulator_sd", 0.0)
    sentence = verdict(
        main.table, conflict, informed, result.at_bounds, share.get("discrepancy_share", 0.0), main.target,
        result.offsets.get(main.target, 0.0), share["discrepancy_sd"] / emulator_sd if emulator_sd else np.inf,
    )  # fmt: skip
    return Judgement(
        case, result.names, result.prior, result.optimized, fluxes, sentence, conflict, result, informed, draws, shares
    )


def day_spans(dates: np.ndarray) -> list[list[str]]:
    """First and last day of every run of consecutive days in dates (entry,) datetime64, which may repeat or be NaT.

    >>> day_spans(np.array(["2019-01-02", "2019-01-01", "2019-02-01", "NaT"], dtype="datetime64[D]"))
    [['2019-01-01', '2019-01-02'], ['2019-02-01', '2019-02-01']]
    """
    days = np.unique(dates[~np.isnat(dates)].astype("datetime64[D]"))
    runs = np.split(days, np.flatnonzero(np.diff(days) > DAY) + 1)
    return [[str(run[0]), str(run[-1])] for run in runs if len(run)]


def without_days(case: Case, spans: Sequence[Sequence[str]]) -> tuple[Case, int]:
    """The case without the observed days in `spans` (of day_spans), and how many these are.

    A fit is not to be judged by the days that made it. The case as it is where that would leave only held-out days.
    """
    bounds = [(np.datetime64(first, "D"), np.datetime64(last, "D")) for first, last in spans]
    taken: set[np.datetime64] = set()

    def cut(stretch: Stretch) -> Stretch:
        """The stretch with the days in the spans masked."""
        if stretch.dates is None:
            return stretch
        own = np.any([(stretch.dates >= first) & (stretch.dates <= last) for first, last in bounds], axis=0)
        taken.update(stretch.dates[own & stretch.mask.any(axis=1)])
        return replace(stretch, mask=stretch.mask & ~own[:, None])

    if not bounds:
        return case, 0
    others = replace(case, fitted=[cut(s) for s in case.fitted], holdout=[cut(s) for s in case.holdout])
    return (others if any(stretch.mask.any() for stretch in others.fitted) else case), len(taken)


def judge_parameters(
    case: Case,
    inverter: StaticParameterInverter,
    prior: np.ndarray,
    optimized: np.ndarray,
    offsets: dict[str, float],
    fitted_days: Sequence[Sequence[str]] | None = None,
) -> Judgement:
    """Judge given parameters (parameter,) on the case's days, without a fit.

    offsets: target -> Mg C ha-1 day-1; fitted_days: the days that made the parameters (of day_spans), which are left
    out; None or empty: not known.
    """
    given, (case, taken) = case, without_days(case, fitted_days or [])
    with torch.no_grad():
        parts = inverter.forward(case.fitted)(torch.as_tensor(np.stack([prior, optimized])))
    fluxes = []
    for target in observed_targets(case, inverter.config.targets):
        values = torch.cat([combine_fluxes(part, target) for part in parts], dim=1).numpy()
        with_offset = values[1] + float(offsets.get(target, 0.0))
        item = judge_flux(target, case.fitted, case.holdout, values[0], with_offset)
        fluxes.append(replace(item, given=True, table=item.table.rename(index={"fitted": JUDGED}, level="days")))
    main = fluxes[0]
    row = main.table.loc[(JUDGED, "optimized")]
    others = main.table.loc[JUDGED].drop(index=["prior", "optimized"])
    beaten = [name for name, other in others.iterrows() if other.rmse < row.rmse]
    count, days = int(row.n), "these days"
    if not fitted_days:
        test = f"which days the parameters were fitted to is not recorded; some of these {count} may be among them"
    elif taken and case is given:
        test = f"no test out of sample: all of these {count} days are among those that the parameters were fitted to"
    else:
        days, test = f"{count} days that they were not fitted to", "a test out of sample"
        test += f": {taken} more observed days, to which they were fitted, are left out" if taken else ""
    sentence = (
        f"JUDGED, NOT FITTED: with the loaded parameters {target_label(main.target)} has RMSE {row.rmse:.4f} "
        f"{FLUX_UNIT}, R2 {row.r2:.2f} on {days}; "
        f"{'worse than ' + ' and '.join(beaten) if beaten else 'better than constant and climatology'}."
    )
    return Judgement(case, inverter.names, prior, optimized, fluxes, sentence, test=test)


def observed_targets(case: Case, targets) -> list[str]:
    """NEP first, then the other targets, as far as they are observed on any fitted or held-out day."""
    stretches = [*case.fitted, *case.holdout]
    return [
        target
        for target in dict.fromkeys(("nep", *targets))
        if any(s.mask[:, OBSERVABLE.index(target)].any() for s in stretches)
    ]
