"""Kill the scripts with SIGKILL at random moments and see what is left: python tests/kill_scripts.py --kills 50

Each script works in a folder; it is killed (the process alone, as the kernel does when memory runs out), what lies
there is read, it is started again, killed again, and so on; after every few kills it may finish, and its folder is
compared with that of an undisturbed run. Nothing may be half-written, nothing lost, and nothing may differ but times.
The table in docs/reliability.md is what this printed. test_faults.py runs a few kills.
"""

import argparse
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copytree, rmtree

import numpy as np
import pandas as pd
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the packages, wherever it is started

from emulator_examples import TINY
from script_calls import process as script
from standin_visit import make_run_folder

from calibration.common.command_line import REPOSITORY
from calibration.common.scaler_pickle import read_pickled_scaler
from calibration.common.sites import load_site
from calibration.weather.daily import generate_weather, read_weather, write_weather_csv

BETWEEN = 5  # kills before a script may finish
# What differs between two runs of the same: times, and how often the folder was begun.
TIMES = ("seconds", "training_seconds", "finished", "seconds_per_case", "command", "arguments", "created", "date")
TIME_COLUMNS = ("seconds",)
LINES_OF_TIME = re.compile(r"(?m)^.*(\bs\b|seconds|refinement round|Made \d{4}).*$")
RANGES = '0: "tree_lue", 0.045, 0.06\n1: "tree_pmax", 10, 14\n2: "soil_sr_lf", 1.0, 1.6\n'


@dataclass
class Scene:
    """A script, the folder it works in, and how it is called there."""

    name: str
    command: Callable[[Path], list]  # of the folder it writes to
    before: Path | None = None  # an earlier result that lies there
    again: Callable[[Path], list] | None = None  # the command once it was killed (default: the same)
    kept: tuple[str, ...] = ()  # files that must be the earlier ones or the new ones, whole


@dataclass
class Count:
    """What happened."""

    kills: int = 0
    after_end: int = 0  # the script was faster: no kill, not counted as one
    finished: int = 0
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0  # of an undisturbed run


def start(command: list, log: Path) -> subprocess.Popen:
    """A script in a session of its own, its output in `log`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, str(REPOSITORY / command[0]), *map(str, command[1:])], stdout=out, stderr=out,
            env=environment, start_new_session=True,
        )  # fmt: skip


def first_write(folder: Path, process: subprocess.Popen, begin: float) -> float:
    """Seconds until something changes in the folder (or the process ends)."""
    before = snapshot(folder)
    while process.poll() is None and snapshot(folder) == before:
        time.sleep(0.02)
    return time.monotonic() - begin


def snapshot(folder: Path) -> set:
    """Names, sizes and times of what lies there."""
    found = set()
    for path in folder.rglob("*"):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        found.add((path, stat.st_size, stat.st_mtime_ns))
    return found


def files_of(folder: Path) -> dict[str, Path]:
    """The files that are somebody's result: hidden ones are temporary names and locks."""
    return {
        path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }  # fmt: skip


def content(path: Path) -> object:
    """What a file says, without times; raises where it is damaged."""
    kind = path.suffix
    if kind == ".json":
        return plain(json.loads(path.read_text(encoding="utf-8")))
    if kind in (".npz", ".npy"):
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            return {name: archive[name].tobytes() for name in archive.files if name != "meta"}
    if kind == ".pt":
        saved = torch.load(path, weights_only=True)
        saved.get("training", {}).pop("seconds", None)
        return tensors(saved)
    if kind == ".pkl":
        found = read_pickled_scaler(path)
        return found.names, found.mean.tobytes(), found.scale.tobytes()
    if kind == ".csv":
        table = pd.read_csv(path)
        return table.drop(columns=[name for name in TIME_COLUMNS if name in table]).to_csv()
    if kind == ".png":
        with Image.open(path) as picture:
            return picture.convert("RGB").tobytes()
    if kind == ".nc":
        import xarray

        return {group: xarray.open_dataset(path, group=group, engine="h5netcdf").load().to_dict()
                for group in ("posterior", "posterior_predictive", "observed_data")}  # fmt: skip
    text = path.read_text(encoding="utf-8")
    if kind == ".html":
        if not text.rstrip().endswith("</html>"):
            raise ValueError("cut short")
        return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|\bMade [^<]*|\bp\d{4,}\b", "", text)
    if not text.endswith("\n"):
        raise ValueError("cut short")
    return LINES_OF_TIME.sub("", text) if "daily" not in path.name else text


def plain(value: object) -> object:
    """A JSON value without times."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key not in TIMES}
    return [plain(item) for item in value] if isinstance(value, list) else value


def tensors(value: object) -> object:
    """A checkpoint with tensors as bytes."""
    if isinstance(value, torch.Tensor):
        return value.detach().numpy().tobytes()
    if isinstance(value, dict):
        return {key: tensors(item) for key, item in value.items() if key not in TIMES}
    return [tensors(item) for item in value] if isinstance(value, list | tuple) else value


def inspect(scene: Scene, folder: Path, known: dict[str, list], count: Count) -> None:
    """Read every file of the folder; a damaged one is a fault."""
    for name, path in files_of(folder).items():
        try:
            content(path)
        except Exception as error:  # whatever a damaged file raises is what is looked for
            count.faults.append(f"kill {count.kills}: {name} is damaged ({type(error).__name__}: {error})")
    for name in scene.kept:
        path = folder / name
        if not path.is_file() or content(path) not in known[name]:
            count.faults.append(f"kill {count.kills}: {name} is neither the earlier nor the new one")


def compare(expected: Path, folder: Path, count: Count) -> None:
    """Every file of an undisturbed run is there and says the same, and there is no other."""
    there, here = files_of(expected), files_of(folder)
    for name in sorted(there.keys() ^ here.keys()):
        count.faults.append(f"after {count.kills} kills: {name} is {'missing' if name in there else 'too much'}")
    for name in sorted(there.keys() & here.keys()):
        if content(there[name]) != content(here[name]):
            count.faults.append(f"after {count.kills} kills: {name} differs from the undisturbed run's")


def harass(scene: Scene, root: Path, kills: int, rng: np.random.Generator) -> Count:
    """Kill a script `kills` times; it may finish after every BETWEEN of them."""
    count, log = Count(), root / f"{scene.name}.log"

    def fresh(name: str) -> Path:
        """The folder as it is before the script runs; the same path each time, since results name their folder."""
        folder = root / "scenes" / scene.name / name
        rmtree(folder, ignore_errors=True)
        if scene.before is not None:
            copytree(scene.before, folder)
        else:
            folder.mkdir(parents=True)
        return folder

    def finish(folder: Path, command: list) -> None:
        """Let it run to its end."""
        code = start(command, log).wait(timeout=600)
        if code:
            count.faults.append(f"after {count.kills} kills: exit code {code}, see {log}")

    folder = fresh("work")
    begin = time.monotonic()
    process = start(scene.command(folder), log)
    written = first_write(folder, process, begin)
    if process.wait(timeout=600):
        raise SystemExit(f"{scene.name}: fails undisturbed, see {log}")
    count.seconds = time.monotonic() - begin
    expected = copytree(folder, folder.with_name("expected"), dirs_exist_ok=True)
    known = {name: [content(path) for path in (scene.before / name, expected / name)] for name in scene.kept}
    span = count.seconds
    while count.kills < kills:
        folder, ran = fresh("work"), False
        for _ in range(min(BETWEEN, kills - count.kills)):
            command = scene.again(folder) if ran and scene.again is not None else scene.command(folder)
            process = start(command, log)
            # half of the kills while it loads and reads, half while it works and writes
            earliest = min(written, 0.5 * span) if rng.random() < 0.75 else 0.0
            begin = time.monotonic()
            try:
                process.wait(timeout=rng.uniform(earliest, span))
                count.after_end += 1  # no kill: the next one starts from an empty folder
                span = time.monotonic() - begin if not ran else span  # the machine is less busy than it was
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            count.kills += 1
            ran = True
            inspect(scene, folder, known, count)
        finish(folder, scene.again(folder) if scene.again is not None else scene.command(folder))
        count.finished += 1
        compare(expected, folder, count)
    return count


def scenes(root: Path, wanted: list[str]) -> list[Scene]:
    """The scripts over a small project in `root`: weather, an ensemble of the process model, a tiny emulator."""
    site, weather = load_site(), root / "weather.csv"
    write_weather_csv(weather, generate_weather(site, "2011-01-01", "2013-12-31", seed=3))
    (root / "ranges.csv").write_text(RANGES)
    data, artifacts, windows = root / "data", root / "artifacts", root / "windows"
    made = ["--ranges", root / "ranges.csv", "--weather", weather, "--jobs", 2]

    def must(*command: object) -> None:
        """Run a script that prepares the rest."""
        done = script(*command)
        if done.returncode:
            raise SystemExit(f"{command[0]}: {done.stderr}")

    must("run_perturbations.py", "--n-samples", 24, "--output-dir", data, *made)
    fit = ["--data-dir", data, *TINY, "--hidden-size", 8, "--preset", "recommended", "--train-period", "2011-07-01",
           "2011-12-31", "--validation-period", "2012", "2012", "--test-period", "2013", "2013"]  # fmt: skip
    must("train.py", *fit, "--artifacts-dir", artifacts)
    days = pd.date_range("2012-01-01", "2013-12-31")
    nee = np.random.default_rng(1).normal(-2, 1, len(days)).round(4)
    pd.DataFrame({"date": days.strftime("%Y-%m-%d"), "nee_gcm2": nee, "nee_source": "NEE", "nee_qc": 0.0,
                  "nep_mg_ha": -nee / 100, "obs_mask": 1}).to_csv(root / "nep.csv", index=False)  # fmt: skip
    window = ["build_observation_windows.py", "--daily", weather, "--obs", root / "nep.csv",
              "--artifacts-dir", artifacts]  # fmt: skip
    must(*window, "--output", windows / "w.npz", "--stride", 30)
    visit = make_run_folder(root / "visit", weather=read_weather(weather, site), seconds=0.1)
    emulator = ["--data-dir", data, "--artifacts-dir", artifacts]
    invert = ["test_inversion.py", *emulator, "--mode", "simulation", "--sample-id", 1, "--window-index", 0, "--starts",
              2, "--refine", 20, "--weather", weather]  # fmt: skip
    longer = [*fit, "--epochs", 4, "--steps-per-epoch", 4, "--error-runs", 6]
    report = root / "report"
    copytree(artifacts, report)
    must("make_report.py", report, "--title", "an earlier one")

    def training(folder: Path) -> list:
        """train.py as its user would call it after a kill."""
        resume = ["--resume"] if (folder / "checkpoint_latest.pt").is_file() else []
        return ["train.py", *longer, "--artifacts-dir", folder, *resume]

    every = [
        Scene("training", training, again=training),
        Scene("ensemble", lambda out: ["run_perturbations.py", "--n-samples", 16, "--output-dir", out, *made]),
        Scene("ensemble, own VISIT", lambda out: [
            "run_perturbations.py", "--n-samples", 8, "--output-dir", out, "--ranges", root / "ranges.csv", "--jobs", 2,
            "--run-folder", visit,
        ]),
        Scene("recovery study", lambda out: [
            "evaluate_parameter_recovery.py", *emulator, "--cases", 3, "--span", 30, "--starts", 2, "--jobs", 2,
            "--weather", weather, "--result-dir", out,
        ]),
        Scene("refinement", lambda out: [*invert, "--result-dir", out]),
        Scene("windows", lambda out: [*window, "--output", out / "w.npz"], before=windows, kept=("w.npz",)),
        Scene("report", lambda out: ["make_report.py", out], before=report, kept=("report.html",)),
    ]  # fmt: skip
    return [scene for scene in every if not wanted or scene.name in wanted]


def main(given: list[str] | None = None) -> int:
    """Print a row a script; exit code 1 where anything was damaged or lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="of each script")
    parser.add_argument("--only", nargs="+", default=[], help="names of scripts, see the table")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where it works (default: a temporary folder, removed)")
    arguments = parser.parse_args(given)
    rng, faults = np.random.default_rng(arguments.seed), 0
    with tempfile.TemporaryDirectory() as temporary:
        root = (arguments.folder or Path(temporary)).resolve()
        root.mkdir(parents=True, exist_ok=True)
        print("| script | seconds undisturbed | kills | ended before its kill | finished and compared | faults |")
        print("|---|---|---|---|---|---|", flush=True)
        for scene in scenes(root, arguments.only):
            count = harass(scene, root, arguments.kills, rng)
            print(f"| {scene.name} | {count.seconds:.1f} | {count.kills} | {count.after_end} | {count.finished} | "
                  f"{len(count.faults)} |", flush=True)  # fmt: skip
            for fault in count.faults:
                print(f"  {fault}", flush=True)
            faults += len(count.faults)
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
