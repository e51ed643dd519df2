"""The free parameters of an inversion in latent space: bounds, ties, fixed parameters, and the way back to physical."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from calibration.common.command_line import UserError, warn
from calibration.common.parameters import LATENT_LIMIT, ParameterSpace, make_space, read_ranges
from calibration.inversion.config import EMULATOR_RANGES, InversionConfig, resolve_bounds_file

PRIOR_SHARE = 0.3  # bounds without a file: prior +-30 percent


@dataclass(frozen=True)
class LatentMap:
    """Latent u (..., free) <-> physical (..., parameter).

    With `space` (the free parameters' bounds) u is standard normal for a uniform prior inside the bounds; without,
    u is the distance from the prior in units of `scale`.
    """

    names: tuple[str, ...]
    prior: np.ndarray  # (parameter,) physical
    scale: np.ndarray  # (parameter,) physical; the emulator's static scale
    free: np.ndarray  # (free,) indices of the estimated parameters
    space: ParameterSpace | None  # bounds of the free parameters

    @property
    def free_names(self) -> tuple[str, ...]:
        """Names of the estimated parameters."""
        return tuple(self.names[i] for i in self.free)

    @property
    def limit(self) -> float:
        """Largest |u| that a search may reach: a value on its bound, or no limit without bounds."""
        return LATENT_LIMIT if self.space is not None else np.inf

    def physical(self, latent: torch.Tensor) -> torch.Tensor:
        """latent (..., free) -> physical (..., parameter), float64, differentiable; fixed ones keep the prior."""
        latent = latent.to(torch.float64)
        free = torch.as_tensor(self.free)
        prior = torch.as_tensor(self.prior)
        if self.space is not None:
            values = self.space.latent_to_physical(latent)
        else:
            values = prior[free] + latent * torch.as_tensor(self.scale)[free]
        full = prior.expand(*latent.shape[:-1], len(prior)).clone()
        return full.index_copy(-1, free, values)

    def physical_array(self, latent: np.ndarray) -> np.ndarray:
        """As `physical`, for arrays."""
        return self.physical(torch.as_tensor(np.asarray(latent, dtype=np.float64))).numpy()

    def latent(self, physical: np.ndarray) -> np.ndarray:
        """physical (..., parameter) -> latent (..., free). UserError where a value lies outside its bounds."""
        values = np.asarray(physical, dtype=np.float64)[..., self.free]
        if self.space is None:
            return (values - self.prior[self.free]) / self.scale[self.free]
        return self.space.physical_to_latent(values)

    def unit(self, physical: np.ndarray) -> np.ndarray:
        """physical (..., parameter) -> position of the free ones inside their bounds, 0-1 (NaN without bounds)."""
        values = np.asarray(physical, dtype=np.float64)[..., self.free]
        return np.full(values.shape, np.nan) if self.space is None else self.space.physical_to_unit(values)


def inversion_space(
    names: Sequence[str],
    prior: np.ndarray,
    config: InversionConfig,
    trained: ParameterSpace | None = None,
    source: str | Path | None = None,
) -> ParameterSpace:
    """Bounds of all `names`: from config.bounds_file ('emulator' = `trained`), else prior (parameter,) +-30 percent."""
    bounds = resolve_bounds_file(config, source)
    if bounds == EMULATOR_RANGES and trained is not None:
        return trained.subset(names)
    if bounds is not None and bounds != EMULATOR_RANGES:
        space = read_ranges(bounds)
        missing = [name for name in names if name not in space.names]
        if missing:
            raise UserError(
                f"{bounds}: holds no bounds for {', '.join(missing)}, which the emulator has; add a line for each "
                "(or bounds_file: emulator for the ranges it was trained on)"
            )
        return space.subset(names)
    entries: list[tuple[str, float, float | str]] = []
    for name, value in zip(names, prior, strict=True):
        if value == 0:
            raise UserError(
                f"{name} has prior 0, so that prior +-30 percent is no range; give a bounds_file in the configuration"
            )
        low, high = sorted((value * (1 - PRIOR_SHARE), value * (1 + PRIOR_SHARE)))
        entries.append((name, low, high))
    return _tied_as_trained(make_space(entries, "prior +-30 percent"), trained)


def _tied_as_trained(space: ParameterSpace, trained: ParameterSpace | None) -> ParameterSpace:
    """Tie a parameter to its reference where the +-30 percent ranges would let it exceed that reference."""
    if trained is None:
        return space
    tied, upper = list(space.tied_to), space.upper.copy()
    for i, name in enumerate(space.names):
        reference = trained.tied_to[trained.names.index(name)] if name in trained.names else -1
        if reference >= 0 and trained.names[reference] in space.names:
            j = space.names.index(trained.names[reference])
            if space.upper[i] > space.lower[j] > space.lower[i]:
                tied[i], upper[i] = j, space.upper[j]
    return ParameterSpace(space.names, space.lower, upper, tuple(tied))


def make_latent_map(
    names: Sequence[str],
    prior: np.ndarray,
    scale: np.ndarray,
    space: ParameterSpace | None,
    free: Sequence[str] | None = None,
    fix: Sequence[str] = (),
    clip_prior: bool = False,
) -> LatentMap:
    """Choose the estimated parameters (`free`, default all, minus `fix`) and their bounds given the fixed ones.

    prior, scale: (parameter,) physical. `clip_prior`: a prior outside the bounds is moved onto them with a warning
    instead of being an error. A parameter whose range has no width is fixed. UserError on an unknown name, on no free
    parameter and on bounds that exclude the prior.
    """
    names = tuple(names)
    for name in [*(free or ()), *fix]:
        if name not in names:
            raise UserError(f"unknown parameter '{name}' in --free/--fix; known are {', '.join(names)}")
    constant = set() if space is None else {n for n, w in zip(space.names, space.width, strict=True) if w == 0}
    chosen = [n for n in names if (free is None or n in free) and n not in fix and n not in constant]
    if not chosen:
        raise UserError("no parameter is left free: --fix and --free exclude all of them")
    prior = np.asarray(prior, dtype=np.float64).copy()
    index = np.array([names.index(name) for name in chosen])
    if space is None:
        return LatentMap(names, prior, np.asarray(scale, dtype=np.float64), index, None)
    space = _given_fixed(space.subset(names), prior, index)
    if clip_prior:
        unit = space.physical_to_unit(prior[index])
        clipped = space.unit_to_physical(np.clip(unit, 0.0, 1.0))
        moved = [name for name, u in zip(chosen, unit, strict=True) if not -1e-9 <= u <= 1 + 1e-9]
        if moved:
            warn(f"the prior of {', '.join(moved)} lies outside the bounds and was moved onto them")
            prior[index] = clipped
    space.check(prior[index], "the bounds exclude the prior")
    return LatentMap(names, prior, np.asarray(scale, dtype=np.float64), index, space)


def _given_fixed(space: ParameterSpace, prior: np.ndarray, free: np.ndarray) -> ParameterSpace:
    """Bounds of the free parameters when the others are fixed at their prior: a tie to a fixed one is a number."""
    position = {int(i): k for k, i in enumerate(free)}
    lower, upper, tied = space.lower[free].copy(), space.upper[free].copy(), []
    for k, i in enumerate(free):
        reference = space.tied_to[i]
        tied.append(position.get(reference, -1))
        if reference >= 0 and tied[k] < 0:
            upper[k] = prior[reference]
    for i, reference in enumerate(space.tied_to):
        # A fixed parameter bounded by a free one pushes that one's minimum up.
        if reference in position and i not in position:
            k = position[reference]
            lower[k] = max(lower[k], prior[i])
    return ParameterSpace(tuple(space.names[i] for i in free), lower, upper, tuple(tied))
