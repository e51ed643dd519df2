"""Against what the real VISIT computed at LHP (a subset; benchmarks/verify_simulator.py compares all runs)."""

from functools import cache

import numpy as np
import pandas as pd
import pytest

from calibration.common.command_line import REPOSITORY
from calibration.common.sites import load_site
from calibration.visit.forcing import spinup_forcing
from calibration.visit.layout import HUMUS, LITTER, STATE, ground_row, parameter_rows
from calibration.visit.simulator import parameter_values, simulate
from calibration.visit.spinup import Loop, trace
from calibration.weather.daily import read_weather

pytestmark = pytest.mark.real_data
DATA = REPOSITORY.parent / "shared" / "data"


def data_file(*parts):
    path = DATA.joinpath(*parts)
    if not path.is_file():
        pytest.skip(f"{path.name} is not there")
    return path


@cache
def real_weather():
    return read_weather(data_file("lhp", "era5_daily_filled_2010_2019.csv"), load_site())


@cache
def real_and_ours():
    real = pd.read_csv(data_file("visit_reference", "visit_lhp_morris_runs.csv"))
    return real, simulate(real, real_weather(), load_site()).summary()


def test_means_of_the_232_real_runs_are_reproduced():
    real, ours = real_and_ours()
    limits = {"GPP": (0.080, 0.9999), "NPP": (0.040, 0.9999), "ER": (0.060, 0.9999), "NEP": (0.038, 0.9997)}
    for flux, (rmse, correlation) in limits.items():
        a, b = ours[f"mean_{flux}"].to_numpy(), real[f"mean_{flux}"].to_numpy()
        assert np.sqrt(np.mean((a - b) ** 2)) < rmse, flux
        assert np.corrcoef(a, b)[0, 1] > correlation, flux


def test_steps_of_one_parameter_are_reproduced():
    """Differences between neighbouring runs, large and small; and no effect where VISIT reads no parameter."""
    real, ours = real_and_ours()
    same = np.diff(real["trajectory"]) == 0
    parameters = [name for name in real if not name.startswith(("mean_", "sd_", "sample_id", "trajectory"))]
    moved = [next(n for n in parameters if real[n][k] != real[n][k + 1]) if same[k] else "" for k in range(len(same))]
    inert = [any(part in name for part in ("over_", "under_", "c4_", "ctmp", "dcd", "root_spt")) for name in moved]
    for flux in ("GPP", "NPP", "ER", "NEP"):
        a, b = (np.diff(table[f"mean_{flux}"]) for table in (ours, real))
        assert np.corrcoef(a[same], b[same])[0, 1] > 0.999, flux
        small = same & (np.abs(b) < 1)
        assert np.corrcoef(a[small], b[small])[0, 1] > 0.998, flux
        assert (a[inert] == 0).all() and (b[inert] == 0).all()
    assert sum(inert) > 70


def sample_0(name):
    """Parameters of the published V2-LHS run, under its labels or under the slots really changed."""
    table = pd.read_csv(data_file("visit_reference", "visit_lhp_v2lhs_sample0.csv"))
    return parameter_values({row[name]: row["value"] for row in table.to_dict("records")})


def test_the_published_run_under_its_true_slots():
    """visit_carbon_core 10.2; years 1 and 2 run under copied weather and are left out, as there."""
    values, site, weather = sample_0("true_slot"), load_site(), real_weather()
    loop = Loop(*spinup_forcing(weather.dates, weather.values, site))
    rows = parameter_rows(values)
    fluxes, pools = trace(rows[0], ground_row(site), loop)
    assert fluxes[2:7, 0] == pytest.approx([2.06, 2.78, 3.73, 5.14, 6.70], rel=0.02)
    # the last loop: GPP of 2012-2016, and the decade's leaf area and soil carbon
    assert fluxes[-8:-3, 0].mean() == pytest.approx(np.mean([34.57, 34.03, 33.29, 34.07, 32.97]), rel=0.015)
    decade = pools[-10:].mean(axis=0)
    lai = (decade[0] * values["tree_sla"][0] + decade[4] * values["c3_sla"][0]) * 2.2 / 200
    assert lai == pytest.approx(8.24, rel=0.015)
    assert decade[LITTER : HUMUS + 3].sum() == pytest.approx(61.7, rel=0.015)
    assert decade[[STATE.index(f"{p}_{o}") for p in ("tree", "c3") for o in ("foliage", "stem", "root")]].sum() == (
        pytest.approx(6.11, rel=0.015)
    )
    assert fluxes[-10:, 3].mean() == pytest.approx(0.20, abs=0.05)
    summary = simulate(values, weather, site).summary().iloc[0]
    assert summary["mean_GPP"] == pytest.approx(34.47, rel=0.015)
    assert summary["mean_NPP"] == pytest.approx(21.02, rel=0.015)
    assert summary["mean_NEP"] == pytest.approx(0.29, abs=0.05)


def test_under_its_labels_taken_literally_the_forest_dies():
    site, weather = load_site(), real_weather()
    loop = Loop(spinup_forcing(weather.dates, weather.values, site)[0], 1)
    fluxes, _ = trace(parameter_rows(sample_0("label"))[0], ground_row(site), loop)
    assert fluxes[3:, 0].max() < 0.05


def test_baseline_forest():
    """visit_carbon_core 14: another implementation's baseline under this weather (no run of VISIT is public).

    NEP differs with the phase of the suppressed floor, whose small stems that one took to be all alive.
    """
    result = simulate({}, real_weather(), load_site())
    summary = result.summary().iloc[0]
    assert summary["mean_GPP"] == pytest.approx(44.95, abs=0.05)
    assert summary["mean_NPP"] == pytest.approx(15.52, abs=0.02)
    assert summary["mean_ER"] == pytest.approx(44.45, abs=0.05)
    assert summary["mean_NEP"] == pytest.approx(0.51, abs=0.02)
    pools = result.annual_pools[0].mean(axis=0)
    assert result.annual_lai[0].mean(axis=0).sum() == pytest.approx(6.6, abs=0.15)
    assert pools[[0, 1, 2, 4, 5, 6]].sum() == pytest.approx(304, rel=0.01)
    assert pools[LITTER : HUMUS + 3].sum() == pytest.approx(82, rel=0.01)
