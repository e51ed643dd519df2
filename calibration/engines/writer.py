"""The folder of an ensemble while it is being made: what is finished, what failed, and how it can be taken up again.

  parameter_log.json      settings that decide the result, ranges, every value drawn, versions
  parameter_summary.csv   sample_id and parameters, physical units
  LHP_<stamp>_daily_NNNN.txt (or parts/NNNN.npy without text)   one a finished run, renamed into place when complete
  experiment_results.csv  status, seconds, message and annual means of every run so far
  ensemble.npz            binary copy of all runs, at the end

Only one process writes here. The stamp is a number made from the settings, so that an ensemble that was interrupted
and taken up again is the same, name by name, as one that was not.
"""

import hashlib
import io
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from calibration.common.command_line import UserError, progress, write_json, writing
from calibration.common.folder_lock import only_process_in
from calibration.common.units import DAYS_PER_YEAR, DEAD
from calibration.engines.builtin import RunResult
from calibration.ensembles import store as ensemble_store
from calibration.ensembles.files import COPY, LOG, RESULTS, SUMMARY, daily_files, read_log
from calibration.weather.daily_text import daily_template, daily_text, parse_daily_file, round_as_written

SAVE_EVERY = 5.0  # s between two writings of experiment_results.csv
ANNUAL_MEANS = ("mean_gpp", "mean_npp", "mean_nep", "mean_rh")  # Mg C ha-1 year-1


@dataclass(frozen=True)
class Design:
    """What an ensemble is: its runs' parameters and the days they cover."""

    settings: dict  # JSON-able; two ensembles with equal settings are equal
    notes: dict  # JSON-able; recorded, not compared (paths, versions)
    names: tuple[str, ...]
    values: np.ndarray  # (run, parameter) physical units; sample ids are the row numbers
    dates: np.ndarray  # (day,) datetime64[D]
    dynamic: np.ndarray | None  # (day, 10) units.UNITS; None when only the user's VISIT knows its weather
    prefix: str  # of the file names, from the site

    @property
    def stamp(self) -> str:
        """Eight digits that differ between ensembles with different settings."""
        text = json.dumps(self.settings, sort_keys=True)
        return f"{int(hashlib.sha256(text.encode()).hexdigest(), 16) % 10**8:08d}"


class EnsembleWriter:
    """Saves finished runs of a `Design` in `directory`, and knows which of them are there already."""

    def __init__(self, directory: Path, design: Design, text: bool, columns: Sequence[str] | None = None) -> None:
        self.directory, self.design, self.text, self.columns = directory, design, text, columns
        self.rows: dict[int, dict] = {}  # of experiment_results.csv, by sample
        self.fluxes: dict[int, np.ndarray] = {}  # (day, 4) float32
        self.digests: dict[int, str] = {}  # of the text files
        self._contents: dict[str, int] = {}  # digest of fluxes -> sample
        self._last_save = 0.0
        dynamic = design.dynamic
        self.template = daily_template(design.dates, dynamic) if text and dynamic is not None else ""

    def path(self, sample: int) -> Path:
        """Where the run of `sample` is kept: its text file, or its part of the binary copy."""
        if self.text:
            return self.directory / f"{self.design.prefix}_{self.design.stamp}_daily_{sample:04d}.txt"
        return self.directory / "parts" / f"{sample:04d}.npy"

    def continues(self, overwrite: bool = False) -> bool:
        """Whether the folder holds a part of this very ensemble, so that its trial was passed before."""
        log = self.directory / LOG
        return not overwrite and log.is_file() and read_log(self.directory)["settings"] == self.design.settings

    def check(self, overwrite: bool = False) -> None:
        """UserError when the folder holds an ensemble with other settings, or made elsewhere; changes nothing."""
        design = self.design
        log = self.directory / LOG
        if log.is_file() and not overwrite:
            differences = _differences(read_log(self.directory)["settings"], design.settings)
            if differences:
                shown = "; ".join(differences[:3]) + ("; ..." if len(differences) > 3 else "")
                raise UserError(
                    f"{self.directory}: holds an ensemble with other settings ({shown}); give another --output-dir, "
                    "the same settings to continue it, or --overwrite to replace it"
                )
        foreign = self.directory.is_dir() and (daily_files(self.directory) or (self.directory / SUMMARY).exists())
        if foreign and not log.is_file():
            raise UserError(
                f"{self.directory}: holds an ensemble that this script did not make (no {LOG}); give another folder "
                "with --output-dir"
            )
        if overwrite and log.is_file():
            stamp = read_log(self.directory).get("stamp")
            others = [path for path in daily_files(self.directory).values() if f"_{stamp}_daily_" not in path.name]
            if others:
                raise UserError(
                    f"{others[0]}: is not of the ensemble that --overwrite replaces ({len(others)} such files); move "
                    "them elsewhere, or give another --output-dir"
                )

    def start(self, overwrite: bool = False) -> None:
        """Make the folder, or take it up again; overwrite: begin anew, removing what this script made there before.

        UserError as check, before anything is changed.
        """
        self.check(overwrite)
        design, log = self.design, self.directory / LOG
        self._lock = only_process_in(self.directory, "run_perturbations.py")
        if overwrite and log.is_file():
            self._clear()
        for leftover in self.directory.glob(f".{design.prefix}_*_daily_*"):  # of a run that was killed while writing
            leftover.unlink(missing_ok=True)
        if not log.is_file():
            rows = enumerate(design.values.tolist())
            samples = {str(i): dict(zip(design.names, row, strict=True)) for i, row in rows}
            write_json(log, {"settings": design.settings, **design.notes, "stamp": design.stamp, "samples": samples})
        table = pd.DataFrame(design.values, columns=list(design.names))
        table.insert(0, "sample_id", range(len(table)))
        with writing(self.directory / SUMMARY) as temporary:
            table.to_csv(temporary, index=False)

    def finished(self, jobs: int) -> list[int]:
        """Sample ids whose run is there, complete and right: read and kept in memory. A damaged one is removed."""
        before = self._results_before()
        if not self.text and self._take_copy(before):
            return sorted(self.rows)
        there = [sample for sample in range(len(self.design.values)) if self.path(sample).is_file()]
        check = delayed(_read_text if self.text else _read_part)
        tasks = (check(self.path(sample), self.design.dates, self.design.dynamic, self.columns) for sample in there)
        results = Parallel(n_jobs=jobs if len(there) > 40 else 1, return_as="generator")(tasks)
        results = progress(results, total=len(there), desc="checking finished runs", unit="run")
        for sample, found in zip(there, results, strict=True):
            if found is None:
                self.path(sample).unlink()
                continue
            self.fluxes[sample], self.digests[sample] = found
            self._note(sample, "ok", before.get(sample, {}).get("seconds", ""), "")
            self._refuse_twins(sample)
        return sorted(self.rows)

    def save(self, result: RunResult) -> None:
        """Keep one run's outcome: its file (atomically) and its row of experiment_results.csv."""
        sample = result.sample_id
        log = f"sample_{sample:04d}.log"
        if result.log and result.fluxes is None:  # those of good runs would cost more than the runs
            self.keep_log(log, result.log)
        else:
            (self.directory / "logs" / log).unlink(missing_ok=True)  # of an earlier, failed try
        if result.fluxes is None:
            self._note(sample, "failed", round(result.seconds, 3), result.message)
        else:
            self.fluxes[sample] = result.fluxes.astype(np.float32)
            content = result.text if self.text else None
            if self.text and content is None:
                values = dict(zip(self.design.names, self.design.values[sample].tolist(), strict=True))
                content = daily_text(self.template, result.fluxes, values).encode("ascii")
            with writing(self.path(sample)) as temporary:
                if content is None:
                    np.save(temporary, self.fluxes[sample])
                else:
                    temporary.write_bytes(content)
                    self.digests[sample] = ensemble_store.digest(content)
            self._note(sample, "ok", round(result.seconds, 3), "")
            self._refuse_twins(sample)
        if time.monotonic() - self._last_save > SAVE_EVERY:
            self.save_results()

    def _refuse_twins(self, sample: int) -> None:
        """UserError when this run is identical to one with other parameters (dead forests may be).

        VISIT then read the parameters of another run, or none.
        """
        fluxes = self.fluxes[sample]
        if self.design.settings["engine"] != "command" or fluxes[:, 0].mean() * DAYS_PER_YEAR < DEAD:
            return
        other = self._contents.setdefault(ensemble_store.digest(fluxes.tobytes()), sample)
        if (self.design.values[other] != self.design.values[sample]).any():
            self.save_results()
            raise UserError(
                f"samples {other} and {sample} have different parameters and identical output: the program did not "
                "read what it was given, so these runs cannot be trusted; see that every run reads its own parameter "
                "file, then begin anew with --overwrite"
            )

    def save_results(self) -> None:
        """Write experiment_results.csv as far as it is known."""
        columns = ["sample_id", "status", "seconds", "message", *ANNUAL_MEANS]
        table = pd.DataFrame([self.rows[sample] for sample in sorted(self.rows)], columns=columns)
        with writing(self.directory / RESULTS) as temporary:
            table.to_csv(temporary, index=False)
        self._last_save = time.monotonic()

    def keep_log(self, name: str, log: bytes) -> None:
        """Write logs/`name`."""
        with writing(self.directory / "logs" / name) as temporary:
            temporary.write_bytes(log)

    def finish(self) -> pd.DataFrame:
        """Write the results and the binary copy; returns experiment_results.csv as a table."""
        self.save_results()
        good = [sample for sample in sorted(self.rows) if self.rows[sample]["status"] == "ok"]
        complete = len(self.rows) == len(self.design.values)
        if good and complete and self.design.dynamic is not None:
            fluxes = np.stack([self.fluxes[sample] for sample in good])
            key = ensemble_store.key(np.array(good), None)
            files = [self.path(sample) for sample in good]
            ensemble_store.write(
                self.directory / COPY, key, self.design.dates, round_as_written(self.design.dynamic), fluxes,
                ensemble_store.signatures(files) if self.text else None,
                [self.digests[sample] for sample in good] if self.text else None,
            )  # fmt: skip
            if not self.text:
                shutil.rmtree(self.directory / "parts", ignore_errors=True)
        return pd.DataFrame([self.rows[sample] for sample in sorted(self.rows)])

    def _clear(self) -> None:
        """Remove an earlier ensemble of this script, its log last: an interrupted removal can be repeated."""
        tables = (self.directory / name for name in (RESULTS, COPY, SUMMARY))
        for path in (*daily_files(self.directory).values(), *tables):
            path.unlink(missing_ok=True)
        for folder in ("parts", "logs"):
            shutil.rmtree(self.directory / folder, ignore_errors=True)
        (self.directory / LOG).unlink()

    def _note(self, sample: int, status: str, seconds: float | str, message: str) -> None:
        means = [""] * len(ANNUAL_MEANS)
        if status == "ok":
            annual = self.fluxes[sample].mean(axis=0, dtype=np.float64) * DAYS_PER_YEAR
            means = [float(f"{mean:.7g}") for mean in annual]
        row = {"sample_id": sample, "status": status, "seconds": seconds, "message": " ".join(message.split())}
        self.rows[sample] = row | dict(zip(ANNUAL_MEANS, means, strict=True))

    def _results_before(self) -> dict[int, dict]:
        path = self.directory / RESULTS
        if not path.is_file():
            return {}
        with suppress(pd.errors.ParserError, pd.errors.EmptyDataError, KeyError, ValueError):
            return {int(row["sample_id"]): row for row in pd.read_csv(path).to_dict("records")}
        return {}

    def _take_copy(self, before: Mapping[int, dict]) -> bool:
        """Take the runs out of a finished binary copy (an ensemble without text files); False when there is none."""
        samples = [sample for sample, row in before.items() if row.get("status") == "ok"]
        copy = self.directory / COPY
        if not (copy.is_file() and samples):
            return False
        try:
            dates, _, fluxes = ensemble_store.read_alone(copy, np.array(samples))
        except UserError:
            return False
        if not np.array_equal(dates, self.design.dates):
            return False
        for i, sample in enumerate(samples):
            self.fluxes[sample] = fluxes[i]
            self._note(sample, "ok", before[sample].get("seconds", ""), "")
        return True


def _read_text(
    path: Path, dates: np.ndarray, dynamic: np.ndarray | None, columns: Sequence[str] | None
) -> tuple[np.ndarray, str] | None:
    """Fluxes (day, 4) float32 and content digest of a finished run's text file, None when it is not complete."""
    content = path.read_bytes()
    try:
        run = parse_daily_file(path, content, columns)
    except UserError:
        return None
    if not np.array_equal(run.dates, dates):
        return None
    if dynamic is not None and not np.allclose(run.dynamic, dynamic, rtol=1e-7, atol=1e-12):
        return None
    return run.fluxes.astype(np.float32), ensemble_store.digest(content)


def _read_part(
    path: Path, dates: np.ndarray, dynamic: np.ndarray | None, columns: Sequence[str] | None
) -> tuple[np.ndarray, str] | None:
    """Like _read_text for a part of an ensemble without text files."""
    try:
        fluxes = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except (ValueError, EOFError, OSError):
        return None
    return (fluxes, "") if fluxes.shape == (len(dates), 4) and np.isfinite(fluxes).all() else None


def _differences(there: dict, now: dict, place: str = "") -> list[str]:
    """'seed: 1 there, 2 now' for every entry in which two settings differ."""
    found = []
    for key in [*there, *(key for key in now if key not in there)]:
        a, b = there.get(key), now.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{place}{key}.")
        elif a != b:
            found.append(f"{place}{key}: {a} there, {b} now")
    return found

