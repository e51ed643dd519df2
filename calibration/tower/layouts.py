"""Which network a daily tower file comes from, and which of its columns to use for NEP.

A network is known by the file's name, or by the whole set of its columns: in their own spelling, or in any case where
only one network has such names. `vUT` (JapanFlux) and `VUT` (ONEFlux) differ in one letter's case alone, so a file of
capitals with nothing but such names stays open, and the user is asked. What a network says of its quality flags counts
only where the network is known (quality.py).
"""

import re
from dataclasses import dataclass

import numpy as np

from calibration.common.command_line import UserError, notice
from calibration.tower.file import TowerFile
from calibration.tower.quality import HIGH, LOW, flag_column, qc_direction

# Names that only one network has: in its own spelling, and in any case.
JAPAN_SPELLING = re.compile(r"(NEE|GPP|RECO|LE|H)(_NT|_DT|_F)?_vUT(_|$)")
JAPAN_ANY_CASE = re.compile(r"NEE_VUT(_QC)?$", re.IGNORECASE)
ONEFLUX_SPELLING = re.compile(r"(NEE|GPP|RECO)(_NT|_DT)?_(VUT|CUT)_(REF|MEAN|USTAR50|SE|\d\d)(_|$)")
ONEFLUX_ANY_CASE = re.compile(
    r"(NEE|GPP|RECO)(_NT|_DT)?_(VUT_(REF|MEAN)|CUT_(REF|MEAN|USTAR50|\d\d))(_|$)", re.IGNORECASE
)
ONEFLUX_ONLY = re.compile(r".*_CUT_|.*_JOINTUNC$|(TA|SW_IN|LW_IN|VPD|PA|P|WS)_ERA$", re.IGNORECASE)
ONEFLUX_WEATHER = re.compile(r"(TA|SW_IN|VPD|PA|WS|P)_ERA$", re.IGNORECASE)
EITHER_NAMES = re.compile(r"(NEE|GPP|RECO)(_NT|_DT)?_VUT_(USTAR50|\d\d)(_|$)", re.IGNORECASE)
OZFLUX = re.compile(r"(NEE|GPP|ER)_(SOLO|LT|LL|LASSLOP)$|.*_QCFLAG$|FSD$|FLD$|FCO2$", re.IGNORECASE)
FILE_NAMES = (
    (re.compile(r"JAPAN_?FLUX", re.IGNORECASE), "japanflux"),
    (re.compile(r"^AMF_", re.IGNORECASE), "ameriflux"),
    (re.compile(r"^ICOS|_BETA-\d|WARM_?WINTER|DROUGHT2018", re.IGNORECASE), "icos"),
    (re.compile(r"FLUXNET2015", re.IGNORECASE), "fluxnet2015"),
    (re.compile(r"OZ_?FLUX|TERN.*_L[3-6]\b|_L6[_.]", re.IGNORECASE), "ozflux"),
    (re.compile(r"ASIA_?FLUX|^(FxMt|Gf[A-Z][a-z])_[A-Za-z0-9-]{3,7}_\d{4}", re.IGNORECASE), "asiaflux"),
)
# Eddy fluxes as measured, half-hourly units by the networks' own definition, and other things that are no daily NEE.
MICROMOL_NAMES = re.compile(r"(FC|FCO2|CO2_FLUX|NEE_PI_UMOL)(_\d_\d_\d|_F)?$|.*UMOL.*", re.IGNORECASE)
OTHER_FLUX_UNIT = re.compile(r"co2|mol|\bmg|\bkg|\bt\b|ha-1|/ha|s-1|/s\b|yr|year", re.IGNORECASE)
NOT_A_DAILY_NEE = re.compile(
    r".*_(NIGHT|DAY)(_SD|_SE|_RANDUNC|_JOINTUNC)?$|.*_(RANDUNC|JOINTUNC|SE|SD|QC|QCFLAG|QF|FLAG|UNC)$", re.IGNORECASE
)


@dataclass(frozen=True)
class Layout:
    """A network's daily file: preferred NEE columns in order, and which end of its QC is best."""

    name: str
    title: str
    nee: tuple[str, ...]
    qc_best: str | None


_ONEFLUX_COLUMNS = ("NEE_VUT_REF", "NEE_CUT_REF", "NEE_VUT_USTAR50", "NEE_CUT_USTAR50", "NEE_VUT_MEAN", "NEE_VUT_50")
_JAPAN_COLUMNS = ("NEE_vUT", "NEE_vUT_REF", "NEE_vUT_USTAR50", "NEE_vUT_50", "NEE_vUT_MEAN", "NEE_PI_F", "NEE_PI")
LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("japanflux", "JapanFlux2024 daily", _JAPAN_COLUMNS, LOW),
        Layout("fluxnet2015", "FLUXNET2015 (ONEFlux) daily", _ONEFLUX_COLUMNS, HIGH),
        Layout("fluxnet", "ONEFlux daily", _ONEFLUX_COLUMNS, HIGH),
        Layout("icos", "ICOS (ONEFlux) daily", _ONEFLUX_COLUMNS, HIGH),
        Layout("ameriflux", "AmeriFlux FLUXNET (ONEFlux) daily", _ONEFLUX_COLUMNS, HIGH),
        # Flags of OzFlux are reasons (0 measured); AsiaFlux leaves them to each site, so they must prove themselves.
        Layout("ozflux", "OzFlux daily", ("NEE_SOLO", "NEE_LT", "NEE_LL", "NEE"), LOW),
        Layout("asiaflux", "AsiaFlux daily", ("NEE_F", "NEE_f", "NEE"), None),
        Layout("other", "unknown layout", ("NEE_PI_F", "NEE_PI"), None),
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
    """The network of a file, or 'other' where neither its name nor its columns tell beyond doubt.

    A file with columns of two networks, or of another one than its name says, is an error, unless the NEE column is
    given and belongs to one of them.
    """
    by_name = next((name for pattern, name in FILE_NAMES if pattern.search(tower.path.name)), None)
    japan, oneflux = _families(tower.columns)
    if japan and oneflux and nee is not None:
        japan, oneflux = _families([tower.find(nee) or nee])
    if japan and oneflux:
        raise UserError(
            f"{tower.path}: has columns of both JapanFlux (such as NEE_vUT) and ONEFlux (such as NEE_VUT_REF); "
            "say which to use with --layout japanflux or --layout fluxnet2015"
        )
    family = {"japanflux": "japanflux", "ozflux": "ozflux", "asiaflux": "asiaflux", None: None}.get(by_name, "oneflux")
    only_oneflux = any(ONEFLUX_ONLY.match(name) and not ONEFLUX_WEATHER.match(name) for name in tower.columns)
    if (family == "japanflux" and oneflux and only_oneflux) or (family == "oneflux" and japan):
        raise UserError(
            f"{tower.path}: is {LAYOUTS[by_name].title} by the file's name, but its columns are those of "
            f"{'ONEFlux' if oneflux else 'JapanFlux'}; say which with --layout"
        )
    if by_name == "japanflux" or (japan and family is None):
        return LAYOUTS["japanflux"]
    if family == "oneflux" and (oneflux or any(EITHER_NAMES.match(name) for name in tower.columns)):
        return LAYOUTS[by_name]
    if oneflux:
        return LAYOUTS["fluxnet2015"]
    if family in ("ozflux", "asiaflux"):
        return LAYOUTS[by_name]
    if sum(OZFLUX.match(name) is not None for name in tower.columns) >= 2:
        return LAYOUTS["ozflux"]
    if family == "oneflux":
        return LAYOUTS[by_name]
    if any(ONEFLUX_WEATHER.match(name) for name in tower.columns) and _mostly_good_shares(tower):
        return LAYOUTS["fluxnet"]
    return LAYOUTS["other"]


def _families(columns: list[str]) -> tuple[bool, bool]:
    """Whether there are names that only JapanFlux, and that only ONEFlux has."""
    japan = any(JAPAN_SPELLING.match(name) for name in columns)
    folded = not japan and len({name for name in columns if name not in (name.lower(), name.upper())}) == 0
    oneflux = any(ONEFLUX_ANY_CASE.match(name) and not JAPAN_SPELLING.match(name) for name in columns)
    # "NEE_VUT_USTAR50" as such is ONEFlux's spelling, but also JapanFlux's in capitals: it needs company.
    oneflux = oneflux or (
        any(ONEFLUX_SPELLING.match(name) for name in columns) and any(ONEFLUX_ONLY.match(name) for name in columns)
    )
    japan = japan or (folded and any(JAPAN_ANY_CASE.match(name) for name in columns))
    return japan, oneflux


def _mostly_good_shares(tower: TowerFile) -> bool:
    """Whether the flags of a file of weather are shares of good data: sensors of temperature and light seldom fail."""
    flags = [tower.find(f"{name}_QC") for name in ("TA_F_MDS", "SW_IN_F_MDS", "TA_F", "SW_IN_F")]
    values = [tower.numbers(name) for name in flags if name is not None]
    found = [column[~np.isnan(column)] for column in values]
    return bool(found) and all(len(column) and column.max() <= 1 and np.median(column) > 0.5 for column in found)


def variant(tower: TowerFile) -> str:
    """' FULLSET' or ' SUBSET' for a ONEFlux file (the full set has percentiles of the u* threshold), else ''."""
    if any(re.match(r"NEE_(VUT|CUT)_(MEAN|USTAR50|05|95)$", name) for name in tower.columns):
        return " FULLSET"
    return " SUBSET" if any(re.match(r"NEE_(VUT|CUT)_(REF|\d\d)(_QC)?$", name) for name in tower.columns) else ""


def choose_columns(
    tower: TowerFile,
    layout_name: str = "auto",
    nee: str | None = None,
    qc: str | None = None,
    qc_best: str | None = None,
) -> NepColumns:
    """Columns for NEP: the user's where given (in any case), else the layout's first that holds values.

    layout_name: 'auto' or a key of LAYOUTS; nee: column, None = the layout's; qc: column, '' = none, None = the NEE
    column's own flag; qc_best: 'low', 'high' or None = proven. UserError when a column is absent or is no daily NEE, or
    when the direction of the flag is open or contradicts its values.
    """
    layout = recognise(tower, nee) if layout_name == "auto" else LAYOUTS[layout_name]
    if nee is None:
        nee = _first_with_values(tower, layout)
    elif tower.find(nee) is None:
        raise UserError(f"{tower.path}: has no column {nee}; {tower.similar(nee)}; choose with --nee-column")
    else:
        nee = tower.find(nee)
    _refuse_other_quantity(tower, nee)
    if qc is None:
        qc = flag_column(tower, nee)
    elif qc == "":
        qc = None
    elif tower.find(qc) is None:
        raise UserError(
            f"{tower.path}: has no column {qc}; {tower.similar(qc)}; choose with --nee-qc-column, or '' for no QC"
        )
    else:
        qc = tower.find(qc)
    direction = None
    if qc is not None:
        network = _network_direction(tower, nee, qc, layout, layout_name != "auto")
        direction = qc_direction(tower, qc, network, qc_best, nee)
    gpp, reco = _partition(tower, nee)
    return NepColumns(layout, nee, qc, direction, gpp, reco, tower.find(f"{nee}_RANDUNC"))


def _network_direction(tower: TowerFile, nee: str, qc: str, layout: Layout, told: bool) -> str | None:
    """What the network says about a flag: of its own NEE column the layout, of another one that column's family."""
    if told or qc == flag_column(tower, nee):
        return layout.qc_best
    japan, oneflux = _families([qc])
    return (LOW if japan else HIGH) if japan != oneflux else None


def _first_with_values(tower: TowerFile, layout: Layout) -> str:
    """The layout's first NEE column that holds values; a named one that is empty is said. UserError without any."""
    present = [column for column in map(tower.find, layout.nee) if column is not None]
    if layout.name == "japanflux" and not any("VUT" in name.upper() for name in present):
        present = [name for name in tower.columns if re.match(r"NEE_vUT_\w+$", name, re.IGNORECASE)
                   and not NOT_A_DAILY_NEE.match(name)][:1] + present  # fmt: skip
    if not present:
        wanted = "no NEE column of a known layout" if layout.name == "other" else f"none of {', '.join(layout.nee)}"
        if any(map(EITHER_NAMES.match, tower.columns)):
            raise UserError(
                f"{tower.path}: has names that ONEFlux writes with VUT and JapanFlux with vUT "
                f"({tower.similar('NEE')}), and nothing that tells which; "
                "say it with --layout fluxnet2015 or --layout japanflux"
            )
        raise UserError(f"{tower.path}: has {wanted}; {tower.similar('NEE')}; name the column with --nee-column")
    filled = [name for name in present if not np.isnan(tower.numbers(name)).all()]
    if filled and filled[0] != present[0]:
        notice(f"{tower.path}: {present[0]} holds no value; {filled[0]} is used instead")
    return (filled or present)[0]


def _refuse_other_quantity(tower: TowerFile, nee: str) -> None:
    unit = tower.units.get(nee, "").lower().replace("µ", "u").replace("μ", "u")
    if "umol" in unit or MICROMOL_NAMES.match(nee):
        said = f"its unit is given as '{tower.units[nee]}'" if "umol" in unit else "by its name"
        raise UserError(
            f"{tower.path}: {nee} is a flux in umol m-2 s-1 ({said}), but daily sums in g C m-2 day-1 are needed "
            "(1 umol CO2 m-2 s-1 over a day = 1.0368 g C m-2): give the gap-filled daily product"
        )
    other = OTHER_FLUX_UNIT.search(unit)
    if other:
        raise UserError(
            f"{tower.path}: {nee} is given in '{tower.units[nee]}', but daily sums in g C m-2 day-1 are needed; "
            "convert it (g CO2 x 12/44, mol x 12, kg ha-1 x 0.1, mg x 0.001 are g C m-2)"
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


def _partition(tower: TowerFile, nee: str) -> tuple[str | None, str | None]:
    """GPP and RECO columns that belong to an NEE column: same u* method, night-time before daytime partitioning.

    NT and DT can each be missing as a whole, so a column counts only if it holds values; both come from one method
    when one has both.
    """
    family = re.sub(r"^NEE", "", nee, flags=re.IGNORECASE)  # "_VUT_REF", "_SOLO", ""
    release = ("RECO", "ER", "RE", "TER")
    pairs = [(f"GPP{method}{family}", f"{name}{method}{family}") for method in ("_NT", "_DT", "") for name in release]

    def filled(name: str) -> str | None:
        """The column, if it is there once and holds a number."""
        column = tower.find(name)
        usable = column is not None and tower.count(column) == 1 and not np.isnan(tower.numbers(column)).all()
        return column if usable else None

    for gpp, reco in pairs:
        if filled(gpp) and filled(reco):
            return filled(gpp), filled(reco)
    gpp = next((filled(name) for name, _ in pairs if filled(name)), None)
    reco = next((filled(name) for _, name in pairs if filled(name)), None)
    return gpp, reco
