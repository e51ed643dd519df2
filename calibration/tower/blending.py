"""Tower weather over ERA5 in VISIT's forcing text: the tower's fields on its days, every other character is kept."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from calibration.common.command_line import UserError, read_table, warn
from calibration.tower.meteorology import ESTIMATED, TOWER, sidecar_path
from calibration.tower.observation_csv import days_of, numbers_of
from calibration.weather.forcing_file import FIELDS, Forcing
from calibration.weather.sentinel import check_columns, disagreement

# The tower's variables and the forcing fields that they replace; wind is handled apart.
REPLACED = {
    "tmp_2m": "tmean_2m", "tmp_sfc": "tmp_sfc", "spfh_2m": "spfh_2m", "prate_sfc": "prate_sfc",
    "dswrf_sfc": "dswrf_sfc", "tcdc_clm": "tcdc_clm",
}  # fmt: skip
WIND = "wind_10m"
U_WIND, V_WIND = FIELDS.index("u_wind"), FIELDS.index("v_wind")


def read_tower_weather(path: str | Path, use_cloud: bool = False) -> tuple[pd.DataFrame, bool]:
    """Tower values by day from a CSV with `date` and any of the variables, and whether a sidecar told their sources.

    Cells that the sidecar (NAME_sources.csv) does not call 'tower' or 'estimated' are empty in the result. Without a
    sidecar every value counts, but cloud only with use_cloud, since towers do not measure it. UserError on a missing or
    repeated date, no usable column, or a value outside units.POSSIBLE.
    """
    path = Path(path)
    table = _csv(path)
    names = [name for name in (*REPLACED, WIND) if name in table]
    if not names:
        raise UserError(
            f"{path}: has none of the columns {', '.join((*REPLACED, WIND))}; found {', '.join(table.columns[:12])}"
        )
    dates = days_of(path, table)
    if dates.duplicated().any():
        twice = dates[dates.duplicated()].iloc[0].date()
        raise UserError(f"{path}: {twice} is there twice; every day may be there once")
    result = pd.DataFrame(index=pd.DatetimeIndex(dates))
    for name in names:
        result[name] = numbers_of(path, table, name)
    columns = {name: result[name].to_numpy() for name in names}
    for name, series in check_columns(
        columns, result.index.to_numpy().astype("datetime64[D]"), str(path), True
    ).items():
        result[name] = series
    sidecar = sidecar_path(path)
    if sidecar.is_file():
        sources = _csv(sidecar)
        if list(sources["date"].astype(str)) != list(table["date"].astype(str)):
            raise UserError(f"{sidecar}: has other days than {path.name}; make both again")
        for name in names:
            if name not in sources:
                raise UserError(f"{sidecar}: has no column {name}; make it and {path.name} again")
            result.loc[~sources[name].isin([TOWER, ESTIMATED]).to_numpy(), name] = np.nan
    elif "tcdc_clm" in result and not use_cloud:
        result = result.drop(columns="tcdc_clm")
    return result, sidecar.is_file()


def _csv(path: Path) -> pd.DataFrame:
    table = read_table(path, "make it with prepare_observation_meteorology.py", skipinitialspace=True)
    table.columns = [str(name).strip() for name in table.columns]
    if "date" not in table:
        raise UserError(f"{path}: has no column date; found {', '.join(table.columns[:12])}")
    return table


def check_forcing(forcing: Forcing) -> None:
    """UserError when a replaced field is not in its unit, or when a day is there twice."""
    repeated = pd.Series(forcing.dates).duplicated().to_numpy()
    if repeated.any():
        row = int(repeated.argmax())
        raise UserError(
            f"{forcing.path}: line {row + 1}: {forcing.dates[row]} is there twice; every day may be there once"
        )
    columns = {name: forcing.column(field) for name, field in REPLACED.items()}
    check_columns(columns, forcing.dates, str(forcing.path))


def check_agreement(forcing: Forcing, tower: pd.DataFrame, trusted: Sequence[str] = ()) -> None:
    """UserError where the tower and the forcing differ on their common days as another unit would make them.

    trusted: variables of which the user says that the difference is real.
    """
    on_days = tower.reindex(pd.DatetimeIndex(forcing.dates))
    for name in tower:
        if name == WIND:
            other = np.hypot(forcing.column("u_wind"), forcing.column("v_wind"))
        else:
            other = forcing.column(REPLACED[name])
        found = disagreement(name, on_days[name].to_numpy(), other)
        if found is not None:
            words, certain = found
            if certain and name not in trusted:
                raise UserError(
                    f"{forcing.path}: {name} {words} in the tower's file on common days; bring both to one unit, or "
                    f"say with --trust-era5 {name} that the difference is real"
                )
            warn(f"{forcing.path}: {name} {words}")


def blend(forcing: Forcing, tower: pd.DataFrame) -> tuple[list[str], dict[str, int]]:
    """The forcing's lines with the tower's values in place, and the number of days replaced by variable.

    tower: index of days, columns of variables in VISIT's units, NaN where the tower has none.
    """
    on_days = tower.reindex(pd.DatetimeIndex(forcing.dates))
    new: list[dict[int, float]] = [{} for _ in forcing.lines]  # field -> value, by day
    counts = {}
    for name in tower.columns:
        values = on_days[name].to_numpy()
        days = np.flatnonzero(~np.isnan(values))
        counts[name] = len(days)
        for day in days:
            if name == WIND:
                new[day][U_WIND], new[day][V_WIND] = _wind_components(forcing, day, values[day])
            else:
                new[day][FIELDS.index(REPLACED[name])] = values[day]
    return [replace_fields(line, fields) for line, fields in zip(forcing.lines, new, strict=True)], counts


def _wind_components(forcing: Forcing, day: int, speed: float) -> tuple[float, float]:
    """u and v of the tower's speed in ERA5's direction (all along u where ERA5 is calm)."""
    east, north = forcing.column("u_wind")[day], forcing.column("v_wind")[day]
    length = float(np.hypot(east, north))
    return (speed * east / length, speed * north / length) if length > 0 else (speed, 0.0)


def replace_fields(line: str, values: dict[int, float]) -> str:
    """The line with some fields (index from 0 -> value) replaced; every other character stays.

    Numbers keep the width of what they replace where they fit, or take blanks before them, so that columns of a fixed
    width stay in place.
    """
    if not values:
        return line
    fields = list(re.finditer(r"\S+", line))
    for index in sorted(values, reverse=True):  # from the right: positions further left stay true
        start, end = fields[index].span()
        text = f"{values[index]:.7g}"
        while start > 1 and end - start < len(text) and line[start - 2 : start] == "  ":
            start -= 1
        line = line[:start] + text.rjust(end - start) + line[end:]
    return line


def extremes_outside(forcing: Forcing, tower: pd.DataFrame) -> int:
    """Days on which the tower's mean temperature lies outside the forcing's minimum and maximum."""
    if "tmp_2m" not in tower:
        return 0
    mean = tower["tmp_2m"].reindex(pd.DatetimeIndex(forcing.dates)).to_numpy()
    return int(((mean > forcing.column("tmax_2m")) | (mean < forcing.column("tmin_2m"))).sum())
