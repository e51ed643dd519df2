"""Observation windows: what lands where, the round trip of the .npz, metadata that protects, gap rules, bad input."""

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest
from script_calls import call

import build_observation_windows as building
from calibration.common.command_line import UserError
from calibration.common.scalers import Scaler
from calibration.common.sites import load_site
from calibration.common.units import DYNAMIC_FEATURES, TARGETS
from calibration.reports import kinds, tower
from calibration.tower.observation_csv import longest_gap, read_observations
from calibration.tower.window_building import build_windows
from calibration.tower.windows import load_windows
from calibration.weather.daily import generate_weather, write_weather_csv

SITE = load_site()
WEATHER = generate_weather(SITE, "2011-01-01", "2012-12-31", seed=11)
SCALER = Scaler.fit(DYNAMIC_FEATURES, WEATHER.values)


def observations(start="2012-01-01", count=120, extra=True) -> pd.DataFrame:
    generator = np.random.default_rng(3)
    nee = generator.normal(-1, 2, count).round(6)
    table = pd.DataFrame({
        "date": pd.date_range(start, periods=count).strftime("%Y-%m-%d"), "nee_gcm2": nee, "nee_source": "NEE_vUT",
        "nee_qc": 0.3, "nep_mg_ha": -nee / 100, "obs_mask": (generator.random(count) < 0.6).astype(int),
    })  # fmt: skip
    if extra:
        table["gpp_mg_ha"], table["reco_mg_ha"], table["nep_sd_mg_ha"] = 0.08, 0.07, 0.004
    return table


@pytest.fixture
def folder(tmp_path):
    """Weather, observations, and an artifacts folder that holds the scaler."""
    write_weather_csv(tmp_path / "w.csv", WEATHER)
    observations().to_csv(tmp_path / "nep.csv", index=False)
    SCALER.save(tmp_path / "artifacts" / "scaler_dynamic.json")
    return tmp_path


def build(folder, *flags) -> int:
    return call(
        building.main, "--daily", folder / "w.csv", "--obs", folder / "nep.csv",
        "--artifacts-dir", folder / "artifacts", "--output", folder / "windows.npz", *flags,
    )  # fmt: skip


def refused(folder, capsys, *flags) -> str:
    assert build(folder, *flags) == 2
    assert not (folder / "windows.npz").exists()
    return capsys.readouterr().err


def test_arrays_of_the_specification(folder):
    assert build(folder, "--start", "2012-01-01", "--end", "2012-03-31") == 0
    arrays = np.load(folder / "windows.npz")
    count = 91 - 29  # every target day lies between start and end
    assert arrays["context_x"].shape == (count, 180, 10) and arrays["future_known"].shape == (count, 30, 10)
    assert arrays["y_obs"].shape == (count, 30, 4) and arrays["obs_mask"].shape == (count, 30)
    assert list(arrays["window_start"][:2]) == ["2012-01-01", "2012-01-02"]
    assert tuple(arrays["feature_names"]) == DYNAMIC_FEATURES and tuple(arrays["target_names"]) == TARGETS
    np.testing.assert_array_equal(arrays["scaler_mean"], SCALER.mean)
    assert all(np.isfinite(arrays[name]).all() for name in ("context_x", "future_known", "y_obs", "obs_mask"))


def test_every_number_is_where_its_day_says(folder):
    assert build(folder) == 0
    windows = load_windows(folder / "windows.npz", DYNAMIC_FEATURES, SCALER)
    table = read_observations(folder / "nep.csv").set_index("date")
    scaled = SCALER.transform(WEATHER.values)
    for k in (0, 17, len(windows) - 1):
        first = int((windows.window_start[k] - WEATHER.dates[0]).astype(int))
        np.testing.assert_allclose(windows.context_x[k], scaled[first - 180 : first], atol=1e-5)
        np.testing.assert_allclose(windows.future_known[k], scaled[first : first + 30], atol=1e-5)
        days = table.loc[pd.DatetimeIndex(windows.dates[k])]
        np.testing.assert_array_equal(windows.obs_mask[k], days["obs_mask"])
        expected = days["nep_mg_ha"].where(days["obs_mask"]).to_numpy()
        np.testing.assert_allclose(windows.nep()[k], expected, atol=1e-7)
        np.testing.assert_allclose(windows.obs_sd[k], 0.004, rtol=1e-6)
        gpp = windows.y_obs[k, :, TARGETS.index("gpp")]
        np.testing.assert_array_equal(~np.isnan(gpp), days["obs_mask"])  # partitioned from NEE: same mask
        np.testing.assert_array_equal(~np.isnan(windows.er_obs[k]), days["obs_mask"])
    assert not windows.y_mask[:, :, TARGETS.index("rh")].any()


def test_absent_columns_are_absent_not_zero(folder):
    observations(extra=False).to_csv(folder / "nep.csv", index=False)
    assert build(folder) == 0
    arrays = np.load(folder / "windows.npz")
    assert "obs_sd" not in arrays and "er_obs" not in arrays
    assert not arrays["y_mask"][:, :, TARGETS.index("gpp")].any()


def test_days_without_an_observation_row_are_masked(folder):
    table = observations()
    table.drop(index=range(10, 20)).to_csv(folder / "nep.csv", index=False)
    assert build(folder) == 0
    windows = load_windows(folder / "windows.npz", DYNAMIC_FEATURES, SCALER)
    assert not windows.obs_mask[0, 10:20].any()


def test_tiling_min_valid_and_gap_rules(folder):
    table = observations()
    table["obs_mask"] = 1
    table.loc[35:54, "obs_mask"] = 0
    table.to_csv(folder / "nep.csv", index=False)
    assert build(folder, "--stride", "30") == 0
    tiles = load_windows(folder / "windows.npz", DYNAMIC_FEATURES, SCALER)
    assert list(tiles.window_start.astype(str)) == ["2012-01-01", "2012-01-31", "2012-03-01", "2012-03-31"]
    assert list(tiles.obs_mask.sum(axis=1)) == [30, 10, 30, 30]
    assert build(folder, "--stride", "30", "--min-valid", "11") == 0
    assert len(load_windows(folder / "windows.npz", DYNAMIC_FEATURES, SCALER)) == 3
    assert build(folder, "--stride", "30", "--min-valid", "0.35") == 0  # a share: 11 of 30 days
    assert len(load_windows(folder / "windows.npz", DYNAMIC_FEATURES, SCALER)) == 3
    assert build(folder, "--max-gap", "5") == 0
    daily = load_windows(folder / "windows.npz", DYNAMIC_FEATURES, SCALER)
    assert longest_gap(daily.obs_mask).max() == 5
    assert build(folder, "--context-len", "30", "--prediction-len", "10") == 0
    assert np.load(folder / "windows.npz")["context_x"].shape[1:] == (30, 10)


def test_missing_codes_of_a_hand_made_observation_file_are_missing(folder):
    lines = ["date,nep_mg_ha,obs_mask", "2012-01-01,-9999,0", "2012-01-02,0.01,1"]
    (folder / "mine.csv").write_text("\n".join(lines) + "\n")
    table = read_observations(folder / "mine.csv")
    assert list(table["obs_mask"]) == [False, True] and np.isnan(table["nep_mg_ha"][0])


def test_longest_gap():
    valid = np.array([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 1, 0, 0, 0]], dtype=bool)
    assert list(longest_gap(valid)) == [2, 5, 0, 3]


def test_first_window_has_its_whole_context(folder, capsys):
    observations("2011-05-01", 120).to_csv(folder / "nep.csv", index=False)
    assert build(folder) == 0
    windows = load_windows(folder / "windows.npz", DYNAMIC_FEATURES, SCALER)
    assert str(windows.window_start[0]) == "2011-06-30"
    assert "the first window starts after 2011-05-01" in capsys.readouterr().out


def test_weather_outside_the_training_range_is_named(folder, capsys):
    low, high = WEATHER.values.min(axis=0), WEATHER.values.max(axis=0)
    ranges = {name: [a, b] for name, a, b in zip(DYNAMIC_FEATURES, low, high, strict=True)}
    config = folder / "artifacts" / "config.json"
    config.write_text(json.dumps({"feature_ranges": ranges}))
    assert build(folder) == 0
    assert capsys.readouterr().err == ""
    ranges["tmp_2m"][1] = float(np.quantile(WEATHER.column("tmp_2m"), 0.9))
    config.write_text(json.dumps({"feature_ranges": ranges}))
    assert build(folder) == 0
    warnings = capsys.readouterr().err.splitlines()
    used = WEATHER.between("2011-07-05", "2012-04-29")
    count = int(
        (used.column("tmp_2m") > ranges["tmp_2m"][1] + 1e-3 * (ranges["tmp_2m"][1] - ranges["tmp_2m"][0])).sum()
    )
    assert len(warnings) == 1 and f"tmp_2m: {count} of {len(used)} days" in warnings[0]
    # an emulator named by its scaler alone counts, not the one in the default folder
    elsewhere = ("--scaler", folder / "artifacts" / "scaler_dynamic.json", "--artifacts-dir", folder / "other")
    assert build(folder, *elsewhere) == 0
    assert capsys.readouterr().err.splitlines() == warnings


def test_the_page_says_which_days_can_be_fitted_and_whether_their_weather_is_known(folder):
    low, high = WEATHER.values.min(axis=0), WEATHER.values.max(axis=0)
    ranges = {name: [a, b] for name, a, b in zip(DYNAMIC_FEATURES, low, high, strict=True)}
    ranges["a_co2"] = [300.0, 350.0]
    config = folder / "artifacts" / "config.json"
    config.write_text(json.dumps({"feature_ranges": ranges}))
    assert build(folder, "--report") == 0
    (section,) = tower.windows_sections(folder)
    table = read_observations(folder / "nep.csv")
    valid = table[table["obs_mask"] == 1]
    assert section.verdict.startswith(f"READY TO INVERT: 91 windows of 30 days hold {len(valid)} observed days, 2012")
    assert "CO2 lies outside" in " ".join(section.meaning), "as in every later year: no reason for care"
    weather, months = section.blocks
    assert {weather.rows[i][0] for i in weather.marked} == {"a_co2"}
    assert sum(row[2] for row in months.rows) == len(valid) and sum(row[4] for row in months.rows) == 91
    january = valid[valid["date"].astype(str).str.startswith("2012-01")]
    assert months.rows[0][:3] == ["2012-01", 31, len(january)]
    assert months.rows[0][3] == pytest.approx(january["nep_mg_ha"].mean(), rel=1e-4)
    assert section.verdict in re.sub("<[^>]*>", "", (folder / "report.html").read_text(encoding="utf-8"))

    ranges["tmp_2m"][1] = float(np.quantile(WEATHER.column("tmp_2m"), 0.9))
    config.write_text(json.dumps({"feature_ranges": ranges}))
    assert build(folder) == 0
    (section,) = tower.windows_sections(folder)
    assert section.verdict.startswith("READ WITH CARE") and "tmp_2m: on more than 5 percent" in section.meaning[1]
    (folder / "windows_weather.csv").unlink()
    with pytest.raises(UserError, match="windows_weather.csv: no such file; half a result: run build_observation_wind"):
        kinds.sections_of(folder)


def test_scaler_may_be_given_and_its_order_rules(folder):
    names = DYNAMIC_FEATURES[::-1]
    reordered = SCALER.subset(names)
    reordered.save(folder / "other.json")
    assert build(folder, "--scaler", folder / "other.json") == 0
    windows = load_windows(folder / "windows.npz", names, reordered)
    np.testing.assert_allclose(
        windows.future_known[0, 0], reordered.transform(WEATHER.between("2012-01-01", None).values[0, ::-1]), atol=1e-5
    )


def test_a_scaler_of_something_else_is_named(folder, capsys):
    Scaler(("tree_sla", "tree_lue"), np.zeros(2), np.ones(2)).save(folder / "static.json")
    error = refused(folder, capsys, "--scaler", folder / "static.json")
    assert "static.json: scales tree_sla, which is no weather variable" in error and "scaler_dynamic" in error


# ---- windows of other emulators, or of nobody knows whom


@pytest.fixture
def arrays(folder) -> dict:
    assert build(folder) == 0
    return dict(np.load(folder / "windows.npz"))


def load_changed(folder, arrays, scaler=SCALER, names=DYNAMIC_FEATURES, **options):
    np.savez(folder / "changed.npz", **arrays)
    return load_windows(folder / "changed.npz", names, scaler, **options)


def test_another_scaler_is_refused_or_converted(folder, arrays):
    other = Scaler(DYNAMIC_FEATURES, SCALER.mean + 0.1 * SCALER.scale, SCALER.scale * 1.2)
    with pytest.raises(UserError, match="scaled with another scaler than the emulator's .10 of 10 features, such as"):
        load_changed(folder, arrays, other)
    converted = load_changed(folder, arrays, other, rescale=True)
    expected = build_windows(WEATHER, read_observations(folder / "nep.csv"), other, "2012-01-01", "2012-04-29")
    np.testing.assert_allclose(converted.context_x, expected.context_x, atol=2e-5)
    np.testing.assert_array_equal(converted.scaler_mean, other.mean)


def test_other_features_or_order_are_refused(folder, arrays):
    swapped = DYNAMIC_FEATURES[1::-1] + DYNAMIC_FEATURES[2:]
    with pytest.raises(UserError, match="the same features in another order"):
        load_changed(folder, arrays, SCALER.subset(swapped), swapped)
    with pytest.raises(UserError, match="other features"):
        load_changed(folder, arrays, SCALER.subset(DYNAMIC_FEATURES[:9]), DYNAMIC_FEATURES[:9])


def test_targets_in_another_order_are_sorted_by_name(folder, arrays):
    expected = load_changed(folder, arrays)
    arrays["y_obs"] = arrays["y_obs"][:, :, ::-1]
    arrays["y_mask"] = arrays["y_mask"][:, :, ::-1]
    arrays["target_names"] = arrays["target_names"][::-1]
    np.testing.assert_array_equal(load_changed(folder, arrays).y_obs, expected.y_obs)


METADATA = ("feature_names", "target_names", "scaler_mean", "scaler_scale", "y_mask", "obs_sd", "er_obs")


def bare(arrays: dict) -> dict:
    """A file from elsewhere: the five arrays of the contract, NEP in some channel and nothing else."""
    stripped = {name: array for name, array in arrays.items() if name not in METADATA}
    stripped["y_obs"] = np.zeros_like(arrays["y_obs"])
    stripped["y_obs"][:, :, 1] = arrays["y_obs"][:, :, TARGETS.index("nep")]
    return stripped


def test_a_file_without_metadata_loads_with_warnings(folder, arrays, capsys):
    expected = load_changed(folder, arrays)
    loaded = load_changed(folder, bare(arrays))
    np.testing.assert_array_equal(loaded.nep(), expected.nep())
    assert loaded.y_mask.sum() == loaded.obs_mask.sum()
    err = capsys.readouterr().err
    assert "channel 1 of y_obs, the only one not all zero, is taken for NEP" in err
    assert "has no feature names; its 10 features are taken as tmp_sfc" in err
    assert "does not say which scaler it was made with" in err
    two = bare(arrays)
    two["y_obs"][:, :, 0] = 0.1
    with pytest.raises(UserError, match="2 of 4 channels of y_obs are not all zero, so which one is NEP is open"):
        load_changed(folder, two)


def test_damaged_window_files(folder, arrays):
    def with_(**changes):
        return {**arrays, **changes}

    nan = arrays["context_x"].copy()
    nan[0, 0, 0] = np.nan
    nep_nan = arrays["y_obs"].copy()
    nep_nan[arrays["y_mask"] > 0] = np.nan
    cases = [
        ({k: v for k, v in arrays.items() if k != "obs_mask"}, "has no array obs_mask; found"),
        (with_(context_x=nan), "context_x holds 1 NaN or infinite values"),
        (with_(y_obs=nep_nan), "y_obs is NaN or infinite on days that the mask calls valid"),
        (with_(y_obs=arrays["y_obs"] * 100), "it looks like g C m-2 day-1: divide by 100"),
        (with_(obs_mask=arrays["obs_mask"][:, :10]), "obs_mask has shape"),
        (with_(context_x=arrays["context_x"][:3]), "they must agree"),
        (
            with_(window_start=np.array(["1 Jan"] * len(arrays["obs_mask"]))),
            "window_start holds '1 Jan'; expected dates",
        ),
        (with_(target_names=np.array(["gpp", "npp", "x", "rh"])), "expected nep among gpp, npp, nep, rh"),
        (with_(scaler_scale=np.zeros(10)), "scaler_scale must be above 0"),
        (with_(window_start=arrays["window_start"][:2]), "window_start has 2 entries"),
    ]
    for changed, message in cases:
        with pytest.raises(UserError, match=message):
            load_changed(folder, changed)
    for content in ((folder / "windows.npz").read_bytes()[:1000], b"hello"):
        (folder / "windows.npz").write_bytes(content)
        with pytest.raises(UserError, match="not readable as .npz .no such archive, or cut short"):
            load_windows(folder / "windows.npz", DYNAMIC_FEATURES, SCALER)
    with pytest.raises(UserError, match="no such file; make it with build_observation_windows.py"):
        load_windows(folder / "no.npz", DYNAMIC_FEATURES, SCALER)


def test_save_and_load_give_the_same_windows(folder, arrays):
    first = load_windows(folder / "windows.npz", DYNAMIC_FEATURES, SCALER)
    first.save(folder / "again.npz")
    second = load_windows(folder / "again.npz", DYNAMIC_FEATURES, SCALER)
    for field in dataclasses.fields(first):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name))
    part = first.select(slice(3, 5))
    assert len(part) == 2 and part.window_start[0] == first.window_start[3] and part.obs_sd.shape == (2, 30)
    with pytest.raises(UserError, match="windows are written as .npz"):
        first.save(folder / "w.dat")


# ---- bad input


def change(**columns):
    return lambda table: table.assign(**columns)


BAD_OBSERVATIONS = [
    (lambda t: t.drop(columns="nep_mg_ha"), "has no column nep_mg_ha; found date, nee_gcm2"),
    (change(nep_mg_ha=lambda t: -t.nep_mg_ha), "NEP = -NEE / 100: make the file with prepare_observation_nep.py"),
    (
        change(nep_mg_ha=lambda t: t.nep_mg_ha * 100),
        "allowed is up to 0.5 Mg C ha-1 day-1; it looks like g C m-2 day-1",
    ),
    (change(obs_mask=2), "obs_mask must be 0 or 1 on every day"),
    (change(obs_mask=0), "no valid observation (obs_mask is 0 on all 120 days)"),
    (change(date="2012-02-30"), "line 2: date is '2012-02-30', expected YYYY-MM-DD"),
    (change(date="2012-02-20"), "2012-02-20 is there twice"),
    (change(nep_mg_ha="x"), "line 2: nep_mg_ha is 'x', expected a number"),
]


@pytest.mark.parametrize(("edit", "message"), BAD_OBSERVATIONS)
def test_bad_observations(folder, capsys, edit, message):
    edit(observations()).to_csv(folder / "nep.csv", index=False)
    assert message in refused(folder, capsys)


BAD_FLAGS = [
    (("--min-valid", "31"), "--min-valid 31 is more than the 30 days of a window"),
    (("--min-valid", "30"), "nep.csv: no window with at least 30 valid days among 91 starts from 2012-01-01 to"),
    (("--min-valid", "2.5"), "--min-valid is 2.5, allowed are whole days, or a share of the window below 1"),
    (("--min-valid", "inf"), "--min-valid inf is more than the 30 days of a window"),
    (("--min-valid", "nan"), "--min-valid is nan, allowed is 0 or more"),
    (("--max-gap", "0"), "and no gap above 0 days among 91 starts"),
    (("--stride", "0"), "--stride is 0, allowed is 1 or more"),
    (("--context-len", "720"), "731 days, but one window needs 720 of context and 30 of horizon"),
    (("--start", "2013-01-05", "--end", "2013-03-05"), "no window of 30 days fits; with 180 days of context before"),
    (("--scaler", "nowhere.json"), "no such scaler"),
    (("--daily", "nowhere.csv"), "no such file; make one with weather.py"),
    (("--output", "windows.dat"), "windows.dat: windows are written as .npz"),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "message"), BAD_FLAGS)
def test_bad_flags(folder, capsys, flags, message):
    assert message in refused(folder, capsys, *flags)
