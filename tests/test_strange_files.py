"""Strange files of towers, reanalyses and other people's ensembles: read right, or named as what they are."""

import numpy as np
import pandas as pd
import pytest
from script_calls import call
from small_ensemble import fluxes_of, make_ensemble, make_weather
from tower_examples import fluxnet, save, temperate

import dataset
import prepare_observation_meteorology
import prepare_observation_nep
import weather as weather_script
from calibration.common.command_line import UserError
from calibration.common.sites import load_site
from calibration.common.units import SECONDS_PER_DAY
from calibration.ensembles.files import load_ensemble, read_parameter_summary
from calibration.tower.checks import flux_jump
from calibration.tower.meteorology import specific_humidity
from calibration.tower.observation_csv import read_observations
from calibration.weather.daily import generate_weather, read_weather

SITE = load_site()
YEARS = generate_weather(SITE, "2015-01-01", "2016-12-31", seed=5).frame()


# ---- weather files


def check(tmp_path, table, **options) -> str:
    """weather.py --check: the error line, or '' where the file is read."""
    path = tmp_path / "w.csv"
    table.to_csv(path, index=False, **options)
    try:
        read = read_weather(path, SITE)
    except UserError as error:
        return str(error)
    np.testing.assert_allclose(read.values[:, 1], YEARS["tmp_2m"])
    return ""


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_of_a_weather_file(tmp_path, separator):
    assert check(tmp_path, YEARS, sep=separator) == ""
    if separator != ",":
        assert check(tmp_path, YEARS, sep=separator, decimal=",") == ""


@pytest.mark.parametrize(("name", "value"), [("prate_sfc", -4.3e-13), ("dswrf_sfc", -1e-6), ("tcdc_clm", 100.0008)])
def test_rounding_outside_a_limit_is_set_to_it(tmp_path, name, value):
    table = YEARS.copy()
    table.loc[10, name] = value
    table.to_csv(tmp_path / "w.csv", index=False)
    assert read_weather(tmp_path / "w.csv", SITE).column(name)[10] == (100.0 if value > 1 else 0.0)
    table.loc[10, name] = value * 1.1 if value > 1 else -5.0
    assert f"{name} on 2015-01-11 is" in check(tmp_path, table)


OTHER_UNITS = [
    ("dswrf_sfc", 0.0864, "it looks like MJ m-2 day-1: divide by 0.0864"),
    ("dswrf_sfc", 86.4, "it looks like kJ m-2 day-1: divide by 86.4"),
    ("dswrf_sfc", 86400.0, "it looks like J m-2 day-1: divide by 86400"),
    ("tcdc_clm", 0.01, "it looks like a 0-1 share; cloud is in percent here: multiply the column by 100"),
    ("tcdc_clm", 0.08, "it looks like eighths; cloud is in percent here: multiply the column by 12.5"),
    ("prate_sfc", 86400.0, "it looks like mm day-1: divide by 86400"),
    ("prate_sfc", 86.4, "it looks like m day-1: multiply by 1000 / 86400"),
    ("prate_sfc", 1 / 86400.0, "it looks like kg m-2 s-1 divided by 86400 again: multiply by 86400"),
    ("spfh_2m", 1000.0, "it looks like g kg-1: divide by 1000"),
    ("spfh_2m", 1e-3, "spfh_2m has the median"),
    ("wind_10m", 100.0, "it looks like cm s-1: divide by 100"),
    ("a_co2", 1e-6, "it looks like mol mol-1: multiply by 1e6"),
]


@pytest.mark.parametrize(("name", "factor", "message"), OTHER_UNITS)
def test_every_variable_in_another_unit(tmp_path, name, factor, message):
    found = check(tmp_path, YEARS.assign(**{name: YEARS[name] * factor}))
    assert name in found and message in found


def test_temperature_in_celsius_and_fahrenheit(tmp_path):
    celsius = YEARS["tmp10_soil"] - 273.15
    assert "it looks like deg C: add 273.15" in check(tmp_path, YEARS.assign(tmp10_soil=celsius))
    assert "it looks like deg F" in check(tmp_path, YEARS.assign(tmp10_soil=celsius * 1.8 + 32))


def test_a_share_of_cloud_just_above_one(tmp_path):
    share = YEARS["tcdc_clm"] / 100
    for odd in (1.0000001, 100.0, 1.0):
        assert "looks like a 0-1 share" in check(tmp_path, YEARS.assign(tcdc_clm=share.where(share.index != 10, odd)))


@pytest.mark.parametrize(("name", "factor"), [("dswrf_sfc", 0.0864), ("wind_10m", 10.0), ("tcdc_clm", 0.01)])
def test_a_year_in_another_unit(tmp_path, name, factor):
    later = YEARS["date"] >= "2016-01-01"
    found = check(tmp_path, YEARS.assign(**{name: YEARS[name].where(~later, YEARS[name] * factor)}))
    assert f"{name} becomes" in found and "times as large on 2015-12-" in found or "2016-01-" in found


def test_semicolons_are_checked_from_the_command_line(tmp_path, capsys):
    YEARS.to_csv(tmp_path / "w.csv", index=False, sep=";")
    assert call(weather_script.main, "--check", tmp_path / "w.csv") == 0
    assert "731 days, 2015-01-01 to 2016-12-31, readable" in capsys.readouterr().out


# ---- ERA5 beside a tower


def era5(path, **changes):
    truth = temperate(1096, "2018-01-01", seed=3)
    tower = temperate(731, "2019-01-01", seed=0)
    truth.loc[tower.index[:730]] = tower.iloc[:730]
    table = pd.DataFrame({
        "date": truth.index.strftime("%Y-%m-%d"), "tmp_sfc": truth.ta + 273.15, "tmp_2m": truth.ta + 273.15,
        "tmp10_soil": 280.0, "tmp200_soil": 281.0, "dswrf_sfc": truth.sw, "tcdc_clm": 60.0,
        "prate_sfc": truth.p / SECONDS_PER_DAY, "spfh_2m": specific_humidity(truth.ta, truth.vpd, truth.pa),
        "wind_10m": truth.ws,
    })  # fmt: skip
    for name, factor in changes.items():
        table[name] *= factor
    table.to_csv(path, index=False)
    return path


def fill(tmp_path, capsys, *flags, **changes) -> tuple[int, str]:
    tower = save(fluxnet(False, 731), tmp_path / "FLX_XX-Xyz_DD.csv")
    code = call(
        prepare_observation_meteorology.main, "--input", tower, "--era5", era5(tmp_path / "era5.csv", **changes),
        "--fill", "era5", "--output", tmp_path / "met.csv", "--no-figure", "--no-qc", *flags,
    )  # fmt: skip
    return code, capsys.readouterr().err


def test_era5_that_agrees_is_filled_in(tmp_path, capsys):
    code, errors = fill(tmp_path, capsys)
    assert code == 0 and errors.count("\n") == 1 and "a_co2 is computed for site LHP (default" in errors


@pytest.mark.parametrize(("name", "factor", "words"), [
    ("dswrf_sfc", 0.0864, "does not exceed"),  # refused on its own
    ("dswrf_sfc", 0.25, "a ratio of 0.25"), ("wind_10m", 3.6, "as km h-1 would (divide by 3.6)"),
    ("prate_sfc", 10.0, "prate_sfc averages"), ("spfh_2m", 0.1, "a ratio of 0.1"),
])  # fmt: skip
def test_era5_in_another_unit_than_the_tower_is_refused(tmp_path, capsys, name, factor, words):
    code, err = fill(tmp_path, capsys, **{name: factor})
    assert code == 2 and f"era5.csv: {name}" in err and words in err
    assert not (tmp_path / "met.csv").exists()


def test_a_difference_that_is_real_can_be_said(tmp_path, capsys):
    code, err = fill(tmp_path, capsys, "--trust-era5", "wind_10m", wind_10m=3.6)
    assert code == 0 and "warning" in err and "wind_10m averages" in err


# ---- towers


def test_a_season_is_no_change_of_unit(tmp_path, capsys):
    """The growing season of a meadow ends within weeks; NEE = RECO - GPP throughout."""
    generator, count = np.random.default_rng(0), 365
    day = np.arange(count)
    reco = np.where(day < 250, 3.0, np.maximum(3.5 - 0.03 * (day - 250), 0.6))
    nee = np.where(
        day < 250, -1.4 + 0.5 * generator.standard_normal(count),
        np.where(day < 275, 0.3 * generator.standard_normal(count), 0.15 + 0.15 * generator.standard_normal(count)),
    )  # fmt: skip
    table = fluxnet(False, count, start="2005-01-01")
    for method in ("NT", "DT"):
        table[f"RECO_{method}_VUT_REF"], table[f"GPP_{method}_VUT_REF"] = reco, reco - nee
    path = save(table.assign(NEE_VUT_REF=nee), tmp_path / "FLX_XX-Xyz_DD.csv")
    assert call(prepare_observation_nep.main, "--input", path, "--output", tmp_path / "n.csv", "--no-figure") == 0
    assert "warning" not in capsys.readouterr().err


def test_the_partition_tells_which_flux_changed():
    truth = temperate(731)
    dates = truth.index.to_numpy().astype("datetime64[D]")
    nee, gpp, reco = (truth[name].to_numpy() for name in ("nee", "gpp", "reco"))
    gpp = reco - nee
    later = np.arange(731) >= 400
    assert flux_jump("NEE", nee, gpp, reco, dates) is None
    for which in range(3):
        fluxes = [nee.copy(), gpp.copy(), reco.copy()]
        fluxes[which][later] *= 12.0
        name, change = flux_jump("NEE", *fluxes, dates)
        assert name == ("NEE", "GPP", "RECO")[which] and abs((change.day - dates[400]).astype(int)) <= 60
    together = flux_jump("NEE", *(np.where(later, 10 * flux, flux) for flux in (nee, gpp, reco)), dates)
    assert together[0] == "NEE, GPP and RECO"


def test_the_second_missing_code_is_missing(tmp_path):
    table = fluxnet(False, 300)
    table.loc[10:20, ["NEE_VUT_REF", "NEE_VUT_REF_QC"]] = -6999
    path = save(table, tmp_path / "FLX_XX-Xyz_DD.csv")
    assert call(prepare_observation_nep.main, "--input", path, "--output", tmp_path / "n.csv", "--no-figure") == 0
    result = pd.read_csv(tmp_path / "n.csv")
    assert result.loc[10:20, "nee_gcm2"].isna().all() and (result.loc[10:20, "obs_mask"] == 0).all()


def test_humidity_that_cannot_be_computed_is_said(tmp_path, capsys):
    path = save(fluxnet(False, 60).assign(PA_F=-9999), tmp_path / "FLX_XX-Xyz_DD.csv")
    flags = ["--input", path, "--output", tmp_path / "m.csv", "--no-figure", "--no-qc"]
    assert call(prepare_observation_meteorology.main, *flags) == 0
    out = capsys.readouterr().out
    assert (
        "spfh_2m is empty on 60 of 60 days (missing: PA on 60 days); without air pressure there is no humidity" in out
    )


def test_a_missing_partition_and_a_year_without_days_are_said(tmp_path, capsys):
    table = fluxnet(False, 500).drop(columns=["GPP_NT_VUT_REF", "GPP_DT_VUT_REF"])
    table.loc[365:, "NEE_VUT_REF"] = -9999
    path = save(table, tmp_path / "FLX_XX-Xyz_DD.csv")
    assert call(prepare_observation_nep.main, "--input", path, "--output", tmp_path / "n.csv", "--no-figure") == 0
    out = capsys.readouterr().out
    assert "without GPP: no column with values belongs to NEE_VUT_REF" in out and "no valid day at all in 2020" in out


def test_observations_in_another_unit_even_when_small(tmp_path):
    days = pd.date_range("2012-01-01", periods=60).strftime("%Y-%m-%d")
    table = pd.DataFrame({"date": days, "nep_mg_ha": np.linspace(0.2, 0.4, 60), "obs_mask": 1})
    table.to_csv(tmp_path / "n.csv", index=False)
    with pytest.raises(
        UserError, match="nep_mg_ha is 0.3 or more on half of the days, .* g C m-2 day-1: divide by 100"
    ):
        read_observations(tmp_path / "n.csv")


# ---- ensembles of other people


@pytest.fixture
def ensemble(tmp_path):
    make_ensemble(tmp_path, make_weather())
    return tmp_path


def edit(folder, change) -> None:
    """Change the fields of every row of every daily file."""
    for path in folder.glob("*_daily_*.txt"):
        path.write_text("\n".join(" ".join(change(line.split())) for line in path.read_text().splitlines()) + "\n")


def rewrite(folder, change) -> None:
    """Change the list of lines of every daily file."""
    for path in folder.glob("*_daily_*.txt"):
        path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def test_cloud_as_a_share_in_daily_files(ensemble):
    edit(ensemble, lambda f: [*f[:9], f"{float(f[9]) / 100:.8g}", *f[10:]])
    with pytest.raises(UserError, match="tcdc_clm never exceeds .* looks like a 0-1 share; cloud is in percent here"):
        load_ensemble(ensemble)


def test_fluxes_in_grams(ensemble):
    edit(ensemble, lambda f: [*f[:14], *(f"{20 * float(x):.8g}" for x in f[14:18]), *f[18:]])
    with pytest.raises(UserError, match="gpp averages 1.99, .* these look like g C m-2 day-1: divide by 100"):
        load_ensemble(ensemble)


READ = {
    "comments": lambda rows: ["# daily output", "# site", *rows],
    "commas": lambda rows: [",".join(row.split()) for row in rows],
    "semicolons": lambda rows: [";".join(row.split()).replace(".", ",") for row in rows],
    "D exponents": lambda rows: [" ".join([*r[:16], f"{float(r[16]):.9E}".replace("E", "D"), *r[17:]])
                                 for r in (row.split() for row in rows)],
    "end of a file of DOS": lambda rows: [*rows, "\x1a"],
    "new pages": lambda rows: [rows[0], f"\f{rows[1]}", *rows[2:]],
}  # fmt: skip


@pytest.mark.parametrize("kind", READ)
def test_daily_files_in_other_hands(ensemble, kind):
    before = load_ensemble(ensemble, cache=False)
    rewrite(ensemble, READ[kind])
    after = load_ensemble(ensemble, cache=False)
    np.testing.assert_allclose(after.fluxes, before.fluxes, rtol=1e-6)
    np.testing.assert_allclose(after.dynamic, before.dynamic)


def test_an_exponent_without_its_letter_is_read(ensemble):
    rewrite(
        ensemble, lambda rows: [" ".join([*rows[0].split()[:10], "1.234567-101", *rows[0].split()[11:]]), *rows[1:]]
    )
    assert load_ensemble(ensemble).dynamic[0, 6] == 1.234567e-101


def test_what_is_refused_is_called_by_its_name(ensemble):
    text = {path: path.read_text() for path in ensemble.glob("*_daily_*.txt")}
    rewrite(ensemble, lambda rows: [row for row in rows if row.split()[2:4] != ["2", "29"]])
    with pytest.raises(UserError, match="29 February is missing before 2012-03-01: a 365-day calendar"):
        load_ensemble(ensemble)
    for path, content in text.items():
        path.write_text(content)

    def renumbered(fields):
        leap_day_passed = fields[0] == "2012" and int(fields[2]) > 2
        return [fields[0], str(int(fields[1]) - leap_day_passed), *fields[2:]]

    rewrite(ensemble, lambda rows: [row for row in rows if row.split()[2:4] != ["2", "29"]])
    edit(ensemble, renumbered)
    with pytest.raises(UserError, match="a 365-day calendar"):
        load_ensemble(ensemble)


def test_columns_that_are_no_parameters_are_named_and_can_be_left_out(ensemble, capsys):
    path = ensemble / "parameter_summary.csv"
    table = pd.read_csv(path)
    table.insert(1, "REAL", table["sample_id"])
    table.assign(runtime_s=[10.1, 11.2, 10.4, 10.9], steps=[3.0, 5.0, 7.0, 9.0], rmse=[0.2, 0.1, 0.4, 0.3]).to_csv(
        path, index=False
    )
    load_ensemble(ensemble)
    err = capsys.readouterr().err
    assert "REAL (by its name), runtime_s (by its name), steps (rises by 2 from run to run), rmse (by its name)" in err
    assert "Leave them out with --drop-columns REAL runtime_s steps rmse" in err
    kept = load_ensemble(ensemble, drop=["real", "runtime_s", "steps", "rmse"])
    assert kept.parameter_names == ("tree_lue", "tree_pmax", "soil_sr_lf") and "--drop" not in capsys.readouterr().err
    with pytest.raises(UserError, match="has no column seconds to drop; found sample_id, REAL"):
        read_parameter_summary(path, ["seconds"])
    flags = ["--data-dir", ensemble, "--drop-columns", "REAL", "runtime_s", "steps", "rmse"]
    assert call(dataset.main, *flags) == 0
    assert "3 parameters" in capsys.readouterr().out


def test_a_table_separated_by_semicolons(ensemble, capsys):
    path = ensemble / "parameter_summary.csv"
    before = read_parameter_summary(path)
    pd.read_csv(path).to_csv(path, sep=";", decimal=",", index=False)
    after = read_parameter_summary(path)
    np.testing.assert_allclose(after[2], before[2])
    assert after[1] == before[1] and "is separated by semicolons; read so" in capsys.readouterr().err


def test_made_fluxes_are_those_of_the_files(ensemble):
    """The helper's own numbers come back, so that the tests above compare with something true."""
    np.testing.assert_allclose(load_ensemble(ensemble).fluxes[2], fluxes_of(2), rtol=1e-5)
