"""Tower weather to VISIT's nine variables: units, humidity against MetPy, wind, cloud, gaps, sources, ERA5."""

import json

import numpy as np
import pandas as pd
import pytest
from script_calls import call
from tower_examples import fluxnet, save, temperate

from calibration.common.command_line import UserError
from calibration.common.sites import DEFAULT_SITE
from calibration.common.units import METEOROLOGY, POSSIBLE, SECONDS_PER_DAY
from calibration.reports import tower as tower_report
from calibration.tower.meteorology import specific_humidity, wind_at_10m
from calibration.tower.weather_columns import saturation_vapour_pressure_water
from calibration.tower.weather_comparison import era5_adjustment
from calibration.weather.daily import read_weather
from prepare_observation_meteorology import main


def test_specific_humidity_agrees_with_metpy():
    """Within 0.1 percent of an independent library over -5 to 45 deg C, humid and dry."""
    calc = pytest.importorskip("metpy.calc")
    from metpy.units import units

    for share in (0.0, 0.3, 0.7):
        for pressure in (70.0, 101.3):
            celsius = np.arange(-5, 45.5, 0.5)
            saturated = calc.saturation_vapor_pressure(celsius * units.degC).to("hPa")
            vapour = saturated * (1 - share)
            ratio = calc.mixing_ratio(vapour, pressure * units.kPa)
            expected = calc.specific_humidity_from_mixing_ratio(ratio).to("kg/kg").magnitude
            found = specific_humidity(celsius, (saturated - vapour).magnitude, pressure)
            np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_saturation_and_limits_of_humidity():
    # Over water at 0 and 20 deg C: 6.11 and 23.4 hPa in any table.
    np.testing.assert_allclose(saturation_vapour_pressure_water([0.0, 20.0]), [6.11, 23.38], rtol=2e-3)
    assert specific_humidity(20.0, 23.8, 100.0) == 0.0  # a little above saturation is dry air
    assert np.isnan(specific_humidity(20.0, 40.0, 100.0))  # far above is nonsense


def test_wind_profile():
    assert wind_at_10m(4.0, 46.0, 2.0) == pytest.approx(4.0 * np.log(5.0) / np.log(23.0))
    assert wind_at_10m(4.0, 10.0, 0.1) == pytest.approx(4.0)
    for height, roughness in ((46.0, 12.0), (1.0, 1.5), (10.0, 0.0), (0.0, 0.1), (np.inf, 0.1), (np.nan, 0.1)):
        with pytest.raises(UserError, match="correct --roughness and --wind-height"):
            wind_at_10m(4.0, height, roughness)


def prepared(tmp_path, table, *flags, name="FLX_XX-Xyz_DD.csv"):
    """Run the script; returns (exit code, values, sources)."""
    output = tmp_path / "met.csv"
    code = call(main, "--input", save(table, tmp_path / name), "--output", output, "--no-figure", *flags)
    if code:
        return code, None, None
    return code, pd.read_csv(output), pd.read_csv(tmp_path / "met_sources.csv", keep_default_na=False)


def test_the_table_of_the_specification(tmp_path):
    table = fluxnet(count=400)
    truth = table[["TA_F", "SW_IN_F", "P_F", "WS_F", "VPD_F", "PA_F"]]
    code, met, sources = prepared(tmp_path, table, "--no-qc", "--wind-height", "46", "--roughness", "2")
    assert code == 0 and list(met.columns) == ["date", *METEOROLOGY] and list(sources.columns) == list(met.columns)
    expected = {
        "tmp_2m": truth.TA_F + 273.15, "tmp_sfc": truth.TA_F + 273.15, "dswrf_sfc": truth.SW_IN_F,
        "prate_sfc": truth.P_F / 86400, "wind_10m": truth.WS_F * np.log(5) / np.log(23),
        "spfh_2m": specific_humidity(truth.TA_F, truth.VPD_F, truth.PA_F),
    }  # fmt: skip
    for name, series in expected.items():
        np.testing.assert_allclose(met[name], series, rtol=1e-6, err_msg=name)
        assert (sources[name] == "tower").all()
    for name in ("tmp10_soil", "tmp200_soil", "tcdc_clm"):
        assert met[name].isna().all() and (sources[name] == "").all()


def test_quality_flags_and_gaps_by_variable(tmp_path):
    table = fluxnet(count=400)
    table.loc[:99, ["P_F", "WS_F", "PA_F"]] = -9999
    table.loc[200:209, "TA_F_QC"] = 0.3
    _, met, sources = prepared(tmp_path, table, "--qc-threshold", "0.5")
    good = table["SW_IN_F_QC"] >= 0.5
    np.testing.assert_array_equal(met["dswrf_sfc"].notna(), good | (table["SW_IN_F_MDS_QC"] >= 0.5))
    assert met.loc[:99, ["prate_sfc", "wind_10m", "spfh_2m"]].isna().all().all()
    assert met.loc[:99, "tmp_2m"].notna().any()
    assert met.loc[met["tmp_2m"].isna(), "spfh_2m"].isna().all()
    assert ((sources == "tower").drop(columns="date") == met.drop(columns="date").notna()).all().all()


@pytest.mark.parametrize(
    ("column", "change", "name", "warning"),
    [
        ("TA_F", lambda v: v + 273.15, "tmp_2m", "TA_F is taken as K by its magnitude"),
        ("PA_F", lambda v: v * 10, "spfh_2m", "PA_F is taken as hPa by its magnitude"),
        ("PA_F", lambda v: v * 1000, "spfh_2m", "PA_F is taken as Pa by its magnitude"),
        ("P_F", lambda v: v / 86400, "prate_sfc", "P_F is taken as kg-s by its magnitude"),
        ("SW_IN_F", lambda v: v * 0.0864, "dswrf_sfc", "SW_IN_F is taken as MJ by its magnitude"),
    ],
)
def test_units_told_by_magnitude(tmp_path, capsys, column, change, name, warning):
    table = fluxnet(False, count=731)
    _, right, _ = prepared(tmp_path, table, "--no-qc")
    assert "by its magnitude" not in capsys.readouterr().err
    table[column] = change(table[column])
    code, met, _ = prepared(tmp_path, table, "--no-qc")
    assert code == 0 and warning in capsys.readouterr().err
    np.testing.assert_allclose(met[name], right[name], rtol=1e-4)


def test_vpd_in_kpa_is_caught_and_can_be_said(tmp_path, capsys):
    table = fluxnet(False, count=400)
    _, right, _ = prepared(tmp_path, table, "--no-qc")
    table["VPD_F"] /= 10
    code, met, _ = prepared(tmp_path, table, "--no-qc")
    assert code == 2  # ONEFlux defines hPa, so a deficit this small is a contradiction
    assert "which leaves its unit open; say it with --unit VPD=hPa|kPa|Pa" in capsys.readouterr().err
    assert prepared(tmp_path, table, "--no-qc", "--unit", "VPD=kPa")[0] == 0
    other = table[[name for name in table if not name.startswith(("NEE", "GPP", "RECO"))]]
    code, met, _ = prepared(tmp_path, other.rename(columns={"VPD_F": "VPD"}), "--no-qc", name="mine.csv")
    assert code == 0 and "VPD is taken as kPa" in capsys.readouterr().err
    np.testing.assert_allclose(met["spfh_2m"], right["spfh_2m"], rtol=1e-4)
    # Relative humidity settles it in either case.
    humidity = 100 * (1 - 10 * table["VPD_F"] / saturation_vapour_pressure_water(table["TA_F"]))
    assert prepared(tmp_path, table.assign(RH=humidity), "--no-qc")[0] == 0


def test_gaps_of_shortwave_come_from_the_sites_own_filling(tmp_path):
    table = fluxnet(False, count=60)
    table["SW_IN_PI_F"] = 123.0
    table.loc[10:19, "SW_IN_F"] = -9999
    _, met, _ = prepared(tmp_path, table, "--no-qc")
    assert (met.loc[10:19, "dswrf_sfc"] == 123.0).all() and (met.loc[20:, "dswrf_sfc"] != 123.0).all()


def test_cloud_estimate_is_marked(tmp_path):
    table = fluxnet(count=400)
    table["SW_IN_F"] = table["SW_IN_POT"] * np.where(np.arange(400) < 200, 0.803, 0.005)
    _, met, sources = prepared(tmp_path, table, "--no-qc", "--cloud", "estimate")
    assert set(sources["tcdc_clm"]) == {"estimated"}
    np.testing.assert_allclose(met["tcdc_clm"], np.where(np.arange(400) < 200, 0.0, 100.0), atol=0.1)


def test_humidity_without_pressure_needs_the_site(tmp_path):
    table = fluxnet(False, count=60)
    table["PA_F"] = -9999
    _, met, _ = prepared(tmp_path, table, "--no-qc")
    assert met["spfh_2m"].isna().all()
    _, met, sources = prepared(tmp_path, table, "--no-qc", "--site", DEFAULT_SITE)
    assert met["spfh_2m"].notna().all() and set(sources["spfh_2m"]) == {"estimated"}


# ---- ERA5


def era5(path, start="2018-06-01", count=1300, shift=1.5):
    """An ERA5 file: colder than the tower by `shift`, half its rain, with soil and cloud."""
    truth = temperate(count, start, seed=0)
    tower = temperate(731, "2019-01-01", seed=0)
    common = truth.index.intersection(tower.index)
    truth.loc[common] = tower.loc[common]
    pd.DataFrame({
        "date": truth.index.strftime("%Y-%m-%d"), "tmp_sfc": truth.ta + 273.15 - shift,
        "tmp_2m": truth.ta + 273.15 - shift, "tmp10_soil": 280.0, "tmp200_soil": 281.0, "dswrf_sfc": truth.sw * 0.9,
        "tcdc_clm": 60.0, "prate_sfc": truth.p * 0.5 / SECONDS_PER_DAY,
        "spfh_2m": specific_humidity(truth.ta, truth.vpd, truth.pa), "wind_10m": truth.ws,
    }).to_csv(path, index=False)  # fmt: skip
    return path


def section_own(section):
    """Variables of which the report says that the tower has days."""
    return [name for name, days, _ in section.blocks[0].rows if days]


def test_filling_with_era5_adjusts_on_the_overlap_and_covers_every_day(tmp_path):
    table = fluxnet(count=731)
    table.loc[100:160, ["TA_F", "P_F", "TA_F_MDS"]] = -9999
    code, met, sources = prepared(
        tmp_path, table, "--no-qc", "--fill", "era5", "--era5", era5(tmp_path / "era5.csv"), "--adjust", "mean"
    )
    assert code == 0 and len(met) == 1300 and met.notna().all().all()
    filled = sources["tmp_2m"] == "ERA5"
    assert filled.sum() == 1300 - 731 + 61 and set(sources["tmp_2m"]) == {"tower", "ERA5"}
    assert set(sources["tmp10_soil"]) == {"ERA5"} and (met["tmp10_soil"] == 280).all()
    inner = slice(214 + 100, 214 + 161)  # the tower begins 214 days after ERA5
    truth = temperate(731, "2019-01-01", seed=0).iloc[100:161]
    np.testing.assert_allclose(met["tmp_2m"][inner], truth.ta + 273.15, atol=1e-3)  # the bias of 1.5 K is gone
    np.testing.assert_allclose(met["prate_sfc"][inner], truth.p / SECONDS_PER_DAY, atol=1e-9, rtol=1e-4)
    [section] = tower_report.sections(tmp_path)
    assert section.verdict.startswith("6 OF 9 VARIABLES ARE THE TOWER'S OWN")
    compared = {row[0]: row for row in section.blocks[1].rows}
    assert compared["tmp_2m"][5] == pytest.approx(1.5, abs=0.01) and set(compared) == set(section_own(section))
    weather = read_weather(tmp_path / "met.csv")  # the output is a weather file
    assert len(weather) == 1300 and weather.column("a_co2").min() > 380
    comparison = pd.read_csv(tmp_path / "met_comparison.csv").query("month == 'all'").set_index("variable")
    assert comparison.loc["tmp_2m", "bias"] == pytest.approx(1.5, abs=1e-4)
    assert comparison.loc["tmp_2m", "correlation"] == pytest.approx(1.0)
    assert comparison.loc["tmp_2m", "days"] == 670 and "tcdc_clm" not in comparison.index
    choices = json.loads((tmp_path / "met_choices.json").read_text())
    assert choices["tower_days"]["tmp_2m"] == 670


def test_adjustment_can_be_monthly_or_off_and_ignores_nonsense():
    dates = np.arange("2019-01-01", "2021-01-01", dtype="datetime64[D]")
    forcing = np.tile([280.0, 280, 280, 280, 100, 50, 1e-4, 0.01, 3], (len(dates), 1))
    tower = np.full_like(forcing, np.nan)
    january = dates.astype("datetime64[M]").astype(int) % 12 == 0
    tower[january, 1], tower[january, 4], tower[january, 6] = 282.0, 110.0, 5e-3
    np.testing.assert_array_equal(era5_adjustment(tower, forcing, dates, "none"), forcing)
    monthly = era5_adjustment(tower, forcing, dates, "monthly")
    assert (monthly[january, 1] == 282).all() and (monthly[~january, 1] == 280).all()
    np.testing.assert_allclose(monthly[january, 4], 110)
    mean = era5_adjustment(tower, forcing, dates, "mean")
    assert (mean[:, 1] == 282).all() and (mean[:, 6] == 1e-4).all()  # rain 50-fold: another unit, not a bias
    for column, name in enumerate(METEOROLOGY):
        assert POSSIBLE[name][0] <= mean[:, column].min() and mean[:, column].max() <= POSSIBLE[name][1]


def test_extreme_rain_with_a_good_flag_is_pointed_out(tmp_path, capsys):
    table = fluxnet(count=731)
    table.loc[300, "P_F"] = 159.0
    prepared(tmp_path, table, "--no-qc", "--era5", era5(tmp_path / "era5.csv"))
    err = capsys.readouterr().err
    assert "rain on 2019-10-28 is 159 mm (ERA5 has" in err and "quality flags do not catch outliers" in err


def test_comparison_figure(tmp_path):
    path = save(fluxnet(count=400), tmp_path / "FLX_XX-Xyz_DD.csv")
    flags = ["--era5", era5(tmp_path / "era5.csv"), "--output", tmp_path / "met.csv"]
    assert call(main, "--input", path, *flags) == 0
    assert (tmp_path / "met_comparison.png").stat().st_size > 10_000


def test_a_changed_unit_half_way_is_warned_of(tmp_path, capsys):
    table = fluxnet(False, count=1096)
    table.loc[600:, "WS_F"] *= 10
    prepared(tmp_path, table, "--no-qc", "--unit", "WS=m-s")
    assert "WS_F changes its size" in capsys.readouterr().err


BAD = [
    (("--fill", "era5"), lambda t: t, "--fill era5 needs --era5 FILE"),
    (("--unit", "TA=R"), lambda t: t, "--unit TA=R is unknown; allowed are TA=C|K|F; SW_IN=W|MJ"),
    (("--wind-height", "40"), lambda t: t, "--wind-height needs --roughness"),
    (("--roughness", "2"), lambda t: t, "--roughness needs --wind-height"),
    (("--cloud", "estimate"), lambda t: t.drop(columns="SW_IN_POT"), "cloud needs the site's latitude: give it"),
    ((), lambda t: t.assign(PA_F=t.PA_F * 3.3), "fits no unit beyond doubt; say it with --unit PA=kPa|hPa|Pa"),
    ((), lambda t: t.assign(TA_F_QC=2.0), "TA_F_QC is a share of good data by its name (1 best), but reaches 2"),
    ((), lambda t: t[["TIMESTAMP", "NEE_VUT_REF"]], "has no weather: none of TA_F, SW_IN_F, P_F, WS_F, VPD_F holds"),
    (("--start", "2031-01-01"), lambda t: t, "no day from 2031-01-01 to None; the weather runs from 2019-01-01"),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "change", "message"), BAD)
def test_bad_input(tmp_path, capsys, flags, change, message):
    code, _, _ = prepared(tmp_path, change(fluxnet(False, count=300)), *flags)
    assert code == 2 and message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["FLX_XX-Xyz_DD.csv"]


def test_unknown_layout_needs_the_direction_of_its_flags(tmp_path, capsys):
    table = fluxnet(False, count=300)
    table = table[[name for name in table if not name.startswith(("NEE", "GPP", "RECO"))]]
    assert prepared(tmp_path, table, name="mine.csv")[0] == 2
    assert "neither its name nor its values tell whether 0 or 1 is best; say it with --qc" in capsys.readouterr().err
    assert prepared(tmp_path, table, "--qc-best", "high", name="mine.csv")[0] == 0


def test_era5_of_other_years(tmp_path, capsys):
    code, _, _ = prepared(
        tmp_path, fluxnet(count=100), "--fill", "era5", "--era5", era5(tmp_path / "era5.csv", "2001-01-01", 400)
    )
    assert code == 2 and "no day in common; give ERA5 of the tower's years" in capsys.readouterr().err
