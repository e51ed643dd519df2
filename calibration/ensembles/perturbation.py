"""An ensemble's draw of parameters, and running it on the cores of this machine or of a Dask cluster."""

import atexit
import os
import warnings
from collections.abc import Iterator

import joblib
import numpy as np
from joblib.externals.loky.process_executor import TerminatedWorkerError
from scipy.stats import qmc

from calibration.common.command_line import REPOSITORY, UserError, warn
from calibration.common.parameters import ParameterSpace
from calibration.ensembles.engines import (
    BuiltinEngine,
    CommandEngine,
    RunResult,
    as_columns,
    prepare_worker,
)

DEAD = 1.0  # Mg C ha-1 year-1 of mean GPP: below it there is no forest
CONNECT_SECONDS = 10  # how long a Dask scheduler may take to answer
CRASHES = 3  # restarts after a worker process was killed (out of memory) before the rest counts as failed


def draw(space: ParameterSpace, n_samples: int, seed: int) -> np.ndarray:
    """Latin hypercube (run, parameter) in physical units: uniform in the unit cube, so that ties hold (McKay 1979)."""
    unit = qmc.LatinHypercube(len(space), rng=np.random.default_rng(seed)).random(n_samples)
    return space.unit_to_physical(unit)


def run_all(
    engine: BuiltinEngine | CommandEngine, samples: list[int], names: tuple[str, ...], values: np.ndarray, jobs: int,
    client=None,
) -> Iterator[RunResult]:  # fmt: skip
    """Results of `samples` as they finish, from `jobs` processes here or the workers of a Dask `client`.

    Survives killed worker processes: what they had is run again, alone.
    """
    pending = list(samples)
    warnings.filterwarnings("ignore", r"\d+ tasks which were still being processed")  # after Ctrl-C: known
    for attempt in range(CRASHES):
        workers = sum(client.nthreads().values()) if client else jobs
        size = 1 if attempt else max(1, min(engine.batch, -(-len(pending) // (2 * workers))))
        batches = [pending[i : i + size] for i in range(0, len(pending), size)]
        local = {"inner_max_num_threads": 1, "initializer": prepare_worker, "initargs": (os.getpid(),)}
        backend = {"backend": "dask"} if client else {"backend": "loky"} | local
        with joblib.parallel_config(n_jobs=-1 if client else jobs, **backend):
            parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
            tasks = (joblib.delayed(engine.run)(batch, as_columns(names, values[batch])) for batch in batches)
            try:
                for results in parallel(tasks):
                    for result in results:
                        pending.remove(result.sample_id)
                        yield result
                return
            except TerminatedWorkerError:
                warn(f"a worker process was killed (out of memory?); {len(pending)} runs are started again")
    for sample in pending:
        yield RunResult(sample, None, 0.0, "the worker process was killed again and again (out of memory?)")


def connect(address: str):
    """A client of the Dask scheduler whose workers can import this repository. UserError when nobody answers."""
    from distributed import Client

    try:
        client = Client(address, timeout=CONNECT_SECONDS)
        client.wait_for_workers(1, timeout=60)
    except (OSError, TimeoutError, ValueError) as error:
        raise UserError(
            f"--dask-scheduler {address}: no scheduler with workers answers ({error}); start `dask scheduler` and "
            "`dask worker` first"
        ) from None
    # workers started in another folder; those that join later need PYTHONPATH set to the repository
    client.run(exec, f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})")
    atexit.register(client.close)
    return client
