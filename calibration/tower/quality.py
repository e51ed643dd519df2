"""Which way a quality flag runs, proven from the file: by its range, by gaps of unfilled columns, by night and day.

The networks differ in one dangerous point. Daily QC of ONEFlux products (FLUXNET2015, ICOS, AmeriFlux FLUXNET) is the
share of measured or good half-hours: 1 is best. Daily QC of JapanFlux is a mean of half-hourly flags, and OzFlux counts
reasons: 0 is best. A direction is taken from a network only where that is known beyond doubt, and never against what
the file itself proves; otherwise the user is asked.
Sources: Pastorello et al. 2020 (Scientific Data 7, 225); JapanFlux2024 (Earth System Science Data 17, 3807, 2025);
OzFlux flags: Isaac et al. 2017 (Biogeosciences 14, 2903).
"""

import re

import numpy as np

from calibration.common.command_line import UserError
from calibration.tower.file import TowerFile

LOW, HIGH = "low", "high"  # which value of a quality flag is best
LARGEST_MEAN_FLAG = 3.0  # of half-hourly flags 0 to 3
CODES = re.compile(r".*_QC_?FLAG$", re.IGNORECASE)  # OzFlux: 0 is measured, every other number is a reason
ENOUGH = 10  # days on each side of a proof
SEPARATION = 0.85  # probability that a flag on a bad day exceeds (or falls below) one on a good day
NIGHT_STEP = 0.1  # by which flags of night and day must differ
UNFILLED_NEE = ("FC", "FCO2", "CO2FLUX", "NEE_PI", "NEE", "NEE_OBS", "NEE_ORIG")
WIDE = 1.0 + 1e-6  # a share cannot exceed it
# Names of a column's flag, in the networks' fashions.
FLAG_NAMES = ("{}_QC", "{}_QCFLAG", "{}_QC_FLAG", "{}_FLAG", "{}_QF", "QC_{}", "QF_{}")


def flag_column(tower: TowerFile, name: str) -> str | None:
    """The flag that belongs to a column, in any case, or None."""
    found = (tower.find(form.format(name)) for form in FLAG_NAMES)
    return next((column for column in found if column is not None), None)


def qc_direction(
    tower: TowerFile, qc: str, network: str | None = None, forced: str | None = None, measured: str | None = None
) -> str:
    """'low' or 'high': which end of the flag is best.

    network: what the network says, where it is known beyond doubt ('low', 'high' or None); forced: the user's word;
    measured: the column that the flag belongs to. UserError when nothing decides, or when two proofs disagree.
    """
    values = tower.numbers(qc)
    values = values[~np.isnan(values)]
    if not len(values):
        raise UserError(f"{tower.path}: {qc} has no value at all; name another with --nee-qc-column, or '' for no QC")
    if forced is not None:
        return forced
    low, high = float(values.min()), float(values.max())
    choose = "say it with --qc-best low or --qc-best high, or leave the flag out (--nee-qc-column '', --no-qc)"
    codes = CODES.match(qc) is not None and np.all(values == np.round(values))
    if (low < 0 or high > LARGEST_MEAN_FLAG) and not (codes and low >= 0):
        raise UserError(
            f"{tower.path}: {qc} runs from {low:g} to {high:g}, but a daily flag is a share (0 to 1) or a mean of "
            f"flags (0 to 3), so which end is best is open; {choose}"
        )
    proven, reason = (LOW, f"it reaches {high:g}, as only a mean of flags can") if high > WIDE else _proof(
        tower, qc, measured
    )  # fmt: skip
    if network == HIGH and high > WIDE:
        raise UserError(
            f"{tower.path}: {qc} is a share of good data by its name (1 best), but reaches {high:g}, as only a mean of "
            f"flags (0 best) can; {choose}"
        )
    if proven is not None and network is not None and proven != network:
        raise UserError(
            f"{tower.path}: by its network {network} values of {qc} are best, but by the file {proven} ones are "
            f"({reason}); {choose}"
        )
    direction = network or proven or (LOW if codes else None)
    if direction is None:
        raise UserError(
            f"{tower.path}: {qc} runs from {low:g} to {high:g}, and neither its name nor its values tell whether 0 or "
            f"1 is best; {choose}"
        )
    return direction


def _proof(tower: TowerFile, qc: str, measured: str | None) -> tuple[str | None, str]:
    """The direction that gaps or nights prove, and how; (None, '') without proof or where proofs disagree."""
    found = [proof for proof in (_by_gaps(tower, qc, measured), _by_night(tower, qc)) if proof is not None]
    if not found or len({direction for direction, _ in found}) > 1:
        return None, ""
    return found[0]


def _by_gaps(tower: TowerFile, qc: str, measured: str | None) -> tuple[str, str] | None:
    """Where the same flux has gaps in an unfilled column, the filled one is poor: its flag there is the bad end."""
    stem = (measured or re.sub(r"_?QC.*$", "", qc, flags=re.IGNORECASE)).split("_")[0].upper()
    unfilled = UNFILLED_NEE if stem == "NEE" else (stem, f"{stem}_PI")
    flag = tower.numbers(qc)
    for name in unfilled:
        column = tower.find(name)
        if column is None or column in (qc, measured):
            continue
        gap = np.isnan(tower.numbers(column))
        bad, good = flag[gap & ~np.isnan(flag)], flag[~gap & ~np.isnan(flag)]
        if min(len(bad), len(good)) < ENOUGH:
            continue
        above = np.mean(bad[:, None] > good[None, :]) + 0.5 * np.mean(bad[:, None] == good[None, :])
        if max(above, 1 - above) >= SEPARATION:
            worse = "higher" if above > 0.5 else "lower"
            return (LOW if above > 0.5 else HIGH), f"it is {worse} where {column} has gaps"
    return None


def _by_night(tower: TowerFile, qc: str) -> tuple[str, str] | None:
    """Still nights are filtered, days are not: the flag of nights is the worse one."""
    stem = re.sub(r"_QC$", "", qc, flags=re.IGNORECASE)
    night, day = tower.find(f"{stem}_NIGHT_QC"), tower.find(f"{stem}_DAY_QC")
    if night is None or day is None:
        return None
    step = tower.numbers(night) - tower.numbers(day)
    step = step[~np.isnan(step)]
    if len(step) < 3 * ENOUGH or abs(np.median(step)) < NIGHT_STEP:
        return None
    worse_high = np.median(step) > 0
    if np.mean((step > 0) == worse_high) < 0.7:
        return None
    return (LOW if worse_high else HIGH), f"{night} is {'above' if worse_high else 'below'} {day}"
