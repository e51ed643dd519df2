"""A small ensemble of daily files for tests: DAYS days, three parameters."""

import numpy as np
import pandas as pd

from calibration.ensembles.files import write_daily_file

DAYS = 800  # over the leap day of 2012
NAMES = ("tree_lue", "tree_pmax", "soil_sr_lf")


def make_weather():
    """Dates (day,) and values (day, 10) in the units of daily files."""
    random = np.random.default_rng(1)
    dates = np.datetime64("2011-06-01") + np.arange(DAYS)
    means = np.array([300, 299.5, 300.2, 300.1, 200, 40, 1e-4, 0.0185, 1.2, 400])
    return dates, means * (1 + 0.01 * random.standard_normal((DAYS, 10)))


def fluxes_of(sample):
    """(day, 4) GPP NPP NEP Rh, Mg C ha-1 day-1, with NEP = NPP - Rh."""
    random = np.random.default_rng(100 + sample)
    gpp = 0.1 + 0.02 * random.standard_normal(DAYS)
    npp, rh = 0.4 * gpp, 0.04 + 0.004 * random.standard_normal(DAYS)
    return np.stack([gpp, npp, npp - rh, rh], axis=1)


def make_ensemble(directory, weather, runs=4):
    random = np.random.default_rng(2)
    values = random.uniform(0.5, 1.0, (runs, len(NAMES)))
    for sample in range(runs):
        write_daily_file(
            directory / f"LHP_20250101_daily_{sample:04d}.txt", *weather, fluxes_of(sample),
            dict(zip(NAMES, values[sample], strict=True)),
        )  # fmt: skip
    table = pd.DataFrame(values, columns=NAMES)
    table.insert(0, "sample_id", range(runs))
    table.to_csv(directory / "parameter_summary.csv", index=False)
    return values


def file_of(directory, sample):
    return directory / f"LHP_20250101_daily_{sample:04d}.txt"
