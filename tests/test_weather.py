"""Weather: the generator's statistics and limits, exact round trips, the three kinds of file, and bad input."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from script_calls import call
from second_site import INVENTED, boreal_weather

import weather as weather_script
from calibration.common.command_line import REPOSITORY, UserError
from calibration.common.sites import load_site
from calibration.common.units import DYNAMIC_FEATURES, METEOROLOGY, POSSIBLE, SECONDS_PER_DAY
from calibration.weather.atmosphere import (
    air_pressure,
    background_co2,
    q_from_vapour_pressure,
    saturation_vapour_pressure,
    top_of_atmosphere_daily,
)
from calibration.weather.daily import Weather, generate_weather, read_weather, write_weather_csv
from calibration.weather.generator import LEVELS, fit_statistics, load_statistics
from extras import fit_weather_statistics

LHP = REPOSITORY.parent / "shared" / "data" / "lhp" / "era5_daily_2011_2016.csv"
SITE = load_site()


@pytest.fixture(scope="module")
def generated() -> Weather:
    return generate_weather(SITE, "1990-01-01", "2029-12-31", seed=1)


def test_values_are_possible(generated):
    for name in DYNAMIC_FEATURES:
        low, high = POSSIBLE[name]
        assert generated.column(name).min() >= low and generated.column(name).max() <= high
    celsius = generated.column("tmp_2m") - 273.15
    saturated = q_from_vapour_pressure(saturation_vapour_pressure(celsius), air_pressure(SITE.altitude, celsius))
    assert (generated.column("spfh_2m") < saturated).all()
    share = generated.column("dswrf_sfc") / top_of_atmosphere_daily(SITE.latitude, generated.doy0)
    assert 0.6 < share.max() <= load_statistics(SITE.weather_statistics).largest_share * (1 + 1e-6) < 0.803
    dry = (generated.column("prate_sfc") == 0).mean()
    assert 0.01 < dry < 0.06


def test_statistics_are_those_stored(generated):
    """Monthly means, spreads, cross-correlations and persistence of 40 years against the fitted statistics' own."""
    stored = load_statistics(SITE.weather_statistics)
    again = fit_statistics(generated.values, generated.dates, SITE.latitude, "generated")
    middle = LEVELS.index(0.5)
    for index, name in enumerate(METEOROLOGY):
        spread = stored.quantiles[index][:, LEVELS.index(0.9)] - stored.quantiles[index][:, LEVELS.index(0.1)]
        np.testing.assert_array_less(
            np.abs(again.quantiles[index][:, middle] - stored.quantiles[index][:, middle]), 0.25 * spread, err_msg=name
        )
        wide = again.quantiles[index][:, LEVELS.index(0.9)] - again.quantiles[index][:, LEVELS.index(0.1)]
        np.testing.assert_allclose(wide.mean() / spread.mean(), 1.0, atol=0.1, err_msg=name)
    np.testing.assert_allclose(again.lag0 + again.slow, stored.lag0 + stored.slow, atol=0.12)
    np.testing.assert_allclose(np.diag(again.lag1), np.diag(stored.lag1), atol=0.12)


def test_years_differ(generated):
    years = generated.dates.astype("datetime64[Y]")
    means = [generated.column("tmp_2m")[years == year].mean() for year in np.unique(years)]
    assert 0.1 < np.std(means) < 0.5  # real years at LHP: 0.24 K


def test_seed_repeats_and_end_does_not_matter():
    short = generate_weather(SITE, "2010-01-01", "2010-12-31", seed=5)
    long = generate_weather(SITE, "2010-01-01", "2011-12-31", seed=5)
    other = generate_weather(SITE, "2010-01-01", "2010-12-31", seed=6)
    np.testing.assert_array_equal(short.values, long.values[:365])
    assert (short.values[:, 0] != other.values[:, 0]).all()
    np.testing.assert_allclose(short.column("a_co2"), background_co2(SITE.latitude, 2010, np.arange(365)), rtol=1e-6)


@pytest.mark.real_data
@pytest.mark.skipif(not LHP.is_file(), reason=f"{LHP.name} is not here")
def test_statistics_match_the_real_site(generated):
    real = read_weather(LHP, SITE)
    made, seen = (pd.DataFrame(w.values[:, :9], columns=list(METEOROLOGY)) for w in (generated, real))
    months = [pd.DatetimeIndex(w.dates).month for w in (generated, real)]
    sd = seen.std()
    assert ((made.mean() - seen.mean()).abs() < 0.12 * sd).all()
    assert ((made.groupby(months[0]).mean() - seen.groupby(months[1]).mean()).abs() < 0.35 * sd).all().all()
    assert (made.std() / sd).between(0.88, 1.12).all()
    assert ((made.corr() - seen.corr()).abs() < 0.12).all().all()
    anomalies = [w - w.groupby(m).transform("mean") for w, m in zip((made, seen), months, strict=True)]
    for name in METEOROLOGY:
        # Wind is more persistent when strong than when weak, which normal scores do not know.
        tolerance = 0.2 if name == "wind_10m" else 0.08
        assert abs(anomalies[0][name].autocorr(1) - anomalies[1][name].autocorr(1)) < tolerance, name


@pytest.fixture
def small() -> Weather:
    return generate_weather(SITE, "2011-12-20", "2012-03-05", seed=3)


def test_csv_round_trip_is_exact(tmp_path, small):
    write_weather_csv(tmp_path / "w.csv", small)
    back = read_weather(tmp_path / "w.csv", SITE)
    np.testing.assert_array_equal(back.values, small.values)
    np.testing.assert_array_equal(back.dates, small.dates)
    small.frame().rename(columns=str.upper).to_csv(tmp_path / "upper.csv", index=False)
    np.testing.assert_array_equal(read_weather(tmp_path / "upper.csv", SITE).values, small.values)


def daily_text(weather: Weather, header: bool = False) -> str:
    rows = ["year doy month day " + " ".join(DYNAMIC_FEATURES) + " gpp npp er nep p1"] if header else []
    for date, doy0, values in zip(pd.DatetimeIndex(weather.dates), weather.doy0, weather.values, strict=True):
        numbers = " ".join(f"{value:.8g}" for value in values)
        rows.append(f"{date.year} {doy0} {date.month} {date.day} {numbers} 0.1 0.05 0.09 0.01 7")
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize("header", [False, True])
def test_visit_daily_files_are_read(tmp_path, small, header):
    (tmp_path / "LHP_x_daily_0000.txt").write_text(daily_text(small, header))
    back = read_weather(tmp_path / "LHP_x_daily_0000.txt", SITE)
    np.testing.assert_array_equal(back.values, small.values)


def test_co2_is_filled_where_absent_for_the_sites_latitude(tmp_path, small):
    small.frame().drop(columns="a_co2").to_csv(tmp_path / "w.csv", index=False)
    south = dataclasses.replace(SITE, latitude=-30.0)
    back = read_weather(tmp_path / "w.csv", south)
    years = small.dates.astype("datetime64[Y]").astype(int) + 1970
    np.testing.assert_allclose(back.column("a_co2"), background_co2(-30.0, years, small.doy0))


def test_between(small):
    part = small.between("2012-02-28", "2012-03-01")
    assert list(part.dates.astype(str)) == ["2012-02-28", "2012-02-29", "2012-03-01"]
    np.testing.assert_array_equal(part.doy0, [58, 59, 60])
    with pytest.raises(UserError, match="holds 2011-12-20 to 2012-03-05, but 2011-01-01 to 2012-01-01 is asked for"):
        small.between("2011-01-01", "2012-01-01")
    with pytest.raises(UserError, match="start 2012-02-01 is after end 2012-01-01"):
        small.between("2012-02-01", "2012-01-01")


def edited(**columns):
    def change(table):
        for name, value in columns.items():
            if callable(value):
                table[name] = value(table[name])
            else:
                table.loc[5, name] = value
        return table

    return change


BAD = [
    (edited(tmp_2m=np.nan), "tmp_2m on 2011-12-25 is empty or not a number, allowed is 180 to 340 K"),
    (
        edited(tmp_2m=lambda t: t - 273.15),
        r"\(77 such days\); temperatures are in K here; it looks like deg C: add 273.15",
    ),
    (edited(prate_sfc=lambda p: p * SECONDS_PER_DAY), "prate_sfc on .* precipitation is a rate in kg m-2 s-1 here"),
    (edited(tcdc_clm=lambda c: c / 100), "tcdc_clm never exceeds 0.8.* looks like a 0-1 share; cloud is in percent"),
    (edited(spfh_2m=lambda q: q * 1000), "specific humidity is in kg kg-1 here"),
    (edited(dswrf_sfc=-1.0), "dswrf_sfc on 2011-12-25 is -1, allowed is 0 to 600 W m-2"),
    (
        lambda t: t.drop(columns=["tmp_sfc", "wind_10m"]),
        "has no column tmp_sfc, wind_10m; a weather file needs date and",
    ),
    (lambda t: t.rename(columns={"date": "when"}), "has no column 'date'; found when, tmp_sfc"),
    (
        lambda t: t.drop(index=7),
        "row 8 is 2011-12-28, which leaves a gap after 2011-12-26; every day must be there once",
    ),
    (lambda t: t.iloc[[*range(5), 4, *range(5, 77)]], "row 6 is 2011-12-24, which repeats 2011-12-24"),
    (lambda t: t.iloc[::-1], "row 2 is 2012-03-04, which steps back from 2012-03-05"),
    (edited(date="31.12.2011"), "line 7 has the date '31.12.2011'; expected YYYY-MM-DD"),
    (lambda t: t.assign(other=1.0).rename(columns={"other": "TMP_2m"}), "has 2 columns tmp_2m; keep one"),
    (lambda t: t.drop(columns="date").assign(year=2011, month=12, day=32), "line 2 has the date '2011-12-32'"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_weather_csv(tmp_path, small, change, message):
    change(small.frame()).to_csv(tmp_path / "w.csv", index=False)
    with pytest.raises(UserError, match=message) as caught:
        read_weather(tmp_path / "w.csv", SITE)
    assert "w.csv" in str(caught.value)


def test_other_bad_files(tmp_path, small):
    path = tmp_path / "w.txt"
    for content, message in [
        (b"", "is empty or begins with an empty line"),
        (b"\xff\xfe\x00\x01", "is not a text file"),
        (b"2012 0 1 1 300 300\n2012 1 1 2 300 300\n", "6 columns, expected at least 14"),
        (
            daily_text(small).replace("2012 59 2 29", "2012 59 2 30").encode(),
            "line 72: year 2012, doy 59, month 2, day 30 is no date",
        ),
        (
            daily_text(small)[:-20].encode(),
            "line 77: 15 columns where the other rows have 19; the file looks cut short",
        ),
        (daily_text(small).replace("\n2012 3", "\n2012 4", 1).encode(), "is no date"),
        (daily_text(small).replace("\n2011 358", "\n#", 1).encode(), "line 6"),
    ]:
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_weather(path, SITE)
    with pytest.raises(UserError, match="no such file; make one with weather.py"):
        read_weather(tmp_path / "no.csv", SITE)


def test_command_writes_weather_that_reads_back(tmp_path, capsys):
    output = tmp_path / "w.csv"
    assert (
        call(weather_script.main, "--output", output, "--start", "2012-01-01", "--end", "2012-12-31", "--seed", 4) == 0
    )
    assert "366 days, 2012-01-01 to 2012-12-31" in capsys.readouterr().out
    expected = generate_weather(SITE, "2012-01-01", "2012-12-31", 4)
    np.testing.assert_array_equal(read_weather(output, SITE).values, expected.values)
    assert call(weather_script.main, "--output", output, "--start", "2013-01-01", "--end", "2012-12-31") == 2


def test_a_file_of_ones_own_is_checked(tmp_path, small, capsys):
    table = small.frame()
    table.to_csv(tmp_path / "w.csv", index=False)
    assert call(weather_script.main, "--check", tmp_path / "w.csv") == 0
    assert "77 days, 2011-12-20 to 2012-03-05, readable" in capsys.readouterr().out
    table.assign(dswrf_sfc=445.0, spfh_2m=0.03).to_csv(tmp_path / "w.csv", index=False)
    assert call(weather_script.main, "--check", tmp_path / "w.csv") == 0
    err = capsys.readouterr().err
    assert "dswrf_sfc is above the top of the atmosphere on 77 of 77 days" in err
    assert "spfh_2m is more than 5 % above saturation on 77 of 77 days" in err


def test_an_invented_site_needs_no_code(tmp_path):
    """A YAML and a weather file are enough: statistics, then weather of the site's own period and season."""
    (tmp_path / "hyy.yaml").write_text(INVENTED)
    boreal_weather(tmp_path / "era5.csv")
    flags = ["--site", tmp_path / "hyy.yaml"]
    assert call(fit_weather_statistics.main, "--weather", tmp_path / "era5.csv", *flags) == 0
    statistics = (tmp_path / "hyy_weather.json").read_bytes()
    assert call(fit_weather_statistics.main, "--weather", tmp_path / "era5.csv", *flags) == 2  # is there already
    assert (tmp_path / "hyy_weather.json").read_bytes() == statistics
    assert call(weather_script.main, "--output", tmp_path / "w.csv", *flags) == 0
    site = load_site(tmp_path / "hyy.yaml")
    made = read_weather(tmp_path / "w.csv", site)
    assert str(made.dates[0]) == "2015-01-01" and len(made) == 731
    month = pd.DatetimeIndex(made.dates).month
    assert made.column("tmp_2m")[month == 1].mean() < 268 < 285 < made.column("tmp_2m")[month == 7].mean()
    assert 0.4 < (made.column("prate_sfc") == 0).mean() < 0.6
    assert made.column("dswrf_sfc")[month == 12].max() < 20


def test_statistics_need_every_month_and_a_readable_file(tmp_path, small):
    with pytest.raises(UserError, match=r"only 0 days of calendar month 4; .* give a full year or more"):
        fit_statistics(small.values, small.dates, 4.2, "small")
    (tmp_path / "s.json").write_text('{"variables": []}')
    with pytest.raises(UserError, match="not statistics of weather .* make them with extras/fit_weather_statistics.py"):
        load_statistics(tmp_path / "s.json")
