"""A made-up tower record with a known answer: the process model's NEP of known parameters, with noise and gaps.

    python extras/make_synthetic_tower.py --weather data/weather.csv --output observations/tower_daily.csv \\
        --parameters-out observations/tower_truth.json

The record is a daily CSV as JapanFlux publishes it: TIMESTAMP, NEE_vUT (g C m-2 day-1, positive = release, -9999 =
missing), NEE_vUT_QC (mean of half-hourly flags, 0 best) and NEE_vUT_RANDUNC (g C m-2 day-1). The parameters come from
the given ranges with a seed of their own, so no run of an ensemble has them; they are written with the true NEP beside
the record, so that an inversion can be judged.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the packages, wherever it is started

from calibration.common.command_line import REPOSITORY, UserError, make_parser, not_an_input, run, write_csv, write_json
from calibration.common.parameters import DEFAULT_RANGES, ParameterSpace, read_ranges
from calibration.common.sites import DEFAULT_SITE, Site, load_site
from calibration.common.units import DAYS_PER_YEAR, nep_mg_ha_to_nee_g_m2
from calibration.visit.simulator import simulate
from calibration.weather.daily import Weather, read_weather

MISSING = -9999.0
HALF_HOURS = 48
INNER_SHARE = 0.7  # truths lie in the middle of each range, where an emulator has been trained on all sides
LEAST_GPP = 3.0  # Mg C ha-1 year-1: less is a dead forest, from which nothing can be learnt
DRAWS = 20
GAP_DAYS = 8.0  # mean length of an outage
GOOD_LIMIT = 0.5  # the flag that users keep by default


def known_parameters(space: ParameterSpace, weather: Weather, site: Site, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Parameters (parameter,) of a living forest, physical, and its NEP (day,) in Mg C ha-1 day-1."""
    unit = 0.5 + INNER_SHARE * (np.random.default_rng(seed).random((DRAWS, len(space))) - 0.5)
    draws = space.unit_to_physical(unit)
    for part in (draws[:1], draws[1:]):  # the first draw is nearly always alive; the others are tried together
        result = simulate(dict(zip(space.names, part.T, strict=True)), weather, site)
        alive = np.flatnonzero(result.annual("gpp").mean(axis=1) >= LEAST_GPP)
        if len(alive):
            return part[alive[0]], result.nep[alive[0]]
    raise UserError(
        f"none of {DRAWS} draws from the ranges gives a living forest under {weather.source} "
        f"(GPP of {LEAST_GPP:g} Mg C ha-1 year-1 or more); narrow the ranges or check the weather"
    )


def tower_record(nep: np.ndarray, dates: np.ndarray, noise: float, gaps: float, seed: int) -> pd.DataFrame:
    """The record of a tower that saw NEP (day,), Mg C ha-1 day-1.

    noise: standard deviation of the random error of a good day, g C m-2 day-1 (Laplace distributed and growing with
    the flux, as tower errors do: Hollinger and Richardson 2005, Tree Physiology 25, 873); gaps: share of days without
    good data, in outages of about a week; half of them are empty, half are filled and flagged.
    """
    generator = np.random.default_rng([seed, 1])
    nee = nep_mg_ha_to_nee_g_m2(nep)
    size = np.abs(nee) / max(float(np.abs(nee).mean()), 1e-9)
    error = noise * (0.7 + 0.3 * np.minimum(size, 3.0))
    bad = outages(len(nee), gaps, generator)
    # A filled day is a guess around the season, with a larger error.
    season = pd.Series(nee).rolling(31, center=True, min_periods=1).mean().to_numpy()
    measured = nee + error * generator.laplace(scale=np.sqrt(0.5), size=len(nee))
    filled = season + 2 * noise * generator.standard_normal(len(nee))
    share = np.where(bad, generator.uniform(0.55, 1.6, len(nee)), generator.beta(3, 4, len(nee)) * 0.47 + 0.02)
    flag = np.round(share * HALF_HOURS) / HALF_HOURS
    empty = bad & (generator.random(len(nee)) < 0.5)
    return pd.DataFrame({
        "TIMESTAMP": [str(day).replace("-", "") for day in dates],
        "NEE_vUT": np.where(empty, MISSING, np.round(np.where(bad, filled, measured), 6)),
        "NEE_vUT_QC": np.where(empty, MISSING, np.round(flag, 6)),
        "NEE_vUT_RANDUNC": np.where(empty, MISSING, np.round(np.where(bad, 2 * noise, error), 6)),
    })  # fmt: skip


def outages(days: int, share: float, generator: np.random.Generator) -> np.ndarray:
    """(day,) bool: days without good data, about `share` of them, in runs of about GAP_DAYS (a two-state chain)."""
    if share <= 0:
        return np.zeros(days, dtype=bool)
    end = 1 / GAP_DAYS
    begin = min(1.0, end * share / (1 - share))
    draws = generator.random(days)
    bad = np.empty(days, dtype=bool)
    state = draws[0] < share
    for day in range(days):
        state = draws[day] >= end if state else draws[day] < begin
        bad[day] = state
    return bad


def main() -> None:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--weather", default=str(REPOSITORY / "data" / "weather.csv"), help="weather of the run, VISIT's units")
    add("--output", default=str(REPOSITORY / "observations" / "tower_daily.csv"), help="tower CSV to write")
    add(
        "--parameters-out",
        default=str(REPOSITORY / "observations" / "tower_truth.json"),
        help="JSON of the true parameters (a CSV of the true NEP, Mg C ha-1 day-1, is written beside it)",
    )
    add("--ranges", default=str(DEFAULT_RANGES), help="ranges that the parameters are drawn from")
    add("--noise", type=float, default=0.3, help="random error of a good day, g C m-2 day-1 (one standard deviation)")
    add("--gaps", type=float, default=0.3, help="share of days without good data, 0 to 0.95")
    add("--seed", type=int, default=977, help="seed of parameters, noise and gaps; take another than the ensemble's")
    add("--site", default=str(DEFAULT_SITE), help="site YAML")
    arguments = parser.parse_args()
    if arguments.seed < 0:
        raise UserError(f"--seed is {arguments.seed}, allowed is 0 or more")
    if not arguments.noise >= 0:
        raise UserError(f"--noise is {arguments.noise:g}, allowed is 0 or more g C m-2 day-1")
    if not 0 <= arguments.gaps <= 0.95:
        raise UserError(f"--gaps is {arguments.gaps:g}, allowed is a share from 0 to 0.95")

    not_an_input(arguments.output, arguments.weather)
    site = load_site(arguments.site)
    weather = read_weather(arguments.weather, site)
    space = read_ranges(arguments.ranges)
    parameters, nep = known_parameters(space, weather, site, arguments.seed)
    record = tower_record(nep, weather.dates, arguments.noise, arguments.gaps, arguments.seed)
    truth = Path(arguments.parameters_out)
    write_csv(arguments.output, record)
    true_nep = pd.DataFrame({"date": weather.dates.astype(str), "nep_mg_ha": nep})
    write_csv(truth.with_name(f"{truth.stem}_nep.csv"), true_nep)
    write_json(truth, {
        "parameters": dict(zip(space.names, map(float, parameters), strict=True)), "seed": arguments.seed,
        "share_of_ranges": INNER_SHARE, "noise_g_m2_day": arguments.noise, "gaps": arguments.gaps,
        "weather": weather.source,
        "mean_nep_mg_ha_year": float(nep.mean() * DAYS_PER_YEAR), "sd_daily_nep_mg_ha": float(nep.std()),
    })  # fmt: skip
    good = (record["NEE_vUT"] != MISSING) & (record["NEE_vUT_QC"] <= GOOD_LIMIT)
    print(
        f"wrote {arguments.output}: {len(record)} days, {good.sum()} with a flag of {GOOD_LIMIT:g} or better; random "
        f"error {arguments.noise:g} g C m-2 day-1, true NEP {nep.mean() * DAYS_PER_YEAR:.2f} Mg C ha-1 year-1"
    )
    print(f"wrote {truth}: the {len(space)} true parameters")


if __name__ == "__main__":
    run(main)
