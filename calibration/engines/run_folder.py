"""The folder in which a user's VISIT is run: what is read from it once, and private copies of it for every run.

The public VISIT is started without arguments in its code folder. It opens setting.txt there, the three files that it
names (climate, site, parameters), and some with fixed names. All of that is read into memory at the start, so that a
run sees what the first one saw, whatever happens to the folder meanwhile, and nothing points back into it.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np

from calibration.common.command_line import UserError, warn
from calibration.common.sites import Site
from calibration.common.units import METEOROLOGY
from calibration.engines.visit_output import EARLIER_OUTPUT
from calibration.weather.daily import Weather, forcing_text, weather_of
from calibration.weather.forcing_file import Forcing, looks_like_forcing, parse_forcing

SETTINGS = "setting.txt"
KEYS = ("MODE", "FSFX", "SITE", "SPUPT", "BYEAR", "EYEAR", "LDYEAR", "CLIMF", "SITEF", "PARAF")  # in this order
FILES = ("CLIMF", "SITEF", "PARAF")  # name files
LONGEST_PATH = 128  # characters that VISIT keeps of a path
MOST_BYTES = 256 * 2**20  # of a folder: it is held in memory and written for every run
# Neither read nor written by a run: sources, objects, notes.
NOT_NEEDED = re.compile(r".*\.(c|h|o|a|md|log|xlsx?|pdf|zip|tar|gz|tgz)|[Mm]akefile.*|.*~", re.IGNORECASE)
SAME_WEATHER = 1e-5  # relative: what printing may leave of the same number
DIVIDER = "9999999"  # between the blocks of a parameter file
ELSEWHERE = "OUTSIDE"  # folder of a copy that holds the files which setting.txt names outside the user's folder


@dataclass(frozen=True)
class RunFolder:
    """A run folder as it was when it was read."""

    path: Path
    program: str  # relative, like all names here
    settings: dict[str, str]  # KEYS -> value, as in the copies
    files: dict[str, bytes]
    executable: frozenset[str]
    folders: tuple[str, ...]  # also the empty ones: VISIT may write there
    parameter_file: str
    climate_file: str
    outside: dict[str, Path] = field(default_factory=dict)  # where files from outside the user's folder come from
    state: tuple = field(compare=False, default=())  # of the user's folder, see changed()

    def stage(self, workdir: Path, changed: dict[str, bytes]) -> dict[Path, tuple[int, int, int]]:
        """Write a copy into the empty `workdir`, with the content of some files `changed`; returns its files' state."""
        for folder in self.folders:
            (workdir / folder).mkdir(parents=True, exist_ok=True)
        there = {}
        for name, content in (self.files | changed).items():
            path = workdir / name
            path.write_bytes(content)
            if name in self.executable:
                path.chmod(0o755)
            there[path] = file_state(path)
        return there

    def source(self, name: str) -> Path:
        """Where a file of the copies comes from."""
        return self.outside.get(name, self.path / name)

    @property
    def period(self) -> tuple[np.datetime64, np.datetime64]:
        """First and last day of the run, from BYEAR and EYEAR."""
        return np.datetime64(f"{self.settings['BYEAR']}-01-01"), np.datetime64(f"{self.settings['EYEAR']}-12-31")

    def forcing(self) -> Forcing | None:
        """The climate file, None when it is no 19-column forcing text."""
        content = self.files[self.climate_file]
        if not looks_like_forcing(content.split(b"\n", 1)[0].decode("utf-8", "replace").split()):
            return None
        return parse_forcing(self.source(self.climate_file), content)

    def identity(self) -> dict:
        """What decides the results of this folder's runs, JSON-able: settings, and a hash of every file."""
        sums = {name: hashlib.sha256(content).hexdigest()[:16] for name, content in sorted(self.files.items())}
        return {
            "program": f"{self.program} {sums.pop(self.program)}", "settings": self.settings,
            "parameter_file": f"{self.parameter_file} {sums.pop(self.parameter_file)}", "files": sums,
        }  # fmt: skip

    def changed(self) -> list[str]:
        """Names of files of the user's folder that have come, gone or changed since it was read."""
        before, now = dict(self.state), dict(_state(self.path))
        return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))

    def other_parameter_files(self) -> list[str]:
        """Files that look like a parameter file (by their dividers) and are not the one that is replaced."""
        alike = [name for name, content in self.files.items() if content.split().count(DIVIDER.encode()) >= 3]
        return sorted(set(alike) - {self.parameter_file})


def read_run_folder(
    path: str | Path, program: str | None = None, parameter_file: str | None = None, leave_out: Sequence[str] = ()
) -> RunFolder:
    """Read VISIT's code folder. program, parameter_file: relative to it (default: its one executable, setting.txt's
    PARAF). leave_out: globs of files that no run needs. UserError on anything without which VISIT cannot run.
    """
    path = Path(os.path.normpath(Path(path).absolute()))
    if not path.is_dir():
        raise UserError(f"--run-folder {path}: no such folder; give the folder in which your VISIT is started")
    if not (path / SETTINGS).is_file():
        raise UserError(f"--run-folder {path}: holds no {SETTINGS}, which VISIT reads where it is started; check it")
    state = _state(path)
    content, settings = _settings_of(path)
    outside: dict[str, Path] = {}
    for key in FILES:
        named = Path(settings[key])
        inside = Path(os.path.normpath(path / named))
        if not inside.is_file():
            raise UserError(f"{path / SETTINGS}: {key} names {named}, which is not there; correct the path")
        if inside.is_relative_to(path):
            relative = inside.relative_to(path).as_posix() if named.is_absolute() else settings[key]
        else:
            relative = f"{ELSEWHERE}/{key}_{inside.name}"
            outside[relative] = inside
        if len(relative) > LONGEST_PATH:
            raise UserError(f"{path / SETTINGS}: {key} has {len(relative)} characters, VISIT keeps {LONGEST_PATH}")
        if relative != settings[key]:
            content = _replaced(content, key, settings[key], relative)
            settings[key] = relative
    named = {PurePosixPath(os.path.normpath(settings[key])).as_posix() for key in FILES}
    parameters = _inside(path, parameter_file, "--parameter-file") if parameter_file else settings["PARAF"]
    parameters = PurePosixPath(os.path.normpath(parameters)).as_posix()
    files, folders = _read_all(path, named | {SETTINGS, parameters}, leave_out)
    files |= {name: _bytes(source) for name, source in outside.items()} | {SETTINGS: content}
    folders = (*folders, *([ELSEWHERE] if outside else []))
    executable = frozenset(name for name in files if name not in outside and os.access(path / name, os.X_OK))
    start = _inside(path, program, "--program") if program else _only_program(path, files, executable)
    if start not in files or start not in executable:
        raise UserError(f"{path / start}: is not executable; give VISIT's binary with --program")
    climate = PurePosixPath(os.path.normpath(settings["CLIMF"])).as_posix()
    return RunFolder(path, start, settings, files, executable, folders, parameters, climate, outside, state)


def with_forcing(folder: RunFolder, weather: Weather, site: Site) -> RunFolder:
    """The folder with its climate file written from `weather` over the years of setting.txt, all that it has of it."""
    weather.between(*folder.period)
    content = forcing_text(weather, site, folder.forcing())
    return replace(folder, files=folder.files | {folder.climate_file: content})


def folder_weather(folder: RunFolder, given: Weather | None, site: Site) -> Weather:
    """The weather of a folder's runs: its climate file's, which must be the `given` one if there is one.

    UserError naming variable and day where they differ.
    """
    forcing, path = folder.forcing(), folder.source(folder.climate_file)
    if forcing is None and given is None:
        raise UserError(
            f"{path}: is no 19-column forcing text, so the runs' weather is not known; give it with --weather FILE"
        )
    own = None
    if forcing is not None:
        own = weather_of(forcing.weather_table(), str(path), site)
        own.between(*folder.period)
    if given is None:
        return own
    if own is None:
        warn(f"{path}: is no 19-column forcing text and cannot be compared with {given.source}")
        return given
    part, ours = given.between(*folder.period), own.between(*folder.period)
    for column, name in enumerate(METEOROLOGY):
        a, b = part.values[:, column], ours.values[:, column]
        apart = ~np.isclose(a, b, rtol=SAME_WEATHER, atol=1e-9)
        if apart.any():
            day = int(apart.argmax())
            raise UserError(
                f"{given.source}: {name} on {part.dates[day]} is {a[day]:g}, in {path} it is {b[day]:g} "
                f"({apart.mean():.0%} of the days differ); give the weather that your VISIT reads, or let it read "
                "yours with --write-forcing"
            )
    return given


def file_state(path: Path) -> tuple[int, int, int]:
    """Size, modification time (ns) and inode: differs when a file was written to or replaced."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _state(path: Path) -> tuple:
    """(name, state) of everything below a folder."""
    return tuple(
        (str(Path(place, name).relative_to(path)), file_state(Path(place, name)))
        for place, _, names in os.walk(path)
        for name in names
        if Path(place, name).exists()
    )


def _settings_of(path: Path) -> tuple[bytes, dict[str, str]]:
    """Content of setting.txt, and its values by key. UserError on a key that is missing or out of order."""
    content = _bytes(path / SETTINGS)
    tokens = content.decode("utf-8", "replace").replace("=", " ").split()
    places = []
    for key in KEYS:
        begin = places[-1] + 1 if places else 0
        found = next((i for i in range(begin, len(tokens)) if tokens[i].strip(":").upper() == key), None)
        if found is None:
            raise UserError(
                f"{path / SETTINGS}: key {key} is missing or not in its place; the keys are {' '.join(KEYS)}, in this "
                "order, each followed by its value"
            )
        places.append(found)
    ends = [*places[1:], len(tokens)]
    values = {
        key: " ".join(tokens[place + 1 : end][:1]).strip("\"':")
        for key, place, end in zip(KEYS, places, ends, strict=True)
    }
    for key in FILES:
        if not values[key]:
            raise UserError(f"{path / SETTINGS}: {key} names no file; write its path behind the key")
    for key in ("BYEAR", "EYEAR"):
        if not re.fullmatch(r"\d{4}", values[key]):
            raise UserError(f"{path / SETTINGS}: {key} is {values[key]!r}, expected a year; correct it")
    if values["BYEAR"] > values["EYEAR"]:
        raise UserError(f"{path / SETTINGS}: BYEAR {values['BYEAR']} is after EYEAR {values['EYEAR']}; correct them")
    return content, values


def _replaced(content: bytes, key: str, before: str, after: str) -> bytes:
    """Content of setting.txt with the value of one key replaced."""
    place = re.compile(rb"(\b" + key.encode() + rb"[\s:=\"']+)" + re.escape(before.encode()), re.IGNORECASE)
    return place.sub(lambda match: match[1] + after.encode(), content, count=1)


def _inside(path: Path, name: str, flag: str) -> str:
    """A name inside the folder, given relative to it or to where the script runs. UserError when it is neither."""
    for candidate in (path / name, Path(name).absolute()):
        candidate = Path(os.path.normpath(candidate))
        if candidate.is_file() and candidate.is_relative_to(path):
            return candidate.relative_to(path).as_posix()
    raise UserError(f"{flag} {name}: no such file in {path}; give its path relative to the run folder")


def _only_program(path: Path, files: dict[str, bytes], executable: frozenset[str]) -> str:
    """The one program at the top of the folder: a binary, or if there is none, a script."""
    top = sorted(name for name in executable if "/" not in name)
    for begins in (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"#!"):  # Linux, macOS, scripts
        found = [name for name in top if files[name].startswith(begins)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(f"{path}: holds {len(found)} programs ({', '.join(found)}); say which with --program")
    raise UserError(f"{path}: holds no executable program; run make there first, or name it with --program")


def _read_all(path: Path, named: set[str], leave_out: Sequence[str]) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Content of every file that a run may need, and the folders. UserError when that is too much or unreadable."""
    files: dict[str, bytes] = {}
    folders, seen, total = [], set(), 0
    for place, subfolders, names in os.walk(path, followlinks=True):
        real = os.path.realpath(place)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        if real in seen:  # a link to a folder above
            subfolders.clear()
            continue
        seen.add(real)
        here = Path(place).relative_to(path)
        folders.append(here.as_posix())
        for name in sorted(names):
            file, relative = Path(place, name), (here / name).as_posix()
            wanted = relative in named or not (
                name.startswith(".") or NOT_NEEDED.fullmatch(name) or EARLIER_OUTPUT.fullmatch(name)
                or any(PurePosixPath(relative).match(pattern) for pattern in leave_out)
            )  # fmt: skip
            if not (wanted and file.is_file()):
                continue
            total += file.stat().st_size
            if total > MOST_BYTES:
                raise UserError(
                    f"{file}: with it the run folder comes to over {MOST_BYTES >> 20} MB, which every run would copy; "
                    "move what VISIT does not read elsewhere, or name it with --leave-out '*.nc'"
                )
            files[relative] = _bytes(file)
    return files, tuple(folders)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); correct its permissions") from None
