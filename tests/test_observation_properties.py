"""Random tables into the observation scripts: never a traceback, never a silently wrong sign, mask or unit."""

import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from script_calls import call
from tower_examples import fluxnet

import blend_observation_meteorology
import build_observation_windows
import prepare_observation_meteorology
import prepare_observation_nep
from calibration.common.scalers import Scaler
from calibration.common.sites import load_site
from calibration.common.unit_change import find_unit_change
from calibration.common.units import DYNAMIC_FEATURES, METEOROLOGY, POSSIBLE
from calibration.tower.observation_csv import read_observations
from calibration.weather.daily import generate_weather, write_weather_csv

QUIET = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
COLUMNS = ["NEE_vUT", "NEE_vUT_QC", "NEE_PI_F", "NEE_VUT_REF", "NEE_VUT_REF_QC", "NEE_VUT_REF_RANDUNC", "NEE_CUT_REF",
           "NEE_VUT_REF_NIGHT", "GPP_NT_VUT_REF", "RECO_NT_VUT_REF", "GPP_vUT", "TA_F", "TA_F_QC", "SW_IN_F", "P_F",
           "VPD_F", "PA_F", "WS_F", "RH", "FC", "SITE_ID", "SW_IN_POT"]  # fmt: skip
CELLS = st.one_of(
    st.floats(-60, 60, width=32), st.floats(0, 1.25, width=32),
    st.sampled_from(["-9999", "", "nan", "-9999.9", "1e400", "abc", "0", "1", "1,5", "inf", "300", "\u3042", '"']),
)  # fmt: skip
WEATHER = generate_weather(load_site(), "2019-01-01", "2020-12-31", seed=2)


@st.composite
def tower_text(draw) -> bytes:
    """A tower file that may be anything between perfect and absurd."""
    names = draw(st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=8))
    count = draw(st.integers(0, 60))
    days = pd.date_range("2019-06-01", periods=count).strftime(
        draw(st.sampled_from(["%Y%m%d", "%Y-%m-%d", "%Y%m%d%H%M"]))
    )
    order = draw(st.sampled_from(["as is", "as is", "as is", "repeat", "reverse"]))
    days = list(days) + (list(days[-1:]) if order == "repeat" else [])
    days = days[::-1] if order == "reverse" else days
    clean = draw(st.booleans())
    cells = st.floats(-20, 20, width=32) if clean else CELLS
    rows = [[day, *(draw(cells) for _ in names)] for day in days]
    separator = draw(st.sampled_from([",", ",", ";", "\t"]))
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    header = [draw(st.sampled_from(["TIMESTAMP", "TIMESTAMP", "TIMESTAMP", "TIMESTAMP_START", "DATE"])), *names]
    text = newline.join(separator.join(str(cell) for cell in row) for row in [header, *rows]) + newline
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "cp932"])), errors="replace")


def quietly(main, *flags) -> tuple[int, str]:
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        code = call(main, *flags)  # anything but UserError and SystemExit would come through as an exception
    return code, err.getvalue()


def check_error(code: int, err: str, folder: Path, written: tuple[str, ...]) -> None:
    """Exit code 2 comes with one line of error and leaves nothing behind."""
    assert code in (0, 2)
    if code == 2:
        lines = err.strip().splitlines()
        assert lines[-1].startswith("error: ") and not any(line.startswith("error: ") for line in lines[:-1])
        assert not [name for name in written if (folder / name).exists()]


@QUIET
@given(tower_text(), st.sampled_from([(), ("--force",), ("--qc-best", "high"), ("--nee-qc-column", "")]))
def test_nep_of_any_file(content, flags):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tower.csv").write_bytes(content)
        output = folder / "nep.csv"
        code, err = quietly(
            prepare_observation_nep.main, "--input", folder / "tower.csv", "--output", output, "--no-figure", *flags
        )
        check_error(code, err, folder, ("nep.csv", "nep_by_year.csv"))
        if code:
            return
        result = pd.read_csv(output)
        np.testing.assert_allclose(result["nep_mg_ha"], -result["nee_gcm2"] / 100, atol=1e-10)
        assert result.loc[result["obs_mask"] == 1, "nee_gcm2"].between(-50, 50).all()
        assert result["obs_mask"].sum() >= 1
        read_observations(output)


@QUIET
@given(st.integers(0, 10_000), st.booleans(), st.sampled_from(["", "GPP|RECO", "_NIGHT|_DAY"]))
@example(541, False, "")  # 35 days of a winter oppose their partition by chance
def test_a_reversed_oneflux_file_never_passes(seed, full, dropped):
    """Whatever evidence remains: partition, night, or both; the right sign passes, the wrong one does not."""
    table = fluxnet(full, 400, seed)
    if dropped and (full or dropped != "GPP|RECO"):  # a SUBSET without partition keeps no evidence
        table = table.drop(columns=list(table.filter(regex=dropped)))
    fluxes = [name for name in table if name.startswith("NEE") and not name.endswith(("_QC", "_RANDUNC"))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flags = ["--input", folder / "t.csv", "--output", folder / "nep.csv", "--no-figure"]
        table.to_csv(folder / "t.csv", index=False)
        assert quietly(prepare_observation_nep.main, *flags)[0] == 0
        table[fluxes] *= -1
        table.to_csv(folder / "t.csv", index=False)
        code, err = quietly(prepare_observation_nep.main, *flags)
        assert code == 2 and "looks reversed" in err


@QUIET
@given(tower_text(), st.sampled_from([(), ("--no-qc",), ("--qc-best", "low"), ("--cloud", "estimate")]))
def test_meteorology_of_any_file(content, flags):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tower.csv").write_bytes(content)
        output = folder / "met.csv"
        code, err = quietly(
            prepare_observation_meteorology.main,
            "--input",
            folder / "tower.csv",
            "--output",
            output,
            "--no-figure",
            *flags,
        )
        check_error(code, err, folder, ("met.csv", "met_sources.csv"))
        if code:
            return
        met, sources = pd.read_csv(output), pd.read_csv(folder / "met_sources.csv", keep_default_na=False)
        for column in METEOROLOGY:
            low, high = POSSIBLE[column]
            assert met[column].dropna().between(low, high).all()
            np.testing.assert_array_equal(met[column].notna(), sources[column] != "")


@QUIET
@given(st.lists(st.one_of(st.floats(-1, 1), st.none(), st.just("x")), min_size=1, max_size=50), st.integers(0, 3))
def test_windows_of_any_observations(values, kind):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_weather_csv(folder / "w.csv", WEATHER)
        Scaler.fit(DYNAMIC_FEATURES, WEATHER.values).save(folder / "scaler_dynamic.json")
        table = pd.DataFrame({
            "date": pd.date_range("2019-07-01", periods=len(values)).strftime("%Y-%m-%d"), "nep_mg_ha": values,
            "obs_mask": kind if kind > 1 else 1,
        })  # fmt: skip
        table.to_csv(folder / "nep.csv", index=False)
        code, err = quietly(
            build_observation_windows.main, "--daily", folder / "w.csv", "--obs", folder / "nep.csv",
            "--artifacts-dir", folder, "--output", folder / "w.npz",
        )  # fmt: skip
        check_error(code, err, folder, ("w.npz",))
        if code == 0:
            arrays = np.load(folder / "w.npz")
            assert np.isfinite(arrays["y_obs"]).all() and np.abs(arrays["y_obs"]).max() <= 0.5
            given_values = table.set_index("date")["nep_mg_ha"]
            first = pd.to_numeric(given_values).reindex(
                pd.date_range(arrays["window_start"][0], periods=30).strftime("%Y-%m-%d")
            )
            np.testing.assert_allclose(arrays["y_obs"][0, :, 2], first.fillna(0.0), atol=1e-7)


@QUIET
@given(st.text(alphabet="0123456789. -e\nna", max_size=400))
def test_blend_of_any_text(text):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "era5.txt").write_text(text)
        pd.DataFrame({"date": ["2012-01-01"], "tmp_2m": [300.0]}).to_csv(folder / "met.csv", index=False)
        code, err = quietly(
            blend_observation_meteorology.main, "--era5-input", folder / "era5.txt", "--obs-csv", folder / "met.csv",
            "--output", folder / "out.txt",
        )  # fmt: skip
        check_error(code, err, folder, ("out.txt", "out.txt.json"))


def test_a_changed_unit_is_found_and_a_constant_one_is_not():
    """At most 1 of 40 natural series may alarm, and 95 percent of the changes must; benchmarks/ has all climates."""
    generator, alarms, found = np.random.default_rng(5), 0, 0
    for seed in range(60):
        table = fluxnet(False, int(generator.choice([250, 731, 1096])), seed)
        dates = pd.to_datetime(table["TIMESTAMP"]).to_numpy().astype("datetime64[D]")
        name = str(generator.choice(["WS_F", "NEE_VUT_REF", "P_F", "VPD_F"]))
        values = table[name].to_numpy()
        alarms += find_unit_change(values, dates) is not None
        factor = float(generator.choice([10, 12, 86.4, 100, 1000])) ** generator.choice([-1, 1])
        day = int(generator.uniform(0.15, 0.85) * len(dates))
        jump = find_unit_change(np.where(np.arange(len(dates)) < day, values, values * factor), dates)
        found += jump is not None and abs(int((jump.day - dates[day]).astype(int))) <= 30
    assert alarms <= 1 and found >= 55, (alarms, found)  # 95 percent within the sampling error of 60
