"""The numbers of an inversion as tables and snapshots: what test_inversion.py leaves besides texts and figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from calibration.common.command_line import UserError, notice, read_json, write_json
from calibration.inversion.posterior import INFORMED
from calibration.judgement.judge import Judged
from inverse_estimator import InversionResult

TRUTH = "true_parameters.json"  # only of made-up data


def change_table(names: Sequence[str], prior: np.ndarray, optimized: np.ndarray) -> pd.DataFrame:
    """param_name, prior, optimized, delta, delta_pct (percent of the prior; empty where the prior is 0)."""
    delta = optimized - prior
    with np.errstate(divide="ignore", invalid="ignore"):
        percent = np.where(prior != 0, 100 * delta / np.abs(prior), np.nan)
    return pd.DataFrame(
        {"param_name": list(names), "prior": prior, "optimized": optimized, "delta": delta, "delta_pct": percent}
    )


def posterior_table(result: InversionResult) -> pd.DataFrame:
    """Interval, mean, sd (physical units) and posterior/prior sd of every parameter; fixed ones have ratio NaN."""
    posterior = result.posterior
    low, high = posterior.interval(0.9)
    ratio = np.full(len(result.names), np.nan)
    ratio[posterior.free] = posterior.sd_ratio
    return pd.DataFrame({
        "param_name": list(result.names), "prior": result.prior, "optimized": result.optimized,
        "mean": posterior.physical.mean(axis=0), "sd": posterior.physical.std(axis=0), "low_90": low, "high_90": high,
        "sd_ratio": ratio, "informed": ratio < INFORMED,
    })  # fmt: skip


def series_table(judged: Judged, simulator: np.ndarray | None = None) -> pd.DataFrame:
    """The numbers behind nep_comparison.png: date, observed, valid, fitted, prior, optimized, bands, simulator."""
    table = pd.DataFrame({
        "date": judged.dates.astype("datetime64[D]").astype(str), "observed": judged.observed,
        "valid": judged.valid.astype(int), "fitted": judged.fitted.astype(int), "prior": judged.prior,
        "optimized": judged.optimized,
    })  # fmt: skip
    if judged.band is not None:
        table["low_90"], table["high_90"] = judged.band
    if judged.observed_band is not None:
        table["observed_low_90"], table["observed_high_90"] = judged.observed_band
    if simulator is not None:
        table["simulator"] = simulator
    return table


def save_snapshot(path: str | Path, names: Sequence[str], prior, optimized, metadata: dict[str, Any]) -> None:
    """params_snapshot.json: names, prior, optimized (physical units), metadata (method, offsets, windows, command)."""
    content = {"names": list(names), "prior": [float(v) for v in prior], "optimized": [float(v) for v in optimized],
               "metadata": metadata}  # fmt: skip
    write_json(path, content)


def save_truth(directory: Path, parameters: Mapping[str, float] | None, source: str = "") -> None:
    """true_parameters.json: the true values (physical units) of made-up data, and whose they are.

    None: the truth is not known, and what an earlier result left in the folder goes.
    """
    path = directory / TRUTH
    if parameters is None:
        path.unlink(missing_ok=True)
        return
    write_json(path, {"parameters": {name: float(value) for name, value in parameters.items()}, "source": source})


def load_snapshot(path: str | Path, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """prior, optimized (parameter,) in the order of `names`, metadata. UserError on unknown or missing parameters."""
    content = read_json(path)
    if isinstance(content, dict) and "names" not in content and isinstance(content.get("param_names"), list):
        notice(f"{path}: param_names, as earlier scripts wrote, are read as names ({len(content['param_names'])})")
        content = content | {"names": content["param_names"]}
    shaped = isinstance(content, dict) and isinstance(content.get("names"), list) and "optimized" in content
    if not shaped or not isinstance(content.get("metadata") or {}, dict):
        raise UserError(f"{path}: holds no 'names' and 'optimized'; give a params_snapshot.json of test_inversion.py")
    own = [str(name) for name in content["names"]]
    unknown, missing = [n for n in own if n not in names], [n for n in names if n not in own]
    if unknown or missing:
        what = f"unknown parameter '{unknown[0]}'" if unknown else f"no value for '{missing[0]}'"
        raise UserError(f"{path}: {what}; the emulator's parameters are {', '.join(names)}")
    order = [own.index(name) for name in names]
    vectors = []
    for key in ("prior", "optimized"):
        try:
            vector = np.asarray(content.get(key, content["optimized"]), dtype=np.float64)
            if vector.shape != (len(own),) or not np.isfinite(vector).all():
                raise ValueError
        except (TypeError, ValueError):
            raise UserError(f"{path}: '{key}' must hold {len(own)} finite numbers, one for each name") from None
        vectors.append(vector[order])
    return vectors[0], vectors[1], content.get("metadata") or {}
