"""The sections of a tower's prepared observations: NEP (prepare_observation_nep.py), weather (..._meteorology.py), and
the windows of both (build_observation_windows.py)."""

from pathlib import Path
from typing import Any

from calibration.common.units import DAYS_PER_YEAR, FLUX_UNIT
from calibration.reports import content, reading
from calibration.reports.content import Section, Table, table_of
from calibration.tower.window_building import ABOUT_CO2, CO2

CHOICES = "_choices.json"  # what either script leaves beside its output
FACTS = "_facts.json"  # and the windows' script
NEP_SCRIPT, WEATHER_SCRIPT = "prepare_observation_nep.py", "prepare_observation_meteorology.py"
WINDOWS_SCRIPT = "build_observation_windows.py"
OFTEN = 0.05  # share of days with weather beyond the emulator's above which windows are read with care
FEW, LONG_GAP = 0.5, 60  # share of valid days below, days without one above which a record is read with care
FAR_FROM_REST = 1.5  # Mg C ha-1 year-1; forests at rest in VISIT have 0.3 to 0.6 (docs/results.md)
COUNTS = {"days": "days", "valid_days": "valid", "share_kept": "share valid", "longest_gap_days": "longest gap (days)",
          "mean_nep_mg_ha": "mean NEP", "sd_nep_mg_ha": "sd"}  # fmt: skip
NEP_FIGURE = (
    "NEP of every day with its mask, the quality flag where the file has one, and the share of valid days by month. "
    "Look for months without valid days, and for steps in level or scatter: a changed instrument, or a changed unit."
)
WEATHER_FIGURE = (
    "Tower and ERA5 over the year. Look for a constant distance in shortwave or wind (height, unit) and for months in "
    "which the correlation falls: ERA5's rain is often another's."
)


def sections(directory: Path, title: str | None = None) -> list[Section]:
    """One section for every prepared record in `directory`. UserError where one is half there or of another version."""
    found = []
    for path in sorted(directory.glob(f"*{CHOICES}"), key=lambda path: ("met" in path.name, path.name)):
        choices = reading.content(path, ("input",), f"{NEP_SCRIPT} or {WEATHER_SCRIPT}")
        stem = path.name.removesuffix(CHOICES)
        kind = nep_section if "valid_days" in choices else weather_section
        found.append(kind(directory, stem, choices, title))
    return found


def windows_sections(directory: Path, title: str | None = None) -> list[Section]:
    """One section for every file of windows in `directory`. UserError where one is half there or of another version."""
    return [windows_section(path, title) for path in sorted(directory.glob(f"*{FACTS}"))]


def nep_section(directory: Path, stem: str, choices: dict[str, Any], title: str | None = None) -> Section:
    """How many days of NEP there are, of what quality, and what to expect of them."""
    columns = ("days", "valid_days", "share_kept", "longest_gap_days", "mean_nep_mg_ha")
    years = reading.table(directory / f"{stem}_by_year.csv", ("year", *columns), NEP_SCRIPT)
    months = reading.table(directory / f"{stem}_by_month.csv", ("month", *columns), NEP_SCRIPT)
    whole = years[years["year"].astype(str) == "all"].iloc[0]
    result = Section(title or f"Tower NEP: {stem}", "", content.GOOD)
    few = whole.share_kept < FEW or whole.longest_gap_days > LONG_GAP
    word = "NO VALID DAY" if not whole.valid_days else "READ WITH CARE" if few else "USABLE"
    if word != "USABLE":
        result.tone = content.CAREFUL if whole.valid_days else content.BAD
    result.verdict = (
        f"{word}: {int(whole.valid_days)} of {int(whole.days)} days are valid ({100 * whole.share_kept:.0f} percent), "
        f"the longest gap is {int(whole.longest_gap_days)} days."
    )
    flag = choices.get("nee_qc_column")
    kept = f"kept by {flag} ({choices.get('qc_best')} is best, limit {choices.get('qc_threshold')})"
    result.meaning.append(f"NEE from {choices.get('nee_column')}, {kept if flag else 'without a quality flag'}.")
    if whole.valid_days:
        result.meaning.append(sink_sentence(float(whole.mean_nep_mg_ha)))
    result.blocks += reading.pictures(directory, {stem: NEP_FIGURE})
    for name, table in (("year", years), ("month", months)):
        marked = frozenset(i for i, share in enumerate(table["share_kept"]) if share < FEW)
        present = {column: header for column, header in COUNTS.items() if column in table}
        caption = f"Valid days by {name}; NEP in {FLUX_UNIT} (highlighted: less than half of the days valid)."
        result.blocks.append(table_of(table, caption, {name: name, **present}, marked))
    result.made = [*reading.made_by(directory, choices, {"tower file": choices["input"]}, of=f"{stem}.")]
    return result


def sink_sentence(mean: float) -> str:
    """The mean of the valid days as a year's sum, beside what the model can do at rest; mean in Mg C ha-1 day-1."""
    annual = mean * DAYS_PER_YEAR
    said = (
        f"The mean of the valid days is {mean:+.4f} {FLUX_UNIT}, times {DAYS_PER_YEAR:g} {annual:+.1f} Mg C ha-1 "
        "year-1: of these years alone, gaps unfilled, and so not comparable with means over many years."
    )
    if abs(annual) > FAR_FROM_REST:
        said += (
            " Forests at rest in VISIT have 0.3 to 0.6 at Lambir Hills: expect a conflict, and docs/cookbook.md, task "
            "9, for what to try."
        )
    return said


def weather_section(directory: Path, stem: str, choices: dict[str, Any], title: str | None = None) -> Section:
    """Which variables are the tower's own, and how they compare with ERA5."""
    days, notes = choices.get("tower_days") or {}, choices.get("columns") or {}
    own = [name for name, count in days.items() if count]
    result = Section(title or f"Tower weather: {stem}", "", content.GOOD if own else content.CAREFUL)
    result.verdict = f"{len(own)} OF {len(days)} VARIABLES ARE THE TOWER'S OWN, at least on some days."
    filled = choices.get("fill") == "era5"
    result.meaning.append(
        f"ERA5 fills the rest (adjusted: {choices.get('adjust')}), so that the file can drive the emulator."
        if filled else "Nothing was filled: windows need --fill era5."
    )  # fmt: skip
    rows = [[name, count, notes.get(name, "")] for name, count in days.items()]
    result.blocks.append(Table(["variable", "days of the tower", "where it comes from"], rows, "The nine variables."))
    table = directory / f"{stem}_comparison.csv"
    if table.is_file():
        names = {"variable": "variable", "unit": "unit", "days": "days", "mean_tower": "tower", "mean_era5": "ERA5",
                 "bias": "tower - ERA5", "correlation": "correlation"}  # fmt: skip
        compared = reading.table(table, ("month", *names), WEATHER_SCRIPT)
        whole = compared[compared["month"].astype(str) == "all"].reset_index(drop=True)
        result.blocks.append(table_of(whole, "Tower beside ERA5 on the days that both have.", names))
    result.blocks += reading.pictures(directory, {f"{stem}_comparison": WEATHER_FIGURE})
    known = {key: value for key, value in choices.items() if key not in ("columns", "tower_days", "lacking")}
    inputs = {"tower file": choices["input"], "ERA5": choices.get("era5")}
    result.made = reading.made_by(directory, known, inputs, of=f"{stem}.")
    return result


def windows_section(path: Path, title: str | None = None) -> Section:
    """How many days can be fitted in how many windows, and whether the emulator knows their weather."""
    keys = ("windows", "window_days", "context_days", "observed_days", "first_start", "last_start", "first_observed",
            "last_observed", "carried", "trained_range")  # fmt: skip
    choices, stem, directory = reading.content(path, keys, WINDOWS_SCRIPT), path.name.removesuffix(FACTS), path.parent
    columns = ("variable", "unit", "lowest", "highest", "trained_low", "trained_high", "days", "days_outside")
    weather = reading.table(directory / f"{stem}_weather.csv", columns, WINDOWS_SCRIPT)
    months = reading.table(
        directory / f"{stem}_observed.csv", ("month", "days", "valid_days", "mean_nep_mg_ha", "windows"), WINDOWS_SCRIPT
    )
    often = weather[(weather["days_outside"] > OFTEN * weather["days"]) & (weather["variable"] != CO2)]
    observed = int(choices["observed_days"])
    tone = content.BAD if not observed else content.CAREFUL if len(often) else content.GOOD
    word = {content.BAD: "NOTHING TO FIT", content.CAREFUL: "READ WITH CARE", content.GOOD: "READY TO INVERT"}[tone]
    result = Section(title or f"Windows: {stem}", "", tone)
    result.verdict = (
        f"{word}: {choices['windows']} windows of {choices['window_days']} days hold {observed} observed days"
        + (f", {choices['first_observed']} to {choices['last_observed']}." if observed else ".")
    )
    result.meaning.append(
        f"They start {choices['first_start']} to {choices['last_start']}; each needs the weather of the "
        f"{choices['context_days']} days before."
    )
    if len(often):
        result.meaning.append(
            f"{', '.join(map(str, often['variable']))}: on more than {100 * OFTEN:.0f} percent of the days outside "
            f"{choices['trained_range']}; the emulator extrapolates there."
        )
    outside = int(weather["days_outside"][weather["variable"] == CO2].sum())
    if outside:
        result.meaning.append(
            f"CO2 lies outside the trained range on {outside} of {int(weather['days'].max())} days. {ABOUT_CO2}"
        )
    if choices["carried"]:
        result.meaning.append(f"Also carried: {', '.join(map(str, choices['carried']))}.")
    names = {"variable": "variable", "unit": "unit", "lowest": "lowest", "highest": "highest",
             "trained_low": "trained from", "trained_high": "to", "days_outside": "days outside"}  # fmt: skip
    marked = frozenset(i for i, count in enumerate(weather["days_outside"]) if count)
    caption = f"The weather of the {int(weather['days'].max())} days that the windows use (highlighted: days outside)."
    result.blocks.append(table_of(weather, caption, names, marked))
    names = {"month": "month", "days": "days in windows", "valid_days": "observed", "mean_nep_mg_ha": "mean NEP",
             "windows": "windows that start"}  # fmt: skip
    marked = frozenset(i for i, (n, valid) in enumerate(zip(months["days"], months["valid_days"], strict=True))
                       if valid < FEW * n)  # fmt: skip
    caption = f"Observed days by month; NEP in {FLUX_UNIT} (highlighted: less than half of the days observed)."
    result.blocks.append(table_of(months, caption, names, marked))
    result.made = reading.made_by(
        directory, choices, {"weather": choices["input"], "observations": choices.get("observations"),
                             "scaler": choices.get("scaler")}, of=f"{stem}.",
    )  # fmt: skip
    return result
