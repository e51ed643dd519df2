"""make_report.py: real results of a tiny emulator on one page, in a parser and, where there is one, in Chromium."""

import io
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from pages import CHROMIUM, Outline, chromium, framed
from PIL import Image
from script_calls import script

from calibration.common.command_line import UserError
from calibration.common.figure_style import use_format
from calibration.common.parameters import make_space
from calibration.exploration.analysis import Analysis, Findings
from calibration.inversion.inputs import WITHOUT_NOISE
from calibration.reports import emulator, inversion, kinds, page, recovery
from calibration.reports.content import GOOD, Section, Table

EVIL = "</script><script>document.title='stolen'</script>"


@pytest.fixture(scope="module")
def results(tiny_training, tmp_path_factory):
    """data/, artifacts/, results/: what a user has after the whole path, with a tiny emulator."""
    folder = shutil.copytree(tiny_training, tmp_path_factory.mktemp("report") / "project")
    here = ["--data-dir", folder / "data", "--artifacts-dir", folder / "artifacts"]
    fit, recovery = folder / "results" / "fit", folder / "results" / "recovery"
    for name, *more in (
        ("evaluate_model.py", "--window-stride", 90),
        ("test_inversion.py", "--mode", "simulation", "--starts", 2, "--result-dir", fit),
        ("evaluate_parameter_recovery.py", "--sample-id", 0, "--window-index", 0, "--starts", 2, "--result-dir",
         recovery),
    ):  # fmt: skip
        made = script(name, *here, *more)
        assert made.returncode == 0, made.stderr
    space, found = make_space([("a", 0.0, 1.0), ("b", 0.0, 1.0)], "test"), Findings()
    rng = np.random.default_rng(0)
    season = rng.random((1, 400, 4))
    model = {"emulator": lambda values, days: 0.1 + values[:, :1, None] * season[:, :days]}
    Analysis(space, model, 365, 1, bar).morris(3, [30, 365], 0.01, found)
    found.facts |= {"models": ["emulator"], "parameters": ["a", "b"], "seed": 1, "days": [30, 365]}
    (folder / "results" / "sensitivity").mkdir()
    use_format("svg")
    found.write(folder / "results" / "sensitivity")
    use_format("png")
    return folder


class bar:  # noqa: N801
    """A progress bar that shows nothing."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, count):
        pass


@pytest.fixture
def copy(results, tmp_path):
    """A copy of the inversion's folder, to be damaged."""
    return shutil.copytree(results / "results" / "fit", tmp_path / "fit")


def test_the_whole_path_on_one_page(results):
    done = script("make_report.py", results, "--output", results / "report.html", "--title", "My tower & I")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("5 results -> ")
    path = results / "report.html"
    assert path.stat().st_size < 5_000_000
    outline = Outline(path.read_text(encoding="utf-8"))
    assert outline.requests == []
    for words in ("My tower & I", "The ensemble", "The emulator", "Inversion: fit", "Recovery of a known run",
                  "Sensitivity", "posterior / prior sd", "RMSE of 30-day runs", "SHA-256",
                  "Of 2 parameters"):  # fmt: skip
        assert words in outline.text, words
    verdict = (results / "results" / "fit" / "inversion_summary.txt").read_text().splitlines()[0]
    assert verdict in outline.text


def test_the_inversion_of_most_days_comes_first_below_what_the_page_is_about(results, tmp_path):
    folder = shutil.copytree(results / "results" / "fit", tmp_path / "path" / "b")
    more = shutil.copytree(folder, tmp_path / "path" / "c")
    given = shutil.copytree(folder, tmp_path / "path" / "a")
    for path, change in ((more, {"valid_observations": 300}), (given, {"valid_observations": 400, "judged_on": "x"})):
        snapshot = json.loads((path / "params_snapshot.json").read_text())
        snapshot["metadata"] |= change
        (path / "params_snapshot.json").write_text(json.dumps(snapshot))
    titles = [section.title for section in kinds.sections_of(tmp_path / "path")]
    assert titles == ["Inversion: c", "Inversion: a", "Inversion: b"]
    (tmp_path / "path" / "about.txt").write_text(f"A tower & {EVIL}\nWhich question?\n")
    done = script("make_report.py", tmp_path / "path")
    assert done.returncode == 0, done.stderr
    html = (tmp_path / "path" / "report.html").read_text(encoding="utf-8")
    text = Outline(html).text
    assert EVIL not in html and text.index("A tower &") < text.index("Which question?") < text.index("Made 2")


def test_the_steps_are_those_that_scripts_recorded(results, tmp_path):
    """Where the whole path was not run as one."""
    table = kinds.steps_of(results)
    scripts = [row[0] for row in table.rows]
    assert scripts[0] == "train.py" and set(scripts) == {
        "train.py", "evaluate_model.py", "test_inversion.py", "evaluate_parameter_recovery.py"
    }  # fmt: skip
    record = json.loads((results / "results" / "fit" / "test_inversion_record.json").read_text())
    row = table.rows[scripts.index("test_inversion.py")]
    assert row == ["test_inversion.py", "results in results/fit", record["seconds"], record["seed"], record["command"]]
    assert "--reproduce FOLDER" in table.caption and f"version {record['tool']['version']}" in table.caption
    assert f"Threads of torch: {record['threads']}" in table.caption
    assert table.rows[scripts.index("evaluate_model.py")][3] is None
    page_text = Outline(page.render("t", kinds.sections_of(results), steps=table)[0]).text
    assert page_text.index("The steps") < page_text.index("Words")
    assert kinds.steps_of(tmp_path) is None and "The steps" not in page.render("t", [])[0]


def test_numbers_on_the_page_are_those_of_the_files(results):
    folder = results / "results" / "fit"
    section = inversion.section(folder)
    posterior = pd.read_csv(folder / "posterior_summary.csv").sort_values("sd_ratio")
    table = next(b for b in section.blocks if isinstance(b, Table) and "posterior / prior sd" in b.headers)
    assert [row[0] for row in table.rows] == list(posterior["param_name"])
    assert [row[4] for row in table.rows] == pytest.approx(list(posterior["optimized"]))
    assert table.marked == {i for i, ratio in enumerate(posterior["sd_ratio"]) if ratio < 0.7}
    parts = next(b for b in section.blocks if isinstance(b, Table) and b.headers[0] == "part").rows
    series = pd.read_csv(folder / "nep_comparison.csv")
    mean = (series["optimized"] - series["observed"])[series["valid"] == 1].mean()
    assert parts[0][1] == pytest.approx(abs(mean)) and sum(int(row[2][:-2]) for row in parts) in (99, 100, 101)


def headers_of_parameters(section):
    """The headers of the table of parameters."""
    return next(block.headers for block in section.blocks if isinstance(block, Table) and "parameter" in block.headers)


def test_true_values_are_shown_where_they_are_known_and_only_there(copy, results):
    """The fit is of a run of the ensemble, whose parameters stand in parameter_summary.csv."""
    section = inversion.section(copy)
    table = next(b for b in section.blocks if isinstance(b, Table) and "true" in b.headers)
    run = pd.read_csv(results / "data" / "parameter_summary.csv").set_index("sample_id").loc[0]
    place = {header: k for k, header in enumerate(table.headers)}
    assert {row[0]: row[place["true"]] for row in table.rows} == pytest.approx(
        {row[0]: run[row[0]] for row in table.rows}
    )
    free = [row for row in table.rows if np.isfinite(row[place["posterior / prior sd"]])]
    inside = [row[place["90 % from"]] <= row[place["true"]] <= row[place["to"]] for row in free]
    assert [row[place["true inside"]] for row in free] == inside and sum(inside) > 0
    sentence = next(line for line in section.meaning if "true values are known" in line)
    assert "run 0 of" in sentence and f"{sum(inside)} of {len(inside)} lie inside" in sentence
    figure = next(block.figure for block in section.blocks if getattr(block, "alt", "").startswith("Parameters with"))
    assert "true value" in [item.label.value for item in figure.legend[0].items]

    (copy / "true_parameters.json").unlink()
    section = inversion.section(copy)
    assert "true" not in headers_of_parameters(section) and "values are known" not in " ".join(section.meaning)
    figure = next(block.figure for block in section.blocks if getattr(block, "alt", "").startswith("Parameters with"))
    assert "true value" not in [item.label.value for item in figure.legend[0].items]


def test_true_values_that_are_none_are_refused(copy):
    (copy / "true_parameters.json").write_text(json.dumps({"parameters": {"tree_pmax": "x"}, "source": "?"}))
    with pytest.raises(UserError, match=r"true_parameters.json: 'parameters' must hold a number"):
        inversion.section(copy)


def test_what_a_verdict_needs_stands_above_the_figures(copy):
    """All of it is in the sentences below the verdict, in an order that leads from the flux to the parameters."""
    (copy / "true_parameters.json").unlink()
    path = copy / "nep_comparison.csv"
    series = pd.read_csv(path)
    series.assign(simulator=series["optimized"]).to_csv(path, index=False)
    names = pd.read_csv(copy / "posterior_summary.csv")["param_name"]
    table = pd.DataFrame(np.full((len(names),) * 2, 0.8), names, names)
    table.to_csv(copy / "posterior_correlation.csv")
    np.savez(copy / "posterior.npz", mode_weights=[0.5, 0.5])
    said = inversion.section(copy).meaning
    order = ("On the days it was fitted", "The process model itself", "Better known together", "Multimodal")
    places = [next(k for k, line in enumerate(said) if words in line) for words in order]
    assert places == sorted(places)


def test_windows_without_noise_are_said_to_be_covered_too_rarely(copy, results):
    """Both are windows of an ensemble run; a tower's days are not."""
    assert WITHOUT_NOISE in (copy / "inversion_summary.txt").read_text()
    assert WITHOUT_NOISE in inversion.section(copy).meaning
    (case,) = recovery.case_sections(results / "results" / "recovery")
    assert WITHOUT_NOISE in case.meaning
    snapshot = json.loads((copy / "params_snapshot.json").read_text())
    snapshot["metadata"]["without_noise"] = False
    (copy / "params_snapshot.json").write_text(json.dumps(snapshot))
    assert WITHOUT_NOISE not in inversion.section(copy).meaning


def test_in_conflict_the_page_does_not_praise_parameters(copy):
    summary = (copy / "inversion_summary.txt").read_text()
    (copy / "inversion_summary.txt").write_text("CONFLICTS WITH THE MODEL: so it is\n" + summary)
    section = inversion.section(copy)
    meaning = " ".join(section.meaning)
    assert "Informed" not in meaning and "What conflicts: mean" in meaning
    tables = [block for block in section.blocks if block.kind == "table" and block.headers[0] == "parameter"]
    assert len(tables) == 1 and not tables[0].marked and "not findings" in tables[0].caption


def test_why_the_worst_run_is_so_stands_below_the_emulators_verdict(results):
    worst = pd.read_csv(results / "artifacts" / "evaluation_worst_runs.csv").sort_values("rmse_nep").iloc[-1]
    sentence = next(s for s in emulator.section(results / "artifacts").meaning if "predicted worst" in s)
    assert sentence.startswith(f"Run {worst.sample_id:.0f} is") and "The limit nearest" in sentence


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"noise_known": True}, ", known to the inversion"), ({"noise_known": False}, ", estimated by the inversion"),
     ({}, "")],
)  # fmt: skip
def test_the_verdict_of_a_recovery_says_the_noise_with_its_unit(results, settings, words):
    study = {"noise": 0.005, "settings": settings}
    assert recovery.noise_words(study) == f"white noise of sd 0.005 Mg C ha-1 day-1{words}"
    path = next((results / "results" / "recovery").glob("*_summary.json"))
    supposed = json.loads(path.read_text())["supposed_noise"]
    assert supposed > 0
    verdict = recovery.case_section(path).verdict
    section = recovery.case_section(path)
    assert any(line.startswith("Informed") for line in section.meaning)
    assert all(line.endswith(".") for line in section.meaning), section.meaning
    assert f"with noise of sd 0 Mg C ha-1 day-1 (the inversion supposes {supposed:.2g})" in verdict
    assert recovery.case_noise_words({}) == "noise of sd 0 Mg C ha-1 day-1", "an earlier version's case"


def test_every_linked_word_is_explained_on_the_page(results):
    html = page.render("t", kinds.sections_of(results))[0]
    targets = set(re.findall(r'href="#(word-[^"]+)"', html))
    assert {"word-posterior", "word-baseline"} <= targets
    assert targets <= set(re.findall(r'<dt id="([^"]+)"', html))


def test_markup_in_names_and_texts_is_escaped(copy):
    for name in ("posterior_summary.csv", "parameter_values.csv"):
        table = pd.read_csv(copy / name)
        table.loc[0, "param_name"] = EVIL
        table.to_csv(copy / name, index=False)
    snapshot = json.loads((copy / "params_snapshot.json").read_text())
    snapshot["metadata"]["command"] = EVIL
    (copy / "params_snapshot.json").write_text(json.dumps(snapshot))
    summary = (copy / "inversion_summary.txt").read_text()
    (copy / "inversion_summary.txt").write_text(f"FITS: {EVIL}\n{summary}")
    evil = copy.rename(copy.parent / "<img src=x onerror=alert(1)>")
    clean = page.render("t", [inversion.section(evil, "x")])[0]
    html = page.render(EVIL, [inversion.section(evil)])[0]
    assert EVIL not in html and "<img src=x" not in html
    assert Outline(html).scripts == Outline(clean).scripts and EVIL in Outline(html).text


def test_tables_hold_the_unknown_and_sort_by_the_whole_number():
    table = Table(["a", "b"], [[1.23456789, None], [np.nan, True], [3, "x"]], "c")
    assert table.cells()[0] == [("1.235", "1.23456789"), ("\N{EN DASH}", "")]
    assert table.cells()[1] == [("\N{EN DASH}", ""), ("yes", "True")] and table.numeric() == [True, False]


def test_pictures_beyond_the_limit_are_named_instead(results):
    section = inversion.section(results / "results" / "fit")
    html, left_out = page.render("t", [section], limit=1_400_000 + 50_000)
    assert left_out and len(html) < 1_500_000
    assert f"Left out to keep this file small: {left_out[0]}" in Outline(html).text


def test_a_picture_is_packed_without_changing_what_is_seen(results):
    path = results / "results" / "fit" / "nep_comparison.png"
    packed = page._small(path)
    before, after = (np.asarray(Image.open(p).convert("RGB"), float) for p in (path, io.BytesIO(packed)))
    assert len(packed) < 0.6 * path.stat().st_size
    assert before.shape == after.shape and np.sqrt(np.mean((before - after) ** 2)) < 4


def test_a_damaged_picture_is_named(copy):
    (copy / "nep_comparison.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="nep_comparison.png: not readable as a PNG"):
        page.render("t", [inversion.section(copy)])


def test_a_table_of_another_version_is_refused(copy):
    table = pd.read_csv(copy / "posterior_summary.csv").drop(columns="sd_ratio")
    table.to_csv(copy / "posterior_summary.csv", index=False)
    with pytest.raises(UserError, match=r"posterior_summary.csv: column 'sd_ratio' is missing.*run test_inversion.py"):
        inversion.section(copy)


def test_an_emulator_of_another_version_is_refused(results, tmp_path):
    folder = shutil.copytree(results / "artifacts", tmp_path / "artifacts")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"format": 1}))
    with pytest.raises(UserError, match="format 1, this one reads 2"):
        emulator.section(folder)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("params_snapshot.json", "half a result: inversion_summary.txt is there, params_snapshot.json is not"),
        ("nep_comparison.csv", "nep_comparison.csv: no such file; half a result"),
        ("skill.csv", "skill.csv: no such file; half a result"),
    ],
)
def test_half_a_result_is_refused(copy, missing, message):
    (copy / missing).unlink()
    with pytest.raises(UserError, match=re.escape(message)):
        kinds.sections_of(copy)


def test_bad_folders_are_one_line_and_write_nothing(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    done = script("make_report.py", tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "holds no result that a report could show" in done.stderr and not (tmp_path / "report.html").exists()
    with pytest.raises(UserError, match="no such folder"):
        kinds.sections_of(tmp_path / "absent")


def test_damaged_json_is_named(copy):
    (copy / "params_snapshot.json").write_text("{")
    with pytest.raises(UserError, match="params_snapshot.json: not readable as JSON"):
        kinds.sections_of(copy)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [400, 1400])
def test_in_a_browser_nothing_fails_and_nothing_is_requested(results, tmp_path, width):
    path = tmp_path / "report.html"
    html = page.render("t", kinds.sections_of(results))[0]
    probe = """<script>addEventListener("load", () => setTimeout(() => {
      const head = [...document.querySelectorAll("th.number button")].find((b) => b.textContent === "RMSE");
      head.click();
      const values = [...head.closest("table").tBodies[0].rows].map((r) => +r.cells[3].dataset.value);
      document.body.dataset.sorted = values.every((v, i) => !i || values[i - 1] <= v);
      document.body.dataset.wide = document.documentElement.scrollWidth > innerWidth;
      document.body.dataset.width = innerWidth;
      document.body.dataset.plots = document.querySelectorAll(".bk-Figure").length;
    }, 1500));</script></body>"""
    path.write_text(framed(html.replace("</body>", probe), width), encoding="utf-8")
    dom, console, hosts = chromium(path, tmp_path / "profile", "--window-size=1500,1200")
    assert console == [] and hosts == set()
    assert 'data-sorted="true"' in dom and 'data-wide="false"' in dom and f'data-width="{width}"' in dom
    assert int(re.search(r'data-plots="(\d+)"', dom).group(1)) == 2  # the series and the parameters


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_browser_check_itself_sees_errors_and_requests(tmp_path):
    path = tmp_path / "bad.html"
    path.write_text('<body><script>nope()</script><img src="http://127.0.0.1:9/x.png"></body>')
    _, console, hosts = chromium(path, tmp_path / "profile")
    assert "nope is not defined" in console[0] and hosts == {"127.0.0.1:9"}


def test_a_section_without_figures_needs_no_script_library():
    html, _ = page.render("t", [Section("s", "v", GOOD)])
    assert len(html) < 30_000 and Outline(html).scripts == 2
