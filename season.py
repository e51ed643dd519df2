"""The time of year, read from the CO2 column: the emulator's inputs hold no date, yet day length and the sun's height
matter.

VISIT's CO2 at a site is a level per calendar year plus a sine of the day of year (atmosphere.background_co2), so its
change from day to day is a cosine with the amplitude known from the training weather. Where the CO2 of an ensemble does
not look like that (measured values, a constant), the season is unknown and everything that uses it sees zeros.
"""

import math

import torch

YEAR = 2 * math.pi / 365  # rad day-1
HALF_SPAN = 10  # days on each side behind the sine
SHORTEST = 5  # days below which nothing can be told


def _rate(co2: torch.Tensor) -> torch.Tensor:
    """Change of co2 (B, T) from day to day, without the single steps at New Year, smoothed over 5 days."""
    change = torch.diff(co2, dim=-1)
    change = torch.cat([change[:, :1], change], dim=-1)
    wide = torch.cat([change[:, :1], change, change[:, -1:]], dim=-1)
    median = torch.stack([wide[:, :-2], wide[:, 1:-1], wide[:, 2:]]).median(dim=0).values
    return torch.nn.functional.avg_pool1d(median[:, None], 5, 1, 2, count_include_pad=False)[:, 0]


def rate_amplitude(co2: torch.Tensor) -> float:
    """Largest daily change of the yearly cycle of co2 (T,), any unit; infinity when it has no such cycle."""
    if len(co2) < 365:
        return math.inf
    rate = _rate(co2[None].double())[0]
    amplitude = math.sqrt(2) * rate.square().mean().sqrt().item()
    if amplitude == 0:
        return math.inf
    # A cosine returns with the opposite sign after half a year, noise does not.
    opposite = (rate[:-182] * rate[182:]).mean().item() / (amplitude**2 / 2)
    return amplitude if opposite < -0.8 else math.inf


def season(co2: torch.Tensor, amplitude: torch.Tensor) -> torch.Tensor:
    """Sine and cosine of 2 pi doy / 365 (B, T, 2) from co2 (B, T) of consecutive days; zeros where unknown."""
    days = co2.shape[-1]
    if days < SHORTEST or torch.isinf(amplitude):
        return co2.new_zeros(*co2.shape, 2)
    cosine = (_rate(co2) / amplitude).clamp(-1.2, 1.2)
    day = torch.arange(days, device=co2.device)
    later, earlier = (day + HALF_SPAN).clamp(max=days - 1), (day - HALF_SPAN).clamp(min=0)
    # cos(g + a) - cos(g - a) = -2 sin(g) sin(a)
    sine = (cosine[:, earlier] - cosine[:, later]) / (2 * torch.sin(YEAR * (later - earlier) / 2))
    # At the ends of a stretch the two days are not centred on today: turn by the difference.
    turn = YEAR * (day - (later + earlier) / 2)
    sine = (sine * torch.cos(turn) + cosine * torch.sin(turn)).clamp(-1.2, 1.2)
    both = torch.stack([sine, cosine], dim=-1)
    return both / both.norm(dim=-1, keepdim=True).clamp(min=0.3)
