"""A sensitivity analysis from designs to findings: what sensitivity.py does between reading and writing."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from calibration.common.command_line import write_csv, write_json, write_text
from calibration.common.figure_style import save_figure
from calibration.common.parameters import ParameterSpace
from calibration.common.units import TARGETS
from calibration.ensembles.rest import rests_like_others
from calibration.exploration import design, figures, fluxes, information, reference, summary

# (run, parameter) physical and a number of days -> fluxes (run, day, 4) Mg C ha-1 day-1 in the order of units.TARGETS
FluxModel = Callable[[np.ndarray, int], np.ndarray]
Progress = Callable[[str, int], Any]  # label and number of runs -> a context manager with update(runs)


@dataclass
class Findings:
    """What an analysis leaves: lines of text, plain values for JSON, tables and figures by file name (no suffix)."""

    lines: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        """CSV tables, figures, sensitivity.json and, last, sensitivity_summary.txt, each atomically."""
        for name, table in self.tables.items():
            write_csv(directory / f"{name}.csv", table, float_format="%.6g")
        for name, figure in self.figures.items():
            save_figure(figure, directory / name)
        write_json(directory / "sensitivity.json", _finite(self.facts))
        write_text(directory / "sensitivity_summary.txt", "\n".join(self.lines).strip() + "\n")


@dataclass(frozen=True)
class Analysis:
    """The parameters, the models by name ('emulator', 'process_model', or one of them) and what is looked at."""

    space: ParameterSpace
    models: Mapping[str, FluxModel]
    days: int  # of the longest record of a tower
    seed: int
    progress: Progress

    def morris(self, trajectories: int, lengths: Sequence[int], noise: float, found: Findings) -> None:
        """Elementary effects of the sums, and what a tower of each length (days) could inform."""
        plan = design.morris_design(self.space, trajectories, self.seed)
        made = {name: self._run(plan, name, self.days) for name in self.models}
        groups = np.all([kept_at_rest(plan, sums) for sums, _ in made.values()], axis=0)
        table = summary.side_by_side(
            {name: design.indices(plan, sums, self.seed, groups) for name, (sums, _) in made.items()}
        )
        found.tables["sensitivity_morris"] = table
        found.figures["sensitivity_morris"] = figures.index_figure("morris", table, list(made))
        answers = []
        for name, (_, nep) in made.items():
            told = information.information_table(design.elementary_effects(plan, nep), self.space.names, lengths, noise)
            found.tables[f"tower_information_{name}"] = told
            label = name.replace("_", " ")
            found.figures[f"tower_information_{name}"] = figures.information_figure(told, label)
            answers.append(information.answer(told, noise, label))
        found.facts["answer"] = answers[-1]  # the process model's where it ran
        found.lines += [*answers[::-1], "", *summary.ranking_lines("morris", table, list(made))]
        found.facts["morris_left_out"] = int((~groups).sum())
        found.lines.append(summary.left_out_line(groups, "trajectories"))
        if len(made) == 2:
            alike = summary.agreement("morris", table, *made)
            found.facts["morris_agreement"] = alike.to_dict("records")
            what = f"Emulator and process model on the same {len(plan.unit)} runs"
            found.lines += ["", *summary.agreement_lines("morris", alike, what)]

    def sobol(self, samples: int, process_samples: int, found: Findings) -> None:
        """Variance shares of the sums: the emulator on all runs, the process model (and it again) on the first."""
        plan = design.sobol_design(self.space, samples, self.seed)
        few = plan.first(min(process_samples, samples))
        sums, groups, spent = {}, {}, {}
        for name in self.models:
            begin = time.perf_counter()
            runs = few if name == "process_model" else plan
            sums[name], _ = self._run(runs, name, max(fluxes.SPANS.values()))
            spent[name] = {"runs": len(runs.unit), "seconds": round(time.perf_counter() - begin, 1)}
            groups[name] = kept_at_rest(runs, sums[name])
        if len(self.models) == 2:  # on the same runs, without the same base samples
            name = "emulator_same_runs"
            sums[name] = {quantity: values[: len(few.unit)] for quantity, values in sums["emulator"].items()}
            groups[name] = groups["process_model"] = groups["emulator"][: few.groups] & groups["process_model"]
        parts = {
            name: design.indices(plan if name == "emulator" else few, sums[name], self.seed, groups[name])
            for name in sums
        }
        table = summary.side_by_side(parts)
        found.tables["sensitivity_sobol"] = table
        found.figures["sensitivity_sobol"] = figures.index_figure("sobol", table, list(self.models))
        found.facts["sobol_runs"] = spent
        found.lines += ["", *summary.ranking_lines("sobol", table, list(self.models))]
        found.lines += [
            f"  {name.replace('_', ' ')}: {v['runs']} runs in {v['seconds']:.0f} s" for name, v in spent.items()
        ]
        found.lines.append(summary.left_out_line(groups[list(self.models)[-1]], "base samples"))
        found.facts["sobol_left_out"] = {name: int((~keep).sum()) for name, keep in groups.items()}
        if len(self.models) == 2:
            alike = summary.agreement("sobol", table, "emulator_same_runs", "process_model")
            found.facts["sobol_agreement"] = alike.to_dict("records")
            what = f"Emulator and process model on the same {len(few.unit)} runs"
            found.lines += ["", *summary.agreement_lines("sobol", alike, what)]

    def _run(self, plan: design.SensitivityDesign, name: str, days: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Sums by quantity (run,), Mg C ha-1, and daily NEP (run, day), Mg C ha-1 day-1, of every run of a design."""
        nep, quantities = TARGETS.index("nep"), []

        def looked_at(values: np.ndarray) -> np.ndarray:
            """(run, quantity + day): only what is needed of a batch of runs is kept."""
            made = self.models[name](values, days)
            sums = fluxes.sums(made)
            quantities[:] = sums
            return np.concatenate([np.stack(list(sums.values()), axis=1), made[:, :, nep]], axis=1)

        with self.progress(f"{plan.method}, {name.replace('_', ' ')}", len(plan.unit)) as bar:
            made = design.evaluate(plan, self.space, looked_at, bar.update)
        return dict(zip(quantities, made.T, strict=False)), made[:, len(quantities) :]


def kept_at_rest(plan: design.SensitivityDesign, sums: Mapping[str, np.ndarray]) -> np.ndarray:
    """(group,) bool: trajectories or base samples all of whose forests are at rest, from the sums of `_run`."""
    return design.kept(plan, rests_like_others(sums["annual NEP"], sums["annual GPP"]))


def compare_with_visit(real: pd.DataFrame, ours: pd.DataFrame, source: str, found: Findings) -> None:
    """Real VISIT's elementary effects beside the process model's; `real` of read_reference(), ours its summary()."""
    table = reference.compare(real, ours, source)
    alike = reference.agreement(table)
    found.tables["visit_elementary_effects"] = table
    found.figures["visit_elementary_effects"] = figures.reference_figure(table)
    found.facts["visit_agreement"] = alike.to_dict("records")
    found.lines += ["", *summary.reference_lines(alike)]


def _finite(value: Any) -> Any:
    """Not-a-number has no place in JSON: None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
