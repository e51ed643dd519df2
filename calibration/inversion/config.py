"""The inversion's configuration: typed keys with defaults, read from a YAML; an unknown key is an error."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from calibration.common.command_line import REPOSITORY, UserError, notice
from calibration.common.units import FLUX_LABELS
from calibration.common.yaml_file import read_yaml

DEFAULT_CONFIG = REPOSITORY / "configs" / "inversion_config.yaml"
METHODS = ("gauss_newton", "adam", "ensemble")
POSTERIORS = ("draws", "tempered", "mcmc")
EMULATOR_RANGES = "emulator"  # value of bounds_file: the ranges that the emulator was trained on
# Flux wanted by the user -> weights of the emulator's outputs gpp, npp, nep, rh (units.TARGETS); ER = GPP - NEP.
TARGET_COMBINATIONS = {
    "nep": (0.0, 0.0, 1.0, 0.0), "gpp": (1.0, 0.0, 0.0, 0.0), "npp": (0.0, 1.0, 0.0, 0.0),
    "rh": (0.0, 0.0, 0.0, 1.0), "er": (1.0, 0.0, -1.0, 0.0),
}  # fmt: skip


@dataclass(frozen=True)
class ClipRawParams:
    """`enabled: false` drops the bounds but keeps the prior term."""

    enabled: bool = True


@dataclass(frozen=True)
class GaussNewtonConfig:
    """Levenberg-Marquardt: steps at most, share of a prior sd of each finite difference."""

    max_iterations: int = 40
    step: float = 0.02
    tolerance: float = 0.01


@dataclass(frozen=True)
class EnsembleConfig:
    """Iterative ensemble smoother (ES-MDA): members and assimilation steps."""

    members: int = 300
    iterations: int = 6


@dataclass(frozen=True)
class ErrorModelConfig:
    """Which errors enter the likelihood; standard deviations in Mg C ha-1 day-1, null = estimated from the data."""

    observation_sd: float | None = None
    emulator: bool = True
    discrepancy: bool = True


@dataclass(frozen=True)
class InversionConfig:
    """All keys of configs/inversion_config.yaml (meaning and units are documented there)."""

    method: str = "gauss_newton"
    target_variable: str | list = "nep"
    target_weights: dict = field(default_factory=dict)
    lambda_prior: float | None = None
    bounds_file: str | None = None
    clip_raw_params: ClipRawParams = field(default_factory=ClipRawParams)
    lr: float = 0.05
    max_iters: int = 400
    starts: int | None = None
    seed: int = 2025
    nuisance: str = "none"
    offset_sd: float = 0.03
    posterior: str = "draws"
    mcmc_minutes: float = 5.0
    samples: int = 2000
    randomized_draws: int = 128
    gauss_newton: GaussNewtonConfig = field(default_factory=GaussNewtonConfig)
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    error_model: ErrorModelConfig = field(default_factory=ErrorModelConfig)

    @property
    def targets(self) -> tuple[str, ...]:
        """The fluxes that are fitted, lower case, in the user's order."""
        wanted = self.target_variable
        parts = wanted.split(",") if isinstance(wanted, str) else wanted
        return tuple(str(part).strip().lower() for part in parts)

    @property
    def number_of_starts(self) -> int:
        """Starting points in one batch: 8 for gauss_newton, 1 for adam, unless `starts` says otherwise."""
        return self.starts if self.starts is not None else (8 if self.method == "gauss_newton" else 1)


def load_inversion_config(path: str | Path = DEFAULT_CONFIG) -> InversionConfig:
    """Read a YAML; UserError names the file and key for an unknown key, a wrong type or a forbidden value."""
    path, content = Path(path), read_yaml(path, "see configs/inversion_config.yaml")
    return make_inversion_config(_earlier_form(content or {}, path), path)


def _earlier_form(content: Any, path: Path) -> Any:
    """The keys of an earlier script's configuration (under `inversion:`, one method) in today's form.

    That method was a gradient descent with `lr` and `max_iters`: adam.
    """
    if not isinstance(content, Mapping) or not isinstance(content.get("inversion"), Mapping):
        return content
    inner, beside = dict(content["inversion"]), {key: value for key, value in content.items() if key != "inversion"}
    twice = [key for key in beside if key in inner]
    if twice:
        raise UserError(f"{path}: {twice[0]} stands at the top and under inversion; keep one of them")
    said = f"the keys under 'inversion' are read ({', '.join(inner)})"
    if "method" not in inner and "method" not in beside and {"lr", "max_iters"} <= set(inner):
        inner["method"] = "adam"
        said += "; lr and max_iters without a method mean method: adam"
    notice(f"{path}: {said}")
    return beside | inner


def make_inversion_config(content: Any, source: str | Path = "inversion configuration") -> InversionConfig:
    """Build a checked configuration from a mapping of (some of) its keys; the others keep their defaults.

    >>> make_inversion_config({"target_variable": "nep, gpp", "gauss_newton": {"max_iterations": "5"}}).targets
    ('nep', 'gpp')
    >>> make_inversion_config({"lambda": 0.1})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    calibration.common.command_line.UserError: inversion configuration: unknown key 'lambda'; known are method, ...
    """
    if isinstance(content, InversionConfig):
        return content
    config = _build(InversionConfig, content, str(source), "")
    _check(config, str(source))
    return config


def override(config: InversionConfig, source: str = "command line", **changes: Any) -> InversionConfig:
    """A copy with the changes that are not None, checked again."""
    config = replace(config, **{key: value for key, value in changes.items() if value is not None})
    _check(config, source)
    return config


def resolve_bounds_file(config: InversionConfig, source: str | Path | None = None) -> str | Path | None:
    """bounds_file: absolute, or relative to the configuration's folder, the working directory or the repository."""
    if config.bounds_file in (None, EMULATOR_RANGES):
        return config.bounds_file
    given = Path(config.bounds_file)
    places = [*([Path(source).parent / given] if source else []), given, REPOSITORY / given]
    return next((place for place in places if place.is_file()), given)


def _build(kind: type, content: Any, source: str, prefix: str) -> Any:
    if not isinstance(content, Mapping):
        raise UserError(f"{source}: {prefix.rstrip('.') or 'the file'} must hold 'key: value' lines, got {content!r}")
    known = {item.name: item for item in fields(kind)}
    values = {}
    for key, value in content.items():
        if key not in known:
            raise UserError(f"{source}: unknown key '{prefix}{key}'; known are {', '.join(known)}")
        default = getattr(kind(), key)
        if is_dataclass(default):
            values[key] = _build(type(default), value, source, f"{prefix}{key}.")
        else:
            values[key] = _typed(value, str(known[key].type), f"{source}: {prefix}{key}")
    return kind(**values)


def _typed(value: Any, annotation: str, place: str) -> Any:
    """The value in the annotated type (text such as '1e-3', which YAML leaves a string, counts as a number)."""
    kinds = {kind.strip().split(".")[-1].strip("<>' ") for kind in annotation.removeprefix("<class ").split("|")}
    if value is None and "None" in kinds:
        return None
    if "bool" in kinds and isinstance(value, bool):
        return value
    if kinds & {"int", "float"} and not isinstance(value, bool):
        try:
            number = float(value)
            if "float" in kinds and math.isfinite(number):
                return number
            if number == int(number):
                return int(number)
        except (TypeError, ValueError, OverflowError):
            pass
    if "str" in kinds and isinstance(value, str):
        return value
    if "list" in kinds and isinstance(value, list | tuple):
        return list(value)
    if "dict" in kinds and isinstance(value, Mapping):
        return dict(value)
    raise UserError(f"{place} is {value!r}, expected {' or '.join(sorted(kinds))}")


def _check(config: InversionConfig, source: str) -> None:
    def need(good: bool, key: str, value: Any, allowed: str) -> None:
        """UserError that names the key, the value got and the values allowed, unless good."""
        if not good:
            raise UserError(f"{source}: {key} is {value!r}, allowed is {allowed}")

    need(config.method in METHODS, "method", config.method, ", ".join(METHODS))
    for target in config.targets:
        need(target in TARGET_COMBINATIONS, "target_variable", target, ", ".join(TARGET_COMBINATIONS))
    need(len(set(config.targets)) == len(config.targets) > 0, "target_variable", config.target_variable, "no repeat")
    for name, weight in config.target_weights.items():
        need(str(name).lower() in config.targets, "target_weights", name, f"one of the targets {config.targets}")
        good = isinstance(weight, int | float) and not isinstance(weight, bool) and weight > 0
        need(good, f"target_weights.{name}", weight, "a number above 0")
    need(config.lambda_prior is None or config.lambda_prior >= 0, "lambda_prior", config.lambda_prior, "null or >= 0")
    need(config.nuisance in ("none", "offset"), "nuisance", config.nuisance, "none, offset")
    sd = config.error_model.observation_sd
    need(sd is None or sd > 0, "error_model.observation_sd", sd, "null or a number above 0")
    need(config.posterior in POSTERIORS, "posterior", config.posterior, ", ".join(POSTERIORS))
    asked, exact = config.posterior, config.posterior != "draws"
    need(not exact or config.method != "ensemble", "posterior", asked, "draws with method ensemble, which has its own")
    need(not exact or config.lambda_prior is None, "posterior", asked, "draws where lambda_prior is a number")
    for key in ("lr", "max_iters", "offset_sd", "samples", "mcmc_minutes"):
        need(getattr(config, key) > 0, key, getattr(config, key), "a number above 0")
    need(config.randomized_draws >= 0, "randomized_draws", config.randomized_draws, "0 or more")
    need(config.starts is None or config.starts > 0, "starts", config.starts, "null or a number above 0")
    for section in (config.gauss_newton, config.ensemble):
        for item in fields(section):
            value = getattr(section, item.name)
            need(value > 0, f"{type(section).__name__}.{item.name}", value, "a number above 0")


def target_label(target: str) -> str:
    """NEP, GPP, NPP, Rh or ER."""
    return FLUX_LABELS[target]
