"""Units, the site file and what scripts do at their boundary."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from calibration.common import units
from calibration.common.command_line import (
    REPOSITORY,
    UserError,
    iso_date,
    make_parser,
    not_an_input,
    read_json,
    write_json,
    writing,
)
from calibration.common.sites import DEFAULT_SITE, load_site, say_default


def test_tower_units_round_trip_and_sign():
    assert units.nee_g_m2_to_nep_mg_ha(2.5) == pytest.approx(-0.025)  # release is a negative NEP
    nee = np.linspace(-9, 9, 7)
    np.testing.assert_allclose(units.nep_mg_ha_to_nee_g_m2(units.nee_g_m2_to_nep_mg_ha(nee)), nee)


def test_flux_identities():
    gpp, npp, er = 0.12, 0.05, 0.11
    nep = gpp - er
    assert npp - units.rh_from_npp_nep(npp, nep) == pytest.approx(nep)
    assert units.er_from_gpp_nep(gpp, nep) == pytest.approx(er)


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path):
    path = tmp_path / "result.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError), writing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "results").write_text("a file where a folder is wanted")
    with pytest.raises(UserError, match=r"results/a.json: cannot be written \(.*\); give another place for the output"):
        write_json(tmp_path / "results" / "a.json", {})


def test_a_folder_in_place_of_a_file_and_an_output_that_is_an_input_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match="is a folder; give the name of a file for the output"):
        write_json(tmp_path, {})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "tower.csv").write_text("the only copy")
    with pytest.raises(UserError, match="--output .*tower.csv is an input; give another name"):
        not_an_input(tmp_path / "x" / ".." / "tower.csv", None, tmp_path / "tower.csv")
    not_an_input(tmp_path / "nep.csv", tmp_path / "tower.csv")


def test_json_round_trip_refuses_nan_and_broken_files(tmp_path: Path):
    path = tmp_path / "a" / "b.json"
    write_json(path, {"x": [1, 2.5]})
    assert read_json(path) == {"x": [1, 2.5]}
    with pytest.raises(ValueError):
        write_json(path, {"x": float("nan")})
    assert read_json(path) == {"x": [1, 2.5]}
    path.write_text("{")
    with pytest.raises(UserError, match="not readable as JSON"):
        read_json(path)


def test_user_errors_end_in_one_line_and_exit_code_2(tmp_path: Path):
    script = tmp_path / "script.py"
    head = "from calibration.common.command_line import UserError, run"
    lines = [head, "def main():", "    raise UserError('a\\n b')", "run(main)"]
    script.write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)}
    )
    assert done.returncode == 2 and done.stderr == "error: a b\n" and done.stdout == ""


def test_a_wrong_flag_is_one_line_too(capsys):
    parser = make_parser("what it does")
    parser.add_argument("--start", type=iso_date)
    for given, message in ((["--start", "2012-13-01"], "'2012-13-01' is no day"), (["--stat"], "unrecognized")):
        with pytest.raises(SystemExit) as stopped:
            parser.parse_args(given)
        text = capsys.readouterr().err
        assert stopped.value.code == 2 and text.startswith("error: ") and text.count("\n") == 1 and message in text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("latitude: 4.20", "latitude: north", "latitude is 'north'"),
        ("texture: medium", "texture: loam", "texture is 'loam'"),
        ("name: LHP", "nmae: LHP", "unknown key 'nmae'"),
        ("altitude: 150.0", "# no altitude", "key 'altitude' is missing"),
        ("start: 2010-01-01", "start: 2030-01-01", "period must be"),
        ("start: 2010-01-01", "start: 2010-01-01 12:00:00", "period must be"),
        ("name: LHP", "name: 12", "name is 12, expected text"),
        ("weather: lhp_weather.json", "weather:", "weather is None, expected text"),
        ("name: LHP", "name: [", "not readable as YAML"),
        ("forest: evergreen", "forest: evergren", "forest is 'evergren', allowed is one of evergreen,"),
    ],
)
def test_bad_site_files_are_refused_with_the_reason(tmp_path: Path, old, new, message):
    path = tmp_path / "site.yaml"
    text = DEFAULT_SITE.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError) as error:
        load_site(path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_the_default_site_is_said_where_the_data_are_the_users(tmp_path, capsys):
    (tmp_path / "copy.yaml").write_text(DEFAULT_SITE.read_text())
    say_default(load_site(tmp_path / "copy.yaml"), "my_weather.csv")
    say_default(load_site(DEFAULT_SITE), None)
    assert capsys.readouterr().err == ""
    say_default(load_site(DEFAULT_SITE), "my_weather.csv")
    assert capsys.readouterr().err == "notice: site: LHP (default; --site FILE for another), for my_weather.csv\n"


def test_default_site_is_lambir_hills():
    site = load_site()
    assert (site.name, site.latitude, site.lower_capacity) == ("LHP", 4.2, 477.0)
    assert site.weather_statistics.parent == DEFAULT_SITE.parent


def test_quiet_leaves_warnings_and_the_closing_lines(tmp_path: Path):
    program = tmp_path / "long.py"
    program.write_text(
        "from calibration.common.command_line import add_quiet, closing, make_parser, progress, run, warn\n"
        "def main():\n"
        "    parser = make_parser('a long script')\n"
        "    add_quiet(parser)\n"
        "    parser.parse_args()\n"
        "    print('on the way')\n"
        "    warn('look here')\n"
        "    list(progress(range(3)))\n"
        "    closing('results/x', 'python next.py', 'found 3')\n"
        "run(main)\n"
    )
    outputs = {}
    for flags in ((), ("--quiet",)):
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run([sys.executable, program, *flags], capture_output=True, text=True, env=environment)
        assert done.returncode == 0 and done.stderr == "warning: look here\n"
        outputs[flags] = done.stdout
    ending = "found 3\nresults in results/x\nnext: python next.py\n"
    assert outputs == {(): "on the way\n" + ending, ("--quiet",): ending}


@pytest.mark.parametrize("name", [
    "run_perturbations", "train", "evaluate_model", "test_inversion", "evaluate_parameter_recovery", "sensitivity",
    "check_ensemble",
])  # fmt: skip
def test_scripts_that_take_long_can_be_quiet_and_say_where_the_result_is(name):
    text = (REPOSITORY / f"{name}.py").read_text(encoding="utf-8")
    assert "add_quiet(" in text and "closing(" in text
