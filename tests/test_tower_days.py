"""Days of a tower's file from year, month and day, or year and day of the year that starts at 0 or 1."""

import numpy as np
import pandas as pd
import pytest

from calibration.common.command_line import UserError
from calibration.tower.file import read_tower_file

DAYS = pd.date_range("2011-12-01", "2012-12-31")  # over two ends of a year, and 29 February


def save(path, **columns):
    pd.DataFrame({**columns, "NEE_VUT_REF": np.linspace(-1, 1, len(DAYS))}).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("name", ["DOY", "JDAY"])
def test_day_of_the_year_from_0_or_1(tmp_path, first, name):
    path = save(tmp_path / "t.csv", YEAR=DAYS.year, **{name: DAYS.day_of_year - 1 + first})
    assert (read_tower_file(path).dates == DAYS.to_numpy().astype("datetime64[D]")).all()


def test_year_month_and_day(tmp_path):
    path = save(tmp_path / "t.csv", YEAR=DAYS.year, MONTH=DAYS.month, DAY=DAYS.day)
    assert (read_tower_file(path).dates == DAYS.to_numpy().astype("datetime64[D]")).all()


def changed(values, row, value):
    values = np.asarray(values, dtype=object).copy()
    values[row] = value
    return values


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"YEAR": 2011, "DOY": np.arange(len(DAYS)) % 100 + 100}, "leaves open whether 1 January is day 0 or day 1"),
        ({"YEAR": DAYS.year, "DOY": changed(DAYS.day_of_year, 40, 367)}, "line 42: day 367 does not exist in 2012"),
        ({"YEAR": DAYS.year, "DOY": changed(DAYS.day_of_year, 3, 4.5)}, "line 5: DOY is '4.5', expected a whole"),
        ({"YEAR": DAYS.year, "DOY": changed(DAYS.day_of_year, 3, "x")}, "line 5: DOY is 'x', expected a whole"),
        ({"YEAR": DAYS.year, "MONTH": DAYS.month, "DAY": changed(DAYS.day, 89, 30)},
         "line 91: 2012-2-30 is a day that does not exist"),
        ({"YEAR": DAYS.year}, "neither month and day nor the day of the year"),
        ({"YEAR": DAYS.year, "DOY": DAYS.day_of_year, "HOUR": 1}, "column of hours, so this is no daily file"),
    ],
)  # fmt: skip
def test_days_that_cannot_be(tmp_path, columns, message):
    with pytest.raises(UserError, match=message):
        read_tower_file(save(tmp_path / "t.csv", **columns))
