"""The emulator's configuration: LHP_architecture.yaml as typed values; unknown keys and wrong types are errors."""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from datetime import date, timedelta
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import numpy as np

from calibration.common.command_line import REPOSITORY, UserError, warn
from calibration.common.units import TARGETS
from calibration.common.yaml_file import read_yaml

ARCHITECTURE_FILE = REPOSITORY / "LHP_architecture.yaml"
AUTO = "auto"  # in place of a preset's name: measured (emulator/choice.py)
STATIC_FEATURES = ("none", "ratios", "equilibrium", "regression")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Shape of the network; meanings beside the values in LHP_architecture.yaml."""

    hidden_size: int
    num_layers: int
    dropout: float
    init_state: bool
    concat_input: bool
    init_width: int
    embedding_size: int
    head_width: int
    flux_feedback: bool
    predicted: list
    static_features: str
    static_trunk: list
    static_dropout: float
    output_affine: bool
    first_guess: bool
    co2_input: bool = False  # may be missing: emulators from before it had none


@dataclass(frozen=True)
class TrainingOptions:
    """Schedule and loss; meanings beside the values in LHP_architecture.yaml."""

    epochs: int
    steps_per_epoch: int
    batch_size: int
    warmup_days: int
    scored_days: int
    learning_rate: float
    weight_decay: float
    static_weight_decay: float
    group_lasso: float
    warmup_steps: int
    gradient_clip: float
    patience: int
    one_step_weight: float
    rollout_weight: float
    teacher_start: float
    teacher_end: float
    teacher_steps: int
    flux_weights: dict
    seed: int
    error_runs: int
    by_runs: dict


@dataclass(frozen=True)
class SplitOptions:
    """First and last day (ISO dates, inclusive) of the three periods, and the choice of unseen runs."""

    train: list
    validation: list
    test: list
    unseen_share: float
    seed: int


@dataclass(frozen=True)
class DataOptions:
    """Where the ensemble lies, its daily files' columns in order, and the table's columns that are no parameters."""

    directory: str
    column_order: list | None
    drop_columns: list | None
    label_map: dict | None = None  # set by train.py --labels: see ensembles/labels.py


@dataclass(frozen=True)
class EvaluationOptions:
    """Protocol of the 30-day windows."""

    context_days: int
    horizon_days: int
    window_stride: int
    validation_windows: int


@dataclass(frozen=True)
class Choice:
    """Presets among which short trainings decide, and the minutes for everything at 180 runs."""

    presets: list
    minutes: float


@dataclass(frozen=True)
class Configuration:
    """Everything that defines a training: one preset, resolved."""

    preset: str
    data: DataOptions
    splits: SplitOptions
    model: ModelOptions
    training: TrainingOptions
    evaluation: EvaluationOptions

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def for_runs(self, runs: int) -> "Configuration":
        """The configuration with `training.by_runs` applied for an ensemble of `runs` runs (and emptied)."""
        values: dict[str, Any] = {}
        for threshold in sorted(self.training.by_runs, key=int):
            if runs >= int(threshold):
                values.update(self.training.by_runs[threshold])
        return replace(self, training=replace(self.training, **values, by_runs={}))

    def override(self, section: str, **values: Any) -> "Configuration":
        """Copy with `values` (None = keep) set in `section`; they also win over `training.by_runs`."""
        values = {key: value for key, value in values.items() if value is not None}
        part = getattr(self, section)
        if section == "training":
            by_runs = {runs: {k: v for k, v in row.items() if k not in values} for runs, row in part.by_runs.items()}
            part = replace(part, by_runs=by_runs)
        result = replace(self, **{section: replace(part, **values)})
        check(result, "flags")
        return result


def load_configuration(path: str | Path = ARCHITECTURE_FILE, preset: str | None = None) -> Configuration:
    """Read the YAML and pick `preset` (default: the file's). UserError on anything unknown, missing or out of range."""
    path, content = Path(path), read_yaml(path, "LHP_architecture.yaml belongs in the repository's root")
    keys = ("preset", "choice", "data", "splits", "presets", "evaluation")
    _check_keys(content, keys, path, "the top level", optional=("choice",))
    presets = content["presets"]
    _require(isinstance(presets, Mapping), path, "presets must hold 'name: ...' lines")
    choice = _choice(content, path)
    preset = preset or content["preset"]
    _require(isinstance(preset, str), path, f"preset is {preset!r}, expected a name")
    if preset == AUTO:
        preset = choice.presets[0]
    if preset not in presets:
        raise UserError(f"{path}: no preset '{preset}'; known are {', '.join(map(str, presets))} and {AUTO}")
    for name, body in presets.items():  # a typing error in the other preset should not wait to be found
        _check_keys(body, ("model", "training"), path, f"presets.{name}")
    content = {"preset": preset, **presets[preset], **{key: content[key] for key in ("data", "splits", "evaluation")}}
    return from_dict(content, path)


def load_choice(path: str | Path = ARCHITECTURE_FILE, preset: str | None = None) -> Choice | None:
    """What `preset: auto` chooses from; None where one preset is named, by `preset` or by the YAML."""
    path, content = Path(path), read_yaml(path, "LHP_architecture.yaml belongs in the repository's root")
    if not isinstance(content, Mapping) or "preset" not in content:
        raise UserError(f"{path}: has no key 'preset'; compare with the repository's LHP_architecture.yaml")
    return _choice(content, path) if (preset or content["preset"]) == AUTO else None


def _choice(content: Mapping[str, Any], path: Path) -> Choice:
    if "choice" not in content:  # a YAML from before there was a choice
        if content["preset"] == AUTO:
            raise UserError(f"{path}: preset is {AUTO}, but there is no `choice`; name a preset")
        return Choice([str(content["preset"])], 5.0)
    choice = _build(Choice, content["choice"], path, "choice")
    _require(len(choice.presets) > 0 and choice.minutes > 0, path, "choice needs presets, and minutes above 0")
    for name in choice.presets:
        if not isinstance(name, str) or name not in content["presets"]:
            known = ", ".join(map(str, content["presets"]))
            raise UserError(f"{path}: choice.presets names {name!r}; known are {known}")
    return choice


def from_dict(content: Mapping[str, Any], source: Path) -> Configuration:
    """Build and check a Configuration from nested plain values; `source` names the file in errors."""
    sections = {"data": DataOptions, "splits": SplitOptions, "model": ModelOptions, "training": TrainingOptions,
                "evaluation": EvaluationOptions}  # fmt: skip
    _check_keys(content, ("preset", *sections), source, "the configuration")
    if isinstance(content["data"], Mapping):  # an emulator trained before there was the key
        content = {**content, "data": {"drop_columns": None, **content["data"]}}
    parts = {name: _build(kind, content[name], source, name) for name, kind in sections.items()}
    by_runs = parts["training"].by_runs
    for runs, row in by_runs.items():
        if not str(runs).isdigit() or not isinstance(row, Mapping):
            raise UserError(
                f"{source}: training.by_runs has {runs!r}: {row!r}; expected a number of runs: {{key: value}}"
            )
        known = {field.name: field for field in fields(TrainingOptions) if field.name != "by_runs"}
        for key, value in row.items():
            if key not in known:
                raise UserError(f"{source}: unknown key 'training.by_runs.{runs}.{key}'; known are {', '.join(known)}")
            row[key] = _typed(value, known[key].type, source, f"training.by_runs.{runs}.{key}")
    splits = parts["splits"]
    periods = {
        name: list(period(getattr(splits, name), f"{source}: splits.{name}"))
        for name in ("train", "validation", "test")
    }
    parts["splits"] = replace(splits, **periods)
    result = Configuration(preset=str(content["preset"]), **parts)
    check(result, source)
    return result


def period(values: Any, where: str) -> tuple[str, str]:
    """(first, last) day as ISO dates from two years or dates; a year means its first or last day."""
    if not isinstance(values, list | tuple) or len(values) != 2:
        raise UserError(f"{where} is {values!r}, expected [first, last] as years or dates (YYYY-MM-DD)")
    days = []
    for value, month_day in zip(values, ("01-01", "12-31"), strict=True):
        text = f"{value}-{month_day}" if str(value).isdigit() and len(str(value)) == 4 else str(value)
        try:
            days.append(date.fromisoformat(text))
        except ValueError:
            raise UserError(f"{where} holds {value!r}, expected a year or a date YYYY-MM-DD") from None
    if days[0] > days[1]:
        raise UserError(f"{where}: the first day {days[0]} comes after the last {days[1]}; exchange them")
    return days[0].isoformat(), days[1].isoformat()


def check(config: Configuration, source: Any) -> None:
    """UserError naming the first value that makes no sense."""
    model, training, splits = config.model, config.training, config.splits
    _require(model.hidden_size > 0 and model.num_layers > 0, source, "model.hidden_size and num_layers must be above 0")
    _require(0 <= model.dropout < 1 and 0 <= model.static_dropout < 1, source, "dropouts must be in 0 to 1")
    _require(
        len(model.predicted) == 3 and set(model.predicted) < set(TARGETS) and "gpp" in model.predicted, source,
        f"model.predicted is {model.predicted}; name three of {', '.join(TARGETS)}, gpp among them (the fourth "
        "follows)",
    )  # fmt: skip
    _require(model.static_features in STATIC_FEATURES, source,
             f"model.static_features is {model.static_features!r}, allowed are "
             f"{', '.join(STATIC_FEATURES)}")  # fmt: skip
    _require(not model.first_guess or model.static_features == "equilibrium", source,
             "model.first_guess needs model.static_features: equilibrium")  # fmt: skip
    _require(model.init_state or model.concat_input or model.output_affine, source,
             "the parameters would not reach the network: switch on model.init_state or concat_input")  # fmt: skip
    for name in ("epochs", "steps_per_epoch", "batch_size", "scored_days"):
        _require(getattr(training, name) > 0, source, f"training.{name} is {getattr(training, name)}, must be above 0")
    for name in ("warmup_days", "weight_decay", "static_weight_decay", "group_lasso", "warmup_steps", "patience",
                 "error_runs", "one_step_weight", "rollout_weight"):  # fmt: skip
        _require(
            getattr(training, name) >= 0, source, f"training.{name} is {getattr(training, name)}, must not be negative"
        )
    _require(training.learning_rate > 0 and training.gradient_clip > 0, source,
             "training.learning_rate and gradient_clip must be above 0")  # fmt: skip
    _require(training.one_step_weight + training.rollout_weight > 0, source, "both loss weights are 0")
    _require(model.flux_feedback or training.one_step_weight == 0, source,
             "without flux_feedback the one-step and the rollout term are the same number: set "
             "training.one_step_weight to 0")  # fmt: skip
    _require(not model.flux_feedback or training.scored_days % config.evaluation.horizon_days == 0, source,
             f"training.scored_days is {training.scored_days}; with flux_feedback it must be a multiple of the "
             f"{config.evaluation.horizon_days}-day horizon")  # fmt: skip
    _require(
        set(training.flux_weights) == set(TARGETS), source, f"training.flux_weights must name {', '.join(TARGETS)}"
    )
    _require(0 <= training.teacher_end <= training.teacher_start <= 1, source,
             "training.teacher_start and teacher_end must obey 0 <= end <= start <= 1")  # fmt: skip
    _require(
        0 < splits.unseen_share < 1, source, f"splits.unseen_share is {splits.unseen_share}, must be between 0 and 1"
    )
    _require(splits.train[1] < splits.validation[0] and splits.validation[1] < splits.test[0], source,
             f"the periods must follow each other: train ends {splits.train[1]}, validation {splits.validation[0]} to "
             f"{splits.validation[1]}, test starts {splits.test[0]}")  # fmt: skip
    for name in ("context_days", "horizon_days", "window_stride", "validation_windows"):
        _require(getattr(config.evaluation, name) > 0, source, f"evaluation.{name} must be above 0")


def fit_splits(splits: SplitOptions, dates: np.ndarray, given_by_user: bool) -> SplitOptions:
    """Check the three periods against the ensemble's days; `dates` (day,) datetime64[D].

    Periods that the user named must lie inside the data (UserError). The YAML's own are replaced, with a warning, when
    the ensemble covers other years: its last whole year tests, the one before validates, the rest trains.
    """
    first, last = str(dates[0]), str(dates[-1])
    if first <= splits.train[1] and splits.test[1] <= last:
        return replace(splits, train=[max(splits.train[0], first), splits.train[1]])
    if given_by_user:
        raise UserError(
            f"the ensemble covers {first} to {last}, but training ends {splits.train[1]} and the test period is "
            f"{splits.test[0]} to {splits.test[1]}; choose --train-period, --validation-period and "
            "--test-period inside it"
        )
    years = [year for year in range(dates[0].astype(object).year, dates[-1].astype(object).year + 1)
             if f"{year}-01-01" >= first and f"{year}-12-31" <= last]  # fmt: skip
    if len(years) >= 3:
        test, validation = ([f"{year}-01-01", f"{year}-12-31"] for year in (years[-1], years[-2]))
    else:  # a short record: its last fifth tests, the fifth before validates
        day = [str(dates[int(len(dates) * share)]) for share in (0.6, 0.8)]
        before = str(date.fromisoformat(day[1]) - timedelta(days=1))
        validation, test = [day[0], before], [day[1], last]
    train = [first, str(date.fromisoformat(validation[0]) - timedelta(days=1))]
    warn(
        f"the ensemble covers {first} to {last}, not the configured periods: training on {train[0]} to {train[1]}, "
        f"validation {validation[0]} to {validation[1]}, test {test[0]} to {test[1]} "
        "(choose others with --train-period, --validation-period, --test-period)"
    )
    return replace(splits, train=train, validation=validation, test=test)


def _require(condition: bool, source: Any, message: str) -> None:
    if not condition:
        raise UserError(f"{source}: {message}")


def _check_keys(
    content: Any, known: tuple[str, ...], source: Path, where: str, optional: tuple[str, ...] = ()
) -> None:
    if not isinstance(content, Mapping):
        raise UserError(f"{source}: {where} must hold 'key: value' lines, got {content!r}")
    for key in content:
        if key not in known:
            raise UserError(f"{source}: unknown key '{key}' in {where}; known are {', '.join(known)}")
    for key in known:
        if key not in content and key not in optional:
            raise UserError(f"{source}: key '{key}' is missing in {where}")


def _build(kind: type, content: Any, source: Path, where: str) -> Any:
    optional = tuple(f.name for f in fields(kind) if f.default is not MISSING)
    _check_keys(content, tuple(f.name for f in fields(kind)), source, where, optional)
    given = [f for f in fields(kind) if f.name in content]
    values = {f.name: _typed(content[f.name], f.type, source, f"{where}.{f.name}") for f in given}
    return kind(**values)


def _typed(value: Any, kind: Any, source: Path, where: str) -> Any:
    kinds = get_args(kind) if get_origin(kind) is UnionType else (kind,)
    for expected in kinds:
        if expected is float and isinstance(value, int | float) and not isinstance(value, bool):
            if not math.isfinite(value):
                break
            return float(value)
        if isinstance(value, expected) and not (expected is int and isinstance(value, bool)):
            return json.loads(json.dumps(value, default=str)) if isinstance(value, dict | list) else value
    names = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
    raise UserError(f"{source}: {where} is {value!r}, expected {names}")
