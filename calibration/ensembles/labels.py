"""The label map: which slot of VISIT's parameter file the values of a mislabelled column went to.

train.py writes one (parameter_labels.yaml) where an ensemble's outputs contradict its labels, and honours it with
--labels FILE. From then on the column carries its slot's name everywhere, so that prior, ranges, ties, closed forms,
process model and exported files are those of the slot; reports name both.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from calibration.common.command_line import UserError, existing_file, writing
from calibration.common.configuration import DataOptions
from calibration.common.parameters import UNUSED, canonical_name, catalogue
from calibration.ensembles.files import SUMMARY, Ensemble, load_ensemble
from calibration.ensembles.parameter_table import read_parameter_summary

LABELS = "parameter_labels.yaml"
NOWHERE = "none"  # in the file: a slot that the process model does not read
HEADER = f"""\
# Which slot of VISIT's parameter file the values of a column of {SUMMARY} went to. Columns that are not named
# here went where their names say. A slot is given by its name or number (configs/visit_parameters.csv); {NOWHERE}: it
# has no effect. Use: python train.py --labels THIS_FILE
"""
KEYS = ("table_sha256", "columns", "without_effect")


@dataclass(frozen=True)
class LabelMap:
    """Columns that went elsewhere (column -> slot name, None: nowhere that is read), for one parameter table.

    table: SHA-256 of the parameter_summary.csv that it was made for; without_effect: columns whose values change
    nothing in the fluxes, wherever they went: nothing can be learned of them.

    >>> moved = LabelMap({"tree_lf0": "tree_lc0", "tree_lc0": None})
    >>> moved.renamed(("tree_lue", "tree_lf0", "tree_lc0"), "a table")
    ('tree_lue', 'tree_lc0', 'unused_tree_lc0')
    >>> moved.shown(("tree_lue", "tree_lc0"))
    ('tree_lue', 'tree_lf0 (slot 37, tree_lc0)')
    """

    columns: Mapping[str, str | None]
    table: str = ""
    without_effect: tuple[str, ...] = field(default=())

    def target(self, column: str) -> str:
        """The name under which a column is used."""
        if column not in self.columns:
            return column
        return self.columns[column] or UNUSED + column

    def renamed(self, names: Sequence[str], source: str | Path) -> tuple[str, ...]:
        """The columns `names` (parameter,) under their slots' names. UserError names a column that is not among them,
        and two columns in one slot; `source` is the table in these errors.
        """
        unknown = [column for column in self.columns if column not in names]
        if unknown:
            found = ", ".join(names)
            raise UserError(f"{source}: has no column {unknown[0]}, which the label map names; found {found}")
        result: dict[str, str] = {}
        for column in names:
            target = self.target(column)
            if target in result:
                raise UserError(
                    f"{source}: the label map puts {result[target]} and {column} into one slot, {target}; "
                    "give one of them another"
                )
            result[target] = column
        return tuple(result)

    def applied(self, ensemble: Ensemble) -> Ensemble:
        """The ensemble with its columns under their slots' names. UserError as renamed()."""
        return ensemble.with_names(self.renamed(ensemble.parameter_names, ensemble.directory / SUMMARY))

    def shown(self, names: Sequence[str]) -> tuple[str, ...]:
        """`names` (renamed ones) as reports write them: with the table's own label where it is another."""
        own = {self.target(column): column for column in self.columns}
        return tuple(
            name if name not in own
            else f"{own[name]} (no slot)" if name.startswith(UNUSED)
            else f"{own[name]} (slot {catalogue()[name].slot}, {name})"
            for name in names
        )  # fmt: skip

    def ranges(self, ranges: Mapping[str, Any]) -> dict[str, Any]:
        """Ranges of parameter_log.json (column -> bounds) under the slots' names."""
        result = {}
        for column, bounds in ranges.items():
            tie = {"max_from": self.target(bounds["max_from"])} if "max_from" in bounds else {}
            result[self.target(column)] = {**bounds, **tie}
        return result

    def fits(self, directory: str | Path) -> bool:
        """Whether it was made for the parameter table in `directory`."""
        return self.table == table_hash(directory)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for config.json and YAML."""
        columns = {column: slot or NOWHERE for column, slot in self.columns.items()}
        return {"table_sha256": self.table, "columns": columns, "without_effect": list(self.without_effect)}


def table_hash(directory: str | Path) -> str:
    """SHA-256 of a folder's parameter_summary.csv."""
    return hashlib.sha256(existing_file(Path(directory) / SUMMARY).read_bytes()).hexdigest()


def from_dict(content: Any, source: str | Path) -> LabelMap:
    """A LabelMap from as_dict(). UserError names what is wrong in `source`."""
    if not isinstance(content, dict) or set(content) - set(KEYS) or not isinstance(content.get("columns"), dict):
        raise UserError(f"{source}: is no label map; it holds table_sha256, columns (column: slot) and without_effect")
    if not isinstance(content.get("table_sha256"), str):
        raise UserError(f"{source}: table_sha256 is missing: it tells which {SUMMARY} the map is for")
    hidden = content.get("without_effect") or []
    if not (isinstance(hidden, list) and all(isinstance(column, str) for column in hidden)):
        raise UserError(f"{source}: without_effect is {hidden!r}, expected a list of columns")
    columns = {str(column): _slot(slot, str(column), source) for column, slot in content["columns"].items()}
    taken: dict[str, str] = {}
    for column, slot in columns.items():
        if slot is not None and slot in taken:
            raise UserError(f"{source}: {taken[slot]} and {column} go into one slot, {slot}; give one of them another")
        if slot is not None:
            taken[slot] = column
    return LabelMap(columns, content["table_sha256"], tuple(hidden))


def _slot(given: Any, column: str, source: str | Path) -> str | None:
    """The name of a slot given by name or number; None for NOWHERE."""
    if given == NOWHERE:
        return None
    if isinstance(given, int) and not isinstance(given, bool):
        name = next((known.name for known in catalogue().values() if known.slot == given), None)
    else:
        name = canonical_name(given) if isinstance(given, str) else None
    if name is None:
        raise UserError(
            f"{source}: {column} goes to slot {given!r}, which configs/visit_parameters.csv does not have; give a name "
            f"or number from there, or {NOWHERE}"
        )
    return name


def read_labels(path: str | Path, directory: str | Path) -> LabelMap:
    """A label map from YAML, for the ensemble in `directory`. UserError when it is none, or another ensemble's."""
    path = existing_file(path, "train.py --labels check writes it where labels are wrong; see docs/cookbook.md")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from None
    found = from_dict(content, path)
    if not found.fits(directory):
        raise UserError(
            f"{path}: was made for another ensemble than {directory} (table_sha256 is not that of its {SUMMARY}); "
            "give the map of this one, or run train.py --labels check"
        )
    return found


def write_labels(directory: str | Path, labels: LabelMap) -> Path:
    """Write parameter_labels.yaml into `directory`, or beside one with another content under another name."""
    text = HEADER + yaml.safe_dump(labels.as_dict(), sort_keys=False, allow_unicode=True, width=100)
    path = Path(directory) / LABELS
    count = 1
    while path.exists() and path.read_text(encoding="utf-8", errors="replace") != text:  # perhaps corrected by hand
        count += 1
        path = path.with_name(f"{Path(LABELS).stem}_{count}.yaml")
    if not path.exists():
        with writing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return path


def map_of(options: DataOptions) -> LabelMap | None:
    """The label map that a configuration carries."""
    return from_dict(options.label_map, "the configuration's label_map") if options.label_map else None


def load_labelled(directory: str | Path, options: DataOptions) -> Ensemble:
    """load_ensemble() as `options` say; columns under their slots' names where its table is the label map's.

    Another ensemble's table is taken to be labelled right.
    """
    ensemble = load_ensemble(directory, options.column_order, drop=options.drop_columns)
    labels = map_of(options)
    if labels is None or not labels.fits(directory):
        return ensemble
    return labels.applied(ensemble)


def read_labelled_summary(
    directory: str | Path, options: DataOptions
) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """Sample ids (run,), names, values (run, parameter) of a parameter table, as load_labelled() names them."""
    path = Path(directory) / SUMMARY
    ids, names, values = read_parameter_summary(path)
    labels = map_of(options)
    return ids, labels.renamed(names, path) if labels and labels.fits(directory) else names, values
