"""The time of year, on which day length and the sun's height depend: from the dates of the days where they are known.

The contract's forward() takes no dates; there it is read from the CO2 column. VISIT's CO2 at a site is a level per
calendar year plus a sine of the day of year (atmosphere.background_co2), so its change from day to day is a cosine with
the amplitude known from the training weather. Where the CO2 of an ensemble does not look like that (measured values, a
constant), the season is unknown without dates and everything that uses it sees zeros. Only a day and the days before it
count: weather that is appended later changes nothing.
"""

import math

import numpy as np
import torch

YEAR = 2 * math.pi / 365  # rad day-1
SPAN = 40  # days, up to and with today, behind today's season
SHORTEST = 5  # days below which nothing can be told
STEP = 1.3  # times the amplitude: a larger change is the step between two years
SOUTHERN_SHIFT = 180  # days, of the CO2 of southern sites (atmosphere.background_co2)


def rate_amplitude(co2: torch.Tensor) -> float:
    """Largest daily change of the yearly cycle of co2 (T,), any unit; infinity when it has no such cycle."""
    if len(co2) < 365:
        return math.inf
    change = torch.diff(co2.double())
    median = change.unfold(0, 3, 1).median(dim=-1).values  # without the single steps at New Year
    rate = torch.nn.functional.avg_pool1d(median[None, None], 5, 1)[0, 0]
    amplitude = math.sqrt(2) * rate.square().mean().sqrt().item()
    if amplitude == 0:
        return math.inf
    # A cosine returns with the opposite sign after half a year, noise does not.
    opposite = (rate[:-182] * rate[182:]).mean().item() / (amplitude**2 / 2)
    return amplitude if opposite < -0.8 else math.inf


def season_of(dates: np.ndarray) -> torch.Tensor:
    """Sine and cosine of 2 pi doy / 365 (day, 2) of dates (day,) datetime64[D]; doy counts from 0, as VISIT's.

    >>> season_of(np.array(["2012-01-01", "2012-02-01"], dtype="datetime64[D]")).double().numpy().round(1).tolist()
    [[0.0, 1.0], [0.5, 0.9]]
    """
    days = (dates - dates.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64)
    return torch.as_tensor(np.stack([np.sin(YEAR * days), np.cos(YEAR * days)], axis=-1), dtype=torch.float32)


def season(co2: torch.Tensor, amplitude: torch.Tensor, southern: bool = False) -> torch.Tensor:
    """Sine and cosine of 2 pi doy / 365 (B, T, 2) from co2 (B, T) of consecutive days; zeros where unknown.

    The changes r of the last SPAN days obey r(t - k) / amplitude = cos(g) cos(k w) + sin(g) sin(k w), with today's
    angle g and w = 2 pi / 365: least squares give cos(g) and sin(g). `amplitude` as rate_amplitude(); `southern`: the
    site lies south of the equator, where VISIT's CO2 is half a year late.
    """
    days = co2.shape[-1]
    if days < SHORTEST or torch.isinf(amplitude):
        return co2.new_zeros(*co2.shape, 2)
    rate = torch.nn.functional.pad(torch.diff(co2.double()) / amplitude.double(), (SPAN, 0))  # nothing before day 1
    known = torch.nn.functional.pad((rate[:, SPAN:].abs() < STEP).double(), (SPAN, 0))
    rate, known = ((x * known).unfold(-1, SPAN, 1) for x in (rate, torch.ones_like(rate)))  # (B, T, SPAN)
    # Backwards in time; a change from one day to the next belongs to the midnight between them.
    back = YEAR * (torch.arange(SPAN - 1, -1, -1, device=co2.device).double() + 0.5)
    c, s = torch.cos(back), torch.sin(back)
    cc, ss, cs = known @ (c * c) + 1e-4, known @ (s * s) + 1e-4, known @ (c * s)
    rc, rs = rate @ c, rate @ s
    both = torch.stack([cc * rs - cs * rc, ss * rc - cs * rs], dim=-1) / (cc * ss - cs * cs)[..., None]
    both = both / both.norm(dim=-1, keepdim=True).clamp(min=0.3)
    both = both * (known.sum(dim=-1, keepdim=True) >= SHORTEST - 1)
    if southern:  # from the angle of the shifted day back to that of the day
        turn = YEAR * SOUTHERN_SHIFT
        sine, cosine = both.unbind(dim=-1)
        both = torch.stack([sine * math.cos(turn) - cosine * math.sin(turn),
                            cosine * math.cos(turn) + sine * math.sin(turn)], dim=-1)  # fmt: skip
    return both.to(co2.dtype)


def sun(season: torch.Tensor, latitude: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Day length (h), sine of the noon height and top-of-atmosphere noon radiation (W m-2) from the season.

    season (..., 2): sine and cosine of 2 pi doy / 365; latitude in degrees. Spencer (1971), as weather/atmosphere.py.
    """
    s, c = season.unbind(dim=-1)
    s2, c2, s3, c3 = 2 * s * c, 2 * c**2 - 1, 3 * s - 4 * s**3, 4 * c**3 - 3 * c
    declination = 0.006918 - 0.399912 * c + 0.070257 * s - 0.006758 * c2 + 0.000907 * s2 - 0.002697 * c3 + 0.00148 * s3
    distance = 1.00011 + 0.034221 * c + 0.00128 * s + 0.000719 * c2 + 0.000077 * s2
    phi = torch.deg2rad(latitude)
    half_day = torch.arccos((-torch.tan(phi) * torch.tan(declination)).clamp(-0.9999, 0.9999))
    height = (torch.sin(phi) * torch.sin(declination) + torch.cos(phi) * torch.cos(declination)).clamp(0.01, 1.0)
    return 24 / math.pi * half_day, height, 1367 * distance * height
