"""The site: latitude, altitude, soil constants, periods and tower heights, from configs/sites/<name>.yaml."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from calibration.common.command_line import REPOSITORY, UserError, notice
from calibration.common.yaml_file import parse_yaml, read_yaml

DEFAULT_SITE = REPOSITORY / "configs" / "sites" / "lhp.yaml"
TEXTURES = ("coarse", "medium", "fine")
EVERGREEN = "evergreen"  # what the process model holds for: it has no leaf fall by season, no snow and no frost damage
FORESTS = (EVERGREEN, "deciduous", "mixed")


@dataclass(frozen=True)
class Variant:
    """In what versions of VISIT differ where it matters; the defaults are the version behind the reference runs.

    Effects at LHP (annual means of the baseline, Mg C ha-1 year-1) are in the comments.
    """

    exports_in_nep: bool = False  # export of dissolved and eroded carbon counts as loss in NEP: NEP -0.25
    old_runoff: bool = False  # runoff of the upper soil as before 2014: GPP +0.06
    random_spinup: bool = False  # years of the spin-up in random order instead of their own: NEP about -0.07
    first_co2_year: int | None = None  # CO2 is that of this year at the start and counts on (null: calendar years)
    pressure: str | float = "altitude"  # or `forcing` (19-column text), or hPa; 1005 hPa: GPP +0.10
    sapwood_cap: bool = False  # of the stem at the stem, for small plants: daily GPP rmse 8e-5 per day

    def __str__(self) -> str:
        """The choices that are not the default, as they are written in a site's YAML."""
        chosen = [f"{f.name}: {getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) != f.default]
        return ", ".join(chosen) or "default"


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
    variant: Variant = Variant()
    forest: str = EVERGREEN  # decides nothing but whether the process model holds

    @property
    def weather_statistics(self) -> Path:
        """File with the statistics of the weather generator, beside the site's YAML."""
        return self.path.parent / self.weather

    @property
    def constants(self) -> dict:
        """What the process model's results depend on, JSON-able; the variant only where it is not the default."""
        left_out = {"path", "period", "weather", "variant", "forest"}
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}
        return found | ({"variant": asdict(self.variant)} if self.variant != Variant() else {})

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
    path, content = Path(path), read_yaml(path, "copy configs/sites/lhp.yaml and edit it")
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no 'key: value' lines; copy configs/sites/lhp.yaml and edit it")
    wanted = [field.name for field in fields(Site) if field.name != "path"]
    for key in content:
        if key not in wanted:
            raise UserError(f"{path}: unknown key '{key}'; known are {', '.join(wanted)}")
    for key in wanted:
        if key not in content and key not in ("variant", "forest"):
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
    if not (path.parent / content["weather"]).resolve().is_relative_to(path.parent.resolve()):
        raise UserError(f"{path}: weather is {content['weather']!r}, allowed is a file beside this one or below it")
    content.setdefault("forest", EVERGREEN)
    for key, allowed in (("texture", TEXTURES), ("forest", FORESTS)):
        if content[key] not in allowed:
            raise UserError(f"{path}: {key} is {content[key]!r}, allowed is one of {', '.join(allowed)}")
    period = content["period"]
    if (
        not isinstance(period, dict)
        or set(period) != {"start", "end"}
        or not all(type(day) is date for day in period.values())  # a datetime is a date too, and compares with none
        or period["start"] > period["end"]
    ):
        raise UserError(f"{path}: period must be {{start: YYYY-MM-DD, end: YYYY-MM-DD}} in order, got {period!r}")
    content["variant"] = make_variant(content.get("variant") or {}, str(path))
    return Site(path=path, **content)


def say_default(site: Site, own: str | Path | None) -> None:
    """A notice where the default site meets the user's `own` data (None: it does not): nobody should find LHP's
    latitude in another forest's results later.
    """
    if own and site.path == DEFAULT_SITE:
        notice(f"site: {site.name} (default; --site FILE for another), for {own}")


def other_constants(site: Site, noted: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """name -> (noted, the site's) of constants that a record (settings: site of parameter_log.json) has otherwise.

    >>> other_constants(load_site(), {"latitude": 61.8, "sand": 0.166})
    {'latitude': (61.8, 4.2)}
    """
    if not noted:
        return {}
    own = {f.name: getattr(site, f.name) for f in fields(site)} | {"variant": asdict(site.variant)}
    there = {"variant": asdict(Variant())} | dict(noted)  # a record of the default names none
    return {name: (value, own[name]) for name, value in there.items() if name in own and own[name] != value}


def make_variant(choices: Any, source: str) -> Variant:
    """The version of VISIT with these choices by name. UserError naming `source` on one that there is not."""
    known = {f.name: f.default for f in fields(Variant)}
    if not isinstance(choices, dict):
        raise UserError(f"{source}: variant must be 'name: value' lines, known are {', '.join(known)}")
    for name, value in choices.items():
        if name not in known:
            raise UserError(f"{source}: unknown variant '{name}'; known are {', '.join(known)}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if name == "pressure":
            good = value in ("altitude", "forcing") or (number and 400 <= value <= 1100)
            allowed = "altitude, forcing or 400 to 1100 hPa"
        elif name == "first_co2_year":
            good = value is None or (isinstance(value, int) and number and 1700 <= value <= 2100)
            allowed = "null or a year from 1700 to 2100"
        else:
            good, allowed = isinstance(value, bool), "true or false"
        if not good:
            raise UserError(f"{source}: variant {name} is {value!r}, allowed is {allowed}")
    return Variant(**choices)


def with_variant(site: Site, choices: list[str] | None) -> Site:
    """The site with variants of the command line, NAME or NAME=VALUE, in place of its own."""
    given = {name: value for name, _, value in (choice.partition("=") for choice in choices or [])}
    values = {}
    for name, value in given.items():
        try:
            values[name] = parse_yaml(value) if value else True
        except (yaml.YAMLError, ValueError, RecursionError):
            raise UserError(f"--variant {name}={value}: the value is not readable as a word or a number") from None
    make_variant(values, "--variant")
    return replace(site, variant=replace(site.variant, **values))
