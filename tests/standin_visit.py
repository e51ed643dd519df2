"""A stand-in for the public VISIT: run folders with a program that reads and writes files as its versions do.

The program is started without arguments, opens setting.txt and the files that it names, says what it does, and leaves
the daily file under one of the two public namings. It computes its fluxes with visit_simulator, or, where only the
files matter, with a formula that takes no time. What it does wrong is said in a file of its own, behaviour.json.
"""

import json
import sys
import textwrap
from pathlib import Path

from calibration.common.command_line import REPOSITORY
from calibration.common.parameters import catalogue
from calibration.common.sites import load_site
from calibration.common.units import DAILY_COLUMNS
from calibration.weather.daily import Weather, forcing_text, generate_weather

PROGRAM = """\
    #!{python}
    import datetime, json, math, os, random, signal, sys, time

    def stop(why):
        print(why, flush=True)
        sys.exit(1)

    how = json.load(open("behaviour.json"))
    print("VISIT: Vegetation Integrative SImulator for Trace gases", len(sys.argv) - 1, "arguments", flush=True)
    tokens = open("setting.txt").read().split()
    setting = dict(zip(tokens[::2], tokens[1::2]))
    for name in ("CLIMF", "SITEF", "PARAF"):
        if not os.path.exists(setting[name]):
            stop("No " + name + " " + setting[name] + "!")
    if not os.path.exists("AtmGHG_timeseries.txt"):
        stop("No atmospheric GHG scenario!")
    parameters = open(how.get("parameters", setting["PARAF"])).read().split()
    parameters = parameters[parameters.index("9999999") - 2:]
    value = lambda slot: float(parameters[slot])
    climate = [line.split() for line in open(setting["CLIMF"])]
    years = range(int(setting["BYEAR"]), int(setting["EYEAR"]) + 1)
    climate = [row for row in climate if int(row[0]) in years][:how.get("days")]
    deed = how.get("deed", "")
    time.sleep(how.get("seconds", 0))
    if deed == "hang":
        time.sleep(600)
    if deed == "crash" or value(12) > how.get("crash above", 9):
        print("Spin-up 1 of 201")
        stop("Too much light for tree 2: pool below zero")
    if deed == "signal":
        os.kill(os.getpid(), signal.SIGSEGV)
    if deed == "write inputs":
        open(setting["PARAF"], "w").write("gone")
        open("INPUT/new.txt", "w").write("new")
        for path in how["absolute"]:
            try:
                open(path, "a").write("written by the binary")
            except OSError as error:
                print(error)
    if how.get("simulator"):
        sys.path.insert(0, {repository!r})
        from numba.core import caching
        for locator in vars(caching).values():  # compiled code is read where a run may not write
            if hasattr(locator, "ensure_cache_path"):
                locator.ensure_cache_path = lambda self: None
        caching.Cache.save_overload = lambda *_: None
        import tempfile
        tempfile.TemporaryFile = lambda dir: open(os.devnull)  # compile_cache.py asks whether the usual place will do
        from calibration.common.parameters import catalogue
        from calibration.common.sites import load_site
        from calibration.visit.simulator import simulate
        from calibration.weather.daily import read_weather
        given = {{name: value(p.slot) for name, p in catalogue().items() if p.slot is not None}}
        weather = read_weather(setting["CLIMF"], load_site())
        result = simulate(given, weather, load_site(), jobs=1)
        fluxes = result.targets[0].tolist()
    else:
        fluxes = []
        lue = round(value(12), how.get("digits", 9))
        for i, row in enumerate(climate):
            gpp = 2.3 * lue * (1 + 0.1 * math.sin(i / 58)) * float(row[2]) / 300 + how.get("noise", 0) * random.random()
            npp, rh = 0.35 * gpp - value(37), 0.0003 * value(124)
            fluxes.append((gpp, npp, npp - rh, rh))
    stem = setting["SITE"] + setting["FSFX"]
    print("Spin-up", setting["SPUPT"], "years", flush=True)
    open(stem + "_annual.txt", "w").write("2011 1 2 3\\n")
    names = how["columns"]
    if how["naming"] == "csv":
        for i in (1, 3, 9):
            open(stem + "_E0%d.csv" % i, "w").write("x\\n")
        name, comma = stem + "_E02.csv", ","
    else:
        open(stem + "_needaily.txt", "w").close()
        name, comma = stem + "_daily.txt", " "
    if deed == "nothing":
        sys.exit(0)
    forced = dict(tmp_sfc=9, tmp_2m=2, tmp10_soil=10, tmp200_soil=11, dswrf_sfc=7, tcdc_clm=8, prate_sfc=6, spfh_2m=5)
    with open(name, "w") as out:
        for i, (row, (gpp, npp, nep, rh)) in enumerate(zip(climate, fluxes)):
            day = datetime.date(int(row[0]), 1, 1) + datetime.timedelta(int(row[1]) - 1)
            found = dict(year=day.year, doy=int(row[1]) - 1, month=day.month, day=day.day, a_co2=how["co2"][i])
            found.update({{key: float(row[j]) + how.get("offset", 0) for key, j in forced.items()}})
            found["wind_10m"] = math.hypot(float(row[15]), float(row[16]))
            scale = how.get("scale", 1.0)
            found.update(gpp=gpp * scale, npp=npp * scale, er=(gpp - nep) * scale, nep=nep * scale, rh=rh * scale)
            if deed == "half" and i == 180:
                out.write("2011 180 6")
                sys.exit(0)
            out.write(comma.join("%.9g" % found.get(key, 0.0) for key in names) + "\\n")
    print("Finished", flush=True)
"""


def parameter_file(tokens_a_line: int = 1, newline: str = "\n", comments: bool = False) -> bytes:
    """A parameter file as VISIT reads it: version, date, dividers, and the baseline in every known slot."""
    tokens = ["0"] * 190
    for slot in (2, 42, 82, 122, 140, 164, 188):
        tokens[slot] = "9999999"
    tokens[0], tokens[1] = "3.1", "20190401"
    said = dict.fromkeys(range(len(tokens)), "")
    for parameter in catalogue().values():
        if parameter.slot is not None:
            tokens[parameter.slot] = f"{parameter.baseline:g}"
            said[parameter.slot] = f"\t/* {parameter.name} */" if comments else ""
    if tokens_a_line > 1:
        lines = [" ".join(tokens[i : i + tokens_a_line]) for i in range(0, len(tokens), tokens_a_line)]
    else:
        lines = [token + said[i] for i, token in enumerate(tokens)]
    return (newline.join(lines) + newline).encode()


def made_weather(start: str = "2011-01-01", end: str = "2012-12-31") -> Weather:
    """Weather of the stand-in's climate file."""
    return generate_weather(load_site(), start, end, seed=5)


def make_run_folder(folder: Path, naming: str = "txt", weather: Weather | None = None, **behaviour) -> Path:
    """A run folder with the stand-in in it; `behaviour`: see PROGRAM."""
    (folder / "INPUT").mkdir(parents=True)
    weather = weather or made_weather()
    years = weather.dates[[0, -1]].astype("datetime64[Y]").astype(str)
    settings = {
        "MODE": 1, "FSFX": "_v2", "SITE": "LHP", "SPUPT": 2000, "BYEAR": years[0], "EYEAR": years[1], "LDYEAR": 2000,
        "CLIMF": "INPUT/LHP_ERA5.txt", "SITEF": "INPUT/site_LHP.txt", "PARAF": "INPUT/parameter_LHP.txt",
    }  # fmt: skip
    (folder / "setting.txt").write_text("".join(f"{key}\t{value}\n" for key, value in settings.items()))
    (folder / "INPUT" / "LHP_ERA5.txt").write_bytes(forcing_text(weather, load_site()))
    (folder / "INPUT" / "site_LHP.txt").write_text("4.2 114.04 150\n")
    (folder / "INPUT" / "parameter_LHP.txt").write_bytes(parameter_file())
    (folder / "AtmGHG_timeseries.txt").write_text("1850 285 0 0 0\n")
    (folder / "visit.c").write_text("int main() {}\n")
    (folder / "LHP_v2_daily.txt").write_text("of an earlier run\n")
    behaviour = {"naming": naming, "columns": DAILY_COLUMNS, "co2": weather.column("a_co2").tolist(), **behaviour}
    (folder / "behaviour.json").write_text(json.dumps(behaviour))
    program = textwrap.dedent(PROGRAM).format(python=sys.executable, repository=str(REPOSITORY))
    (folder / "visit").write_text(program)
    (folder / "visit").chmod(0o755)
    return folder
