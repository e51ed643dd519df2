"""An ensemble's draw of parameters, and running it on the cores of this machine or of a Dask cluster."""

import os
import warnings
from collections.abc import Iterator

import joblib
import numpy as np
from joblib.externals.loky.process_executor import TerminatedWorkerError

from calibration.common.command_line import warn
from calibration.common.parameters import ParameterSpace
from calibration.engines.builtin import BuiltinEngine, RunResult, as_columns
from calibration.engines.cluster import WorkerLostError, cores, on_cluster
from calibration.engines.command import ProgramEngine
from calibration.engines.processes import prepare_worker

CRASHES = 3  # restarts after a worker process was killed (out of memory) before the rest counts as failed


def draw(space: ParameterSpace, n_samples: int, seed: int) -> np.ndarray:
    """Latin hypercube (run, parameter) in physical units: uniform in the unit cube, so that ties hold (McKay 1979)."""
    from scipy.stats import qmc  # half a second's import, wanted by nobody else who imports this module

    unit = qmc.LatinHypercube(len(space), rng=np.random.default_rng(seed)).random(n_samples)
    return space.unit_to_physical(unit)


def run_all(
    engine: BuiltinEngine | ProgramEngine, samples: list[int], names: tuple[str, ...], values: np.ndarray, jobs: int,
    client=None,
) -> Iterator[RunResult]:  # fmt: skip
    """Results of `samples` as they finish, from `jobs` processes here or the workers of a Dask `client`.

    values: (run, parameter) physical, by sample. Survives killed worker processes: what they had is run again, alone.
    """
    pending = list(samples)
    warnings.filterwarnings("ignore", r"\d+ tasks which were still being processed")  # after Ctrl-C: known
    for attempt in range(CRASHES):
        workers = cores(client) if client else jobs
        size = 1 if attempt else max(1, min(engine.batch, -(-len(pending) // (2 * workers))))
        batches = [pending[i : i + size] for i in range(0, len(pending), size)]
        calls = [(batch, as_columns(names, values[batch])) for batch in batches]
        lost = False
        try:
            for results in _on_cluster(client, engine, calls) if client else _here(engine, calls, jobs):
                lost |= results is None
                for result in results or ():
                    pending.remove(result.sample_id)
                    yield result
        except TerminatedWorkerError:
            lost = True
        if not lost:
            return
        warn(f"a worker process was killed (out of memory?); {len(pending)} runs are started again")
    for sample in pending:
        yield RunResult(sample, None, 0.0, "the worker process was killed again and again (out of memory?)")


def _here(engine: BuiltinEngine | ProgramEngine, calls: list, jobs: int) -> Iterator[list[RunResult]]:
    """Results of each call from `jobs` processes on this machine."""
    local = {"inner_max_num_threads": 1, "initializer": prepare_worker, "initargs": (os.getpid(),)}
    with joblib.parallel_config(n_jobs=jobs, backend="loky", **local):
        parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
        yield from parallel(joblib.delayed(engine.run)(*call) for call in calls)


class _Run:
    """What a worker of a cluster calls: pickled once, with its engine."""

    def __init__(self, engine: BuiltinEngine | ProgramEngine) -> None:
        self.engine = engine

    def __call__(self, call: tuple) -> list[RunResult]:
        return self.engine.run(*call)


def _on_cluster(client, engine: BuiltinEngine | ProgramEngine, calls: list) -> Iterator[list[RunResult] | None]:
    """Results of each call from a cluster, None where its workers died."""
    for _, results in on_cluster(client, _Run(engine), calls):
        yield None if isinstance(results, WorkerLostError) else results
