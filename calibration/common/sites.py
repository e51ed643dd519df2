"""The site: latitude, altitude, soil constants, periods and tower heights, from configs/sites/<name>.yaml."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from calibration.common.command_line import REPOSITORY, UserError, existing_file

DEFAULT_SITE = REPOSITORY / "configs" / "sites" / "lhp.yaml"
TEXTURES = ("coarse", "medium", "fine")
FORESTS = ("evergreen",)  # what the process model holds for: it has no leaf fall by season, no snow and no frost damage


@dataclass(frozen=True)
class Site:
    """Constants of one site; units in configs/sites/lhp.yaml. `path` is the file they came from."""

    path: Path
    name: str
    latitude: float
    longitude: float
    altitude: float
    utc_offset: float
    upper_capacity: float | None
    lower_capacity: float
    texture: str
    sand: float
    silt: float
    clay: float
    saturated_conductivity: float
    slope_degrees: float
    slope_length: float
    spinup_co2_year: int
    period: dict[str, date]
    wind_height: float
    roughness: float
    weather: str

    @property
    def weather_statistics(self) -> Path:
        """File with the statistics of the weather generator, beside the site's YAML."""
        return self.path.parent / self.weather

    @property
    def file_prefix(self) -> str:
        """The site's name as VISIT's daily files begin with it: letters, digits and dashes."""
        return re.sub(r"\W", "-", self.name)


_LIMITS = {
    "latitude": (-90, 90), "longitude": (-180, 180), "altitude": (-500, 6000), "utc_offset": (-12, 14),
    "upper_capacity": (10, 1000), "lower_capacity": (10, 5000), "sand": (0, 1), "silt": (0, 1), "clay": (0.001, 1),
    "saturated_conductivity": (0, 1), "slope_degrees": (0, 60), "slope_length": (1, 1000),
    "spinup_co2_year": (1700, 2100), "wind_height": (1, 500), "roughness": (0.0001, 10),
}  # fmt: skip


def load_site(path: str | Path = DEFAULT_SITE) -> Site:
    """Read a site's YAML. UserError on an unknown or missing key, or a value outside its limits."""
    path = existing_file(path, "copy configs/sites/lhp.yaml and edit it")
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no 'key: value' lines; copy configs/sites/lhp.yaml and edit it")
    wanted = [field.name for field in fields(Site) if field.name != "path"]
    forest = content.pop("forest", FORESTS[0])  # decides nothing but whether the process model holds
    for key in content:
        if key not in wanted:
            raise UserError(f"{path}: unknown key '{key}'; known are {', '.join(wanted)}, forest")
    for key in wanted:
        if key not in content:
            raise UserError(f"{path}: key '{key}' is missing; see configs/sites/lhp.yaml")
    for key, (low, high) in _LIMITS.items():
        value = content[key]
        if key == "upper_capacity" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise UserError(f"{path}: {key} is {value!r}, allowed is a number from {low} to {high}")
    for key in ("name", "weather"):
        if not isinstance(content[key], str) or not content[key].strip():
            raise UserError(f"{path}: {key} is {content[key]!r}, expected text; put it in quotes if it is a number")
    if content["texture"] not in TEXTURES:
        raise UserError(f"{path}: texture is {content['texture']!r}, allowed is one of {', '.join(TEXTURES)}")
    if forest not in FORESTS:
        raise UserError(
            f"{path}: forest is {forest!r}, allowed is {', '.join(FORESTS)}: the process model has no leaf fall by "
            "season and would be wrong for other forests; use a process model of your own (--engine command)"
        )
    period = content["period"]
    if (
        not isinstance(period, dict)
        or set(period) != {"start", "end"}
        or not all(type(day) is date for day in period.values())  # a datetime is a date too, and compares with none
        or period["start"] > period["end"]
    ):
        raise UserError(f"{path}: period must be {{start: YYYY-MM-DD, end: YYYY-MM-DD}} in order, got {period!r}")
    return Site(path=path, **content)


def other_constants(site: Site, noted: Mapping[str, Any]) -> list[str]:
    """Constants that a record (settings: site of parameter_log.json) and `site` disagree on.

    >>> other_constants(load_site(), {"latitude": 61.8, "sand": 0.166})
    ['latitude']
    """
    return [name for name, value in noted.items() if getattr(site, name, value) != value]
