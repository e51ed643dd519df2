"""Does a tower's flux have the sign and unit that it should? Evidence from the file itself, in words.

Only clear contradictions count: night-time release that is negative, a partition that opposes its NEE, uptake in the
dark, a year-round release no ecosystem has. Each function returns a sentence, or None when nothing speaks against it.
"""

import numpy as np

from calibration.common.unit_change import UnitChange, find_unit_change
from calibration.common.units import DAYS_PER_YEAR, G_M2_PER_MG_HA
from calibration.tower.file import TowerFile
from calibration.tower.layouts import NepColumns
from calibration.weather.sentinel import LARGEST_FLUX

ENOUGH = 30  # days that a piece of evidence needs
ENOUGH_OF_YEAR = 90  # the same for a single year: a month of winter, where fluxes are near 0, correlates by chance
# A mean release above this, g C m-2 day-1 (5.5 Mg C ha-1 a year), is known only from a few disturbed peatlands.
LARGEST_MEAN_RELEASE = 1.5
BESIDE = 60  # values before and after a change that are looked at
SAME, OTHER = np.log(2.0), np.log(5.0)  # how near 1 the ratio of a flux to its partition is, and how far when changed
ABSURD_NEE = LARGEST_FLUX * G_M2_PER_MG_HA  # g C m-2 day-1


def sign_problem(tower: TowerFile, columns: NepColumns, nee: np.ndarray) -> str | None:
    """Why the NEE column looks reversed, or None. nee: (day,) g C m-2 day-1, NaN where missing or absurd."""
    for evidence in (_against_partition, _night, _against_other_column):
        verdict, reason = evidence(tower, columns, nee)
        if verdict is False:
            return reason
        if verdict is True:  # confirmed: the weaker evidence below need not be asked
            return None
    return _dark_days(tower, nee) or _mean_release(nee)


def partition_problem(name: str, values: np.ndarray) -> str | None:
    """Why GPP or RECO looks reversed, or None: single negative days, and a mean about 0, are legitimate."""
    found = values[~np.isnan(values)]
    if len(found) >= ENOUGH and found.mean() < -0.2 and np.mean(found < 0) > 0.5:
        return f"{name} is negative on {np.mean(found < 0):.0%} of its days (mean {found.mean():.3g} g C m-2 day-1)"
    return None


def _against_partition(tower: TowerFile, columns: NepColumns, nee: np.ndarray):
    if columns.gpp is None or columns.reco is None:
        return None, None
    expected = tower.numbers(columns.reco) - tower.numbers(columns.gpp)
    correlation = _correlation(nee, expected)
    if correlation is None:
        return None, None
    relation = f"{columns.nee} opposes {columns.reco} - {columns.gpp}"
    if correlation < -0.5:
        return False, f"{relation} (correlation {correlation:.2f}, NEE = RECO - GPP)"
    years = tower.dates.astype("datetime64[Y]")
    for year in np.unique(years):  # a sign turned in some years only
        of_year = _correlation(nee[years == year], expected[years == year], ENOUGH_OF_YEAR)
        if of_year is not None and of_year < -0.5:
            return False, f"{relation} in {year} (correlation {of_year:.2f}, NEE = RECO - GPP)"
    return (True if correlation > 0.5 else None), None


def _night(tower: TowerFile, columns: NepColumns, nee: np.ndarray):
    night, day = f"{columns.nee}_NIGHT", f"{columns.nee}_DAY"
    if night not in tower:
        return None, None
    values = tower.numbers(night)
    values = values[~np.isnan(values)]
    if len(values) < ENOUGH:
        return None, None
    if np.median(values) < -0.05:
        daytime = tower.numbers(day) if day in tower else np.array([np.nan])
        # Night uptake on the median night is impossible; with daytime release it is the wrong sign beyond doubt.
        extra = f", {day} {np.nanmedian(daytime):.3g}" if not np.isnan(daytime).all() else ""
        return False, f"release at night is negative (median {night} {np.median(values):.3g}{extra})"
    # Day and night columns can keep their sign when someone turned only the daily one: compare them.
    if day in tower:
        correlation = _correlation(nee, tower.numbers(night) + tower.numbers(day))
        if correlation is not None and correlation < -0.5:
            return False, f"{columns.nee} opposes its own {night} and {day} (correlation {correlation:.2f})"
        return (True if correlation is not None and correlation > 0.5 else None), None
    return None, None


def _against_other_column(tower: TowerFile, columns: NepColumns, nee: np.ndarray):
    others = ("NEE_VUT_REF", "NEE_CUT_REF", "NEE_vUT", "NEE_PI_F")
    for other in others:
        if other != columns.nee and tower.columns.count(other) == 1:
            correlation = _correlation(nee, tower.numbers(other))
            if correlation is not None and correlation < -0.5:
                return False, f"{columns.nee} and {other} have opposite signs (correlation {correlation:.2f})"
    return None, None


def _dark_days(tower: TowerFile, nee: np.ndarray) -> str | None:
    """Net uptake on the dark days of winter and net release on the bright ones."""
    light = next((name for name in ("SW_IN_F", "SW_IN_F_MDS", "SW_IN_PI_F", "SW_IN") if name in tower), None)
    if light is None:
        return None
    shortwave = tower.numbers(light)
    dark, bright = nee[shortwave < 25], nee[shortwave > 200]
    dark, bright = dark[~np.isnan(dark)], bright[~np.isnan(bright)]
    if len(dark) < ENOUGH or len(bright) < ENOUGH:
        return None
    if np.median(dark) < -0.3 and np.median(bright) > 0.3:
        return (
            f"uptake on dark days ({light} below 25 W m-2: median NEE {np.median(dark):.3g}) and release on bright "
            f"ones (above 200 W m-2: {np.median(bright):.3g} g C m-2 day-1)"
        )
    return None


def _mean_release(nee: np.ndarray) -> str | None:
    found = nee[~np.isnan(nee)]
    if len(found) < ENOUGH:
        return None
    if found.mean() > LARGEST_MEAN_RELEASE:
        return (
            f"NEE is positive on {np.mean(found > 0):.0%} of the days, a mean release of {found.mean():.3g} g C m-2 "
            f"day-1 ({found.mean() * DAYS_PER_YEAR / G_M2_PER_MG_HA:.1f} Mg C ha-1 a year)"
        )
    return None


def _correlation(a: np.ndarray, b: np.ndarray, enough: int = ENOUGH) -> float | None:
    both = ~(np.isnan(a) | np.isnan(b))
    if both.sum() < enough or a[both].std() == 0 or b[both].std() == 0:
        return None
    return float(np.corrcoef(a[both], b[both])[0, 1])


def flux_jump(
    name: str, nee: np.ndarray, gpp: np.ndarray | None, reco: np.ndarray | None, dates: np.ndarray
) -> tuple[str, UnitChange] | None:
    """Which of a tower's fluxes changes its unit, and when; None where none does. All (day,), NaN where missing.

    Where GPP and RECO are there, NEE = RECO - GPP tells: the one that leaves this identity on one side of a day has
    another unit there. Where it holds throughout, a step of NEE is a season, unless respiration, which has no such
    seasons, makes the same step.
    """
    if gpp is None or reco is None:
        found = find_unit_change(nee, dates)
        return None if found is None else (name, found)
    agrees, candidates = 0, []
    for what, flux, expected in ((name, nee, reco - gpp), ("GPP", gpp, reco - nee), ("RECO", reco, nee + gpp)):
        size = np.abs(expected)
        usable = size > 0.2 * np.nanquantile(size, 0.9) if np.isfinite(size).any() else np.zeros(len(size), dtype=bool)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(usable, flux / expected, np.nan)
        found = find_unit_change(ratio, dates)
        if found is not None:
            known = ~np.isnan(ratio)  # a change may last a year only: look beside the day
            sides = [ratio[known & (dates < found.day)][-BESIDE:], ratio[known & (dates >= found.day)][:BESIDE]]
            levels = [float(np.nanmedian(side)) for side in sides]
            if min(levels) > 0:
                near, far = sorted(abs(np.log(level)) for level in levels)
                # The flux that changed is its partition times two numbers; the others only lose the identity.
                scatter = max(
                    float(np.nanmean(np.abs(side / level - 1))) for side, level in zip(sides, levels, strict=True)
                )
                if near < SAME and far > OTHER:
                    candidates.append((scatter, what, found))
        known = ratio[~np.isnan(ratio)]
        agrees += len(known) >= ENOUGH and 0.5 < np.median(known) < 2.0
    if candidates:
        return min(candidates, key=lambda item: item[0])[1:]
    found = find_unit_change(reco, dates)
    if found is not None:  # respiration has no such seasons
        return (f"{name}, GPP and RECO" if agrees == 3 else "RECO"), found
    if agrees == 3:
        return None
    found = find_unit_change(nee, dates)
    return None if found is None else (name, found)
