"""Check whether an ensemble's outputs follow from its parameter labels, its weather and its site.

    python check_ensemble.py --data-dir data

Re-simulates a few runs with the process model here. When the outputs do not follow, it looks for what explains them:
columns whose values went into another slot of VISIT's parameter file (blocks shifted, swaps), other site constants, or
another weather than the one in the files. One published ensemble had eight of 36 columns mislabelled, unnoticed.

Verdicts: agrees | other variant (of VISIT) | wrong label | other site constants | other weather | identical runs |
unexplained. A column without any effect on the fluxes cannot be checked. With real VISIT's outputs expect a misfit of
about 1 percent even when all is right; annual NEP must agree too.
"""

import argparse
from dataclasses import fields
from pathlib import Path

import numpy as np

from calibration.common.command_line import REPOSITORY, UserError, make_parser, run, warn, write_json
from calibration.common.parameters import catalogue
from calibration.common.sites import DEFAULT_SITE, Site, load_site, say_default, with_variant
from calibration.common.units import DYNAMIC_FEATURES, TARGETS
from calibration.engines.builtin import weather_hash
from calibration.ensembles.diagnosis import Evidence, Hypothesis, daily_agreement, misfits, site_constant, visible
from calibration.ensembles.files import LOG, Ensemble, load_ensemble, noted_site, notice, read_log
from calibration.ensembles.label_search import Search, search
from calibration.ensembles.variants import (
    NEP_DOUBT,
    Fit,
    describe_variant,
    explain_by_variant,
    fit,
    identical_runs,
)
from calibration.weather.daily import Weather, generate_weather, read_weather

SAME = 0.002  # misfit that rounding and a shorter spin-up may leave
NEP_SAME = 0.02  # Mg C ha-1 year-1 of annual NEP that they may leave
MODEL_ERROR = 0.03  # misfit that real VISIT may leave: a relabelling counts below it only if it explains nearly all
EXPLAINS = 0.5  # share of the misfit that an explanation must take away
DAILY = 0.7  # correlation of daily GPP below which the fluxes come from other weather, whatever the parameters


def main() -> int:
    arguments = parse_arguments()
    site = with_variant(load_site(arguments.site), arguments.variant)
    ensemble = load_ensemble(arguments.data_dir, arguments.columns, drop=arguments.drop_columns)
    twins = identical_runs(ensemble.sample_ids, ensemble.parameters, ensemble.fluxes)
    if twins:
        return report_twins(twins, ensemble, arguments)
    weather, weather_note = find_weather(arguments, ensemble, site)
    say_default(site, None if noted_site(ensemble.directory) else ensemble.directory)
    evidence = gather(ensemble, weather, site, arguments.runs)
    print(
        f"{ensemble.directory}: {len(ensemble.sample_ids)} runs, {len(ensemble.parameter_names)} columns, "
        f"{ensemble.dates[0]} to {ensemble.dates[-1]}; {len(evidence.values)} runs simulated again"
    )
    plain = Hypothesis()
    misfit = float(misfits(evidence, [plain], arguments.jobs)[0])
    agreement = daily_agreement(evidence, plain, arguments.jobs)
    nep = fit(evidence, site.variant, arguments.jobs).nep
    print(
        f"misfit under the labels as they are: {misfit:.3%} (0 = identical); daily GPP correlates {agreement:.3f}; "
        f"annual NEP here is {nep:+.3f} Mg C ha-1 year-1 against the files'"
    )
    found, way = None, []
    if weather_note:
        verdict = "other weather"
    elif misfit <= SAME and abs(nep) <= NEP_SAME:
        verdict = "agrees"
    elif agreement < DAILY:  # not a number when the labels leave no forest alive: then the search decides
        verdict = "other weather"
    else:
        print("looking for an explanation ...")
        way = explain_by_variant(evidence, arguments.jobs)
        if way[-1].misfit <= EXPLAINS * way[0].misfit and max(way[-1].misfit, abs(way[-1].nep)) <= NEP_DOUBT:
            verdict = "other variant"
        else:
            found = search(evidence, arguments.jobs, say=lambda line: print(f"  {line}"))
            verdict = judge(found)
            if verdict == "agrees" and abs(nep) > NEP_DOUBT:
                verdict = "unexplained"
            if verdict == "unexplained" and daily_agreement(evidence, found.best, arguments.jobs) < DAILY:
                verdict = "other weather"
    if verdict == "other variant":
        lines, suspects = explain_variant(site, way), []
    else:
        lines, suspects = explain(verdict, found, evidence, misfit, weather_note, arguments.jobs)
    print("\n".join([f"verdict: {verdict}", *lines]))
    if arguments.report:
        write_json(
            arguments.report,
            {"verdict": verdict, "misfit": misfit, "misfit_explained": found.misfit if found else misfit,
             "daily_gpp_correlation": None if np.isnan(agreement) else agreement, "suspect_columns": suspects,
             "site_constants": found.best.constants if found else {}, "annual_nep_difference": nep,
             "variant": describe_variant(site.variant, way[-1].variant) if verdict == "other variant" else ""},
        )  # fmt: skip
    return 1 if arguments.strict and verdict != "agrees" else 0


def report_twins(twins: tuple[int, int], ensemble: Ensemble, arguments: argparse.Namespace) -> int:
    """Say that runs are identical which may not be; returns the exit code."""
    lines = (
        f"samples {twins[0]} and {twins[1]} have different parameters and identical output: the program did not read "
        "what it was given, so that nothing can be learned from this ensemble"
    )
    print(f"{ensemble.directory}: {len(ensemble.sample_ids)} runs\nverdict: identical runs\n{lines}")
    if arguments.report:
        write_json(arguments.report, {"verdict": "identical runs", "samples": list(twins)})
    return 1 if arguments.strict else 0


def explain_variant(site: Site, way: list[Fit]) -> list[str]:
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


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--data-dir", default=str(REPOSITORY / "data"), help="folder of the daily files and parameter_summary.csv")
    add("--runs", type=int, default=8, help="runs to simulate again")
    add("--weather", help="weather of the whole simulation, if longer than the daily files (default: theirs)")
    add("--site", default=str(DEFAULT_SITE), help="site YAML that the ensemble is supposed to be of")
    add("--variant", nargs="+", metavar="NAME[=VALUE]", help="another version of VISIT than the site YAML's, see there")
    add("--columns", nargs="+", help="column names of the daily files in order (default: VISIT's)")
    add("--drop-columns", nargs="+", help="columns of parameter_summary.csv that are no parameters")
    add("--jobs", type=int, help="threads (default: all cores)")
    add("--report", help="also write the result to this JSON file")
    add("--strict", action="store_true", help="exit code 1 unless the outputs agree with the labels")
    arguments = parser.parse_args()
    if arguments.runs < 3:
        raise UserError(f"--runs is {arguments.runs}; at least 3 are needed to tell causes apart")
    return arguments


def find_weather(arguments: argparse.Namespace, ensemble: Ensemble, site: Site) -> tuple[Weather, str]:
    """The weather to simulate with, and what contradicts it ('' if nothing).

    The spin-up of a simulation runs over all of its weather, of which the daily files may show only a part: that is
    noted in parameter_log.json, and generated weather can be made again.
    """
    own = Weather(ensemble.dates, ensemble.dynamic, f"{ensemble.directory}")
    if arguments.weather:
        given = read_weather(arguments.weather, site)
        part = given.between(ensemble.dates[0], ensemble.dates[-1])
        differs = ~np.isclose(part.values, own.values, rtol=1e-5, atol=1e-9)
        if differs.any():
            day, column = np.argwhere(differs)[0]
            return own, (
                f"{arguments.weather} differs from the daily files' own columns: {DYNAMIC_FEATURES[column]} on "
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
        explained = found.misfit <= 0.2 * before
    if explained:
        return "wrong label" if found.best.moved else "other site constants"
    return "agrees" if before <= MODEL_ERROR else "unexplained"


def explain(
    verdict: str, found: Search | None, evidence: Evidence, misfit: float, weather_note: str, jobs: int | None
) -> tuple[list[str], list[dict]]:
    """Lines that say what was found, and the suspect columns as records."""
    suspects: list[dict] = []
    if verdict == "agrees":
        hidden = sum(not seen for seen in visible(evidence, Hypothesis(), evidence.labels, jobs).values())
        doubt = f", which no relabelling explains; real VISIT leaves about as much (misfit {misfit:.2%})"
        return [
            "the labels agree: the outputs follow from them, the weather and the site"
            + (doubt if found else f" (misfit {misfit:.3%})")
            + (f"; {hidden} columns have no visible effect on the fluxes and cannot be checked" if hidden else "")
        ], suspects
    if verdict == "other weather":
        return [
            weather_note
            or "the day-to-day course of GPP does not follow the weather in the files: they hold other weather than "
            "the runs were made with; labels and site cannot be judged before that is settled"
        ], suspects
    if verdict == "unexplained":
        return [
            f"no relabelling, site constant or known variant of VISIT explains it (best: {found.misfit:.2%} left); "
            "another version of the model, a parameter outside the columns away from its baseline, or labels exchanged "
            "across groups"
        ], suspects
    lines = []
    if found.best.constants:
        for name, value in found.best.constants.items():
            found_here, said = (
                f"{number:.4g}" if isinstance(number, float) else str(number)
                for number in (value, site_constant(evidence.site, name))
            )
            lines.append(f"  site: {name} looks like {found_here}, {evidence.site.path.name} says {said}")
    moved = found.best.moved
    if moved:
        seen = visible(evidence, found.best, list(moved), jobs)
        lines.append("  column                values went to slot")
        for label in sorted(moved, key=lambda name: catalogue()[name].slot or 0):
            slot = moved[label]
            place = f"{catalogue()[slot].slot} {slot}" if slot else "somewhere without effect"
            effect = "" if seen[label] else "   (no visible effect there: the column says nothing)"
            lines.append(f"  {label:<21} {place:<18}{effect}")
            suspects.append({"column": label, "slot": slot, "visible": seen[label]})
    lines.append(f"  with that the misfit falls from {misfit:.2%} to {found.misfit:.3%}")
    return lines, suspects


if __name__ == "__main__":
    run(main)
