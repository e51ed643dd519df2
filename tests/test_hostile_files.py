"""Files that a stranger made: nothing in them is run, nothing outside their folder is written, nothing grows without
bound. Markup in a report is in test_report.py.
"""

import io
import pickle
import re
import shlex
import struct
import sys
import tracemalloc
import zipfile
import zlib

import joblib
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scaler_pickles import REAL, REAL_VALUES
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler

import build_observation_windows
from calibration.common.command_line import UserError, one_line, read_json
from calibration.common.configuration import ARCHITECTURE_FILE, load_choice, load_configuration
from calibration.common.parameters import read_ranges
from calibration.common.scaler_pickle import MOST_BYTES, UNREADABLE, _Reader, read_pickled_scaler
from calibration.common.scalers import load_scaler
from calibration.common.sites import DEFAULT_SITE, load_site, with_variant
from calibration.common.yaml_file import read_yaml
from calibration.emulator.trained import load_checkpoint, load_emulator
from calibration.engines.command import CommandEngine
from calibration.ensembles import store
from calibration.ensembles.files import load_ensemble, read_parameter_summary
from calibration.inversion.config import load_inversion_config
from calibration.tower.windows import load_windows

COLUMNS = ("a", "b", "c")
MARK = "ran.txt"  # what malicious code leaves in its working directory


class Evil:
    """Unpickled by Python, it writes MARK."""

    def __reduce__(self):
        return exec, (f"open({MARK!r}, 'w').close()",)


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path, monkeypatch):
    """Tests work in a folder of their own; whatever they read there must not run."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / MARK).exists()


# ---- scaler pickles


@pytest.mark.parametrize("version", REAL)
def test_a_scaler_of_another_version_is_read(tmp_path, version):
    path = tmp_path / "scaler.pkl"
    path.write_bytes(REAL[version])
    scaler = load_scaler(path)
    assert scaler.names == COLUMNS
    np.testing.assert_allclose(scaler.mean, REAL_VALUES.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(scaler.scale, REAL_VALUES.std(axis=0), rtol=1e-12)


@pytest.mark.parametrize("write", [
    *[lambda scaler, path, p=p: path.write_bytes(pickle.dumps(scaler, protocol=p)) for p in range(6)],
    *[lambda scaler, path, c=c: joblib.dump(scaler, path, compress=(c, 3))
      for c in ("zlib", "gzip", "bz2", "xz", "lzma")],
    joblib.dump, lambda scaler, path: joblib.dump(scaler, path, protocol=2),
])  # fmt: skip
def test_todays_scalers_are_read_as_scikit_learn_reads_them(tmp_path, write):
    path = tmp_path / "scaler.pkl"
    for options in ({}, {"with_mean": False}, {"with_std": False}):
        made = StandardScaler(**options).fit(REAL_VALUES)
        write(made, path)
        read = load_scaler(path, COLUMNS)
        assert np.array_equal(read.transform(REAL_VALUES), made.transform(REAL_VALUES)), options


def test_the_names_in_a_pickle_win_over_those_expected(tmp_path):
    """A scaler whose columns stand in another order must not be taken for one in this order."""
    made = StandardScaler().fit(REAL_VALUES)
    made.feature_names_in_ = np.array(COLUMNS[::-1], dtype=object)
    joblib.dump(made, tmp_path / "scaler.pkl")
    assert load_scaler(tmp_path / "scaler.pkl", COLUMNS).names == COLUMNS[::-1]


def _with_names(names, factor=1.0):
    scaler = StandardScaler().fit(REAL_VALUES)
    scaler.feature_names_in_, scaler.mean_ = names, scaler.mean_ * factor
    return scaler


def _state(value) -> StandardScaler:
    scaler = StandardScaler().fit(REAL_VALUES)
    scaler.mean_ = value
    return scaler


BAD_SCALERS = {
    "code": (Evil(), r"names builtins\.exec"),
    "code as an attribute": (_state(Evil()), r"names builtins\.exec"),
    "code among the names": (_with_names(np.array([Evil(), "b", "c"], dtype=object)), r"names builtins\.exec"),
    "a pipeline with a function": (make_pipeline(FunctionTransformer(np.load)), r"names sklearn\.pipeline\.Pipeline"),
    "another scaler": (MinMaxScaler().fit(REAL_VALUES), r"names sklearn\.preprocessing\._data\.MinMaxScaler"),
    "a function": (eval, r"names builtins\.eval"),
    "a model": (torch.nn.Linear(2, 2).state_dict(), "names collections.OrderedDict"),
    "numbers alone": (REAL_VALUES, "holds no StandardScaler"),
    "a dictionary": ({"mean_": [1.0]}, "holds no StandardScaler"),
    "not fitted": (StandardScaler(), "was never fitted"),
    "records": (_state(np.zeros(3, dtype=[("x", "f8"), ("y", "O")])), "expected numbers or names"),
    "text for numbers": (_state(np.array(["x", "y", "z"])), "no arrays of numbers"),
    "a list for numbers": (_state([1.0, 2.0, 3.0]), "no arrays of numbers"),
    "a date": (_state(np.array(["2012-01-01"], dtype="M8[D]")), "expected numbers or names"),
    "fewer names than columns": (_with_names(np.array(["a"], dtype=object)), "3 columns without fitting names"),
    "no numbers": (_with_names(np.array(COLUMNS, dtype=object), np.nan), "means must be finite"),
}


@pytest.mark.parametrize("how", ["pickle", "joblib", "compressed"])
@pytest.mark.parametrize("what", BAD_SCALERS)
def test_a_pickle_that_is_no_scaler_is_refused_with_the_reason(tmp_path, what, how):
    content, message = BAD_SCALERS[what]
    path = tmp_path / "scaler.pkl"
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        joblib.dump(content, path, compress=3 if how == "compressed" else 0)
    with pytest.raises(UserError, match=message) as refused:
        load_scaler(path)
    assert str(path) in str(refused.value)


def test_the_script_that_once_ran_a_strangers_code_refuses_it(tmp_path, monkeypatch, capsys):
    path = tmp_path / "X.pkl"
    path.write_bytes(pickle.dumps(Evil()))
    monkeypatch.setattr(sys, "argv", ["build_observation_windows.py", "--scaler", str(path)])
    with pytest.raises(UserError, match=r"X\.pkl: not readable as a pickle \(it names builtins\.exec"):
        build_observation_windows.main()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stream", [
    b"cos\nsystem\n(S'touch ran.txt'\ntR.", b"(S'touch ran.txt'\nios\nsystem\n.",
    b"cnumpy\ndtype\n(S'V8'\nI00\nI01\ntR.", b"cnumpy\nndarray\n}b.", b"Pid\n.", b"\x82\x01.",
    b"cnumpy.core.multiarray\n_reconstruct\n(cbuiltins\nobject\n(I0\ntS'b'\ntR.",
    b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.", b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.", b"NNr\xff\xff\xff\xff.", b"0", b"(", b"",
    b"csklearn.preprocessing._data\nStandardScaler\n)\x81}S'x'\nNsb.",
])  # fmt: skip
def test_streams_made_by_hand_are_refused(tmp_path, stream):
    path = tmp_path / "scaler.pkl"
    path.write_bytes(stream)
    with pytest.raises(UserError, match="not readable as a pickle"):
        load_scaler(path)


def test_a_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "scaler.pkl"
    path.write_bytes(zlib.compress(b"\x00" * (20 * MOST_BYTES)))
    with pytest.raises(UserError, match="more than 16 MB"):
        load_scaler(path)


def test_no_room_is_made_for_bytes_that_are_only_announced(tmp_path):
    """Found by fuzzing: 975 bytes that took 4 GB."""
    path = tmp_path / "scaler.pkl"
    path.write_bytes(b"\x80\x05" + pickle.BYTEARRAY8 + struct.pack("<Q", 2**32) + b".")
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="a bytearray of 4294967296 bytes"):
            load_scaler(path)
        assert tracemalloc.get_traced_memory()[1] < 4 * MOST_BYTES
    finally:
        tracemalloc.stop()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_scaler_pickle_is_read_or_refused(data):
    """Bytes changed anywhere: only the documented errors leave, and nothing but plain data is made."""
    content = bytearray(REAL[data.draw(st.sampled_from(sorted(REAL)))])
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    try:
        found = _Reader(io.BytesIO(bytes(content))).load()
        if hasattr(found, "content"):
            found.content()
    except UNREADABLE:
        pass


# ---- checkpoints, archives


def test_a_checkpoint_with_code_is_refused(tmp_path):
    path = tmp_path / "checkpoint_best.pt"
    torch.save({"model_state_dict": {}, "training_parameters": Evil()}, path)
    with pytest.raises(UserError, match="not readable as a checkpoint"):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match="not readable as a checkpoint"):
        load_checkpoint(path)


def _archive(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_arrays_of_objects_are_refused(tmp_path):
    evil = np.array([Evil()], dtype=object)
    windows = _archive(tmp_path / "w.npz", context_x=evil)
    with pytest.raises(UserError, match="not readable as .npz"):
        load_windows(windows, COLUMNS, None)
    copy = _archive(tmp_path / "ensemble.npz", sample_ids=evil, dates=evil, dynamic=evil, fluxes=evil, meta=evil)
    with pytest.raises(UserError):
        store.read_alone(copy, np.array([0]))
    (tmp_path / "parameter_summary.csv").write_text("sample_id,tree_lue\n0,0.05\n")
    with pytest.raises(UserError):
        load_ensemble(tmp_path)


def test_names_in_an_archive_lead_nowhere(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    with zipfile.ZipFile(folder / "w.npz", "w") as archive:
        archive.writestr("../escaped.npy", b"x")
        archive.writestr(str(tmp_path / "absolute.npy"), b"x")
    with pytest.raises(UserError, match="not readable as .npz|has no array"):
        load_windows(folder / "w.npz", COLUMNS, None)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["in", "w.npz"]


@pytest.mark.parametrize("sample", ["../../0", "0/../1", "1e3000", "nan", "-1", "0x10", "", "99999999999999999999"])
def test_a_label_is_a_number_and_no_path(tmp_path, sample):
    path = tmp_path / "parameter_summary.csv"
    path.write_text(f"sample_id,tree_lue\n{sample},0.05\n1,0.06\n")
    with pytest.raises(UserError, match=re.escape(str(path))):
        read_parameter_summary(path)


def test_a_site_cannot_lead_out_of_its_folder(tmp_path):
    text = DEFAULT_SITE.read_text()
    path = tmp_path / "site.yaml"
    for outside in ("../secret.json", "/etc/passwd", "a/../../b.json"):
        path.write_text(text.replace("weather: lhp_weather.json", f"weather: {outside}"))
        with pytest.raises(UserError, match="allowed is a file beside this one or below it"):
            load_site(path)
    path.write_text(text.replace("name: LHP", "name: ../../LHP"))
    assert load_site(path).file_prefix == "------LHP"


# ---- YAML and JSON

READERS = {
    "architecture": load_configuration, "choice": load_choice, "inversion": load_inversion_config,
    "site": load_site, "bounds": read_ranges,
}  # fmt: skip
HOSTILE_YAML = {
    "a call": ("preset: !!python/object/apply:os.system ['touch ran.txt']\n", "could not determine a constructor"),
    "an object": ("a: !!python/object/new:builtins.exec [\"open('ran.txt', 'w')\"]\n", "could not determine a constr"),
    "a name": ("a: !!python/name:os.system\n", "could not determine a constructor"),
    "aliases of aliases": (
        "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)),
        "more than 200000 values",
    ),
    "itself": ("a: &a [*a]\n", "it contains itself"),
    "a key twice": ("preset: auto\npreset: specification\n", "key 'preset' stands twice"),
    "too deep": ("a: " + "[" * 3000 + "\n", "nested too deeply|not readable"),
    "no text": (b"\xff\xfe\x00\x01a: 1", "not readable as YAML"),
    "a control character": (b"a: \x07", "not readable as YAML"),
    "no day of the calendar": ("a: 2012-02-31\n", "not readable as YAML"),
    "a tab": ("a:\n\t- 1\n", "not readable as YAML"),
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("what", HOSTILE_YAML)
def test_hostile_yaml_is_refused_with_the_reason(tmp_path, reader, what):
    content, message = HOSTILE_YAML[what]
    path = tmp_path / "x.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as refused:
        READERS[reader](path)
    assert str(path) in str(refused.value) and "\n" not in one_line(str(refused.value))


def test_a_yaml_of_megabytes_is_refused_unread(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"#" * (4 * 2**20 + 1))
    with pytest.raises(UserError, match="bytes, at most"):
        read_yaml(path)


def test_merge_keys_and_aliases_still_work(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("base: &base {a: 1, b: 2}\nother: {<<: *base, b: 3}\nmore: [*base, *base]\n")
    assert read_yaml(path) == yaml.safe_load(path.read_text())
    assert read_yaml(ARCHITECTURE_FILE) == yaml.safe_load(ARCHITECTURE_FILE.read_text())


@pytest.mark.parametrize("value", ["[", "!!python/name:os.system", "&a [*a]", "2012-13-45", "{a: 1"])
def test_a_variant_of_the_command_line_is_plain_too(value):
    with pytest.raises(UserError, match="--variant"):
        with_variant(load_site(), [f"pressure={value}"])


@pytest.mark.parametrize("content", [b"[" * 100_000, b"{\"a\": 1" + b"0" * 5000 + b"}", b"\xff{}", b"{,}", b""])
def test_hostile_json_is_refused(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not readable as JSON"):
        read_json(path)
    with pytest.raises(UserError, match="config.json"):
        load_emulator(tmp_path)


def test_messages_stay_on_one_line_of_bounded_length():
    assert one_line("a\x1b[31mred\n\tb") == "a?[31mred b"
    assert len(one_line("x" * 10**6)) < 1600


# ---- the shell


def engine_of(tmp_path, template, **options) -> CommandEngine:
    (tmp_path / "p.par").write_text("1\n")
    return CommandEngine(
        template=template, parameter_template=tmp_path / "p.par", slots={}, output=None, cwd=tmp_path, **options
    )


@pytest.mark.parametrize("path", ["/a b", "/x;touch ran.txt", "/$(touch ran.txt)", "/`touch ran.txt`", "/a'b", "/a|b"])
def test_a_path_never_becomes_a_part_of_a_shells_program(tmp_path, path):
    for template in ("bash -c 'cat {weather} {parameters}'", "/bin/sh -ec './visit {parameters} < {weather}'"):
        with pytest.raises(UserError, match="would read {weather}"):
            engine_of(tmp_path, template, weather=path).check([])
    engine_of(tmp_path, "bash -c 'cat \"$1\" {parameters}' bash {weather}", weather=path).check([])  # an argument
    assert engine_of(tmp_path, "cat {weather}")._command(["cat", "{weather}"], {"weather": path}) == ["cat", path]
    assert shlex.split(shlex.quote(path)) == [path]


def test_a_scaler_pickle_runs_nothing_of_scikit_learn(tmp_path, monkeypatch):
    joblib.dump(StandardScaler().fit(REAL_VALUES), tmp_path / "s.pkl")
    monkeypatch.setattr(StandardScaler, "__setstate__", lambda *_: pytest.fail("scikit-learn was called"))
    assert read_pickled_scaler(tmp_path / "s.pkl").mean.shape == (3,)
