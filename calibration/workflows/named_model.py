"""The process model that a command line names, to verify an emulator or in its place: the built-in, or your VISIT."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from calibration.common.command_line import UserError, existing_file, warn
from calibration.common.parameters import catalogue, in_model
from calibration.common.sites import Site
from calibration.emulator.trained import Emulator
from calibration.engines.builtin import RunResult
from calibration.engines.cluster import connect
from calibration.engines.run_folder import folder_weather
from calibration.engines.trial import expected_gpp, try_out
from calibration.ensembles.files import load_ensemble
from calibration.inversion.data import Stretch
from calibration.judgement.simulator_check import ProcessModel, driving_weather, simulate_vectors, site_of
from calibration.visit.parameter_file import fill_template, read_slots
from calibration.weather.daily import Weather, weather_hash
from calibration.workflows.users_visit import command_engine, users_folder


def process_model(arguments: argparse.Namespace, emulator: Emulator, stretches: Sequence[Stretch]) -> ProcessModel:
    """The process model of the command line (--run-folder: the user's VISIT), checked before anything runs."""
    site, names = site_of(arguments.site, arguments.data_dir), emulator.parameter_names
    weather = driving_weather(arguments.weather, arguments.data_dir, site, emulator, stretches)
    slots = read_slots(arguments.slots)
    if arguments.parameter_template:
        template = existing_file(arguments.parameter_template, "give VISIT's baseline parameter file")
        baseline = {name: slots[name].baseline for name in names if name in slots}
        fill_template(template, template.read_bytes(), baseline, slots)
    if arguments.run_folder or arguments.command_template:
        return _users_visit(arguments, emulator, site, weather)
    if arguments.command_input or arguments.columns:
        raise UserError("--command-input and --columns belong to your own VISIT; give --run-folder too")
    unknown = [names[i] for i in in_model(names) if names[i] not in catalogue()]
    if unknown:
        raise UserError(
            f"the built-in process model has no parameter {unknown[0]}, which this emulator has; "
            "give your own VISIT with --run-folder"
        )

    def runs(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """All in one call, one by one where one of them is not legal: the others must not suffer."""
        try:
            yield from enumerate(simulate_vectors(values, names, weather, site))
        except UserError as error:
            if len(values) == 1:
                warn(f"a run of the process model failed: {error}")
                return
            for i, value in enumerate(values):
                yield from ((i, flux) for _, flux in runs(value[None]))

    identity = {"model": "built-in process model", "site": str(site.constants), "weather": weather_hash(weather)}
    return ProcessModel(weather, runs, identity, site)


def _users_visit(arguments: argparse.Namespace, emulator: Emulator, site: Site, weather: Weather) -> ProcessModel:
    """The user's VISIT over the days of the ensemble; it must see the weather that the emulator sees."""
    own = driving_weather(arguments.weather, arguments.data_dir, site, emulator)
    different = int((own.values != weather.values).any(axis=1).sum())
    if different:
        raise UserError(
            f"the windows' weather is not that of {own.source} on {different} days, which your VISIT would see: build "
            "the windows from the same weather, or give theirs with --weather"
        )
    data_dir = arguments.data_dir
    # VISIT writes the days of the ensemble; without one, those of its settings
    of_ensemble = data_dir is not None and (Path(data_dir) / "parameter_summary.csv").is_file()
    if of_ensemble:
        dates = load_ensemble(
            arguments.data_dir, emulator.configuration.data.column_order, drop=emulator.configuration.data.drop_columns
        ).dates
        weather = own.between(dates[0], dates[-1])
    kept = in_model(emulator.parameter_names)
    names, days, folder = tuple(emulator.parameter_names[i] for i in kept), None, None
    if arguments.run_folder:
        folder = users_folder(arguments, weather, site)
        weather = weather if of_ensemble else own.between(*folder.period)
        days = folder_weather(folder, weather, site).between(weather.dates[0], weather.dates[-1]).values
    elif arguments.weather:
        days = weather.values
    engine = command_engine(arguments, weather.dates, names, folder, days)
    client = connect(arguments.dask_scheduler) if arguments.dask_scheduler else None
    tried: list[bool] = []

    def outcomes(values: np.ndarray) -> Iterator[RunResult]:
        """Run by run, as they end."""
        from calibration.engines.perturbation import run_all  # compiled code: loaded only where it is needed

        yield from run_all(engine, list(range(len(values))), names, values, arguments.jobs or 2, client)

    def runs(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Fluxes run by run, after a trial that the set-up is right."""
        values = values[:, kept]
        if not tried:
            trial = try_out(
                engine, names, values, lambda rows: sorted(outcomes(rows), key=lambda result: result.sample_id),
                expected_gpp(weather, site, names) if folder else None,
            )  # fmt: skip
            tried.append(True)
            if trial.note:
                warn(f"trial: {trial.note}")
        for outcome in outcomes(values):
            if outcome.fluxes is None:
                warn(f"a run of your VISIT failed: {outcome.message}")
            else:
                yield outcome.sample_id, outcome.fluxes

    identity = {"model": "your own VISIT", "weather": weather_hash(weather)}
    identity |= {key: str(value) for key, value in engine.identity(names).items()}
    return ProcessModel(weather, runs, identity, site)
