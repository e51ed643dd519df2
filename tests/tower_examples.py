"""Made-up tower files in the networks' layouts."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from script_calls import call  # noqa: F401  (other tests take it from here)

from calibration.tower.weather_columns import saturation_vapour_pressure_water

TWELFTHS = 48


def days(start: str, count: int) -> pd.DatetimeIndex:
    """`count` days from `start`."""
    return pd.date_range(start, periods=count, freq="D")


def temperate(count: int = 731, start: str = "2019-01-01", seed: int = 0) -> pd.DataFrame:
    """Fluxes (g C m-2 day-1) and weather (deg C, hPa, kPa, mm day-1, W m-2, m s-1) of a deciduous forest at 50 N."""
    generator = np.random.default_rng(seed)
    index = days(start, count)
    season = 0.5 - 0.5 * np.cos(2 * np.pi * (index.day_of_year.to_numpy() - 15) / 365)
    gpp = 12 * season**2 * generator.uniform(0.6, 1.1, count)
    reco = 1.2 + 4 * season * generator.uniform(0.9, 1.1, count)
    temperature = -2 + 20 * season + generator.normal(0, 3, count)
    return pd.DataFrame(
        {
            "gpp": gpp, "reco": reco, "nee": reco - gpp + generator.normal(0, 0.3, count), "ta": temperature,
            "sw_pot": 90 + 380 * season, "sw": (90 + 380 * season) * generator.uniform(0.2, 0.7, count),
            "vpd": saturation_vapour_pressure_water(temperature) * generator.uniform(0.1, 0.6, count),
            "pa": generator.normal(98, 0.8, count), "ws": generator.gamma(4, 0.7, count),
            "p": np.where(generator.random(count) < 0.4, generator.gamma(0.8, 6, count), 0.0),
        },
        index=index,
    )  # fmt: skip


def _shares(generator, count: int) -> np.ndarray:
    return np.round(generator.beta(4, 1.5, count) * TWELFTHS) / TWELFTHS


def fluxnet(full: bool = True, count: int = 731, seed: int = 0, **site) -> pd.DataFrame:
    """A FLUXNET2015 / ICOS / AmeriFlux FLUXNET daily table (ONEFlux), FULLSET or SUBSET."""
    truth = temperate(count, seed=seed, **site)
    generator = np.random.default_rng(seed + 1)
    table = {"TIMESTAMP": truth.index.strftime("%Y%m%d")}
    for name, series in {"TA": truth.ta, "SW_IN": truth.sw, "VPD": truth.vpd}.items():
        if full:
            table[f"{name}_F_MDS"], table[f"{name}_F_MDS_QC"] = series, _shares(generator, count)
            table[f"{name}_ERA"] = series + generator.normal(0, 0.5, count)
        table[f"{name}_F"], table[f"{name}_F_QC"] = series, _shares(generator, count)
    table["SW_IN_POT"] = truth.sw_pot
    for name, series in {"PA": truth.pa, "P": truth.p, "WS": truth.ws}.items():
        table[f"{name}_F"], table[f"{name}_F_QC"] = series, _shares(generator, count)
    for threshold in ("VUT", "CUT") if full else ("VUT",):
        table[f"NEE_{threshold}_REF"] = truth.nee
        table[f"NEE_{threshold}_REF_QC"] = _shares(generator, count)
        table[f"NEE_{threshold}_REF_RANDUNC"] = generator.uniform(0.1, 0.6, count)
        for percentile in ("05", "25", "50", "75", "95") if full else ("25", "50", "75"):
            table[f"NEE_{threshold}_{percentile}"] = truth.nee + 0.02 * (int(percentile) - 50)
            table[f"NEE_{threshold}_{percentile}_QC"] = _shares(generator, count)
        if full:
            table[f"NEE_{threshold}_REF_NIGHT"] = truth.reco * 0.9
            table[f"NEE_{threshold}_REF_DAY"] = truth.nee * 2 - truth.reco * 0.9
        for method in ("NT", "DT"):
            table[f"RECO_{method}_{threshold}_REF"] = truth.reco
            table[f"GPP_{method}_{threshold}_REF"] = truth.gpp + generator.normal(0, 0.5, count)
    return pd.DataFrame(table).round(6).reset_index(drop=True)


def japanflux(count: int = 400, seed: int = 0) -> pd.DataFrame:
    """A JapanFlux2024 daily table: NEE in two versions, and a flag of which low is good and which exceeds 1."""
    generator = np.random.default_rng(seed)
    index = days("2012-01-01", count)
    nee = -1.5 + 1.5 * generator.standard_normal(count)
    return pd.DataFrame({
        "TIMESTAMP": index.strftime("%Y%m%d"),
        "NEE_vUT": nee,
        "NEE_vUT_QC": np.round(generator.uniform(0.1, 1.6, count) * TWELFTHS) / TWELFTHS,
        "NEE_PI_F": nee + 0.2 * generator.standard_normal(count),
    }).round(6)  # fmt: skip


def save(table: pd.DataFrame, path: Path, **options) -> Path:
    """Write a tower table as the networks do: -9999 for missing."""
    table.to_csv(path, index=False, na_rep="-9999", **options)
    return path


@dataclass(frozen=True)
class NetworkFile:
    """A made-up daily file of a network: its usual name, the table (NaN = missing), and what is true of it."""

    name: str
    table: pd.DataFrame
    nee: str
    good: np.ndarray  # (day,) bool: measured well enough at the threshold 0.5


def network_file(network: str, seed: int = 0, count: int = 400) -> NetworkFile:
    """A file in a network's layout, with gaps in NEE; nine layouts: NETWORKS."""
    generator = np.random.default_rng(seed)
    truth = temperate(count, seed=seed)
    measured = generator.beta(4, 1.5, count)  # share of a day's half-hours
    shares = np.round(measured * TWELFTHS) / TWELFTHS
    flags = np.round((1 - measured) * generator.uniform(0.9, 1.0, count) * TWELFTHS) / TWELFTHS  # low is good, below 1
    nee = truth.nee.where(generator.random(count) > 0.02)
    stamp = truth.index.strftime("%Y%m%d")
    if network in ("japanflux", "japanflux_allvars"):
        variant = "vUT" if network == "japanflux" else "vUT_USTAR50"
        table = {"TIMESTAMP": stamp, "TA_F": truth.ta, "TA_F_QC": flags, f"NEE_{variant}": nee,
                 f"NEE_{variant}_QC": flags, f"GPP_NT_{variant}": truth.gpp,
                 f"RECO_NT_{variant}": truth.reco}  # fmt: skip
        name = "FLX_XX-Abc_JapanFLUX2024_ALLVARS_DD_2019-2020_1-3.csv"
        return _network_file(name, table, f"NEE_{variant}", flags <= 0.5)
    if network == "ozflux":
        codes = np.where(measured > 0.5, 0, generator.choice([30, 50, 90], count))
        table = {"DateTime": truth.index.strftime("%Y-%m-%d"), "NEE_SOLO": nee, "NEE_SOLO_QCFlag": codes,
                 "GPP_SOLO": truth.gpp, "ER_SOLO": truth.reco, "Fsd": truth.sw, "Fsd_QCFlag": 0, "Ta": truth.ta,
                 "VPD": truth.vpd / 10, "ps": truth.pa, "Precip": truth.p, "Ws": truth.ws}  # fmt: skip
        return _network_file("Abcdefg_OzFlux_L6_Daily.csv", table, "NEE_SOLO", codes == 0)
    if network == "asiaflux":
        filled = (measured < 0.4).astype(int)
        table = {"Year": truth.index.year, "Month": truth.index.month, "Day": truth.index.day,
                 "FC": nee.where(filled == 0), "NEE": nee, "NEE_QC": filled, "GPP": truth.gpp, "RE": truth.reco,
                 "Ta": truth.ta}  # fmt: skip
        return _network_file("GfLt_ABC_2019_1d_01.csv", table, "NEE", filled == 0)
    table = fluxnet(network != "subset", count, seed)
    table["NEE_VUT_REF"], table["NEE_VUT_REF_QC"] = nee.to_numpy(), shares
    name = {
        "fullset": "FLX_XX-Abc_FLUXNET2015_FULLSET_DD_2019-2020_1-4.csv", "icos": "ICOSETC_XX-Abc_FLUXNET_DD_L2.csv",
        "subset": "FLX_XX-Abc_FLUXNET2015_SUBSET_DD_2019-2020_1-4.csv",
        "warm_winter": "FLX_XX-Abc_FLUXNET2015_FULLSET_DD_2019-2020_beta-3.csv",
        "ameriflux": "AMF_XX-Abc_FLUXNET_FULLSET_DD_2019-2020_3-5.csv",
    }[network]  # fmt: skip
    return _network_file(name, table, "NEE_VUT_REF", shares >= 0.5)


NETWORKS = (
    "japanflux", "japanflux_allvars", "fullset", "subset", "icos", "warm_winter", "ameriflux", "ozflux", "asiaflux",
)  # fmt: skip


def _network_file(name: str, table, nee: str, good) -> NetworkFile:
    frame = pd.DataFrame({key: np.asarray(values) for key, values in dict(table).items()}).round(5)
    return NetworkFile(name, frame, nee, np.asarray(good) & frame[nee].notna().to_numpy())
