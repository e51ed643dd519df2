"""An invented boreal site: its YAML and two years of its weather."""

import numpy as np
import pandas as pd

from calibration.weather.atmosphere import (
    air_pressure,
    q_from_vapour_pressure,
    saturation_vapour_pressure,
    top_of_atmosphere_daily,
)

INVENTED = """name: HYY
latitude: 61.8
longitude: 24.3
altitude: 180.0
utc_offset: 2.0
upper_capacity: null
lower_capacity: 300.0
texture: coarse
sand: 0.6
silt: 0.3
clay: 0.1
saturated_conductivity: 5.0e-6
slope_degrees: 2.0
slope_length: 100.0
spinup_co2_year: 2010
period: {start: 2015-01-01, end: 2016-12-31}
wind_height: 24.0
roughness: 1.2
weather: hyy_weather.json
"""


def boreal_weather(path) -> None:
    """A CSV of two invented years at 61.8 N: frost, snow-free dry days, polar light."""
    generator = np.random.default_rng(0)
    dates = pd.date_range("2013-01-01", "2014-12-31")
    season = -np.cos(2 * np.pi * (dates.day_of_year - 20) / 365).to_numpy()
    celsius = 4 + 13 * season + generator.normal(0, 4, len(dates))
    top = top_of_atmosphere_daily(61.8, dates.day_of_year.to_numpy() - 1)
    saturated = q_from_vapour_pressure(saturation_vapour_pressure(celsius), air_pressure(180, celsius))
    pd.DataFrame({
        "date": dates.strftime("%Y-%m-%d"), "tmp_sfc": celsius + 273.65, "tmp_2m": celsius + 273.15,
        "tmp10_soil": 278 + 8 * season, "tmp200_soil": 278 + 6 * season,
        "dswrf_sfc": top * generator.uniform(0.15, 0.75, len(dates)), "tcdc_clm": generator.uniform(0, 100, len(dates)),
        "prate_sfc": np.where(generator.random(len(dates)) < 0.5, 0, generator.gamma(1, 4e-5, len(dates))),
        "spfh_2m": saturated * generator.uniform(0.5, 0.95, len(dates)),
        "wind_10m": generator.gamma(4, 0.8, len(dates)),
    }).to_csv(path, index=False)  # fmt: skip
