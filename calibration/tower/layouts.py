"""Which network a daily tower file comes from, which of its columns to use, and which way its quality flag runs.

The networks differ in one dangerous point. Daily QC of ONEFlux products (FLUXNET2015, ICOS, AmeriFlux FLUXNET) is the
share of measured or good half-hours: 1 is best. Daily QC of JapanFlux is a mean of half-hourly flags: 0 is best, and
it may exceed 1. The direction is taken from the column's name and must agree with its values; otherwise it is an error.
Sources: Pastorello et al. 2020 (Scientific Data 7, 225); JapanFlux2024 (Earth System Science Data 17, 3807, 2025).
"""

import re
from dataclasses import dataclass

import numpy as np

from calibration.common.command_line import UserError
from calibration.tower.file import TowerFile

LOW, HIGH = "low", "high"  # which value of a quality flag is best
ONEFLUX_NEE = re.compile(r"NEE_(VUT|CUT)_(REF|MEAN|USTAR50|\d\d)(_QC)?$")
ONEFLUX_WEATHER = re.compile(r"(TA|SW_IN|VPD|LW_IN)_F_MDS(_QC)?$|(TA|SW_IN|VPD|PA|WS|P)_ERA$")
JAPANFLUX_NEE = re.compile(r"NEE_(vUT|PI|PI_F)(_QC)?$")
# Eddy fluxes as measured, half-hourly units by the networks' own definition, and other things that are no daily NEE.
MICROMOL_NAMES = re.compile(r"(FC|FCO2|CO2_FLUX|NEE_PI_UMOL)(_\d_\d_\d|_F)?$|.*UMOL.*", re.IGNORECASE)
NOT_A_DAILY_NEE = re.compile(r".*_(NIGHT|DAY)(_SD|_SE|_RANDUNC|_JOINTUNC)?$|.*_(RANDUNC|JOINTUNC|SE|SD|QC|UNC)$")


@dataclass(frozen=True)
class Layout:
    """A network's daily file: preferred NEE columns in order, and which end of its QC is best."""

    name: str
    title: str
    nee: tuple[str, ...]
    qc_best: str | None


_ONEFLUX_COLUMNS = ("NEE_VUT_REF", "NEE_CUT_REF", "NEE_VUT_USTAR50", "NEE_CUT_USTAR50")
LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("japanflux", "JapanFlux2024 daily", ("NEE_vUT", "NEE_PI_F", "NEE_PI"), LOW),
        Layout("fluxnet2015", "FLUXNET2015 (ONEFlux) daily", _ONEFLUX_COLUMNS, HIGH),
        Layout("fluxnet", "ONEFlux daily", _ONEFLUX_COLUMNS, HIGH),
        Layout("icos", "ICOS (ONEFlux) daily", _ONEFLUX_COLUMNS, HIGH),
        Layout("ameriflux", "AmeriFlux FLUXNET (ONEFlux) daily", _ONEFLUX_COLUMNS, HIGH),
        Layout("other", "unknown layout", (), None),
    )
}


@dataclass(frozen=True)
class NepColumns:
    """Columns chosen for NEP, None where the file has none; qc_best is 'low' or 'high' (None without QC)."""

    layout: Layout
    nee: str
    qc: str | None
    qc_best: str | None
    gpp: str | None
    reco: str | None
    uncertainty: str | None


def recognise(tower: TowerFile, nee: str | None = None) -> Layout:
    """The layout of a file from its column names, and from the file's name among the ONEFlux networks.

    A file with columns of two networks is an error, unless the NEE column is given and belongs to one of them.
    """
    oneflux = any(ONEFLUX_NEE.match(name) for name in tower.columns)
    japanflux = any(JAPANFLUX_NEE.match(name) for name in tower.columns)
    if not japanflux:  # a file of weather alone is known by the weather columns that only ONEFlux makes
        oneflux = oneflux or any(ONEFLUX_WEATHER.match(name) for name in tower.columns)
    if oneflux and japanflux and nee is not None:
        oneflux, japanflux = bool(ONEFLUX_NEE.match(nee)), bool(JAPANFLUX_NEE.match(nee))
    elif oneflux and japanflux:
        raise UserError(
            f"{tower.path}: has columns of both JapanFlux (such as NEE_vUT) and ONEFlux (such as NEE_VUT_REF); "
            "say which to use with --layout japanflux or --layout fluxnet2015"
        )
    if japanflux:
        return LAYOUTS["japanflux"]
    if oneflux:
        name = tower.path.name.upper()
        if name.startswith("AMF_"):
            return LAYOUTS["ameriflux"]
        if name.startswith("ICOS") or re.search(r"_BETA-\d|WARMWINTER", name):
            return LAYOUTS["icos"]
        return LAYOUTS["fluxnet2015"]
    return LAYOUTS["other"]


def variant(tower: TowerFile) -> str:
    """' FULLSET' or ' SUBSET' for a ONEFlux file (the full set has percentiles of the u* threshold), else ''."""
    if any(re.match(r"NEE_(VUT|CUT)_(MEAN|USTAR50|05|95)$", name) for name in tower.columns):
        return " FULLSET"
    return " SUBSET" if any(ONEFLUX_NEE.match(name) for name in tower.columns) else ""


def choose_columns(
    tower: TowerFile,
    layout_name: str = "auto",
    nee: str | None = None,
    qc: str | None = None,
    qc_best: str | None = None,
) -> NepColumns:
    """Columns for NEP: the user's where given, else the layout's.

    layout_name: 'auto' or a key of LAYOUTS; nee: column, None = the layout's first present; qc: column, '' = none,
    None = the NEE column's own flag; qc_best: 'low', 'high' or None = by name and values. UserError when a column is
    absent or is no daily NEE, or when the direction of the flag is open or contradicts its values.
    """
    layout = recognise(tower, nee) if layout_name == "auto" else LAYOUTS[layout_name]
    if nee is None:
        nee = next((name for name in layout.nee if name in tower), None)
    if nee is None:
        wanted = f"none of {', '.join(layout.nee)}" if layout.nee else "no NEE column of a known layout"
        raise UserError(f"{tower.path}: has {wanted}; {tower.similar('NEE')}; name the column with --nee-column")
    if nee not in tower:
        raise UserError(f"{tower.path}: has no column {nee}; {tower.similar(nee)}; choose with --nee-column")
    _refuse_other_quantity(tower, nee)
    if qc is None:
        qc = f"{nee}_QC" if f"{nee}_QC" in tower else None
    elif qc == "":
        qc = None
    elif qc not in tower:
        raise UserError(
            f"{tower.path}: has no column {qc}; {tower.similar(qc)}; choose with --nee-qc-column, or '' for no QC"
        )
    direction = None if qc is None else qc_direction(tower, qc, layout, qc_best)
    gpp, reco = _partition(tower, nee)
    uncertainty = next((name for name in (f"{nee}_RANDUNC",) if name in tower), None)
    return NepColumns(layout, nee, qc, direction, gpp, reco, uncertainty)


def _refuse_other_quantity(tower: TowerFile, nee: str) -> None:
    unit = tower.units.get(nee, "").lower().replace("µ", "u").replace("μ", "u")
    if "umol" in unit or MICROMOL_NAMES.match(nee):
        said = f"its unit is given as '{tower.units[nee]}'" if "umol" in unit else "by its name"
        raise UserError(
            f"{tower.path}: {nee} is a flux in umol m-2 s-1 ({said}), but daily sums in g C m-2 day-1 are needed "
            "(1 umol CO2 m-2 s-1 over a day = 1.0368 g C m-2): give the gap-filled daily product"
        )
    if NOT_A_DAILY_NEE.match(nee):
        raise UserError(
            f"{tower.path}: {nee} is no daily NEE (a part of the day, an uncertainty or a flag); "
            f"{tower.similar('NEE')}; choose with --nee-column"
        )
    if re.match(r"NEP(_|$)", nee, re.IGNORECASE):
        raise UserError(
            f"{tower.path}: {nee} is NEP (positive = uptake) by its name, but NEE (positive = release) is needed: "
            "change its sign and name, or choose another column with --nee-column"
        )


def qc_direction(tower: TowerFile, qc: str, layout: Layout, forced: str | None = None) -> str:
    """'low' or 'high': which end of the flag is best, by the column's name and checked against its values.

    A share of good data (high is best) cannot exceed 1; a mean of flags 0-3 (low is best) can. UserError when name and
    values disagree, or when neither decides.
    """
    values = tower.numbers(qc)
    values = values[~np.isnan(values)]
    if not len(values):
        raise UserError(f"{tower.path}: {qc} has no value at all; name another with --nee-qc-column, or '' for no QC")
    if forced is not None:
        return forced
    low, high = float(values.min()), float(values.max())
    choose = "say it with --qc-best low or --qc-best high, or give --nee-qc-column '' for no QC"
    if low < 0 or high > 3:
        raise UserError(
            f"{tower.path}: {qc} runs from {low:g} to {high:g}, but a daily flag is a share (0 to 1) or a mean of "
            f"flags (0 to 3), so which end is best is open; {choose}"
        )
    if ONEFLUX_NEE.match(qc):
        by_name = HIGH
    elif JAPANFLUX_NEE.match(qc):
        by_name = LOW
    elif qc.startswith("NEE_"):
        by_name = layout.qc_best
    else:
        by_name = None
    if by_name == HIGH and high > 1:
        raise UserError(
            f"{tower.path}: {qc} is a share of good data by its name (1 best), but reaches {high:g}, as only a mean of "
            f"flags (0 best) can; {choose}"
        )
    if by_name is not None:
        return by_name
    if high > 1:
        return LOW
    raise UserError(
        f"{tower.path}: {qc} runs from {low:g} to {high:g}, and neither its name nor its values tell whether 0 or 1 "
        f"is best; {choose}"
    )


def _partition(tower: TowerFile, nee: str) -> tuple[str | None, str | None]:
    """GPP and RECO columns that belong to an NEE column: same u* method, night-time before daytime partitioning.

    NT and DT can each be missing as a whole, so a column counts only if it holds values; both come from one method
    when one has both.
    """
    family = nee.removeprefix("NEE_")
    pairs = [(f"GPP_{method}{family}", f"RECO_{method}{family}") for method in ("NT_", "DT_", "")]

    def filled(name: str) -> bool:
        """Whether the column is there once and holds a number."""
        return tower.columns.count(name) == 1 and not np.isnan(tower.numbers(name)).all()

    for gpp, reco in pairs:
        if filled(gpp) and filled(reco):
            return gpp, reco
    gpp = next((name for name, _ in pairs if filled(name)), None)
    reco = next((name for _, name in pairs if filled(name)), None)
    return gpp, reco
