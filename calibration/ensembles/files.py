"""Ensembles of VISIT runs: a folder of daily text files + parameter_summary.csv -> checked arrays.

The format of one file is in weather/daily_text.py, the binary copy that makes the second loading fast in
ensembles/store.py.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, cpu_count, delayed

from calibration.common.command_line import UserError, notice, progress, read_json
from calibration.common.units import DYNAMIC_FEATURES, TARGETS
from calibration.ensembles import store as ensemble_store
from calibration.ensembles.parameter_table import LARGEST_ID, SAMPLE_COLUMNS, read_parameter_summary, suspects
from calibration.weather.daily_text import (
    DailyFile,
    daily_template,
    daily_text,
    parse_daily_file,
    read_daily_file,
    round_as_written,
    write_daily_file,
)
from calibration.weather.sentinel import check_fluxes, check_weather

__all__ = [
    "DailyFile", "Ensemble", "daily_files", "daily_template", "daily_text", "load_ensemble",
    "read_daily_file", "read_parameter_summary", "round_as_written", "write_daily_file",
]  # fmt: skip

FILE_NAME = re.compile(r"(?P<prefix>.+)_daily_(?P<sample>\d+)\.txt")
SUMMARY, RESULTS, COPY = "parameter_summary.csv", "experiment_results.csv", "ensemble.npz"
LOG = "parameter_log.json"
FAILED_WORDS = ("failed", "fail", "failure", "error", "crashed", "timeout", "false", "no", "0", "0.0")


@dataclass(frozen=True)
class Ensemble:
    """Many runs of one site under one weather, differing in their parameters."""

    directory: Path
    sample_ids: np.ndarray  # (run,) int64, ascending
    dates: np.ndarray  # (day,) datetime64[D]
    dynamic: np.ndarray  # (day, 10) float64, order and units of units.DYNAMIC_FEATURES
    fluxes: np.ndarray  # (run, day, 4) float32, order of units.TARGETS, Mg C ha-1 day-1
    parameters: np.ndarray  # (run, parameter) float64, physical units
    parameter_names: tuple[str, ...]

    def with_names(self, names: Sequence[str]) -> "Ensemble":
        """The same with the parameters under other names (parameter,)."""
        return replace(self, parameter_names=tuple(names))

    @property
    def constant_parameters(self) -> tuple[str, ...]:
        """Names of the parameters that have the same value in all runs: kept fixed, nothing can be learned of them."""
        same = (self.parameters == self.parameters[:1]).all(axis=0)
        return tuple(name for name, constant in zip(self.parameter_names, same, strict=True) if constant)


def load_ensemble(
    directory: str | Path, columns: Sequence[str] | None = None, cache: bool = True, jobs: int | None = None,
    drop: Sequence[str] | None = None,
) -> Ensemble:  # fmt: skip
    """Load and check every run listed in `directory`/parameter_summary.csv.

    columns: see read_daily_file. cache: use and leave a binary copy (ensemble.npz) beside the text files; it counts
    only while every text file has the content it was made from. jobs: processes for parsing (default: all cores).
    drop: columns of the table that are no parameters, left out. Runs that experiment_results.csv lists as failed are
    left out with a notice, and columns that look like no parameters are named.
    Raises UserError naming the file when a file is missing, damaged or does not match the others.

    >>> from calibration.common.sites import load_site
    >>> from calibration.weather.daily import generate_weather
    >>> weather, day = generate_weather(load_site(), "2015-01-01", "2015-01-31", seed=1), [0.1, 0.04, 0.01, 0.03]
    >>> path = Path("data", "LHP_1_daily_0003.txt")
    >>> write_daily_file(path, weather.dates, weather.values, np.full((31, 4), day))
    >>> path.with_name("parameter_summary.csv").write_text("sample_id,tree_lue\\n3,0.05\\n")
    26
    >>> ensemble = load_ensemble("data")
    >>> ensemble.sample_ids.tolist(), ensemble.parameter_names, ensemble.fluxes.shape  # run, day, flux of units.TARGETS
    ([3], ('tree_lue',), (1, 31, 4))
    """
    directory = Path(directory)
    sample_ids, names, parameters = read_parameter_summary(directory / SUMMARY, drop)
    paths = daily_files(directory)
    failed = failed_samples(directory / RESULTS)
    keep = np.array([sample not in failed for sample in sample_ids])
    if not keep.all():
        lost = sample_ids[~keep]
        notice(f"{directory}: {len(lost)} failed runs left out (samples {', '.join(map(str, lost[:10]))}"
               f"{', ...' if len(lost) > 10 else ''}; see {RESULTS})")  # fmt: skip
    sample_ids, parameters = sample_ids[keep], parameters[keep]
    if len(sample_ids) == 0:
        raise UserError(f"{directory}: every run failed; see the messages in {RESULTS}, then run again")

    copy = directory / COPY
    if paths:
        missing = [sample for sample in sample_ids.tolist() if sample not in paths]
        if missing:
            ours = (directory / LOG).is_file()
            what = "the run_perturbations.py command that began it continues it" if ours else "run it or remove its row"
            raise UserError(
                f"{directory / SUMMARY}: sample {missing[0]} has no file *_daily_{missing[0]:04d}.txt in {directory} "
                f"({len(missing)} missing of {len(sample_ids)}); {what}"
            )
        extra = set(paths) - set(sample_ids.tolist()) - failed
        if extra:
            notice(f"{directory}: {len(extra)} daily files without a row in {SUMMARY} left out (sample {min(extra)})")
        wanted = [paths[sample] for sample in sample_ids.tolist()]
        key = ensemble_store.key(sample_ids, columns)
        content = ensemble_store.read(copy, wanted, key) if cache else None
        if content is None:
            signatures = ensemble_store.signatures(wanted)
            dates, dynamic, fluxes, digests = _parse_all(wanted, columns, jobs)
            if cache and os.access(directory, os.W_OK):
                try:
                    ensemble_store.write(copy, key, dates, dynamic, fluxes, signatures, digests)
                except (OSError, UserError) as error:  # a full disk must not stop the work
                    why = getattr(error, "strerror", error)
                    notice(f"{copy}: no binary copy left ({why}); the next loading is slow again")
        else:
            dates, dynamic, fluxes = content
    elif copy.is_file():
        dates, dynamic, fluxes = ensemble_store.read_alone(copy, sample_ids)
    else:
        raise UserError(
            f"{directory}: no daily files like LHP_<stamp>_daily_0000.txt and no {COPY}; run run_perturbations.py first"
        )
    source = str(paths[int(sample_ids[0])] if paths else copy)
    dynamic = check_weather(dynamic, dates, source)
    check_fluxes({"gpp": fluxes[:, :, TARGETS.index("gpp")]}, source)
    ensemble = Ensemble(directory, sample_ids, dates, dynamic, fluxes, parameters, names)
    doubtful = suspects(sample_ids, names, parameters, fluxes.mean(axis=1))
    if doubtful:
        notice(
            f"{directory / SUMMARY}: {', '.join(f'{name} ({why})' for name, why in doubtful.items())}: no parameters? "
            f"Leave them out with --drop-columns {' '.join(doubtful)}"
        )
    if len(sample_ids) > 1:
        for name in ensemble.constant_parameters:
            value = parameters[0, names.index(name)]
            notice(f"{directory / SUMMARY}: {name} is {value:g} in every run: kept fixed, nothing is learned about it")
    return ensemble


def daily_files(directory: str | Path) -> dict[int, Path]:
    """Sample id -> daily text file of `directory`. UserError when two files claim the same sample."""
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder; run run_perturbations.py or give the folder of the daily files")
    paths: dict[int, Path] = {}
    for path in sorted(directory.iterdir()):
        match = FILE_NAME.fullmatch(path.name)
        if match and not path.name.startswith("."):
            sample = int(match["sample"])
            if sample in paths:
                raise UserError(f"{path}: sample {sample} is in {paths[sample].name} too; keep one of the two files")
            paths[sample] = path
    return paths


def read_log(directory: str | Path) -> dict[str, Any]:
    """Content of a folder's parameter_log.json with the key `settings`; empty settings where there is no such file.

    Earlier scripts wrote a list of the runs there: nothing in it is needed beside parameter_summary.csv.
    """
    path = Path(directory) / LOG
    content = read_json(path) if path.is_file() else {}
    if not isinstance(content, dict):
        content = {}
    settings = content.get("settings")
    return content | {"settings": settings if isinstance(settings, dict) else {}}


def noted_site(directory: str | Path) -> dict[str, Any]:
    """The site constants with which an ensemble was made, by its log; empty where it names none."""
    return read_log(directory)["settings"].get("site") or {}


def failed_samples(path: str | Path) -> set[int]:
    """Sample ids that an experiment_results.csv calls failed; empty when there is no such file.

    Read are `sample_id, status` of run_perturbations.py and `sample_idx, success` of earlier scripts.
    """
    if not Path(path).is_file():
        return set()
    try:
        table = pd.read_csv(path, dtype=str)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not readable as CSV ({error}); restore it, or remove it (it lists failed runs)"
        ) from None
    table.columns = [str(name).strip().lower() for name in table.columns]
    sample = next((name for name in SAMPLE_COLUMNS if name in table), None)
    verdict = next((name for name in ("status", "success") if name in table), None)
    if sample is None or verdict is None:
        notice(f"{path}: has no columns sample_id and status (or sample_idx and success); no run is left out for it")
        return set()
    failed = table.loc[table[verdict].str.strip().str.lower().isin(FAILED_WORDS), sample]
    numbers = pd.to_numeric(failed, errors="coerce").dropna()  # spreadsheets write 3.0
    return {int(sample) for sample in numbers if abs(sample) <= LARGEST_ID}


def _read_run(path: Path, columns: Sequence[str] | None) -> tuple[np.ndarray, int, str, np.ndarray, str]:
    """dates, width, digest of dates and weather, fluxes float32 (day, 4), digest of the content, of one file."""
    content = path.read_bytes()
    run = parse_daily_file(path, content, columns)
    weather = hashlib.sha1(run.dates.tobytes() + run.dynamic.tobytes()).hexdigest()
    return run.dates, run.width, weather, run.fluxes.astype(np.float32), ensemble_store.digest(content)


def _parse_all(
    paths: list[Path], columns: Sequence[str] | None, jobs: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """dates (day,), dynamic (day, 10), fluxes (run, day, 4) and the content digests of files that match each other."""
    jobs = min(jobs or cpu_count(), max(1, len(paths) // 20))  # starting a process costs as much as some 20 files
    tasks = (delayed(_read_run)(path, columns) for path in paths)
    results = Parallel(n_jobs=jobs, return_as="generator")(tasks)
    runs = list(progress(results, total=len(paths), desc="reading VISIT files", unit="file"))
    usual = Counter((len(dates), str(dates[0])) for dates, *_ in runs).most_common(1)[0][0]
    width = Counter(run[1] for run in runs).most_common(1)[0][0]
    common = Counter(run[2] for run in runs).most_common(1)[0][0]
    reference = next(i for i, run in enumerate(runs) if run[2] == common)
    for path, (dates, columns_found, _, _, _) in zip(paths, runs, strict=True):
        if (len(dates), str(dates[0])) != usual:
            first = np.datetime64(usual[1])
            cut = "cut short? " if len(dates) < usual[0] and dates[0] == first else ""
            raise UserError(
                f"{path}: {len(dates)} days, {dates[0]} to {dates[-1]}, the other files have {usual[0]}, {first} to "
                f"{first + np.timedelta64(usual[0] - 1, 'D')}; {cut}run this sample again or leave it out of {SUMMARY}"
            )
        if columns_found != width:
            raise UserError(f"{path}: {columns_found} columns, the other files have {width}; run this sample again")
    dynamic = read_daily_file(paths[reference], columns).dynamic
    for path, run in zip(paths, runs, strict=True):
        if run[2] != common:
            _check_same_weather(path, read_daily_file(path, columns), paths[reference], dynamic)
    return runs[reference][0], dynamic, np.stack([run[3] for run in runs]), [run[4] for run in runs]


def _check_same_weather(path: Path, run: DailyFile, reference: Path, dynamic: np.ndarray) -> None:
    """UserError naming column and day when the weather differs by more than the last digits of a printed number."""
    differs = ~np.isclose(run.dynamic, dynamic, rtol=1e-5, atol=1e-9)
    if differs.any():
        day, column = np.argwhere(differs)[0]
        raise UserError(
            f"{path}: {DYNAMIC_FEATURES[column]} on {run.dates[day]} is {run.dynamic[day, column]:g}, in "
            f"{reference.name} it is {dynamic[day, column]:g}; all runs of an ensemble must share one weather"
        )
