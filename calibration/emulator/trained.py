"""A trained emulator is one thing: weights, configuration, scalers, names and the ranges it was trained on.

Every script gets it from load_emulator(); nothing is refitted. The folder (artifacts/) holds config.json,
checkpoint_best.pt, scaler_dynamic.json, scaler_static.json (and their pickles) and emulator_error.json/.npz.
"""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calibration.common.command_line import UserError, existing_file, read_json, warn
from calibration.common.configuration import ARCHITECTURE_FILE, Configuration, from_dict
from calibration.common.parameters import ParameterSpace, canonical_name, make_space, read_ranges
from calibration.common.scalers import Scaler, load_scaler
from calibration.common.units import CONTEXT_DAYS, TARGETS
from calibration.emulator.error import EmulatorErrors, load_errors
from calibration.ensembles.labels import LabelMap, map_of
from calibration.network.canopy_equilibrium import CLOSED_FORMS
from model import StaticConditionedLSTM, create_model

CONFIG, BEST, LATEST, HISTORY = "config.json", "checkpoint_best.pt", "checkpoint_latest.pt", "training_history.json"
MEMORY = 4  # times the warm-up of the training
FORMAT = 2  # of the folder's content; another one cannot be read
FAST_WOOD = 1e-3  # day-1, turnover of stem above which older closed forms differ


@dataclass
class Emulator:
    """A trained emulator, frozen: dropout off, no gradients for its weights."""

    directory: Path
    model: StaticConditionedLSTM
    config: dict[str, Any]  # all of config.json
    configuration: Configuration
    dynamic_scaler: Scaler
    static_scaler: Scaler
    parameter_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    target_names: tuple[str, ...]
    space: ParameterSpace  # ranges of the training ensemble
    training_parameters: np.ndarray  # (run, P) physical
    errors: EmulatorErrors | None  # None when train.py has not estimated them

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.target_mean.device

    @property
    def memory_days(self) -> int | None:
        """Days of weather before a stretch that its prediction depends on; None: all that there are.

        Behind a first guess the days before sit in the prepared columns (soil water), and the LSTM was trained to find
        its state within warmup_days: after four times as many, predictions differ by a hundredth of the error.
        """
        return MEMORY * self.configuration.training.warmup_days if self.model.options.first_guess else None

    @property
    def data_directory(self) -> Path:
        """The folder of the ensemble that it was trained on."""
        return ARCHITECTURE_FILE.parent / self.configuration.data.directory

    @property
    def labels(self) -> LabelMap | None:
        """Where columns of its ensemble went that were labelled wrong (train.py --labels)."""
        return map_of(self.configuration.data)

    @property
    def shown(self) -> dict[str, str]:
        """Parameters that reports write with the table's own label too: name -> e.g. 'tree_lf0 (slot 37, tree_lc0)'."""
        if self.labels is None:
            return {}
        written = self.labels.shown(self.parameter_names)
        return {name: text for name, text in zip(self.parameter_names, written, strict=True) if name != text}

    @torch.no_grad()
    def predict(
        self,
        parameters: np.ndarray,
        weather: np.ndarray,
        warmup: int = CONTEXT_DAYS,
        batch: int = 256,
        check_ranges: bool = True,
        dates: np.ndarray | None = None,
    ) -> np.ndarray:
        """Free-running fluxes under one weather.

        parameters (sample, P) physical, in the order of parameter_names; weather (day, 10) physical, in the order of
        feature_names, of `dates` (day,), None: the season is read from the CO2 -> (sample, day - warmup, 4) float32,
        target_names order, Mg C ha-1 day-1. The first `warmup` days only set the state. Warns naming parameters outside
        the trained ranges. `batch` samples are in memory at once.
        """
        parameters = np.atleast_2d(np.asarray(parameters, dtype=np.float64))
        weather = np.asarray(weather, dtype=np.float64)
        if parameters.shape[1] != len(self.parameter_names):
            raise UserError(
                f"{parameters.shape[1]} parameters given, the emulator in {self.directory} takes "
                f"{len(self.parameter_names)}"
            )
        if weather.ndim != 2 or weather.shape[1] != len(self.feature_names) or len(weather) <= warmup:
            raise UserError(
                f"weather has shape {weather.shape}; expected more than {warmup} days of "
                f"{', '.join(self.feature_names)}"
            )
        if check_ranges:
            self.check_ranges(parameters)
        static = torch.as_tensor(self.static_scaler.transform(parameters), dtype=torch.float32, device=self.device)
        dynamic = torch.as_tensor(self.dynamic_scaler.transform(weather), dtype=torch.float32, device=self.device)
        prepared = self.model.prepare_days(dynamic[None], dates)[0]
        result = np.empty((len(static), len(dynamic) - warmup, len(self.target_names)), dtype=np.float32)
        for start in range(0, len(static), batch):
            part = slice(start, start + batch)
            result[part] = self.model.simulate(static[part], prepared, warmup).cpu().numpy()
        return result

    def outside_ranges(self, parameters: np.ndarray) -> dict[str, tuple[float, float, float]]:
        """Parameters outside the trained ranges: name -> (most extreme value, minimum, maximum); ties respected."""
        parameters = np.atleast_2d(np.asarray(parameters, dtype=np.float64))
        unit = self.space.physical_to_unit(parameters)
        found = {}
        for i, name in enumerate(self.parameter_names):
            low, high = self.space.lower[i], self.space.upper[i]
            if low == high:  # constant in training: anything else is unknown to the emulator
                bad = np.abs(parameters[:, i] - low) > 1e-9 * max(abs(low), 1e-12)
            else:
                bad = (unit[:, i] < -1e-6) | (unit[:, i] > 1 + 1e-6)
            if bad.any():
                values = parameters[bad, i]
                worst = values[np.argmax(np.abs(values - (low + high) / 2))]
                found[name] = (float(worst), float(low), float(high))
        return found

    def check_ranges(self, parameters: np.ndarray) -> None:
        """Warn, naming them, about parameters (sample, P) outside the trained ranges."""
        outside = self.outside_ranges(parameters)
        if outside:
            listed = "; ".join(f"{n} = {v:g} (trained {a:g} to {b:g})" for n, (v, a, b) in list(outside.items())[:6])
            more = f" and {len(outside) - 6} more" if len(outside) > 6 else ""
            warn(f"outside the emulator's trained ranges: {listed}{more}; predictions there are extrapolations")

    def parameter_index(self, names: Sequence[str]) -> list[int]:
        """Positions of `names` (any case) in parameter_names. UserError on an unknown one."""
        lower = [name.lower() for name in self.parameter_names]
        for name in names:
            if name.lower() not in lower:
                raise UserError(
                    f"the emulator in {self.directory} has no parameter '{name}'; it has "
                    f"{', '.join(self.parameter_names)}"
                )
        return [lower.index(name.lower()) for name in names]


def load_emulator(directory: str | Path = "artifacts", device: str | torch.device = "cpu") -> Emulator:
    """Load a trained emulator onto any device.

    UserError when a file is missing, damaged, or does not belong to the others (an artifacts folder of another model).
    """
    directory = Path(directory)
    content = read_json(existing_file(directory / CONFIG, "train an emulator first: python train.py"))
    device = usable_device(device)
    needed = ("configuration", "feature_names", "target_names", "parameter_names", "parameter_space")
    for key in needed:
        if not isinstance(content, dict) or key not in content:
            raise UserError(
                f"{directory / CONFIG}: no '{key}' in it, so it is not a config.json of train.py; train again"
            )
    if content.get("format") != FORMAT:
        raise UserError(
            f"{directory / CONFIG}: format {content.get('format')}, this version reads {FORMAT}: the emulator was made "
            "by another version of train.py; train again"
        )
    names, features = tuple(content["parameter_names"]), tuple(content["feature_names"])
    if tuple(content["target_names"]) != TARGETS:
        raise UserError(
            f"{directory / CONFIG}: targets are {content['target_names']}, this version needs {list(TARGETS)}; "
            "train again"
        )
    checkpoint = load_checkpoint(directory / BEST)
    options = checkpoint["model_state_dict"].get("_extra_state", {}).get("options")
    if not options:
        raise UserError(
            f"{directory / BEST}: a checkpoint of another model (no architecture inside); train again with train.py"
        )
    if options["parameter_names"] != list(names) or options["dynamic_dim"] != len(features):
        raise UserError(
            f"{directory}: {BEST} was trained with {options['dynamic_dim']} dynamic features and "
            f"{options['static_dim']} parameters, "
            f"{CONFIG} lists {len(features)} and {len(names)} or other names; the folder mixes two models, train again"
        )
    model = create_model(**options, device=device)
    try:
        model.load_state_dict(checkpoint["model_state_dict"])
    except RuntimeError as error:
        raise UserError(f"{directory / BEST}: the weights do not fit the network ({error}); train again") from None
    model.eval().requires_grad_(False)
    scalers = {}
    for kind, wanted in (("dynamic", features), ("static", names)):
        scaler = load_scaler(directory / f"scaler_{kind}.json", wanted)
        if scaler.names != wanted:
            raise UserError(
                f"{directory / f'scaler_{kind}.json'}: its columns are not those of {CONFIG}; the folder mixes "
                "two models"
            )
        inside = model.dynamic_mean if kind == "dynamic" else model.static.features.parameter_mean
        scale = model.dynamic_scale if kind == "dynamic" else model.static.features.parameter_scale
        if not (_same(inside, scaler.mean, scaler.scale) and _same(scale, scaler.scale, scaler.scale)):
            raise UserError(
                f"{directory / f'scaler_{kind}.json'}: is not the scaler that {BEST} was trained with; the folder "
                "mixes two models, train again"
            )
        scalers[kind] = scaler
    space = make_space([tuple(entry) for entry in content["parameter_space"]], directory / CONFIG)
    warn_of_older_closed_forms(directory, options["static_features"], content.get("closed_forms", 1), space)
    return Emulator(
        directory=directory, model=model, config=content,
        configuration=from_dict(content["configuration"], directory / CONFIG),
        dynamic_scaler=scalers["dynamic"], static_scaler=scalers["static"], parameter_names=names,
        feature_names=features, target_names=TARGETS,
        space=space, training_parameters=checkpoint["training_parameters"].numpy(), errors=load_errors(directory),
    )  # fmt: skip


def warn_of_older_closed_forms(directory: Path, static_features: str, made_with: int, space: ParameterSpace) -> None:
    """A warning where closed forms of another number than CLOSED_FORMS took forests of `space` for others."""
    wood = [i for i, name in enumerate(space.names) if canonical_name(name) in ("tree_lc0", "c3_lc0")]
    differs = static_features == "equilibrium" and made_with != CLOSED_FORMS
    if differs and any(space.upper[i] > FAST_WOOD for i in wood):
        warn(
            f"{directory}: trained with other closed forms of forests whose wood turns over in weeks (tree_lc0, c3_lc0 "
            f"above {FAST_WOOD:g} a day); its predictions of them and their errors may be wrong, train again"
        )


def _same(inside: torch.Tensor, numbers: np.ndarray, scale: np.ndarray) -> bool:
    """Whether a model's own float32 numbers are those of a scaler (same unit as `scale`)."""
    tolerance = 1e-4 * scale + 1e-6 * np.abs(numbers)  # float32 has 7 digits, CO2 some 400 +- 1
    return bool(np.all(np.abs(inside.cpu().double().numpy() - numbers) <= tolerance))


def usable_device(name: str | torch.device) -> torch.device:
    """The torch device of a name such as cpu, cuda or cuda:1; UserError when it does not exist here."""
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name}: not usable here ({reason}); use --device cpu") from None


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of train.py on the CPU, read with weights_only=True. UserError when missing, damaged or foreign."""
    path = existing_file(path, "train an emulator first: python train.py")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or ["cut short"])[0][:100]
        raise UserError(f"{path}: not readable as a checkpoint ({reason}); train again") from None
    if (
        not isinstance(checkpoint, dict)
        or "model_state_dict" not in checkpoint
        or "training_parameters" not in checkpoint
    ):
        raise UserError(f"{path}: holds no model_state_dict of this project; it belongs to another program")
    return checkpoint


def space_entries(names: Sequence[str], parameters: np.ndarray, log: Any = None) -> list[list]:
    """The ranges behind an ensemble as [name, min, max or reference], for make_space().

    From the ranges in parameter_log.json where they hold every value of the parameter, else the smallest and largest
    value drawn; a parameter that the default ranges tie to another one stays tied where every run obeys the tie.
    names: P names; parameters (run, P) physical; log: content of parameter_log.json or None.
    """
    settings = log.get("settings") if isinstance(log, dict) else None
    ranges = settings.get("ranges", {}) if isinstance(settings, dict) else {}
    entries = []
    for name, column in zip(names, np.asarray(parameters).T, strict=True):
        bounds = ranges.get(name, {})
        low, high = bounds.get("min", np.inf), bounds.get("max_from", bounds.get("max", -np.inf))
        reference_known = isinstance(high, str) and high in names
        if low > column.min() or not (reference_known or (not isinstance(high, str) and high >= column.max())):
            low, high = float(column.min()), float(column.max())
            reference = _obeyed_tie(name, names, np.asarray(parameters))
            # A box in its place would count vectors as trained that no run came near.
            high = high if reference is None else reference
        entries.append([name, float(low), high if isinstance(high, str) else float(high)])
    return entries


def _obeyed_tie(name: str, names: Sequence[str], parameters: np.ndarray) -> str | None:
    """The parameter that bounds `name` in the default ranges, where all runs (run, P) obey it and that says something:
    with independent ranges of the same extent some run would not.
    """
    default = read_ranges()
    tied_to = default.tied_to[default.names.index(name)] if name in default.names else -1
    if tied_to < 0 or default.names[tied_to] not in names:
        return None
    column, bound = (parameters[:, list(names).index(n)] for n in (name, default.names[tied_to]))
    obeyed = np.all(column <= bound) and column.max() > bound.min() >= column.min()
    return default.names[tied_to] if obeyed else None
