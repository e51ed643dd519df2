"""A Dask cluster whose scheduler and workers are started from the command line in an empty folder, as in the README."""

import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from standin_visit import made_weather, make_run_folder

from calibration.common.command_line import REPOSITORY, UserError
from calibration.common.parameters import read_ranges
from calibration.engines import cluster
from calibration.engines.perturbation import draw
from calibration.engines.visit_output import complete_fluxes, last_words
from calibration.ensembles.files import load_ensemble

distributed = pytest.importorskip("distributed")


def dask(folder, *arguments):
    """A dask command in `folder`, which knows nothing of this repository."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (folder / "dask.log").open("a") as log:
        command = [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:], "--no-dashboard"]
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


@pytest.fixture
def started(tmp_path):
    """Starts a scheduler, and workers of it; everything ends with the test."""
    folder = tmp_path / "empty"
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [dask(folder, "dask_scheduler", "--host", "127.0.0.1", "--port", str(port))]
    address = f"tcp://127.0.0.1:{port}"

    def worker():
        processes.append(dask(folder, "dask_worker", address, "--nthreads", "1", "--no-nanny"))
        return processes[-1]

    yield address, processes[0], worker
    for process in processes:
        process.kill()
        process.wait()


def test_an_ensemble_of_a_run_folder_survives_a_killed_worker(started, tmp_path):
    address, _, worker = started
    workers = [worker(), worker()]
    make_run_folder(tmp_path / "CODE", weather=made_weather("2011-01-01", "2011-12-31"), seconds=0.5)
    (tmp_path / "ranges.csv").write_text('0: "tree_lue", 0.03, 0.07\n1: "tree_lc0", 5e-5, 1.4e-4\n')
    command = [
        sys.executable, str(REPOSITORY / "run_perturbations.py"), "--run-folder", "CODE", "--n-samples", "16",
        "--ranges", "ranges.csv", "--output-dir", "data", "--dask-scheduler", address,
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for _ in range(1200):
        if len(list(tmp_path.glob("data/*_daily_*.txt"))) >= 2 or process.poll() is not None:
            break
        time.sleep(0.1)
    workers[0].send_signal(signal.SIGKILL)
    worker()  # a later one gets the code too
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and "16 of 16 runs succeeded, 0 failed (0 were there already)" in output, output
    loaded = load_ensemble(tmp_path / "data")
    np.testing.assert_allclose(loaded.parameters, draw(read_ranges(tmp_path / "ranges.csv"), 16, 2025))
    assert len(np.unique(loaded.fluxes[:, 0, 0])) == 16


def test_what_cannot_be_done_there_is_said_within_seconds(started, monkeypatch):
    address, scheduler, worker = started
    worker()
    client = cluster.connect(address)
    try:
        logs = [b"one\ntwo", b"", b"three"]
        assert sorted(cluster.on_cluster(client, last_words, logs)) == [(0, "one | two"), (1, ""), (2, "three")]
        with pytest.raises(UserError, match=r"a task could not be run there: .*; the workers need the Python"):
            list(cluster.on_cluster(client, complete_fluxes, [3]))
        monkeypatch.setattr(cluster, "IDLE_SECONDS", 2)
        scheduler.kill()
        begin = time.monotonic()
        with pytest.raises(UserError, match="the scheduler does not answer|connection was lost|no worker is left"):
            list(cluster.on_cluster(client, last_words, logs))
        assert time.monotonic() - begin < 30
    finally:
        client.close(timeout=1)


def test_the_readmes_batch_system_example(tmp_path, monkeypatch):
    """dask-jobqueue's class for a machine without a batch system, in place of SLURMCluster."""
    jobqueue = pytest.importorskip("dask_jobqueue.local")
    monkeypatch.chdir(tmp_path)
    with jobqueue.LocalCluster(cores=1, memory="1GB", processes=1, log_directory=str(tmp_path)) as local:
        local.scale(jobs=1)
        client = cluster.connect(local.scheduler_address)
        assert list(cluster.on_cluster(client, last_words, [b"said"])) == [(0, "said")]
        client.close()
