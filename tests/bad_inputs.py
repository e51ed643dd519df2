"""Bad inputs by script: what is given, and what the one line must say. `test_bad_inputs.py` gives them.

A file stands for a way to spoil a good one: (good file, function of its text). {name} in the flags is a file's path,
{out} a folder that must stay empty.
"""

import json
import re


def line(number: int, new: str):
    """Replace a line (0: the first); '' takes it out."""

    def change(text: str) -> str:
        lines = text.split("\n")
        lines[number : number + 1] = [new] if new else []
        return "\n".join(lines)

    return change


def sub(old: str, new: str, count: int = 1):
    """Replace a pattern, `count` times (0: everywhere)."""
    return lambda text: re.sub(old, new, text, count=count, flags=re.MULTILINE)


def key(name: str, value):
    """Set a key of a JSON object (None: take it out)."""

    def change(text: str) -> str:
        content = json.loads(text)
        if value is None:
            del content[name]
        else:
            content[name] = value
        return json.dumps(content)

    return change


def rows(count: int):
    """Only the first lines."""
    return lambda text: "\n".join(text.split("\n")[:count]) + "\n"


FILES = {
    # weather CSV: date and nine variables
    "w_empty": ("weather", lambda _: ""), "w_header": ("weather", rows(1)), "w_one_day": ("weather", rows(2)),
    "w_no_column": ("weather", sub("spfh_2m", "humidity")), "w_date_twice": ("weather", sub("2011-01-02", "2011-01-01")),
    "w_date_wrong": ("weather", sub("2011-01-02", "2011-02-30")), "w_date_us": ("weather", sub("2011-01-02", "13/40/2011")),
    "w_gap": ("weather", line(5, "")), "w_word": ("weather", sub(r"^(2011-01-03),[^,]+", r"\1,warm")),
    "w_nan": ("weather", sub(r"^(2011-01-03),[^,]+", r"\1,")), "w_inf": ("weather", sub(r"^(2011-01-03),[^,]+", r"\1,inf")),
    "w_missing": ("weather", sub(r"^(2011-01-03),[^,]+", r"\1,-9999")), "w_cold": ("weather", sub(r"^(2011-01-03),[^,]+", r"\1,27")),
    "w_long_row": ("weather", sub(r"^(2011-01-03.*)$", r"\1,1,2,3")), "w_short_row": ("weather", sub(r"^(2011-01-03),.*$", r"\1,300")),
    "w_html": ("weather", lambda _: "<!DOCTYPE html><html><body>404</body></html>\n"), "w_null": ("weather", lambda text: text[:500] + "\0" * 50),
    "w_column_twice": ("weather", sub("tmp_2m", "tmp_sfc")), "w_quote": ("weather", sub(r"^2011-01-03", '"2011-01-03')),
    # observations
    "o_empty": ("obs", lambda _: ""), "o_header": ("obs", rows(1)), "o_no_nep": ("obs", sub("nep_mg_ha", "nep")),
    "o_no_mask": ("obs", sub("obs_mask", "mask")), "o_mask_two": ("obs", sub(r"^(2012-01-03.*),1$", r"\1,2")),
    "o_mask_word": ("obs", sub(r"^(2012-01-03.*),1$", r"\1,yes")), "o_nep_word": ("obs", sub(r"^(2012-01-03,.*),[^,]+,1$", r"\1,much,1")),
    "o_nep_nan": ("obs", sub(r"^(2012-01-03,.*),[^,]+,1$", r"\1,,1")), "o_unit": ("obs", sub(r"^(.*),([^,a-z]+),1$", r"\1,250,1", 0)),
    "o_date": ("obs", sub("2012-01-03", "yesterday")), "o_twice": ("obs", sub("2012-01-03", "2012-01-02")), "o_none": ("obs", sub(r",1$", ",0", 0)),
    # tower
    "t_empty": ("tower", lambda _: ""), "t_half_hours": ("tower", sub(r"^(\d{8}),", r"\g<1>0030,", 0)), "t_no_time": ("tower", sub("TIMESTAMP", "WHEN")),
    "t_no_nee": ("tower", sub("NEE_vUT", "FLUX", 0)), "t_word": ("tower", sub(r"^(20190103),[^,]+", r"\1,none")), "t_twice": ("tower", sub("20190103", "20190102")),
    "t_date": ("tower", sub("20190103", "20191399")), "t_header": ("tower", rows(1)),
    # forcing text
    "f_columns": ("forcing", line(3, "2011 4 1 2 3")), "f_word": ("forcing", sub(r"^(2011 +3 +)\S+", r"\1warm")), "f_day_twice": ("forcing", sub(r"^2011 +3 ", "2011 2 ")),
    "f_day_400": ("forcing", sub(r"^2011 +3 ", "2011 400 ")), "f_empty": ("forcing", lambda _: ""), "f_celsius": ("forcing", sub(r"^(2011 +3 +)\S+", r"\1 27.0")),
    # ranges
    "r_empty": ("ranges", lambda _: ""), "r_unknown": ("ranges", lambda text: text + '9: "tree_magic", 0, 1\n'), "r_twice": ("ranges", lambda text: text + '9: "tree_lue", 0.04, 0.05\n'),
    "r_turned": ("ranges", lambda text: text + '9: "tree_sla", 200, 100\n'), "r_word": ("ranges", lambda text: text + '9: "tree_sla", low, 100\n'),
    "r_nan": ("ranges", lambda text: text + '9: "tree_sla", nan, 100\n'), "r_inf": ("ranges", lambda text: text + '9: "tree_sla", 1, inf\n'),
    "r_no_reference": ("ranges", lambda text: text + '9: "tree_sla", 1, tree_size\n'), "r_circle": ("ranges", lambda _: '0: "tree_sla", 1, c3_sla\n1: "c3_sla", 1, tree_sla\n'),
    "r_illegal": ("ranges", lambda text: text + '9: "tree_sla", -5, 100000\n'),
    "r_bytes.csv": ("ranges", lambda _: "\udcff\udcfe"), "r_list.yaml": ("ranges", lambda _: "- a\n- b\n"), "r_min.yaml": ("ranges", lambda _: "parameter_bounds: {tree_sla: {min: 1}}\n"),
    "r_bool.yaml": ("ranges", lambda _: "parameter_bounds: {tree_sla: {min: true, max: 2}}\n"), "r_extra.yaml": ("ranges", lambda _: "parameter_bounds: {tree_sla: {min: 1, max: 2, unit: m}}\n"),
    "r_text.yaml": ("ranges", lambda _: "parameter_bounds: {tree_sla: {min: 1, max: high}}\n"),
    # site
    "s_empty.yaml": ("site", lambda _: ""), "s_key.yaml": ("site", lambda text: text + "colour: green\n"), "s_nan.yaml": ("site", sub(r"^latitude:.*", "latitude: .nan")),
    "s_lat.yaml": ("site", sub(r"^latitude:.*", "latitude: 95")), "s_bool.yaml": ("site", sub(r"^altitude:.*", "altitude: yes")), "s_variant.yaml": ("site", lambda text: text + "variant: {pressure: deep}\n"),
    "s_period.yaml": ("site", sub(r"^  start:.*", "  start: soon")), "s_list.yaml": ("site", lambda _: "[1, 2]\n"),
    # parameter table
    "p_empty": ("table", lambda _: ""), "p_no_id": ("table", sub("sample_id", "number")), "p_word": ("table", sub(r"^1,[^,]+", "1,green")),
    "p_nan": ("table", sub(r"^1,[^,]+", "1,")), "p_twice": ("table", sub(r"^1,", "0,")), "p_header": ("table", rows(1)), "p_only_id": ("table", lambda _: "sample_id\n0\n1\n"),
    "p_long": ("table", sub(r"^(1,.*)$", r"\1,7,8")), "p_same": ("table", sub("tree_pmax", "tree_lue")), "p_illegal": ("table", sub(r"^1,[^,]+", "1,-3")),
    # inversion's configuration
    "c_key.yaml": ("config", lambda text: text + "speed: high\n"), "c_method.yaml": ("config", lambda _: "method: magic\n"), "c_lr.yaml": ("config", lambda _: "lr: -1\n"),
    "c_nan.yaml": ("config", lambda _: "lr: .nan\n"), "c_inf.yaml": ("config", lambda _: "offset_sd: .inf\n"), "c_text.yaml": ("config", lambda _: "max_iters: many\n"),
    "c_float.yaml": ("config", lambda _: "max_iters: 2.5\n"), "c_target.yaml": ("config", lambda _: "target_variable: NEE\n"), "c_twice.yaml": ("config", lambda _: "target_variable: nep, nep\n"),
    "c_section.yaml": ("config", lambda _: "gauss_newton: 3\n"), "c_starts.yaml": ("config", lambda _: "starts: 0\n"), "c_sd.yaml": ("config", lambda _: "error_model: {observation_sd: -0.1}\n"),
    "c_list.yaml": ("config", lambda _: "- 1\n"), "c_bounds.yaml": ("config", lambda _: "bounds_file: nowhere.csv\n"),
    # architecture
    "a_empty.yaml": ("architecture", lambda _: ""), "a_key.yaml": ("architecture", lambda text: text + "colour: 1\n"), "a_no_data.yaml": ("architecture", sub(r"^data:", "dta:")),
    "a_preset.yaml": ("architecture", sub(r"^preset:.*", "preset: fastest")), "a_epochs.yaml": ("architecture", sub(r"epochs: \d+", "epochs: 0")),
    "a_hidden.yaml": ("architecture", sub(r"hidden_size: \d+", "hidden_size: wide")), "a_dropout.yaml": ("architecture", sub(r"\bdropout: [\d.]+", "dropout: 1.5")),
    "a_rate.yaml": ("architecture", sub(r"learning_rate: \S+?(?=[,}\s])", "learning_rate: .nan")), "a_split.yaml": ("architecture", sub(r"validation: \[.*?\]", "validation: [2001, 2002]")),
    # snapshot of an inversion
    "n_empty.json": ("snapshot", lambda _: "{}"), "n_names.json": ("snapshot", key("names", ["a"])), "n_short.json": ("snapshot", key("optimized", [1.0])),
    "n_nan.json": ("snapshot", key("optimized", [float("nan")] * 3)), "n_text.json": ("snapshot", key("optimized", "many")), "n_list.json": ("snapshot", lambda _: "[1, 2]"),
    "n_cut.json": ("snapshot", lambda text: text[:20]), "n_meta.json": ("snapshot", key("metadata", [1])),
}  # fmt: skip

WEATHER = ["w_empty", "w_header", "w_one_day", "w_no_column", "w_date_twice", "w_date_wrong", "w_date_us", "w_gap", "w_word", "w_nan",
           "w_inf", "w_missing", "w_cold", "w_long_row", "w_short_row", "w_html", "w_null", "w_column_twice", "w_quote"]

FLAGS = [
    ("weather", ["--start", "2012-02-30", "--output", "{out}/w.csv"], "is no day"),
    ("weather", ["--start", "2013-01-01", "--end", "2012-01-01", "--output", "{out}/w.csv"], ""),
    ("weather", ["--check", "{out}/none.csv"], ""),
    ("weather", ["--seed", "x"], ""), ("weather", ["--sed", "1"], ""),
    ("weather", ["--seed", "-1", "--output", "{out}/w.csv"], ""),
    ("weather", ["--convert", "{weather}"], ""),
    ("weather", ["--convert", "{weather}", "--output", "{weather}"], ""),
    ("weather", ["--output", "{empty}"], ""),
    ("build_observation_windows", ["--daily", "{weather}", "--obs", "{obs}", "--artifacts-dir", "{scaler}", "--output", "{out}/w.npz", "--context-len", "0"], ""),
    ("build_observation_windows", ["--daily", "{weather}", "--obs", "{obs}", "--artifacts-dir", "{scaler}", "--output", "{out}/w.npz", "--prediction-len", "-3"], ""),
    ("build_observation_windows", ["--daily", "{weather}", "--obs", "{obs}", "--artifacts-dir", "{scaler}", "--output", "{out}/w.npz", "--min-valid", "31"], ""),
    ("build_observation_windows", ["--daily", "{weather}", "--obs", "{obs}", "--artifacts-dir", "{scaler}", "--output", "{out}/w.npz", "--min-valid", "2.5"], ""),
    ("build_observation_windows", ["--daily", "{weather}", "--obs", "{obs}", "--artifacts-dir", "{scaler}", "--output", "{out}/w.npz", "--min-valid", "nan"], ""),
    ("build_observation_windows", ["--daily", "{weather}", "--obs", "{obs}", "--artifacts-dir", "{scaler}", "--output", "{out}/w.npz", "--max-gap", "-1"], ""),
    ("build_observation_windows", ["--daily", "{weather}", "--obs", "{obs}", "--artifacts-dir", "{scaler}", "--output", "{out}/w.npz", "--stride", "0"], ""),
    ("build_observation_windows", ["--daily", "{weather}", "--obs", "{obs}", "--artifacts-dir", "{scaler}", "--output", "{out}/w.npz", "--start", "2030-01-01"], ""),
    ("build_observation_windows", ["--daily", "{weather}", "--obs", "{obs}", "--artifacts-dir", "{scaler}", "--output", "{out}/w.npz", "--context-len", "5000"], ""),
    ("build_observation_windows", ["--daily", "{weather}", "--obs", "{obs}", "--artifacts-dir", "{empty}", "--scaler", "{empty}/s.pkl", "--output", "{out}/w.npz"], ""),
    ("build_observation_windows", ["--daily", "{obs}", "--obs", "{obs}", "--artifacts-dir", "{scaler}", "--output", "{out}/w.npz"], ""),
    ("build_observation_windows", ["--daily", "{weather}", "--obs", "{weather}", "--artifacts-dir", "{scaler}", "--output", "{out}/w.npz"], ""),
    ("prepare_observation_nep", ["--input", "{tower}", "--output", "{out}/n.csv", "--nee-column", "NEE_XYZ"], ""),
    ("prepare_observation_nep", ["--input", "{tower}", "--output", "{out}/n.csv", "--nee-qc-column", "QC_XYZ"], ""),
    ("prepare_observation_nep", ["--input", "{tower}", "--output", "{out}/n.csv", "--qc-threshold", "nan"], ""),
    ("prepare_observation_nep", ["--input", "{tower}", "--output", "{out}/n.csv", "--start", "2021-01-01"], ""),
    ("prepare_observation_nep", ["--input", "{tower}", "--output", "{out}/n.csv", "--start", "2020-01-01", "--end", "2019-01-01"], ""),
    ("prepare_observation_nep", ["--input", "{tower}", "--output", "{out}/n.csv", "--layout", "martian"], ""),
    ("prepare_observation_nep", ["--input", "{tower}", "--output", "{tower}"], ""),
    ("prepare_observation_nep", ["--input", "{empty}", "--output", "{out}/n.csv"], ""),
    ("prepare_observation_meteorology", ["--input", "{tower}", "--output", "{out}/m.csv", "--no-figure"], ""),
    ("prepare_observation_meteorology", ["--input", "{out}/none.csv", "--output", "{out}/m.csv"], ""),
    ("blend_observation_meteorology", ["--era5-input", "{forcing}", "--obs-csv", "{obs}", "--output", "{out}/b.txt"], ""),
    ("blend_observation_meteorology", ["--era5-input", "{weather}", "--obs-csv", "{weather}", "--output", "{out}/b.txt"], ""),
    ("blend_observation_meteorology", ["--era5-input", "{forcing}", "--obs-csv", "{weather}", "--output", "{forcing}"], ""),
    ("run_perturbations", ["--n-samples", "0", "--output-dir", "{out}/d"], ""),
    ("run_perturbations", ["--seed", "-1", "--output-dir", "{out}/d"], ""),
    ("run_perturbations", ["--jobs", "0", "--output-dir", "{out}/d"], ""),
    ("run_perturbations", ["--output-dir", "{weather}"], ""),
    ("run_perturbations", ["--weather", "{weather}", "--start", "2020-01-01", "--output-dir", "{out}/d"], ""),
    ("run_perturbations", ["--engine", "command", "--output-dir", "{out}/d"], ""),
    ("run_perturbations", ["--engine", "builtin", "--run-folder", "{empty}", "--output-dir", "{out}/d"], ""),
    ("run_perturbations", ["--run-folder", "{empty}", "--output-dir", "{out}/d"], ""),
    ("run_perturbations", ["--variant", "magic", "--output-dir", "{out}/d"], ""),
    ("run_perturbations", ["--variant", "pressure=[", "--output-dir", "{out}/d"], ""),
    ("run_perturbations", ["--command-template", "", "--engine", "command", "--output-dir", "{out}/d"], ""),
    ("run_perturbations", ["--engine", "command", "--command-template", "./visit {{parameters}}", "--parameter-template", "{out}/none", "--output-dir", "{out}/d"], ""),
    ("run_perturbations", ["--output-dir", "{data}"], ""),
    ("visit_simulator", ["--runs", "{table}", "--weather", "{obs}", "--summary", "{out}/s.csv"], ""),
    ("visit_simulator", ["--runs", "{table}", "--weather", "{weather}", "--summary", "{empty}"], ""),
    ("visit_simulator", ["--runs", "{table}", "--weather", "{weather}", "--spinup", "none", "--summary", "{out}/s.csv"], ""),
    ("check_ensemble", ["--data-dir", "{empty}"], ""), ("check_ensemble", ["--data-dir", "{out}/none"], ""),
    ("train", ["--data-dir", "{empty}", "--artifacts-dir", "{out}/a"], ""),
    ("train", ["--data-dir", "{data}", "--artifacts-dir", "{weather}"], ""),
    ("train", ["--data-dir", "{data}", "--artifacts-dir", "{out}/a", "--epochs", "0"], ""),
    ("train", ["--data-dir", "{data}", "--artifacts-dir", "{out}/a", "--learning-rate", "nan"], ""),
    ("train", ["--data-dir", "{data}", "--artifacts-dir", "{out}/a", "--batch-size", "-4"], ""),
    ("train", ["--data-dir", "{data}", "--artifacts-dir", "{out}/a", "--unseen-share", "1.5"], ""),
    ("train", ["--data-dir", "{data}", "--artifacts-dir", "{out}/a", "--max-minutes", "0"], ""),
    ("train", ["--data-dir", "{data}", "--artifacts-dir", "{out}/a", "--device", "quantum"], ""),
    ("train", ["--data-dir", "{data}", "--artifacts-dir", "{out}/a", "--test-period", "1990", "1991"], ""),
    ("train", ["--data-dir", "{data}", "--artifacts-dir", "{out}/a", "--train-period", "2016", "2015"], ""),
    ("train", ["--data-dir", "{data}", "--artifacts-dir", "{out}/a", "--train-period", "soon", "2015"], ""),
    ("train", ["--data-dir", "{data}", "--artifacts-dir", "{out}/a", "--preset", "fastest"], ""),
    ("train", ["--data-dir", "{data}", "--artifacts-dir", "{out}/a", "--drop-columns", "tree_magic"], ""),
    ("train", ["--data-dir", "{data}", "--artifacts-dir", "{out}/a", "--resume"], ""),
    ("train", ["--data-dir", "{data}", "--artifacts-dir", "{out}/a", "--mixed-precision", "--device", "cpu"], ""),
    ("train", ["--data-dir", "{data}", "--artifacts-dir", "{out}/a", "--minutes", "nan"], ""),
    ("evaluate_model", ["--artifacts-dir", "{empty}"], ""),
    ("evaluate_model", ["--artifacts-dir", "{emulator}", "--data-dir", "{data}", "--output-dir", "{out}", "--window-stride", "0"], ""),
    ("evaluate_model", ["--artifacts-dir", "{emulator}", "--data-dir", "{empty}", "--output-dir", "{out}"], ""),
    ("test_inversion", ["--artifacts-dir", "{empty}", "--result-dir", "{out}/r"], ""),
    ("test_inversion", ["--artifacts-dir", "{emulator}", "--data-dir", "{data}", "--mode", "simulation", "--sample-id", "99", "--result-dir", "{out}/r"], ""),
    ("test_inversion", ["--artifacts-dir", "{emulator}", "--data-dir", "{data}", "--mode", "simulation", "--window-index", "99999", "--result-dir", "{out}/r"], ""),
    ("test_inversion", ["--artifacts-dir", "{emulator}", "--data-dir", "{data}", "--mode", "simulation", "--free", "tree_magic", "--result-dir", "{out}/r"], ""),
    ("test_inversion", ["--artifacts-dir", "{emulator}", "--data-dir", "{data}", "--mode", "simulation", "--targets", "water", "--result-dir", "{out}/r"], ""),
    ("test_inversion", ["--artifacts-dir", "{emulator}", "--data-dir", "{data}", "--mode", "simulation", "--starts", "0", "--result-dir", "{out}/r"], ""),
    ("test_inversion", ["--artifacts-dir", "{emulator}", "--data-dir", "{data}", "--mode", "simulation", "--refine", "3", "--result-dir", "{out}/r"], ""),
    ("test_inversion", ["--artifacts-dir", "{emulator}", "--data-dir", "{data}", "--obs-npz", "{weather}", "--result-dir", "{out}/r"], ""),
    ("test_inversion", ["--artifacts-dir", "{emulator}", "--data-dir", "{data}", "--obs-npz", "{out}/none.npz", "--result-dir", "{out}/r"], ""),
    ("test_inversion", ["--artifacts-dir", "{emulator}", "--data-dir", "{data}", "--mode", "simulation", "--result-dir", "{weather}"], ""),
    ("test_inversion", ["--artifacts-dir", "{emulator}", "--data-dir", "{data}", "--mode", "guess", "--result-dir", "{out}/r"], ""),
    ("evaluate_parameter_recovery", ["--artifacts-dir", "{empty}", "--result-dir", "{out}/r"], ""),
    ("evaluate_parameter_recovery", ["--artifacts-dir", "{emulator}", "--data-dir", "{data}", "--sample-id", "-1", "--result-dir", "{out}/r"], ""),
    ("evaluate_parameter_recovery", ["--artifacts-dir", "{emulator}", "--data-dir", "{data}", "--trace-params", "magic", "--result-dir", "{out}/r"], ""),
    ("evaluate_parameter_recovery", ["--artifacts-dir", "{emulator}", "--data-dir", "{data}", "--cases", "-1", "--result-dir", "{out}/r"], ""),
    ("evaluate_parameter_recovery", ["--artifacts-dir", "{emulator}", "--data-dir", "{data}", "--gaps", "1.5", "--cases", "2", "--result-dir", "{out}/r"], ""),
    ("sensitivity", ["--artifacts-dir", "{empty}", "--result-dir", "{out}/r"], ""),
    ("sensitivity", ["--artifacts-dir", "{emulator}", "--data-dir", "{data}", "--trajectories", "0", "--result-dir", "{out}/r"], ""),
    ("plot_param_scatter", ["{out}/none.csv"], ""), ("plot_param_scatter", ["{weather}"], ""),
    ("plot_param_scatter", ["{table}", "--range-csv", "{weather}"], ""),
    ("make_report", ["{empty}"], ""), ("make_report", ["{out}/none"], ""), ("make_report", ["{emulator}", "--output", "{out}/r.pdf"], ""),
    ("make_report", ["{emulator}", "--output", "{out}/r.html", "--max-mb", "nan"], ""),
]

SAYS = {}
