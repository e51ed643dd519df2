"""Scalers as plain numbers: mean and scale by column name, stored as JSON beside the scikit-learn pickle of the
contract.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np

from calibration.common.command_line import UserError, notice, read_json, write_json, writing
from calibration.common.scaler_pickle import UNREADABLE, read_pickled_scaler


@dataclass(frozen=True)
class Scaler:
    """Standardisation of named columns: scaled = (physical - mean) / scale; `scale` is never 0."""

    names: tuple[str, ...]
    mean: np.ndarray  # (column,) in the columns' physical units
    scale: np.ndarray  # (column,) in the columns' physical units

    @classmethod
    def fit(cls, names: Sequence[str], values: np.ndarray) -> "Scaler":
        """Fit to values (row, column). A column without spread gets scale 1: it becomes exactly 0, not NaN."""
        values = np.asarray(values, dtype=np.float64)
        mean, scale = values.mean(axis=0), values.std(axis=0)
        constant = scale <= 1e-12 * np.maximum(np.abs(mean), 1e-30)
        return cls(tuple(names), mean, np.where(constant, 1.0, scale))

    def transform(self, values):
        """Physical (..., column) -> scaled, NumPy or torch (same dtype and device)."""
        mean, scale = self._like(values)
        return (values - mean) / scale

    def inverse(self, values):
        """Scaled (..., column) -> physical, NumPy or torch (same dtype and device)."""
        mean, scale = self._like(values)
        return values * scale + mean

    def subset(self, names: Sequence[str]) -> "Scaler":
        """The scaler of `names` in that order. UserError if one is unknown."""
        for name in names:
            if name not in self.names:
                raise UserError(f"the scaler has no column {name}; it has {', '.join(self.names)}")
        index = [self.names.index(name) for name in names]
        return Scaler(tuple(names), self.mean[index], self.scale[index])

    def _like(self, values):
        torch = sys.modules.get("torch")  # whoever has a tensor has imported it; others save two seconds
        if torch and torch.is_tensor(values):
            return (torch.as_tensor(self.mean, dtype=values.dtype, device=values.device),
                    torch.as_tensor(self.scale, dtype=values.dtype, device=values.device))  # fmt: skip
        return self.mean, self.scale

    def save(self, path: str | Path) -> None:
        """Write `path` (suffix .json or .pkl, whichever is given) as both twins: stem.json and stem.pkl."""
        from sklearn.preprocessing import StandardScaler  # a second's import that only training needs

        path = Path(path)
        content = {"names": list(self.names), "mean": self.mean.tolist(), "scale": self.scale.tolist()}
        write_json(path.with_suffix(".json"), content)
        scaler = StandardScaler()
        scaler.mean_, scaler.scale_, scaler.var_ = self.mean, self.scale, self.scale**2
        scaler.n_features_in_ = len(self.names)
        scaler.n_samples_seen_ = 0
        scaler.feature_names_in_ = np.array(self.names, dtype=object)
        with writing(path.with_suffix(".pkl")) as temporary:
            joblib.dump(scaler, temporary)


def load_scaler(path: str | Path, names: Sequence[str] | None = None) -> Scaler:
    """Load a scaler from its JSON twin, or from the pickle when only that exists (said; no code in it is run).

    `names` name the columns of a pickle without names. UserError when the file is missing, broken or of other width.
    """
    path = Path(path)
    twin = path.with_suffix(".json")
    if twin.is_file():
        content = read_json(twin)
        try:
            scaler = Scaler(tuple(content["names"]), np.asarray(content["mean"], dtype=np.float64),
                            np.asarray(content["scale"], dtype=np.float64))  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{twin}: not a scaler ({error!r}); expected names, mean and scale; run train.py again"
            ) from None
    else:
        scaler = _load_pickle(path, names)
    width = len(scaler.names)
    if scaler.mean.shape != (width,) or scaler.scale.shape != (width,):
        raise UserError(f"{path}: {width} names but {scaler.mean.size} means and {scaler.scale.size} scales")
    if not (np.isfinite(scaler.mean).all() and np.isfinite(scaler.scale).all() and (scaler.scale > 0).all()):
        raise UserError(f"{path}: means must be finite and scales above 0; run train.py again")
    return scaler


def _load_pickle(path: Path, names: Sequence[str] | None) -> Scaler:
    if not path.is_file():
        raise UserError(f"{path}: no such scaler (nor {path.with_suffix('.json').name}); run train.py first")
    try:
        found = read_pickled_scaler(path)
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: not readable as a pickle ({reason}); run train.py again, or give the JSON") from None
    names = found.names or names
    if names is None or len(names) != found.mean.size:
        raise UserError(
            f"{path}: {found.mean.size} columns without fitting names; give the scaler's JSON twin instead"
        )
    notice(f"{path}: read as a pickle; the JSON twin is what the scripts prefer")
    return Scaler(tuple(str(name) for name in names), found.mean, found.scale)
