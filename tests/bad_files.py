"""Bad files: each a way to spoil a good one, (good file, function of its text), and what the one line must say.

`test_bad_input.py` gives them to the scripts.
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
    "w_empty": ("weather", lambda _: ""), "w_header": ("weather", rows(1)),
    "w_no_column": ("weather", sub("spfh_2m", "humidity")),
    "w_date_twice": ("weather", sub("2011-01-02", "2011-01-01")),
    "w_date_wrong": ("weather", sub("2011-01-02", "2011-02-30")),
    "w_date_us": ("weather", sub("2011-01-02", "13/40/2011")),
    "w_gap": ("weather", line(5, "")), "w_word": ("weather", sub(r"^(2011-01-03),[^,]+", r"\1,warm")),
    "w_nan": ("weather", sub(r"^(2011-01-03),[^,]+", r"\1,")),
    "w_inf": ("weather", sub(r"^(2011-01-03),[^,]+", r"\1,inf")),
    "w_missing": ("weather", sub(r"^(2011-01-03),[^,]+", r"\1,-9999")),
    "w_cold": ("weather", sub(r"^(2011-01-03),[^,]+", r"\1,27")),
    "w_long_row": ("weather", sub(r"^(2011-01-03.*)$", r"\1,1,2,3")),
    "w_short_row": ("weather", sub(r"^(2011-01-03),.*$", r"\1,300")),
    "w_html": ("weather", lambda _: "<!DOCTYPE html><html><body>404</body></html>\n"),
    "w_null": ("weather", lambda text: text[:500] + "\0" * 50),
    "w_column_twice": ("weather", sub("tmp_2m", "tmp_sfc")), "w_quote": ("weather", sub(r"^2011-01-03", '"2011-01-03')),
    # observations
    "o_empty": ("obs", lambda _: ""), "o_header": ("obs", rows(1)), "o_no_nep": ("obs", sub("nep_mg_ha", "nep")),
    "o_no_mask": ("obs", sub("obs_mask", "mask")), "o_mask_two": ("obs", sub(r"^(2012-01-03.*),1$", r"\1,2")),
    "o_mask_word": ("obs", sub(r"^(2012-01-03.*),1$", r"\1,yes")),
    "o_nep_word": ("obs", sub(r"^(2012-01-03,.*),[^,]+,1$", r"\1,much,1")),
    "o_unit": ("obs", sub(r"^(.*),([^,a-z]+),1$", r"\1,250,1", 0)),
    "o_date": ("obs", sub("2012-01-03", "yesterday")), "o_twice": ("obs", sub("2012-01-03", "2012-01-02")),
    "o_none": ("obs", sub(r",1$", ",0", 0)),
    # tower
    "t_empty": ("tower", lambda _: ""), "t_half_hours": ("tower", sub(r"^(\d{8}),", r"\g<1>0030,", 0)),
    "t_no_time": ("tower", sub("TIMESTAMP", "WHEN")),
    "t_no_nee": ("tower", sub("NEE_vUT", "FLUX", 0)), "t_word": ("tower", sub(r"^(20190103),[^,]+", r"\1,much")),
    "t_twice": ("tower", sub("20190103", "20190102")),
    "t_date": ("tower", sub("20190103", "20191399")), "t_header": ("tower", rows(1)),
    # forcing text
    "f_columns": ("forcing", line(3, "2011 4 1 2 3")), "f_word": ("forcing", sub(r"^(2011 +3 +)\S+", r"\1warm")),
    "f_day_twice": ("forcing", sub(r"^2011 +3 ", "2011 2 ")),
    "f_day_400": ("forcing", sub(r"^2011 +3 ", "2011 400 ")), "f_empty": ("forcing", lambda _: ""),
    "f_celsius": ("forcing", sub(r"^(2011 +3 +)\S+", r"\1 27.0")),
    # ranges
    "r_empty": ("ranges", lambda _: ""), "r_unknown": ("ranges", lambda text: text + '9: "tree_magic", 0, 1\n'),
    "r_twice": ("ranges", lambda text: text + '9: "tree_lue", 0.04, 0.05\n'),
    "r_turned": ("ranges", lambda text: text + '9: "tree_sla", 200, 100\n'),
    "r_word": ("ranges", lambda text: text + '9: "tree_sla", low, 100\n'),
    "r_nan": ("ranges", lambda text: text + '9: "tree_sla", nan, 100\n'),
    "r_inf": ("ranges", lambda text: text + '9: "tree_sla", 1, inf\n'),
    "r_no_reference": ("ranges", lambda text: text + '9: "tree_sla", 1, tree_size\n'),
    "r_circle": ("ranges", lambda _: '0: "tree_sla", 1, c3_sla\n1: "c3_sla", 1, tree_sla\n'),
    "r_illegal": ("ranges", lambda text: text + '9: "tree_sla", -5, 100000\n'),
    "r_bytes.csv": ("ranges", lambda _: "\udcff\udcfe"), "r_list.yaml": ("ranges", lambda _: "- a\n- b\n"),
    "r_min.yaml": ("ranges", lambda _: "parameter_bounds: {tree_sla: {min: 1}}\n"),
    "r_bool.yaml": ("ranges", lambda _: "parameter_bounds: {tree_sla: {min: true, max: 2}}\n"),
    "r_extra.yaml": ("ranges", lambda _: "parameter_bounds: {tree_sla: {min: 1, max: 2, unit: m}}\n"),
    "r_text.yaml": ("ranges", lambda _: "parameter_bounds: {tree_sla: {min: 1, max: high}}\n"),
    # site
    "s_empty.yaml": ("site", lambda _: ""), "s_key.yaml": ("site", lambda text: text + "colour: green\n"),
    "s_nan.yaml": ("site", sub(r"^latitude:.*", "latitude: .nan")),
    "s_lat.yaml": ("site", sub(r"^latitude:.*", "latitude: 95")),
    "s_bool.yaml": ("site", sub(r"^altitude:.*", "altitude: yes")),
    "s_variant.yaml": ("site", sub(r"pressure: altitude", "pressure: deep")),
    "s_period.yaml": ("site", sub(r"start: [\d-]+", "start: soon")), "s_list.yaml": ("site", lambda _: "[1, 2]\n"),
    # parameter table
    "p_empty": ("table", lambda _: ""), "p_no_id": ("table", sub("sample_id", "number")),
    "p_word": ("table", sub(r"^1,[^,]+", "1,green")),
    "p_nan": ("table", sub(r"^1,[^,]+", "1,")), "p_twice": ("table", sub(r"^1,", "0,")), "p_header": ("table", rows(1)),
    "p_long": ("table", sub(r"^(1,.*)$", r"\1,7,8")), "p_same": ("table", sub("tree_pmax", "tree_lue")),
    "p_illegal": ("table", sub(r"^1,[^,]+", "1,-3")),
    # inversion's configuration
    "c_key.yaml": ("config", lambda text: text + "speed: high\n"),
    "c_method.yaml": ("config", lambda _: "method: magic\n"), "c_lr.yaml": ("config", lambda _: "lr: -1\n"),
    "c_nan.yaml": ("config", lambda _: "lr: .nan\n"), "c_inf.yaml": ("config", lambda _: "offset_sd: .inf\n"),
    "c_text.yaml": ("config", lambda _: "max_iters: many\n"),
    "c_float.yaml": ("config", lambda _: "max_iters: 2.5\n"),
    "c_target.yaml": ("config", lambda _: "target_variable: NEE\n"),
    "c_twice.yaml": ("config", lambda _: "target_variable: nep, nep\n"),
    "c_section.yaml": ("config", lambda _: "gauss_newton: 3\n"),
    "c_starts.yaml": ("config", lambda _: "starts: 0\n"),
    "c_sd.yaml": ("config", lambda _: "error_model: {observation_sd: -0.1}\n"),
    "c_list.yaml": ("config", lambda _: "- 1\n"),
    # architecture
    "a_empty.yaml": ("architecture", lambda _: ""),
    "a_key.yaml": ("architecture", lambda text: text + "colour: 1\n"),
    "a_no_data.yaml": ("architecture", sub(r"^data:", "dta:")),
    "a_preset.yaml": ("architecture", sub(r"^preset:.*", "preset: fastest")),
    "a_epochs.yaml": ("architecture", sub(r"epochs: \d+", "epochs: 0")),
    "a_hidden.yaml": ("architecture", sub(r"hidden_size: \d+", "hidden_size: wide")),
    "a_dropout.yaml": ("architecture", sub(r"\bdropout: [\d.]+", "dropout: 1.5")),
    "a_rate.yaml": ("architecture", sub(r"learning_rate: \S+?(?=[,}\s])", "learning_rate: .nan")),
    "a_split.yaml": ("architecture", sub(r"validation: \[.*?\]", "validation: [2001, 2002]")),
    # snapshot of an inversion
    "n_empty.json": ("snapshot", lambda _: "{}"), "n_names.json": ("snapshot", key("names", ["a"])),
    "n_short.json": ("snapshot", key("optimized", [1.0])),
    "n_nan.json": ("snapshot", key("optimized", [float("nan")] * 3)),
    "n_text.json": ("snapshot", key("optimized", "many")), "n_list.json": ("snapshot", lambda _: "[1, 2]"),
    "n_cut.json": ("snapshot", lambda text: text[:20]), "n_meta.json": ("snapshot", key("metadata", [1])),
}  # fmt: skip

# What is said of FILES.
SAYS = {
    "w_empty": "is empty or begins with an empty line",
    "w_header": "has a header but no rows",
    "w_no_column": "has no column spfh_2m",
    "w_date_twice": "row 2 is 2011-01-01, which repeats 2011-01-01",
    "w_date_wrong": "line 3 has the date '2011-02-30'",
    "w_date_us": "line 3 has the date '13/40/2011'",
    "w_gap": "row 5 is 2011-01-06, which leaves a gap after 2011-01-04",
    "w_word": "tmp_sfc on 2011-01-03 is empty or not a number, allowed is 1",
    "w_nan": "tmp_sfc on 2011-01-03 is empty or not a number, allowed is 1",
    "w_inf": "tmp_sfc on 2011-01-03 is empty or not a number, allowed is 1",
    "w_missing": "tmp_sfc on 2011-01-03 is empty or not a number, allowed is 1",
    "w_cold": "tmp_sfc on 2011-01-03 is 27, allowed is 180 to 350 K",
    "w_long_row": "not readable as CSV",
    "w_short_row": "tmp_2m on 2011-01-03 is empty or not a number, allowed is 18",
    "w_html": "there are no rows below the header",
    "w_null": "wind_10m on 2011-01-04 is empty or not a number, allowed is",
    "w_column_twice": "has 2 columns tmp_sfc",
    "w_quote": "not readable as CSV",
    "o_empty": "not readable as CSV",
    "o_header": "no valid observation",
    "o_no_nep": "has no column nep_mg_ha",
    "o_no_mask": "has no column obs_mask",
    "o_mask_two": "obs_mask must be 0 or 1 on every day",
    "o_mask_word": "line 4: obs_mask is 'yes', expected a number",
    "o_nep_word": "line 4: nep_mg_ha is 'much', expected a number",
    "o_unit": "nep_mg_ha reaches 250, allowed is up to 0.5 Mg C ha-1 day-1",
    "o_date": "line 4: date is 'yesterday', expected YYYY-MM-DD",
    "o_twice": "2012-01-02 is there twice",
    "o_none": "no valid observation",
    "t_empty": "is empty; expected a header line and one row a day",
    "t_half_hours": "TIMESTAMP steps by 1440 minutes, so this is not a daily file",
    "t_no_time": "has no column TIMESTAMP",
    "t_no_nee": "has no NEE column of a known layout",
    "t_word": "line 4: NEE_vUT is 'much', expected a number with a decimal",
    "t_twice": "line 4: 2019-01-02 is there twice",
    "t_date": "line 4: TIMESTAMP is '20191399', a day that does not exist",
    "t_header": "has a header but no rows",
    "f_columns": "line 4 has 5 fields, expected 19",
    "f_word": "line 3: could not convert string to float: 'warm'",
    "f_day_twice": "row 3 is 2011-01-02, which repeats 2011-01-02",
    "f_day_400": "line 3: day is 400, allowed are whole numbers 0 to 366",
    "f_empty": "is empty or begins with an empty line",
    "f_celsius": "tmp_2m on 2011-01-03 is 27, allowed is 180 to 340 K",
    "r_empty": "holds no range",
    "r_unknown": "the process model has no parameter tree_magic",
    "r_twice": "parameter tree_lue is listed 2 times",
    "r_turned": "tree_sla has minimum 200 above its maximum",
    "r_word": "line 3: the minimum of tree_sla is 'low', expected a number",
    "r_nan": "the range of tree_sla is nan to 100.0",
    "r_inf": "the range of tree_sla is 1.0 to inf",
    "r_no_reference": "the maximum of tree_sla refers to 'tree_size', which has no",
    "r_circle": "the bounds refer to each other in a circle: tree_sla -> c3_s",
    "r_illegal": "tree_sla ranges from -5 to 100000, legal is 30 to 350 cm2 g-",
    "r_bytes.csv": "not readable as UTF-8 text",
    "r_list.yaml": "expected one key 'parameter_bounds' with name: {min, max | m",
    "r_min.yaml": "tree_sla must hold min and either max or max_from, got {'min",
    "r_bool.yaml": "tree_sla: min is True, expected a number",
    "r_extra.yaml": "tree_sla must hold min and either max or max_from, got {'min",
    "r_text.yaml": "tree_sla: max is 'high', expected a number",
    "s_empty.yaml": "holds no 'key: value' lines",
    "s_key.yaml": "unknown key 'colour'",
    "s_nan.yaml": "latitude is nan, allowed is a number from -90 to 90",
    "s_lat.yaml": "latitude is 95, allowed is a number from -90 to 90",
    "s_bool.yaml": "altitude is True, allowed is a number from -500 to 6000",
    "s_variant.yaml": "variant pressure is 'deep', allowed is",
    "s_period.yaml": "period must be {start: YYYY-MM-DD, end: YYYY-MM-DD} in order",
    "s_list.yaml": "holds no 'key: value' lines",
    "p_empty": "not readable as CSV",
    "p_no_id": "column 'sample_id' is missing, found number, tree_lue, tree_",
    "p_word": "column 'tree_lue' holds 'green', expected numbers",
    "p_nan": "tree_lue of sample_id 1 is nan, allowed is 0.005 to 0.12 mol",
    "p_twice": "sample_id 0 is there more than once",
    "p_header": "holds no runs",
    "p_long": "not readable as CSV",
    "p_same": "column 'tree_lue.1' is no parameter of the process model",
    "p_illegal": "tree_lue of sample_id 1 is -3, allowed is 0.005 to 0.12 mol",
    "c_key.yaml": "unknown key 'speed'",
    "c_method.yaml": "method is 'magic', allowed is gauss_newton, adam, ensemble",
    "c_lr.yaml": "lr is -1.0, allowed is a number above 0",
    "c_nan.yaml": "lr is nan, expected float",
    "c_inf.yaml": "offset_sd is inf, expected float",
    "c_text.yaml": "max_iters is 'many', expected int",
    "c_float.yaml": "max_iters is 2.5, expected int",
    "c_target.yaml": "target_variable is 'nee', allowed is nep, gpp, npp, rh, er",
    "c_twice.yaml": "target_variable is 'nep, nep', allowed is no repeat",
    "c_section.yaml": "gauss_newton must hold 'key: value' lines, got 3",
    "c_starts.yaml": "starts is 0, allowed is null or a number above 0",
    "c_sd.yaml": "error_model.observation_sd is -0.1, allowed is null or a num",
    "c_list.yaml": "the file must hold 'key: value' lines, got [1]",
    "a_empty.yaml": "has no key 'preset'",
    "a_key.yaml": "unknown key 'colour' in the top level",
    "a_no_data.yaml": "unknown key 'dta' in the top level",
    "a_preset.yaml": "no preset 'fastest'",
    "a_epochs.yaml": "training.epochs is 0, must be above 0",
    "a_hidden.yaml": "model.hidden_size is 'wide', expected int",
    "a_dropout.yaml": "dropouts must be in 0 to 1",
    "a_rate.yaml": "training.learning_rate is nan, expected float",
    "a_split.yaml": "the periods must follow each other: train ends 2017-12-31, v",
    "n_empty.json": "holds no 'names' and 'optimized'",
    "n_names.json": "unknown parameter 'a'",
    "n_short.json": "'optimized' must hold 5 finite numbers, one for each name",
    "n_nan.json": "'optimized' must hold 5 finite numbers, one for each name",
    "n_text.json": "'optimized' must hold 5 finite numbers, one for each name",
    "n_list.json": "holds no 'names' and 'optimized'",
    "n_cut.json": "not readable as JSON",
    "n_meta.json": "holds no 'names' and 'optimized'",
}
