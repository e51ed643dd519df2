"""Kill a worker of a Dask cluster, or a process of torchrun, in the middle: python tests/cluster_check.py --demo demo

Scheduler, two workers and torchrun are processes of their own on loopback, started in an empty folder as a user would.
A worker is killed with SIGKILL once a part of the work is done. Nothing may be lost and nothing may stand twice in the
result, which is compared file by file with an undisturbed one (times left out). Of torchrun: both processes end, with
an exit code, and --resume gives what an undisturbed training gives. The table in docs/reliability.md is what this
printed; the suite does one of them (test_cluster.py).
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the packages, wherever it is started

from emulator_examples import TINY
from kill_scripts import Count, compare, start
from standin_visit import make_run_folder

from calibration.common.command_line import REPOSITORY
from calibration.common.sites import load_site
from calibration.ensembles.files import load_ensemble
from calibration.judgement.recovery_study import case_path
from calibration.weather.daily import read_weather

LONGEST = 900  # seconds that anything may take


@dataclass
class Cluster:
    """A scheduler and its workers, each a process that knows nothing of this repository."""

    folder: Path
    processes: list[subprocess.Popen] = field(default_factory=list)
    address: str = ""

    def __enter__(self) -> "Cluster":
        self.folder.mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._start("dask_scheduler", "--host", "127.0.0.1", "--port", str(port))
        self.address = f"tcp://127.0.0.1:{port}"
        return self

    def worker(self) -> subprocess.Popen:
        """One more worker, of one thread and without a nanny that would start it again."""
        return self._start("dask_worker", self.address, "--nthreads", "1", "--no-nanny")

    def _start(self, *command: str) -> subprocess.Popen:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with (self.folder / "dask.log").open("a") as log:
            self.processes.append(subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{command[0]}", *command[1:], "--no-dashboard"],
                cwd=self.folder, env=environment, stdout=log, stderr=log,
            ))  # fmt: skip
        return self.processes[-1]

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def finished(process: subprocess.Popen, log: Path) -> None:
    """Wait for the end; SystemExit with the log where it fails."""
    if process.wait(timeout=LONGEST):
        raise SystemExit(f"exit code {process.returncode}: {log.read_text()[-3000:]}")


def wait_until(true: Callable[[], bool], process: subprocess.Popen) -> None:
    """Until something is there; SystemExit when the process ends before."""
    begin = time.monotonic()
    while not true():
        if process.poll() is not None or time.monotonic() - begin > LONGEST:
            raise SystemExit(f"ended with {process.poll()} before there was anything to disturb")
        time.sleep(0.05)


def with_a_killed_worker(
    root: Path, name: str, command: Callable[[Path], list], done: Callable[[Path], int], enough: int
) -> Count:
    """The command on a cluster of two workers, of which one is killed once `enough` is done and replaced later."""
    count, log = Count(), root / f"{name}.log"
    folder = root / name / "work"  # the same path for both, since results name their folder
    finished(start(command(folder), log), log)
    expected = folder.rename(folder.with_name("expected"))
    with Cluster(root / name / "empty") as cluster:
        workers = [cluster.worker(), cluster.worker()]
        begin = time.monotonic()
        process = start([*command(folder), "--dask-scheduler", cluster.address], log)
        wait_until(lambda: done(folder) >= enough, process)
        before = done(folder)
        workers[0].send_signal(signal.SIGKILL)
        workers[0].wait()
        cluster.worker()
        finished(process, log)
        count.kills, count.seconds = 1, time.monotonic() - begin
        after = done(folder)
        if before >= after:
            count.faults.append("the kill came after the end")
    for record in ("run_perturbations_record.json", "test_inversion_record.json",
                   "evaluate_parameter_recovery_record.json"):  # fmt: skip
        for where in (expected, folder):  # holds the command, and so the scheduler
            (where / record).unlink(missing_ok=True)
    if name == "refinement":  # its runs are numbered as they finish
        there, here = by_parameters(expected / "refinement"), by_parameters(folder / "refinement")
        if there != here:
            count.faults.append(f"refinement: {len(here)} runs, not the {len(there)} of the undisturbed one")
        for where in (expected, folder):
            rmtree(where / "refinement")
    compare(expected, folder, count)
    print(f"| {name}, {before} of {after} done when a worker is killed | {count.seconds:.0f} s | "
          f"{len(count.faults)} |", flush=True)  # fmt: skip
    return count


def by_parameters(folder: Path) -> list[tuple[bytes, bytes]]:
    """Parameters and fluxes of every run there, whatever its number, in the order of the parameters."""
    found = load_ensemble(folder, cache=False, jobs=1)
    return sorted((v.tobytes(), f.tobytes()) for v, f in zip(found.parameters, found.fluxes, strict=True))


def torchrun(root: Path, demo: Path) -> Count:
    """A training of two processes, one of them killed after an epoch; taken up again, and compared."""
    count, log = Count(), root / "torchrun.log"
    folder = root / "torchrun" / "work"
    flags = ["--data-dir", demo / "data", *TINY, "--hidden-size", 16, "--epochs", 6, "--steps-per-epoch", 10]

    def training(*more: object) -> subprocess.Popen:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                   REPOSITORY / "train.py", *flags, "--artifacts-dir", folder, *more]  # fmt: skip
        with log.open("ab") as out:
            return subprocess.Popen([str(word) for word in command], stdout=out, stderr=out, cwd=root,
                                    env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip

    finished(training(), log)
    expected = folder.rename(folder.with_name("expected"))
    for rank in (1, 0):
        process = training()
        history = folder / "training_history.json"
        wait_until(history.is_file, process)
        victims = [pid for pid in map(int, _children(process.pid)) if f"RANK={rank}" in _environment(pid)]
        os.kill(victims[0], signal.SIGKILL)
        begin = time.monotonic()
        code = process.wait(timeout=LONGEST)
        count.kills += 1
        count.seconds = time.monotonic() - begin
        said = log.read_text(errors="replace")
        if not code or "Signal 9" not in said:
            count.faults.append(f"process {rank} killed: exit code {code}, nothing said of it")
        if left := [pid for pid in victims if Path(f"/proc/{pid}").exists()]:
            count.faults.append(f"processes are left: {left}")
        print(f"| torchrun, process {rank} of 0 and 1 killed after the first epoch | ends {count.seconds:.0f} s later, "
              f"exit code {code} | {len(count.faults)} |", flush=True)  # fmt: skip
        finished(training("--resume"), log)
        compare(_without_record(expected), _without_record(folder), count)
        print(f"| torchrun, taken up again with --resume | | {len(count.faults)} |", flush=True)
        folder.rename(folder.with_name(f"killed_{rank}"))
    return count


def _without_record(folder: Path) -> Path:
    (folder / "train_record.json").unlink(missing_ok=True)  # holds the command, with --resume or not
    return folder


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _environment(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")


def main(given: list[str] | None = None) -> int:
    """Print a row each; exit code 1 where anything was lost, stands twice or differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=Path, default=REPOSITORY / "demo", help="what `make demo` left")
    parser.add_argument("--only", nargs="+", default=[], choices=["ensemble", "study", "refinement", "torchrun"])
    parser.add_argument("--folder", type=Path, help="where it works (default: a temporary folder, removed)")
    arguments = parser.parse_args(given)
    demo = arguments.demo.resolve()
    wanted = arguments.only or ["ensemble", "study", "refinement", "torchrun"]
    emulator = ["--data-dir", demo / "data", "--artifacts-dir", demo / "artifacts"]
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        root = (arguments.folder or Path(temporary)).resolve()
        root.mkdir(parents=True, exist_ok=True)
        print("| what | | faults |\n|---|---|---|", flush=True)
        if "ensemble" in wanted:
            faults += with_a_killed_worker(
                root, "ensemble",
                lambda out: ["run_perturbations.py", "--n-samples", 64, "--weather", demo / "weather.csv",
                             "--output-dir", out],
                lambda out: len(list(out.glob("LHP_*_daily_*.txt"))), 2,
            ).faults  # fmt: skip
        if "study" in wanted:
            faults += with_a_killed_worker(
                root, "study",
                lambda out: ["evaluate_parameter_recovery.py", *emulator, "--cases", 8, "--span", 30, "--starts", 2,
                             "--weather", demo / "weather.csv", "--result-dir", out],
                lambda out: sum(path.is_file() for path in (case_path(_study(out), i) for i in range(8))), 2,
            ).faults  # fmt: skip
        if "refinement" in wanted:
            visit = make_run_folder(root / "visit", weather=read_weather(demo / "weather.csv", load_site()), seconds=1)
            faults += with_a_killed_worker(
                root, "refinement",
                lambda out: ["test_inversion.py", *emulator, "--mode", "simulation", "--sample-id", 1, "--window-index",
                             0, "--starts", 2, "--refine", 20, "--run-folder", visit, "--result-dir", out],
                lambda out: len(list((out / "refinement").glob("*_daily_*.txt"))), 2,
            ).faults  # fmt: skip
        if "torchrun" in wanted:
            faults += torchrun(root, demo).faults
    for fault in faults:
        print(f"  {fault}")
    return 1 if faults else 0


def _study(out: Path) -> Path:
    """The folder below `out` that holds the study's cases."""
    return next((path.parent for path in out.rglob("cases") if path.is_dir()), out)


if __name__ == "__main__":
    raise SystemExit(main())
