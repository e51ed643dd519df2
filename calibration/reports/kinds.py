"""Which result a folder holds, and the sections of a folder of several results (a demo, a project)."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from calibration.common.command_line import UserError, write_text
from calibration.common.provenance import STEPS, records_of, script_of
from calibration.emulator.trained import CONFIG
from calibration.reports import emulator, ensemble, exploration, inversion, reading, recovery, tower
from calibration.reports.content import Section, Table, table_of
from calibration.reports.page import render

Reader = Callable[[Path, str | None], list[Section]]
# The file that tells a kind, how it is read, and what else would be there if it were half a result.
KINDS: dict[str, tuple[str, Reader]] = {
    "ensemble": (ensemble.SUMMARY, lambda path, title: [ensemble.section(path, title)]),
    "trained emulator": (CONFIG, lambda path, title: [emulator.section(path, title)]),
    "tower observations": (f"*{tower.CHOICES}", tower.sections),
    "observation windows": (f"*{tower.FACTS}", tower.windows_sections),
    "sensitivity analysis": (exploration.FACTS, lambda path, title: [exploration.section(path, title)]),
    "inversion": (inversion.SNAPSHOT, lambda path, title: [inversion.section(path, title)]),
    "recovery study": (recovery.STUDY, lambda path, title: [recovery.study_section(path, title)]),
    "recovery of a known run": (f"*{recovery.CASE}", recovery.case_sections),
}
HALVES = {
    "inversion_summary.txt": inversion.SNAPSHOT, "nep_comparison.csv": inversion.SNAPSHOT,
    "checkpoint_best.pt": CONFIG, "experiment_results.csv": ensemble.SUMMARY, "study_settings.json": recovery.STUDY,
    "sensitivity_summary.txt": exploration.FACTS,
}  # fmt: skip
DEPTH = 3  # folders below the given one that are looked into
NAMES = {"data": "The ensemble", "artifacts": "The emulator"}
AGAIN = (
    "Commands run in the repository, a whole demo by make demo. A script with --reproduce FOLDER runs again what made "
    "that folder, and compares the numbers; another number of threads changes their last digits."
)
OWN_TITLES = ("tower observations", "observation windows")  # kinds whose sections name themselves


def kinds_of(directory: Path) -> list[str]:
    """The kinds of result in this very folder."""
    return [kind for kind, (mark, _) in KINDS.items() if any(directory.glob(mark))]


def sections_of(directory: Path) -> list[Section]:
    """The sections of what `directory` holds, or of the results in folders below it: the answer(), then the path.

    UserError when it is no folder, holds no result or half of one.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder; give the folder in which a script left its results")
    found = [(directory, kind) for kind in kinds_of(directory)]
    if not found:
        half = next((name for name in HALVES if (directory / name).is_file()), None)
        if half is not None:
            raise UserError(
                f"{directory}: half a result: {half} is there, {HALVES[half]} is not; run the script again to its end"
            )
        below = sorted(path for path in directory.rglob("*") if path.is_dir() and _near(path, directory))
        found = [(path, kind) for path in below for kind in kinds_of(path)]
    if not found:
        raise UserError(
            f"{directory}: holds no result that a report could show; expected one of: "
            + "; ".join(f"{kind} ({mark})" for kind, (mark, _) in KINDS.items())
        )
    order = list(KINDS)
    several = len(found) > 1
    sections: list[Section] = []
    ordered = sorted(found, key=lambda item: (order.index(item[1]), str(item[0])))
    first = answer(ordered) if several else None
    for path, kind in sorted(ordered, key=lambda item: item != first):
        name = NAMES.get(path.name, f"{kind.capitalize()}: {path.name}") if several else None
        name = None if kind in OWN_TITLES else name
        sections += KINDS[kind][1](path, name)
    return sections


def answer(found: Sequence[tuple[Path, str]]) -> tuple[Path, str] | None:
    """Of results (folder, kind) the inversion that was fitted to the most observations; None without an inversion."""
    inversions = [item for item in found if item[1] == "inversion"]

    def observations(item: tuple[Path, str]) -> int:
        """As its snapshot says; 0 where it does not, or where its parameters were given."""
        metadata = reading.content(item[0] / inversion.SNAPSHOT, ("metadata",), inversion.SCRIPT)["metadata"] or {}
        count = metadata.get("valid_observations")
        return count if isinstance(count, int) and "judged_on" not in metadata else 0

    return max(inversions, key=observations, default=None)


def steps_of(directory: Path) -> Table | None:
    """The steps behind the results in and below `directory`, in their order, with commands; None: none known.

    From steps.csv where a whole path was run as one (the demo), else from what scripts recorded of themselves.
    """
    folders = [directory, *(path for path in directory.rglob("*") if path.is_dir() and _near(path, directory))]
    near = [path for folder in folders for path in records_of(folder)]
    found = [(path, reading.content(path, ("finished", "seconds"), path.name)) for path in near]
    path = directory / STEPS
    if path.is_file():
        steps = reading.table(path, ("step", "script", "seconds", "seed"), "extras/run_demo.py")
        steps = steps if "command" in steps else steps.assign(command="")
    else:
        found.sort(key=lambda item: (str(item[1]["finished"]), str(item[0])))
        steps = pd.DataFrame({
            "step": [f"results in {path.parent.relative_to(directory)}" for path, _ in found],
            "script": [f"{script_of(path)}.py" for path, _ in found],
            "seconds": [record["seconds"] for _, record in found], "seed": [record.get("seed") for _, record in found],
            "command": [record.get("command", "") for _, record in found],
        })  # fmt: skip
    if steps.empty:
        return None
    try:
        steps = steps.astype({"seconds": float, "seed": "Int64"})
    except (TypeError, ValueError) as error:
        raise UserError(f"{directory}: seconds or seeds of the steps are no numbers ({error}); run again") from None
    names = {"script": "script", "step": "step", "seconds": "seconds", "seed": "seed",
             "command": "command"}  # fmt: skip
    caption = (
        f"{len(steps)} steps in their order, {steps['seconds'].sum():.0f} seconds in all. A dash: no seed was given or "
        f"recorded. {AGAIN}{_made_with([record for _, record in found])}"
    )
    return table_of(steps, caption, names)


def _made_with(records: list[dict]) -> str:
    """Versions, commits and threads that the records hold; '' where they hold none, as earlier ones."""
    tools = {f"version {tool.get('version')}" + (f", commit {tool['commit']}" if tool.get("commit") else "")
             for tool in (record.get("tool") for record in records) if tool}  # fmt: skip
    threads = {str(record["threads"]) for record in records if record.get("threads")}
    said = f" Made with {' and '.join(sorted(tools))} of these scripts." if tools else ""
    return said + (f" Threads of torch: {', '.join(sorted(threads))}." if threads else "")


def _near(path: Path, directory: Path) -> bool:
    """Whether a folder is looked into: not too deep, not hidden, not the runs that a refinement keeps."""
    parts = path.relative_to(directory).parts
    return len(parts) <= DEPTH and not any(part.startswith(".") or part == "refinement" for part in parts)


def report_on(directory: str | Path) -> Path:
    """Write `directory`/report.html on what is in it, as make_report.py does; returns its path."""
    directory = Path(directory)
    path = directory / "report.html"
    write_text(path, render(f"Report: {directory.resolve().name}", sections_of(directory))[0])
    return path
