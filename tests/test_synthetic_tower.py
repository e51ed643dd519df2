"""The made-up tower: NEE of known parameters that the scripts turn back into the NEP it came from."""

import json

import numpy as np
import pandas as pd
from script_calls import call

import prepare_observation_nep
from calibration.common.command_line import REPOSITORY
from calibration.common.parameters import read_ranges
from calibration.common.sites import load_site
from calibration.visit.simulator import simulate
from calibration.weather.daily import generate_weather, read_weather, write_weather_csv
from extras import make_synthetic_tower
from extras.make_synthetic_tower import outages, tower_record

SITE = load_site()
RANGES = REPOSITORY / "configs" / "range_of_paras.csv"


def test_record_returns_the_nep_it_was_made_from(tmp_path):
    """Through prepare_observation_nep.py: right sign and unit, noise of the size asked for, gaps masked."""
    dates = np.arange("2010-01-01", "2016-01-01", dtype="datetime64[D]")
    nep = 0.02 * np.sin(np.arange(len(dates)) / 58) + 0.005
    record = tower_record(nep, dates, noise=0.3, gaps=0.3, seed=1)
    record.to_csv(tmp_path / "tower.csv", index=False)
    flags = ["--input", tmp_path / "tower.csv", "--output", tmp_path / "nep.csv", "--no-figure"]
    assert call(prepare_observation_nep.main, *flags) == 0
    table = pd.read_csv(tmp_path / "nep.csv")
    valid = table["obs_mask"] == 1
    error = (table["nep_mg_ha"] - nep)[valid]
    assert abs(error.mean()) < 3e-4 and 0.0025 < error.std() < 0.0035  # 0.3 g m-2 day-1 = 0.003 Mg ha-1 day-1
    assert 0.25 < 1 - valid.mean() < 0.35
    steps = table["nee_qc"].dropna() * 48
    np.testing.assert_allclose(steps, steps.round(), atol=1e-3)
    assert table["nee_qc"].max() > 1  # the direction shows in the values, too
    # Laplace errors divided by their stated size: standard deviation 1, heavier tails than a normal.
    scaled = (error / table["nep_sd_mg_ha"][valid]).dropna()
    assert 0.9 < scaled.std() < 1.1 and scaled.kurt() > 1


def test_outages_come_in_runs():
    bad = outages(20_000, 0.3, np.random.default_rng(0))
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], bad, [0]]))))[::2]
    assert 0.26 < bad.mean() < 0.34 and 6.5 < runs.mean() < 9.5
    assert not outages(100, 0.0, np.random.default_rng(0)).any()


def test_script_writes_record_and_truth(tmp_path, capsys):
    weather = generate_weather(SITE, "2010-01-01", "2011-12-31", seed=1)
    write_weather_csv(tmp_path / "w.csv", weather)
    flags = [
        "--weather",
        tmp_path / "w.csv",
        "--output",
        tmp_path / "t.csv",
        "--parameters-out",
        tmp_path / "truth.json",
    ]
    assert call(make_synthetic_tower.main, *flags, "--seed", 5, "--noise", 0, "--gaps", 0) == 0
    truth = json.loads((tmp_path / "truth.json").read_text())
    space = read_ranges(RANGES)
    values = np.array([truth["parameters"][name] for name in space.names])
    space.check(values)
    assert np.all(np.abs(space.physical_to_unit(values) - 0.5) <= 0.35 + 1e-9)
    record = pd.read_csv(tmp_path / "t.csv", dtype={"TIMESTAMP": str})
    again = simulate(truth["parameters"], read_weather(tmp_path / "w.csv"), SITE)
    np.testing.assert_allclose(record["NEE_vUT"], -100 * again.nep[0], atol=1e-5)  # the record's six decimals
    np.testing.assert_allclose(pd.read_csv(tmp_path / "truth_nep.csv")["nep_mg_ha"], again.nep[0], atol=1e-12)
    assert call(make_synthetic_tower.main, *flags, "--gaps", "1.5") == 2
    assert "--gaps is 1.5, allowed is a share from 0 to 0.95" in capsys.readouterr().err
