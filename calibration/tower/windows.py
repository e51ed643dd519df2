"""Observation windows: scaled weather of context and horizon with the observed fluxes, and their .npz file.

A window starts on a day; its context is the weather of the days before, its horizon that day and the next ones.
The file carries feature names, target names and the scaler's numbers, so that another emulator's file is noticed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile, is_zipfile

import numpy as np

from calibration.common.command_line import ARCHIVE_ERRORS, UserError, existing_file, read_arrays, warn, writing
from calibration.common.units import POSSIBLE, TARGETS
from calibration.weather.sentinel import advice, check_flux, unusual

DAY = np.timedelta64(1, "D")
SCALER_TOLERANCE = 1e-5  # relative difference of means and scales (to the scale) that counts as the same scaler
MOST_BYTES = 8 * 2**30  # unpacked: some million windows
REQUIRED = ("context_x", "future_known", "y_obs", "obs_mask", "window_start")


@dataclass(frozen=True)
class Windows:
    """n windows. Weather is scaled (dimensionless), fluxes are Mg C ha-1 day-1.

    context_x: (n, context, feature) float32; future_known: (n, horizon, feature) float32; y_obs: (n, horizon, 4)
    float32 in the order of target_names, NaN where not observed or masked; obs_mask: (n, horizon) bool, valid NEP;
    y_mask: (n, horizon, 4) bool, valid values of every flux; window_start: (n,) datetime64[D];
    scaler_mean, scaler_scale: (feature,) physical units; obs_sd: (n, horizon) error of NEP as one standard deviation,
    NaN where unknown, or None; er_obs: (n, horizon) ecosystem respiration, NaN where unknown, or None.
    """

    context_x: np.ndarray
    future_known: np.ndarray
    y_obs: np.ndarray
    obs_mask: np.ndarray
    y_mask: np.ndarray
    window_start: np.ndarray
    feature_names: tuple[str, ...]
    target_names: tuple[str, ...]
    scaler_mean: np.ndarray
    scaler_scale: np.ndarray
    obs_sd: np.ndarray | None = None
    er_obs: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.window_start)

    @property
    def context(self) -> int:
        """Days of context."""
        return self.context_x.shape[1]

    @property
    def horizon(self) -> int:
        """Days of the horizon."""
        return self.future_known.shape[1]

    @property
    def dates(self) -> np.ndarray:
        """(n, horizon) datetime64[D] of the target days."""
        return self.window_start[:, None] + DAY * np.arange(self.horizon)

    def nep(self) -> np.ndarray:
        """(n, horizon) observed NEP, Mg C ha-1 day-1, NaN where masked."""
        return self.y_obs[:, :, self.target_names.index("nep")]

    def select(self, index) -> "Windows":
        """The windows of an index array, slice or mask."""

        def take(array):
            """The chosen windows of an array that may be missing."""
            return None if array is None else array[index]

        return Windows(
            self.context_x[index], self.future_known[index], self.y_obs[index], self.obs_mask[index],
            self.y_mask[index], self.window_start[index], self.feature_names, self.target_names,
            self.scaler_mean, self.scaler_scale, take(self.obs_sd), take(self.er_obs),
        )  # fmt: skip

    def save(self, path: str | Path) -> None:
        """Write the .npz of the specification. Masked fluxes are written as 0, never as NaN; obs_mask as 0 and 1."""
        save_windows(path, self)


def save_windows(path: str | Path, windows: Windows) -> None:
    """Write `windows` as .npz (see Windows.save); UserError when `path` lacks that suffix."""
    path = Path(path)
    if path.suffix != ".npz":
        raise UserError(f"{path}: windows are written as .npz; give a name that ends in .npz")
    arrays = {
        "context_x": windows.context_x.astype(np.float32),
        "future_known": windows.future_known.astype(np.float32),
        "y_obs": np.where(windows.y_mask, windows.y_obs, 0.0).astype(np.float32),
        "obs_mask": windows.obs_mask.astype(np.float32),
        "y_mask": windows.y_mask.astype(np.float32),
        "window_start": windows.window_start.astype("datetime64[D]").astype(str),
        "feature_names": np.array(windows.feature_names),
        "target_names": np.array(windows.target_names),
        "scaler_mean": np.asarray(windows.scaler_mean, dtype=np.float64),
        "scaler_scale": np.asarray(windows.scaler_scale, dtype=np.float64),
    }
    if windows.obs_sd is not None:
        arrays["obs_sd"] = windows.obs_sd.astype(np.float32)
    if windows.er_obs is not None:
        arrays["er_obs"] = windows.er_obs.astype(np.float32)
    with writing(path) as temporary:
        np.savez(temporary, **arrays)


def load_windows(
    path: str | Path,
    feature_names: Sequence[str],
    scaler,
    target_names: Sequence[str] = TARGETS,
    rescale: bool = False,
) -> Windows:
    """Read windows for an emulator with these features, scaler (.mean, .scale in that order) and targets.

    UserError when arrays are missing or disagree, when features or their order are others than the emulator's, or
    when they were scaled with another scaler (rescale=True converts them instead). A file without the metadata is
    taken as the emulator's own, with a warning; without target names the one channel of y_obs that is not all zero
    is taken for NEP, and that is said.
    """
    path = Path(path)
    arrays = _read_arrays(path)
    context_x, future_known = _float(path, arrays, "context_x", 3), _float(path, arrays, "future_known", 3)
    count, horizon, width = future_known.shape
    if count == 0:
        raise UserError(f"{path}: holds no windows; build it again with build_observation_windows.py")
    if len(context_x) != count or context_x.shape[2] != width:
        raise UserError(f"{path}: context_x is {context_x.shape}, future_known {future_known.shape}; they must agree")
    feature_names, target_names = tuple(feature_names), tuple(target_names)
    _check_features(path, arrays, feature_names, width)
    mean, scale = np.asarray(scaler.mean, dtype=np.float64), np.asarray(scaler.scale, dtype=np.float64)
    context_x, future_known = _same_scaler(path, arrays, context_x, future_known, feature_names, mean, scale, rescale)
    _check_weather(path, np.concatenate([context_x[:, :1], future_known], axis=1), feature_names, mean, scale)
    obs_mask = _float(path, arrays, "obs_mask", 2, (count, horizon)) > 0.5
    y_obs, y_mask = _fluxes(path, arrays, obs_mask, target_names)
    optional = {
        name: _float(path, arrays, name, 2, (count, horizon), finite=False) if name in arrays else None
        for name in ("obs_sd", "er_obs")
    }
    starts = _starts(path, arrays["window_start"], count)
    return Windows(
        context_x, future_known, y_obs, obs_mask, y_mask, starts, feature_names, target_names, mean, scale, **optional
    )


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    existing_file(path, "make it with build_observation_windows.py")
    if not is_zipfile(path):
        raise UserError(
            f"{path}: not readable as .npz (no such archive, or cut short); build it with build_observation_windows.py"
        )
    try:
        with ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MOST_BYTES:
            raise UserError(f"{path}: unpacks to {size / 2**30:.1f} GB, at most {MOST_BYTES >> 30} are read; split it")
        arrays = read_arrays(path)
    except ARCHIVE_ERRORS as error:
        raise UserError(f"{path}: not readable as .npz ({error}); build it with build_observation_windows.py") from None
    missing = [name for name in REQUIRED if name not in arrays]
    if missing:
        raise UserError(
            f"{path}: has no array {', '.join(missing)}; found {', '.join(arrays) or 'nothing'}; "
            "build it again with build_observation_windows.py"
        )
    return arrays


def _float(path: Path, arrays: dict, name: str, dimensions: int, shape=None, finite=True) -> np.ndarray:
    array = arrays[name]
    if array.ndim != dimensions or (shape is not None and array.shape != shape):
        wanted = shape if shape is not None else f"{dimensions} dimensions"
        raise UserError(f"{path}: {name} has shape {array.shape}, expected {wanted}; build the file again")
    if array.dtype.kind not in "fiub":
        raise UserError(f"{path}: {name} holds {array.dtype}, expected numbers; build the file again")
    array = array.astype(np.float32)
    if finite and not np.isfinite(array).all():
        raise UserError(
            f"{path}: {name} holds {int((~np.isfinite(array)).sum())} NaN or infinite values; build it again"
        )
    return array


def _check_features(path: Path, arrays: dict, feature_names: tuple[str, ...], width: int) -> None:
    if "feature_names" not in arrays:
        if width != len(feature_names):
            raise UserError(
                f"{path}: {width} features, the emulator has {len(feature_names)} ({', '.join(feature_names)}); "
                "build it again with build_observation_windows.py"
            )
        warn(f"{path}: has no feature names; its {width} features are taken as {', '.join(feature_names)}")
        return
    found = tuple(str(name) for name in np.atleast_1d(arrays["feature_names"]))
    if found != feature_names:
        what = "the same features in another order" if sorted(found) == sorted(feature_names) else "other features"
        raise UserError(
            f"{path}: holds {what} ({', '.join(found)}) than the emulator ({', '.join(feature_names)}); "
            "build it again with build_observation_windows.py"
        )
    if width != len(feature_names):
        raise UserError(f"{path}: names {len(found)} features but its arrays hold {width}; build it again")


def _same_scaler(path, arrays, context_x, future_known, feature_names, mean, scale, rescale):
    if "scaler_mean" not in arrays or "scaler_scale" not in arrays:
        warn(f"{path}: does not say which scaler it was made with; the emulator's own is assumed")
        return context_x, future_known
    own_mean = _float(path, arrays, "scaler_mean", 1, mean.shape).astype(np.float64)
    own_scale = _float(path, arrays, "scaler_scale", 1, scale.shape).astype(np.float64)
    if not (own_scale > 0).all():
        raise UserError(f"{path}: scaler_scale must be above 0; build the file again")
    # float32 was good enough for the check of shapes only: means of hundreds of K need all digits here.
    own_mean, own_scale = arrays["scaler_mean"].astype(np.float64), arrays["scaler_scale"].astype(np.float64)
    differs = np.maximum(np.abs(own_mean - mean) / scale, np.abs(own_scale / scale - 1)) > SCALER_TOLERANCE
    if not differs.any():
        return context_x, future_known
    worst = int(differs.argmax())
    if not rescale:
        raise UserError(
            f"{path}: was scaled with another scaler than the emulator's ({int(differs.sum())} of {len(mean)} "
            f"features, such as {feature_names[worst]}: mean {own_mean[worst]:g} and scale {own_scale[worst]:g} "
            f"against {mean[worst]:g} and {scale[worst]:g}); build it again with build_observation_windows.py"
        )
    warn(f"{path}: rescaled from its own scaler to the emulator's ({int(differs.sum())} features differ)")
    return tuple(
        ((array * own_scale + own_mean - mean) / scale).astype(np.float32) for array in (context_x, future_known)
    )


def _check_weather(path: Path, scaled: np.ndarray, names: tuple[str, ...], mean, scale) -> None:
    """UserError when scaled weather (n, day, feature) is in another unit than the scaler's once it is physical."""
    physical = scaled.reshape(-1, len(names)).astype(np.float64) * scale + mean
    for name, values in zip(names, physical.T, strict=True):
        if name in POSSIBLE:
            low, high = POSSIBLE[name]
            slack = 0.02 * (high - low)  # float32, and weather that another scaler's owner rounded
            outside = (values < low - slack) | (values > high + slack)
            problem = unusual(name, np.clip(values, low, high), None)
            if outside.mean() > 0.01:
                found = f"is {values[outside][0]:.4g} and the like on {outside.mean():.0%} of the days"
                problem = found + advice(name, values)
            if problem is not None:
                raise UserError(f"{path}: {name} {problem}")


def _fluxes(path: Path, arrays: dict, obs_mask: np.ndarray, target_names: tuple[str, ...]):
    """y_obs and y_mask, both (n, horizon, 4) in the order of target_names; y_obs is NaN where masked."""
    raw = arrays["y_obs"]
    if raw.ndim == 2:
        raw = raw[:, :, None]
    if raw.ndim != 3 or raw.shape[:2] != obs_mask.shape:
        raise UserError(f"{path}: y_obs has shape {raw.shape}, expected {(*obs_mask.shape, len(target_names))}")
    raw = raw.astype(np.float32)
    if "target_names" in arrays:
        found = [str(name).lower() for name in np.atleast_1d(arrays["target_names"])]
        unknown = [name for name in found if name not in target_names]
        if len(found) != raw.shape[2] or unknown or len(set(found)) != len(found) or "nep" not in found:
            raise UserError(
                f"{path}: target names are {', '.join(found)} for {raw.shape[2]} channels; "
                f"expected nep among {', '.join(target_names)}"
            )
    else:
        used = [k for k in range(raw.shape[2]) if np.any(np.nan_to_num(raw[:, :, k]) != 0)]
        if len(used) != 1:
            raise UserError(
                f"{path}: has no target names, and {len(used)} of {raw.shape[2]} channels of y_obs are not all zero, "
                "so which one is NEP is open; build it again with build_observation_windows.py"
            )
        warn(f"{path}: has no target names; channel {used[0]} of y_obs, the only one not all zero, is taken for NEP")
        raw, found = raw[:, :, used], ["nep"]
    if "y_mask" in arrays:
        own_mask = _float(path, arrays, "y_mask", 3, raw.shape) > 0.5
    else:
        own_mask = np.zeros(raw.shape, dtype=bool)
    own_mask[:, :, found.index("nep")] = obs_mask
    if not np.isfinite(raw[own_mask]).all():
        raise UserError(f"{path}: y_obs is NaN or infinite on days that the mask calls valid; build it again")
    check_flux("y_obs", np.where(own_mask, raw, np.nan).ravel(), str(path))
    y_obs = np.full((*obs_mask.shape, len(target_names)), np.nan, dtype=np.float32)
    y_mask = np.zeros(y_obs.shape, dtype=bool)
    for k, name in enumerate(found):
        at = target_names.index(name)
        y_obs[:, :, at] = np.where(own_mask[:, :, k], raw[:, :, k], np.nan)
        y_mask[:, :, at] = own_mask[:, :, k]
    return y_obs, y_mask


def _starts(path: Path, array: np.ndarray, count: int) -> np.ndarray:
    text = [str(value)[:10] for value in np.atleast_1d(array)]
    if len(text) != count:
        raise UserError(f"{path}: window_start has {len(text)} entries for {count} windows; build it again")
    try:
        starts = np.array(text, dtype="datetime64[D]")
    except ValueError:
        raise UserError(f"{path}: window_start holds {text[0]!r}; expected dates as YYYY-MM-DD") from None
    if np.isnat(starts).any():
        raise UserError(f"{path}: window_start holds an empty date; expected YYYY-MM-DD")
    return starts
