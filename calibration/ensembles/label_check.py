"""Do an ensemble's outputs follow from its labels, its weather and its site, and if not, what explains them?

A few runs are simulated again by the process model here: by ensembles/diagnosis.py; ensembles/label_search.py looks for
other labels, ensembles/variants.py for another version of VISIT. check_ensemble.py and train.py ask.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from calibration.common.command_line import UserError, notice, read_json, silent, warn, write_json
from calibration.common.parameters import catalogue
from calibration.common.sites import Site
from calibration.common.units import DYNAMIC_FEATURES, TARGETS
from calibration.ensembles.diagnosis import (
    Evidence,
    Hypothesis,
    daily_agreement,
    differences,
    simulated,
    site_constant,
    visible,
)
from calibration.ensembles.files import LOG, Ensemble, read_log
from calibration.ensembles.label_search import Search, search
from calibration.ensembles.labels import LabelMap, table_hash
from calibration.ensembles.variants import (
    NEP_DOUBT,
    VariantFit,
    compared,
    describe_variant,
    explain_by_variant,
    identical_runs,
)
from calibration.weather.daily import Weather, generate_weather, read_weather, weather_hash

RUNS = 8  # simulated again
SAME = 0.002  # misfit that rounding and a shorter spin-up may leave
NEP_SAME = 0.02  # Mg C ha-1 year-1 of annual NEP that they may leave
MODEL_ERROR = 0.03  # misfit that real VISIT may leave: a relabelling counts below it only if it explains nearly all
EXPLAINS = 0.5  # share of the misfit that an explanation must take away
PROVES = 0.2  # share that is left where a relabelling is beyond doubt
DAILY = 0.7  # correlation of daily GPP below which the fluxes come from other weather, whatever the parameters
CHECKED = "label_check.json"  # in the ensemble's folder: the result, kept until the content changes
VERSION = 2  # of its content: raise it when the check itself changes


@dataclass(frozen=True)
class LabelCheck:
    """What was found. verdict: agrees | other variant | wrong label | other site constants | other weather |
    identical runs | unexplained; lines: the reasons, for people.

    misfit, misfit_explained: 0 = identical, see diagnosis.misfits_by_run; annual_nep_difference: Mg C ha-1 year-1, here
    minus the files; suspect_columns: column, slot (None: nowhere), visible; without_effect: columns whose values
    change nothing.
    """

    verdict: str
    lines: list[str]
    misfit: float | None = None
    misfit_explained: float | None = None
    daily_gpp_correlation: float | None = None
    annual_nep_difference: float | None = None
    suspect_columns: list[dict] = field(default_factory=list)
    site_constants: dict[str, float | str] = field(default_factory=dict)
    variant: str = ""
    without_effect: list[str] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)  # of identical runs

    @property
    def contradicts(self) -> bool:
        """Whether labels are wrong beyond doubt: others explain nearly all."""
        return self.verdict == "wrong label" and self.misfit_explained <= max(SAME, PROVES * self.misfit)

    def as_report(self) -> dict[str, Any]:
        """Plain values for JSON; of identical runs only which they are."""
        if self.samples:
            return {"verdict": self.verdict, "samples": self.samples}
        left_out = ("lines", "samples")
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    def label_map(self, directory: str | Path) -> LabelMap:
        """Where the columns went, for the table in `directory`."""
        columns = {record["column"]: record["slot"] for record in self.suspect_columns}
        return LabelMap(columns, table_hash(directory), tuple(self.without_effect))


def check_labels(
    ensemble: Ensemble, site: Site, weather_file: str | Path | None = None, runs: int = RUNS, jobs: int | None = None,
    say: Callable[[str], object] = silent, max_seconds: float | None = None,
) -> LabelCheck:  # fmt: skip
    """Simulate `runs` runs again and judge. weather_file: of the whole simulation, where the daily files show a part.

    UserError where none of the columns is a parameter of the process model, or its weather cannot drive a simulation.
    """
    twins = identical_runs(ensemble.sample_ids, ensemble.parameters, ensemble.fluxes)
    if twins:
        return LabelCheck(
            "identical runs",
            [f"samples {twins[0]} and {twins[1]} have different parameters and identical output: the program did not "
             "read what it was given, so that nothing can be learned from this ensemble"],
            samples=list(twins),
        )  # fmt: skip
    weather, weather_note = find_weather(ensemble, site, weather_file)
    evidence = gather(ensemble, weather, site, runs)
    plain = Hypothesis()
    ours = simulated(evidence, [plain], jobs)[0]
    misfit = float(np.sqrt((differences(ours, evidence.fluxes) ** 2).mean()))
    agreement = daily_agreement(ours, evidence.fluxes)
    as_it_is = compared(site.variant, ours, evidence.fluxes)
    nep = as_it_is.nep
    say(
        f"{len(evidence.values)} runs simulated again: misfit under the labels as they are {misfit:.3%} (0 = "
        f"identical); daily GPP correlates {agreement:.3f}; annual NEP here is {nep:+.3f} Mg C ha-1 year-1 against the "
        "files'"
    )
    found, way = None, []
    if weather_note:
        verdict = "other weather"
    elif misfit <= SAME and abs(nep) <= NEP_SAME:
        verdict = "agrees"
    elif agreement < DAILY:  # not a number when the labels leave no forest alive: then the search decides
        verdict = "other weather"
    else:
        say("looking for an explanation ...")
        way = explain_by_variant(evidence, as_it_is, jobs)
        if way[-1].misfit <= EXPLAINS * way[0].misfit and max(way[-1].misfit, abs(way[-1].nep)) <= NEP_DOUBT:
            verdict = "other variant"
        else:
            found = search(evidence, jobs, say=lambda line: say(f"  {line}"), max_seconds=max_seconds)
            verdict = judge(found)
            if verdict == "agrees" and abs(nep) > NEP_DOUBT:
                verdict = "unexplained"
            if verdict == "unexplained":
                explained = simulated(evidence, [found.best], jobs)[0]
                verdict = "other weather" if daily_agreement(explained, evidence.fluxes) < DAILY else verdict
    best = found.best if found else plain
    seen = visible(evidence, best, evidence.labels, jobs)
    if verdict == "other variant":
        lines, suspects = explain_variant(site, way), []
    else:
        lines, suspects = explain(verdict, found, evidence, misfit, weather_note, seen)
    return LabelCheck(
        verdict, lines, misfit, found.misfit if found else misfit, None if np.isnan(agreement) else agreement, nep,
        suspects, best.constants, describe_variant(site.variant, way[-1].variant) if verdict == "other variant" else "",
        [column for column, shown in seen.items() if not shown],
    )  # fmt: skip


def checked_before(
    ensemble: Ensemble, site: Site, say: Callable[[str], object], max_seconds: float
) -> LabelCheck:
    """check_labels(), or its result of before where label_check.json in the folder is of the same content."""
    path = ensemble.directory / CHECKED
    content = hashlib.sha256(f"{VERSION} {site.constants} {ensemble.parameter_names}".encode())
    for array in (ensemble.parameters, ensemble.dynamic, ensemble.fluxes):
        content.update(np.ascontiguousarray(array).tobytes())
    key = content.hexdigest()
    if path.is_file():
        kept = read_json(path)
        if isinstance(kept, dict) and kept.get("content_sha256") == key:
            return LabelCheck(**kept["result"])
    result = check_labels(ensemble, site, say=say, max_seconds=max_seconds)
    with suppress(UserError):  # a read-only ensemble is checked again next time
        write_json(path, {"content_sha256": key, "result": asdict(result)})
    return result


def find_weather(ensemble: Ensemble, site: Site, weather_file: str | Path | None) -> tuple[Weather, str]:
    """The weather to simulate with, and what contradicts it ('' if nothing).

    The spin-up of a simulation runs over all of its weather, of which the daily files may show only a part: that is
    noted in parameter_log.json, and generated weather can be made again.
    """
    own = Weather(ensemble.dates, ensemble.dynamic, f"{ensemble.directory}")
    if weather_file:
        given = read_weather(weather_file, site)
        part = given.between(ensemble.dates[0], ensemble.dates[-1])
        differs = ~np.isclose(part.values, own.values, rtol=1e-5, atol=1e-9)
        if differs.any():
            day, column = np.argwhere(differs)[0]
            return own, (
                f"{weather_file} differs from the daily files' own columns: {DYNAMIC_FEATURES[column]} on "
                f"{own.dates[day]} is {part.values[day, column]:g} there and {own.values[day, column]:g} in the files "
                f"({differs.any(axis=1).mean():.0%} of the days differ)"
            )
        return given, ""
    log = ensemble.directory / LOG
    if not log.is_file():
        return own, ""
    content = read_log(ensemble.directory)
    noted = content["settings"].get("weather", {})
    if noted.get("first") in (None, str(own.dates[0])) and noted.get("last") in (None, str(own.dates[-1])):
        return own, ""
    whole = None
    if content.get("weather_generated"):
        whole = generate_weather(site, noted["first"], noted["last"], content["settings"]["seed"])
    elif Path(content.get("weather_source", "")).is_file():
        whole = read_weather(content["weather_source"], site)
    if whole is not None and weather_hash(whole) == noted.get("sha256"):
        return whole, ""
    warn(
        f"{log}: the runs were made with weather of {noted['first']} to {noted['last']}, the files show a part of it; "
        "give the whole with --weather, otherwise the spin-up differs"
    )
    return own, ""


def gather(ensemble: Ensemble, weather: Weather, site: Site, runs: int) -> Evidence:
    """Runs spread evenly from the least to the most productive, under the labels that the model knows."""
    known = [i for i, name in enumerate(ensemble.parameter_names) if name in catalogue()]
    unknown = [name for name in ensemble.parameter_names if name not in catalogue()]
    if not known:
        raise UserError(
            f"{ensemble.directory}: none of the columns {', '.join(unknown[:5])}, ... is a parameter of the process "
            "model; see configs/visit_parameters.csv for the names"
        )
    if unknown:
        notice(f"columns that the process model does not have are left out: {', '.join(unknown)}")
    order = np.argsort(ensemble.fluxes[:, :, 0].mean(axis=1))
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(runs, len(order))).round().astype(int))]
    kept = [TARGETS.index(name) for name in ("gpp", "npp", "rh")]
    return Evidence(
        tuple(ensemble.parameter_names[i] for i in known), ensemble.parameters[np.ix_(chosen, known)],
        ensemble.fluxes[chosen][:, :, kept].astype(np.float64), weather,
        int((ensemble.dates[0] - weather.dates[0]).astype(int)), site,
    )  # fmt: skip


def judge(found: Search) -> str:
    """The verdict that a search leads to."""
    before = found.steps[0][1]
    explained = found.misfit <= EXPLAINS * before
    if before <= MODEL_ERROR:  # could be model error as well: believe only what explains nearly everything
        explained = found.misfit <= PROVES * before
    if explained:
        return "wrong label" if found.best.moved else "other site constants"
    return "agrees" if before <= MODEL_ERROR else "unexplained"


def explain_variant(site: Site, way: list[VariantFit]) -> list[str]:
    """Lines that say by which version of VISIT the ensemble was made."""
    before, after = way[0], way[-1]
    chosen = {f.name: getattr(after.variant, f.name) for f in fields(after.variant)}
    changed = [f"{name}={value}" for name, value in chosen.items() if getattr(before.variant, name) != value]
    return [
        f"same labels, other variant: {describe_variant(before.variant, after.variant)}",
        f"  with that the misfit, NEP included, falls from {before.misfit:.2%} to {after.misfit:.3%}, and the "
        f"difference of annual NEP from {before.nep:+.3f} to {after.nep:+.3f} Mg C ha-1 year-1",
        f"  say so in {site.path.name} (variant:), or with --variant {' '.join(changed)}",
    ]


def explain(
    verdict: str, found: Search | None, evidence: Evidence, misfit: float, weather_note: str, seen: dict[str, bool]
) -> tuple[list[str], list[dict[str, Any]]]:
    """Lines that say what was found, and the suspect columns as records. seen: does a column change the fluxes?"""
    if verdict == "agrees":
        hidden = sum(not shown for shown in seen.values())
        doubt = f", which no relabelling explains; real VISIT leaves about as much (misfit {misfit:.2%})"
        return [
            "the labels agree: the outputs follow from them, the weather and the site"
            + (doubt if found else f" (misfit {misfit:.3%})")
            + (f"; {hidden} columns have no visible effect on the fluxes and cannot be checked" if hidden else "")
        ], []
    if verdict == "other weather":
        return [
            weather_note
            or "the day-to-day course of GPP does not follow the weather in the files: they hold other weather than "
            "the runs were made with; labels and site cannot be judged before that is settled"
        ], []
    if verdict == "unexplained":
        return [
            f"no relabelling, site constant or known variant of VISIT explains it (best: {found.misfit:.2%} left); "
            "another version of the model, a parameter outside the columns away from its baseline, or labels exchanged "
            "across groups"
        ], []
    lines, suspects = [], []
    for name, value in found.best.constants.items():
        found_here, said = (
            f"{number:.4g}" if isinstance(number, float) else str(number)
            for number in (value, site_constant(evidence.site, name))
        )
        lines.append(f"  site: {name} looks like {found_here}, {evidence.site.path.name} says {said}")
    moved = found.best.moved
    if moved:
        lines.append("  column                values went to slot")
        for label in sorted(moved, key=lambda name: catalogue()[name].slot or 0):
            slot = moved[label]
            place = f"{catalogue()[slot].slot} {slot}" if slot else "somewhere without effect"
            effect = "" if seen[label] else "   (no visible effect there: the column says nothing)"
            lines.append(f"  {label:<21} {place:<18}{effect}")
            suspects.append({"column": label, "slot": slot, "visible": seen[label]})
    lines.append(f"  with that the misfit falls from {misfit:.2%} to {found.misfit:.3%}")
    return lines, suspects
