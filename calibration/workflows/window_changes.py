"""Do parameters change from window to window by more than their intervals allow? Arrays in, a test of each out."""

from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc  # upper tail of chi square; scipy.stats would take a second to import

ALPHA = 0.05  # of the whole family of tests
USABLE = 0.95  # posterior sd over prior sd above which a window says too little of a parameter to take part
LEAST_NOISE = 1e-3  # share of a window's variance that is its own at least: keeps the shared part a covariance


@dataclass(frozen=True)
class Changes:
    """One test a parameter; all (parameter,), NaN where there was nothing to test."""

    windows: np.ndarray  # int, how many took part
    statistic: np.ndarray  # Cochran's Q, chi square with windows - 1 degrees of freedom where nothing changes
    p: np.ndarray
    p_holm: np.ndarray  # corrected for the number of parameters tested

    @property
    def found(self) -> np.ndarray:
        """(parameter,) bool: changes by more than the intervals allow, at ALPHA for all parameters together."""
        return np.nan_to_num(self.p_holm, nan=1.0) < ALPHA


def separate_windows(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Indices, in time, of as many windows as do not share a day; first, last: (window,) datetime64[D], inclusive.

    >>> days = np.datetime64("2012-01-01") + np.arange(0, 50, 10)
    >>> separate_windows(days, days + np.timedelta64(14, "D")).tolist()
    [0, 2, 4]
    """
    chosen: list[int] = []
    for k in np.argsort(last, kind="stable"):
        if not chosen or first[k] > last[chosen[-1]]:
            chosen.append(int(k))
    return np.array(chosen, dtype=int)


def change_test(mean: np.ndarray, covariance: np.ndarray, prior: np.ndarray, candidates: np.ndarray) -> Changes:
    """Test of each parameter's equality in all windows, which must not share data.

    mean: (window, size) posterior means and covariance: (window, size, size) in latent units, where the prior is normal
    with mean prior (size,) and unit variance, the same in every window; candidates: (parameter,) bool, which of the
    first entries of `size` are tested (the others, and what follows: offsets, are nuisance).

    A window's marginal posterior N(m, v) holds the prior once. Windows that share a prior agree for that reason alone,
    so it is divided out (normal densities: precisions subtract; Gelman et al. 2013, Bayesian Data Analysis, 2.5):
      x = m0 + (m - m0) / (1 - v),   var x = v / (1 - v)
    x is what the window's data alone say; a window with v near 1 says nothing and is left out (USABLE). Where the
    parameter is the same in all windows, Cochran's Q (1954, Biometrics 10, 101-129) in its form for correlated
    estimates (generalised least squares),
      Q = (x - c)' C^-1 (x - c),   c = 1'C^-1 x / 1'C^-1 1,
    is chi square with windows - 1 degrees of freedom. C depends on the other parameters, which every x suffers from:
      they differ from window to window, each as the prior says:  C = diag(v / (1 - v))
      they are the same in all windows: their deviations d ~ N(0, 1) from the prior shift x by
      b d, b = -V[i, others] / (1 - v) (the gain of a linear posterior is 1 - V):
      C = diag(v / (1 - v) - |b|^2) + B B'
    Neither is known, so the smaller Q (the larger p) of both counts: no false alarm under either. Exact where model and
    errors are linear and normal. Parameters are corrected for their number after Holm (1979, Scand. J. Statist. 6).

    Two windows that halve the variance and end one prior sd apart: without the prior x is 1 and -1, of variance 1.

    >>> one = change_test(np.array([[0.5], [-0.5]]), np.full((2, 1, 1), 0.5), np.zeros(1), np.array([True]))
    >>> one.statistic.round(6).tolist(), one.p.round(4).tolist()
    ([2.0], [0.1573])
    """
    count = len(candidates)
    windows, statistic, p = np.zeros(count, dtype=int), np.full(count, np.nan), np.full(count, np.nan)
    for i in np.flatnonzero(candidates):
        variance = covariance[:, i, i]
        use = np.flatnonzero(variance < USABLE**2)
        windows[i] = len(use)
        if len(use) < 2:
            continue
        gain = 1 - variance[use]
        estimate, total = (mean[use, i] - prior[i]) / gain, variance[use] / gain
        shift = -np.delete(covariance[use, i], i, axis=1) / gain[:, None]
        own = np.maximum(total - np.sum(shift**2, axis=1), LEAST_NOISE * total)
        statistic[i] = min(_cochran(estimate, np.diag(total)), _cochran(estimate, np.diag(own) + shift @ shift.T))
        p[i] = chdtrc(len(use) - 1, statistic[i])
    return Changes(windows, statistic, p, holm(p))


def _cochran(estimate: np.ndarray, covariance: np.ndarray) -> float:
    """Squared distance of estimate (window,) from its best common value, in the metric of covariance."""
    solved = np.linalg.solve(covariance, np.column_stack([np.ones(len(estimate)), estimate]))
    rest = estimate - solved[:, 1].sum() / solved[:, 0].sum()
    return float(rest @ np.linalg.solve(covariance, rest))


def holm(p: np.ndarray) -> np.ndarray:
    """p values (parameter,) corrected for how many there are, NaN left out (Holm 1979).

    >>> holm(np.array([0.03, 0.01, np.nan, 0.5])).tolist()
    [0.06, 0.03, nan, 0.5]
    """
    order = np.argsort(p)[: np.isfinite(p).sum()]
    corrected = np.full(len(p), np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1.0)
    return corrected
