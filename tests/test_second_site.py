"""A second, invented site runs the whole path with a YAML and a weather file, and no change of code."""

import json

import numpy as np
import pandas as pd
from script_calls import call
from second_site import INVENTED, boreal_weather

import build_observation_windows
import prepare_observation_nep
import run_perturbations
import test_inversion
import train
import weather
from extras import fit_weather_statistics, make_synthetic_tower


def test_whole_path_at_another_site(tmp_path):
    """Weather, ensemble, emulator, tower, NEP, windows, inversion: each script hands over to the next."""
    site = ["--site", tmp_path / "hyy.yaml"]
    (tmp_path / "hyy.yaml").write_text(INVENTED)
    boreal_weather(tmp_path / "era5.csv")
    file, data, artifacts = tmp_path / "w.csv", tmp_path / "data", tmp_path / "artifacts"
    assert call(fit_weather_statistics.main, "--weather", tmp_path / "era5.csv", *site) == 0
    assert call(weather.main, "--output", file, "--start", "2013-01-01", "--end", "2016-12-31", *site) == 0
    assert (
        call(run_perturbations.main, "--n-samples", 5, "--weather", file, "--output-dir", data, "--jobs", 1, *site) == 0
    )
    assert call(
        train.main, "--data-dir", data, "--artifacts-dir", artifacts, "--epochs", 1, "--steps-per-epoch", 2,
        "--labels", "trust",
        "--hidden-size", 8, "--num-layers", 1, "--train-period", 2013, 2014, "--validation-period", 2015, 2015,
        "--test-period", 2016, 2016,
    ) == 0  # fmt: skip
    tower = ["--output", tmp_path / "tower.csv", "--parameters-out", tmp_path / "truth.json"]
    assert call(make_synthetic_tower.main, "--weather", file, *tower, *site) == 0
    nep = tmp_path / "nep.csv"
    assert call(prepare_observation_nep.main, "--input", tmp_path / "tower.csv", "--output", nep, "--no-figure") == 0
    windows = tmp_path / "windows.npz"
    flags = ["--daily", file, "--obs", nep, "--artifacts-dir", artifacts, "--start", "2015-01-01", "--output", windows]
    assert call(build_observation_windows.main, *flags, *site) == 0
    truth = pd.read_csv(tmp_path / "truth_nep.csv", index_col="date")["nep_mg_ha"]
    arrays = np.load(windows)
    days = pd.date_range(arrays["window_start"][0], periods=30).strftime("%Y-%m-%d")
    valid = arrays["obs_mask"][0] > 0
    # What reaches the inversion is the tower's NEP: true value plus an error of 0.003 Mg C ha-1 day-1.
    assert np.abs(arrays["y_obs"][0, valid, 2] - truth[days].to_numpy()[valid]).max() < 0.03
    results = tmp_path / "results"
    code = call(
        test_inversion.main, "--mode", "observation", "--obs-npz", windows, "--obs-index", 0, "--data-dir", data,
        "--artifacts-dir", artifacts, "--result-dir", results, *site,
    )  # fmt: skip
    assert code == 0
    assert len(json.loads((results / "params_snapshot.json").read_text())["names"]) == 36
