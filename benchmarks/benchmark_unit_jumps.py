"""How often is a change of unit found, and how often does a season pass for one? Made-up towers of nine climates.

    python benchmarks/benchmark_unit_jumps.py

Natural files (every variable of each) must be silent in at least 39 of 40; of 200 files with one variable multiplied or
divided by 10, 12, 86.4, 100 or 1000 from a day anywhere inside (to the end, or for a year) 190 must be found. Files
without eight values on either side that are not zero (rain of a few dry months) are not counted.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from calibration.common.command_line import make_parser, run  # noqa: E402
from calibration.common.unit_change import UnitChange, find_light_change, find_unit_change  # noqa: E402
from calibration.tower.checks import flux_jump  # noqa: E402

SITES = ("deciduous", "boreal", "meadow", "crop", "monsoon", "mediterranean", "tropical", "desert", "tundra")
FACTORS = (10.0, 12.0, 86.4, 100.0, 1000.0)


def noise(generator, days: int, memory: float = 0.6) -> np.ndarray:
    """(day,) autocorrelated standard normal."""
    white, out = generator.standard_normal(days), np.empty(days)
    out[0] = white[0]
    for k in range(1, days):
        out[k] = memory * out[k - 1] + np.sqrt(1 - memory**2) * white[k]
    return out


def tower(site: str, generator, days: int, start: np.datetime64) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Dates (day,) and series (day,): NEE, GPP, RECO (g C m-2 day-1), SW (W m-2), P (mm), VPD (hPa), WS, PA (kPa)."""
    dates = start + np.arange(days)
    doy = (dates - dates.astype("datetime64[Y]")).astype(int)
    year = dates.astype("datetime64[Y]").astype(int)
    shift = np.array([generator.normal(0, 8) for _ in range(year[-1] - year[0] + 1)])[year - year[0]]
    season = 0.5 - 0.5 * np.cos(2 * np.pi * (doy - 15 + shift) / 365)  # 0 in January
    latitude = {"tropical": 5, "monsoon": 15, "desert": 30, "mediterranean": 38, "tundra": 69, "boreal": 62}
    tilt = np.radians(latitude.get(site, 50))
    decline = np.radians(-23.4 * np.cos(2 * np.pi * (doy + 10) / 365))
    hour = np.arccos(np.clip(-np.tan(tilt) * np.tan(decline), -1, 1))
    top = 433 * (hour * np.sin(tilt) * np.sin(decline) + np.cos(tilt) * np.cos(decline) * np.sin(hour))
    light = np.clip(top * np.clip(0.5 + 0.18 * noise(generator, days), 0.05, 0.78), 0, None)
    mean, swing = {"tropical": (26, 1), "monsoon": (26, 4), "desert": (20, 10), "mediterranean": (16, 8),
                   "boreal": (2, 15), "tundra": (-6, 16)}.get(site, (9, 9))  # fmt: skip
    warm = mean + swing * (2 * season - 1) + 3 * noise(generator, days, 0.7)

    def ramp(first, last, width):
        """0 to 1 to 0 around days of the year, over `width` days."""
        d = doy - shift
        return np.clip((d - first) / width, 0, 1) * np.clip((last - d) / width, 0, 1)

    wet = np.ones(days)
    grow, top_gpp = {
        "deciduous": (ramp(110, 300, 25), 12), "boreal": (ramp(125, 275, 30) ** 1.5, 8),
        "meadow": (ramp(80, 320, 30), 9),
        "crop": (ramp(120, 215, 18), 16), "monsoon": (0.04 + 0.96 * ramp(160, 330, 20), 9),
        "mediterranean": (0.15 + 0.85 * (1 - ramp(160, 300, 40)), 5), "tropical": (wet, 9),
        "desert": (0.05 + 0.3 * ramp(200, 280, 15), 2), "tundra": (ramp(160, 250, 18) ** 1.3, 3),
    }[site]  # fmt: skip
    if site == "meadow":  # cut three times a year
        for day in (150, 200, 245):
            grow = grow * np.where((doy >= day) & (doy < day + 25), 0.15 + 0.85 * (doy - day) / 25, 1)
    gpp = np.clip(top_gpp * grow * np.clip(light / 200, 0.1, 1.4) * (1 + 0.12 * noise(generator, days)), 0, None)
    gpp = np.clip(gpp + 0.05 * generator.standard_normal(days), 0, None)
    reco = (0.25 + 0.12 * top_gpp * 2 ** ((warm - 15) / 10)) * np.exp(0.1 * noise(generator, days, 0.8)) + 0.35 * gpp
    nee = reco - gpp + 0.12 * (1 + 0.15 * gpp) * generator.standard_normal(days)
    share, amount = {
        "monsoon": (0.03 + 0.65 * ramp(155, 280, 15), 3 + 9 * ramp(155, 280, 20)), "tropical": (0.6 * wet, 10 * wet),
        "mediterranean": (0.03 + 0.35 * (1 - ramp(130, 290, 30)), 7 * wet),
        "desert": (0.03 + 0.1 * ramp(190, 260, 10), 4 * wet), "tundra": (0.3 * wet, 1 + 3 * season),
    }.get(site, (0.42 * wet, 3 + 3 * season))  # fmt: skip
    rain = np.where(generator.random(days) < share, np.round(generator.gamma(0.7, 1 / 0.7, days) * amount, 1), 0.0)
    saturated = 6.11 * np.exp(17.6 * warm / (243 + warm))
    dry = {
        "desert": 0.75, "tropical": 0.2, "monsoon": 0.7 - 0.5 * ramp(155, 280, 20),
        "mediterranean": 0.25 + 0.3 * season,
    }  # fmt: skip
    vpd = saturated * np.clip(dry.get(site, 0.12 + 0.2 * season) * np.exp(0.35 * noise(generator, days)), 0.005, 0.95)
    wind = 2.5 * np.exp(0.4 * noise(generator, days, 0.4))
    pressure = 98 + 0.8 * noise(generator, days, 0.8)
    series = {"NEE": nee, "GPP": gpp, "RECO": reco, "SW": light, "P": rain, "VPD": vpd, "WS": wind, "PA": pressure}
    gap = generator.random(days) < generator.choice([0.0, 0.1, 0.4])
    return dates, {name: np.where(gap & (name != "PA"), np.nan, np.round(v, 5)) for name, v in series.items()}


def made(generator) -> tuple[str, np.ndarray, dict[str, np.ndarray]]:
    """A file of any site, of four months to eight years, that begins on any day."""
    site = str(generator.choice(SITES))
    days = int(generator.choice([120, 183, 250, 365, 500, 731, 1096, 2000, 2922]))
    start = np.datetime64("2008-01-01") + int(generator.integers(0, 1400))
    return site, *tower(site, generator, days, start)


FEWEST = 8  # values on either side that are not zero: fewer wet days say nothing about a gauge's unit
FLUXES = ("NEE", "GPP", "RECO")


def alarm(name: str, series: dict[str, np.ndarray], dates: np.ndarray, partition: bool) -> UnitChange | None:
    """What the scripts would say of a variable: fluxes with partition or NEE alone, light without polar winters."""
    if name in FLUXES:
        found = flux_jump("NEE", *(series[flux] if flux == "NEE" or partition else None for flux in FLUXES), dates)
        return None if found is None else found[1]
    return (find_light_change if name == "SW" else find_unit_change)(series[name], dates)


def natural(count: int, seed: int = 0) -> list[str]:
    """The false alarms of `count` files, every second one without partition, in words."""
    generator, alarms = np.random.default_rng(seed), []
    for number in range(count):
        site, dates, series = made(generator)
        for name in ("NEE", *(name for name in series if name not in FLUXES)):
            found = alarm(name, series, dates, partition=number % 2 == 0)
            if found is not None:
                alarms.append(f"{number} {site} {len(dates)} days {name}: {found.ratio:.3g} on {found.day}")
    return alarms


def changed(count: int, seed: int = 1) -> list[str]:
    """The changes that were missed among `count`, in words; every second file has a partition."""
    generator, missed = np.random.default_rng(seed), []
    number = 0
    while number < count:
        site, dates, series = made(generator)
        partition = number % 2 == 0
        known = [name for name in series if partition or name not in ("GPP", "RECO")]
        name = str(generator.choice(known))
        factor = float(generator.choice(FACTORS)) ** float(generator.choice([-1, 1]))
        cut = int(generator.uniform(0.12, 0.88) * len(dates))
        end = len(dates) if generator.random() < 0.6 else min(len(dates), cut + 365)
        says = ~np.isnan(series[name]) & (series[name] != 0)
        if min(says[:cut].sum(), says[cut:end].sum()) < FEWEST:
            continue
        number += 1
        series[name] = series[name].copy()
        series[name][cut:end] *= factor
        if alarm(name, series, dates, partition) is None:
            missed.append(f"{site} {len(dates)} days {name} x {factor:.3g} from day {cut} to {end}: nothing")
    return missed


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--natural", type=int, default=400, help="natural files")
    parser.add_argument("--changed", type=int, default=200, help="files with a change")
    parser.add_argument("--seed", type=int, default=0, help="of the made files")
    arguments = parser.parse_args()
    alarms, missed = natural(arguments.natural, arguments.seed), changed(arguments.changed, arguments.seed + 1)
    for line in [*(f"false alarm: {a}" for a in alarms), *(f"missed: {m}" for m in missed)]:
        print(line)
    files = len({alarm.split()[0] for alarm in alarms})
    print(f"false alarms in {files} of {arguments.natural} natural files ({files / arguments.natural:.1%})")
    print(f"found {arguments.changed - len(missed)} of {arguments.changed} changes "
          f"({1 - len(missed) / arguments.changed:.1%})")  # fmt: skip


if __name__ == "__main__":
    run(main)
