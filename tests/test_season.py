"""The time of year that the network sees, and the sun that follows from it."""

import numpy as np
import torch

from calibration.network.season import rate_amplitude, season, sun
from calibration.weather.atmosphere import background_co2, day_length_hours, sine_of_height, top_of_atmosphere


def test_season_is_read_from_co2():
    dates = np.arange("2010-01-01", "2020-01-01", dtype="datetime64[D]")
    doy = (dates - dates.astype("datetime64[Y]")).astype(int)
    co2 = torch.as_tensor(background_co2(4.2, dates.astype("datetime64[Y]").astype(int) + 1970, doy)).round(decimals=4)
    scaled = ((co2 - 410) / 8).float()
    amplitude = torch.tensor(rate_amplitude(scaled))
    angle = torch.as_tensor(2 * np.pi * doy / 365)
    expected = torch.stack([angle.sin(), angle.cos()], dim=-1)
    whole = season(scaled[None], amplitude)[0]
    assert (whole - expected)[30:].abs().max() < 0.02  # the 366th day of a leap year is one too many
    piece = slice(1000, 1210)  # a context and a horizon, over New Year or not
    part = season(scaled[None, piece], amplitude)[0]
    assert not part[:4].any() and (part - expected[piece])[15:].abs().max() < 0.05
    assert (part - expected[piece])[30:].abs().max() < 0.02
    for last in (1100, 1128, 1150):  # days that follow change nothing, at New Year or elsewhere
        assert torch.allclose(season(scaled[None, 1000:last], amplitude)[0], part[: last - 1000], atol=1e-6)
    unknown = torch.tensor(rate_amplitude(torch.randn(1000)))
    assert torch.isinf(unknown) and not season(scaled[None], unknown).any()
    assert np.isinf(rate_amplitude(torch.ones(1000))) and not season(scaled[None, :3], amplitude).any()


def test_southern_season_is_that_of_the_calendar():
    doy = np.arange(365)
    co2 = torch.as_tensor(background_co2(-35.0, 2015, doy))
    co2 = torch.cat([co2, co2 + 2.0, co2 + 4.0])
    angle = torch.as_tensor(2 * np.pi * doy / 365).repeat(3)
    amplitude = torch.tensor(rate_amplitude(co2))
    when = season(co2[None], amplitude, southern=True)[0]
    assert (when - torch.stack([angle.sin(), angle.cos()], dim=-1))[30:].abs().max() < 0.01


def test_sun_is_that_of_the_process_model():
    doy = np.arange(365)
    angle = torch.as_tensor(2 * np.pi * doy / 365)
    length, height, above = sun(torch.stack([angle.sin(), angle.cos()], dim=-1), torch.tensor(4.2, dtype=torch.double))
    assert np.allclose(length, day_length_hours(4.2, doy), atol=1e-9)
    assert np.allclose(height, sine_of_height(4.2, doy)[..., 24]) and np.allclose(
        above, top_of_atmosphere(4.2, doy)[..., 24]
    )
