"""VISIT's 19-column forcing text: exact round trip, days, and the blend that changes nothing but the tower's fields."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from script_calls import call

import blend_observation_meteorology as blending
from calibration.common.command_line import UserError
from calibration.common.sites import load_site
from calibration.common.units import METEOROLOGY
from calibration.weather.daily import generate_weather, read_weather
from calibration.weather.forcing_file import FIELDS, read_forcing, write_forcing

SITE = load_site()


def forcing_text(start="2011-12-01", end="2012-12-31", first_day=1, newline="\n", scale_cloud=1.0) -> str:
    """A forcing text in Fortran-like columns, from generated weather."""
    weather = generate_weather(SITE, start, end, seed=8)
    lines = []
    for date, doy0, row in zip(pd.DatetimeIndex(weather.dates), weather.doy0, weather.values, strict=True):
        v = dict(zip((*METEOROLOGY, "a_co2"), row, strict=True))
        lines.append(
            f"{date.year:5d}{doy0 + first_day:5d} {v['tmp_2m']:9.4f} {v['tmp_2m'] + 3:9.4f} {v['tmp_2m'] - 3:9.4f}"
            f" {v['spfh_2m']:11.8f} {v['prate_sfc']:13.6E} {v['dswrf_sfc']:9.4f} {v['tcdc_clm'] * scale_cloud:8.4f}"
            f" {v['tmp_sfc']:9.4f} {v['tmp10_soil']:9.4f} {v['tmp200_soil']:9.4f} {v['tmp200_soil']:9.4f} .35 0.330"
            f" {0.6 * v['wind_10m']:9.4f} {-0.8 * v['wind_10m']:9.4f}   0.0  99500.00"
        )
    return newline.join(lines) + newline


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_round_trip_is_exact_to_the_byte(tmp_path, newline):
    source = tmp_path / "LHP_ERA5.txt"
    source.write_bytes(forcing_text(newline=newline).encode())
    forcing = read_forcing(source)
    write_forcing(tmp_path / "again.txt", forcing)
    assert (tmp_path / "again.txt").read_bytes() == source.read_bytes()
    assert str(forcing.dates[0]) == "2011-12-01" and str(forcing.dates[-1]) == "2012-12-31"
    assert len(forcing.dates) == 31 + 366 and np.datetime64("2012-02-29") in forcing.dates


def test_weather_from_forcing_text(tmp_path):
    (tmp_path / "f.txt").write_text(forcing_text())
    weather = read_weather(tmp_path / "f.txt", SITE)
    expected = generate_weather(SITE, "2011-12-01", "2012-12-31", seed=8)
    np.testing.assert_allclose(weather.values, expected.values, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(weather.column("tmp_2m"), read_forcing(tmp_path / "f.txt").column("tmean_2m"))


@pytest.mark.parametrize("first_day", [0, 1])
def test_number_of_the_first_of_january_is_found_or_asked_for(tmp_path, first_day):
    path = tmp_path / "f.txt"
    path.write_text(forcing_text(first_day=first_day))
    assert read_forcing(path).first_day == first_day
    path.write_text(forcing_text("2012-03-01", "2012-05-31", first_day=first_day))
    with pytest.raises(UserError, match="leaves open whether 1 January is day 0 or day 1; say it with --first-day"):
        read_forcing(path)
    assert str(read_forcing(path, first_day).dates[0]) == "2012-03-01"


def test_mixed_line_ends_are_refused(tmp_path):
    (tmp_path / "f.txt").write_bytes(forcing_text().encode().replace(b"\n", b"\r\n", 1))
    with pytest.raises(UserError, match="f.txt: mixes line ends of Windows and Unix"):
        read_forcing(tmp_path / "f.txt")


def replaced(text: str, line: int, field: int, value: str) -> str:
    lines = text.splitlines()
    fields = lines[line].split()
    fields[field] = value
    lines[line] = " ".join(fields)
    return "\n".join(lines) + "\n"


BAD = [
    (lambda t: t[:-30], "line 397 has 16 fields, expected 19"),
    (
        lambda t: replaced(t, 4, 5, "abc"),
        "line 5: could not convert string to float: 'abc'; every field must be a number",
    ),
    (lambda t: replaced(t, 4, 5, "nan"), "line 5: spfh_2m is nan; every field must be a number"),
    (lambda t: replaced(t, 40, 1, "367"), "line 41: day is 367, allowed are whole numbers 0 to 366"),
    (lambda t: replaced(t, 30, 1, "366"), "line 31: day 366 does not exist in 2011, where days run from 1 to 365"),
    (lambda t: replaced(t, 30, 1, "1.5"), "line 31: day is 1.5, allowed are whole numbers"),
    (lambda t: "", "is empty; expected 19 fields a day"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_forcing(tmp_path, change, message):
    (tmp_path / "f.txt").write_text(change(forcing_text()))
    with pytest.raises(UserError, match=message):
        read_forcing(tmp_path / "f.txt")


@pytest.fixture
def case(tmp_path):
    """A forcing text, and tower weather with a sidecar for 40 days around a leap day."""
    (tmp_path / "era5.txt").write_text(forcing_text())
    days = pd.date_range("2012-02-01", periods=40).strftime("%Y-%m-%d")
    met = pd.DataFrame({
        "date": days, "tmp_sfc": 300.5, "tmp_2m": 301.25, "tmp10_soil": 299.0, "tmp200_soil": 299.0,
        "dswrf_sfc": 200.125, "tcdc_clm": 55.5, "prate_sfc": 1.234567e-5, "spfh_2m": 0.0187654, "wind_10m": 2.5,
    })  # fmt: skip
    sources = met.astype(object)
    sources.loc[:, METEOROLOGY] = "tower"
    sources[["tmp10_soil", "tmp200_soil", "tcdc_clm"]] = "ERA5"
    sources.loc[10:, "wind_10m"] = "ERA5"
    met.loc[5, "tmp_2m"] = np.nan
    sources.loc[5, "tmp_2m"] = ""
    met.to_csv(tmp_path / "met.csv", index=False)
    sources.to_csv(tmp_path / "met_sources.csv", index=False)
    return tmp_path


def blend(folder, *flags) -> int:
    return call(
        blending.main, "--era5-input", folder / "era5.txt", "--obs-csv", folder / "met.csv",
        "--output", folder / "blend.txt", *flags,
    )  # fmt: skip


def test_blend_changes_the_towers_fields_and_days_only(case):
    assert blend(case) == 0
    before, after = read_forcing(case / "era5.txt"), read_forcing(case / "blend.txt")
    changed = before.values != after.values
    expected = {
        "tmean_2m": 39,
        "tmp_sfc": 40,
        "spfh_2m": 40,
        "prate_sfc": 40,
        "dswrf_sfc": 40,
        "u_wind": 10,
        "v_wind": 10,
    }
    assert {name: int(changed[:, i].sum()) for i, name in enumerate(FIELDS) if changed[:, i].any()} == expected
    days = before.dates[changed.any(axis=1)]
    assert str(days[0]) == "2012-02-01" and str(days[-1]) == "2012-03-11" and len(days) == 40
    february = int(np.flatnonzero(after.dates == np.datetime64("2012-02-29"))[0])
    assert after.column("prate_sfc")[february] == 1.234567e-5 and after.column("dswrf_sfc")[february] == 200.125
    # Same speed as the tower's, same direction as ERA5's.
    first = int(np.flatnonzero(changed[:, FIELDS.index("u_wind")])[0])
    u, v = after.column("u_wind")[first], after.column("v_wind")[first]
    assert np.hypot(u, v) == pytest.approx(2.5, rel=1e-6) and u / v == pytest.approx(-0.75, rel=1e-4)
    # Untouched fields keep their text: '.35' stays '.35'; columns of the file stay in place.
    lines = list(zip(before.lines, after.lines, strict=True))
    assert all(old == new for (old, new), moved in zip(lines, changed.any(axis=1), strict=True) if not moved)
    assert all(new.split()[13:15] == [".35", "0.330"] and len(new) == len(old) for old, new in lines)


def test_manifest_counts_and_hashes(case):
    assert blend(case) == 0
    manifest = json.loads((case / "blend.txt.json").read_text())
    assert manifest["days_changed"] == 40 and manifest["days_replaced"]["wind_10m"] == 10
    assert manifest["days_replaced"]["tcdc_clm"] == 0
    for key, name in (("era5_input", "era5.txt"), ("obs_csv", "met.csv"), ("output", "blend.txt")):
        assert manifest[key]["sha256"] == hashlib.sha256((case / name).read_bytes()).hexdigest()


def test_without_a_sidecar_all_values_count_but_cloud_only_when_asked(case):
    (case / "met_sources.csv").unlink()
    assert blend(case) == 0
    assert "tcdc_clm" not in json.loads((case / "blend.txt.json").read_text())["days_replaced"]
    assert blend(case, "--use-cloud") == 0
    assert json.loads((case / "blend.txt.json").read_text())["days_replaced"] == {
        "tmp_2m": 39, "tmp_sfc": 40, "spfh_2m": 40, "prate_sfc": 40, "dswrf_sfc": 40, "tcdc_clm": 40, "wind_10m": 40,
    }  # fmt: skip


def with_met(folder, **columns):
    table = pd.read_csv(folder / "met.csv")
    for name, value in columns.items():
        table[name] = value
    table.to_csv(folder / "met.csv", index=False)


def test_units_are_checked_by_magnitude(case, capsys):
    with_met(case, prate_sfc=8.0)
    assert blend(case) == 2
    assert (
        "prate_sfc on 2012-02-01 is 8, allowed is 0 to 0.02 kg m-2 s-1 (40 such days); precipitation is a rate"
        in capsys.readouterr().err
    )
    with_met(case, prate_sfc=1e-5, tcdc_clm=0.4)
    assert blend(case) == 2
    assert "tcdc_clm never exceeds 0.4, so it looks like a 0-1 share; cloud is in percent" in capsys.readouterr().err
    with_met(case, tcdc_clm=40.0, tmp_2m=27.0)
    assert blend(case) == 2
    assert "temperatures are in K here" in capsys.readouterr().err
    with_met(case, tmp_2m=300.0)
    (case / "era5.txt").write_text(forcing_text(scale_cloud=0.01))
    assert blend(case) == 2
    assert "era5.txt: tcdc_clm never exceeds" in capsys.readouterr().err
    assert not (case / "blend.txt").exists()


def test_other_refusals_of_the_blend(case, capsys):
    met = pd.read_csv(case / "met.csv")
    (case / "met_sources.csv").unlink()
    for table, message in [
        (met.assign(date=met["date"].str.replace("2012", "2020")), "no day in common"),
        (met.assign(date=met["date"].iloc[0]), "2012-02-01 is there twice; every day may be there once"),
        (met[["date"]].assign(x=1), "has none of the columns tmp_2m, tmp_sfc"),
        (met.rename(columns={"date": "day"}), "has no column date; found day"),
        (met.astype(object).assign(tmp_2m="warm"), "line 2: tmp_2m is 'warm', expected a number or nothing"),
        (met[["date", "tmp_2m"]].assign(tmp_2m=-9999), "holds no tower value on any day of the forcing"),
    ]:
        table.to_csv(case / "met.csv", index=False)
        assert blend(case) == 2
        assert message in capsys.readouterr().err
    assert call(blending.main, "--era5-input", case / "era5.txt", "--obs-csv", case / "met.csv",
                "--output", case / "era5.txt") == 2  # fmt: skip
    assert "is an input; give another name" in capsys.readouterr().err
