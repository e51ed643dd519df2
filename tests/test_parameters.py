"""Parameter ranges, ties and the bijection between physical, unit and latent space."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from calibration.common.command_line import REPOSITORY, UserError
from calibration.common.parameters import (
    LATENT_LIMIT,
    canonical_name,
    catalogue,
    implausible,
    in_model,
    make_space,
    read_ranges,
)


def test_default_ranges_hold_the_36_parameters_of_the_contract():
    space = read_ranges()
    per_layer = "alloc_ass alloc_abg sla lue pmax topt tmin tmax rmf0 qTf0 qTc0 qTr0 lf0 lc0 lr0".split()
    expected = [f"{layer}_{name}" for layer in ("tree", "c3") for name in per_layer]
    expected += [f"soil_{name}" for name in "sr_lf sr_lc sr_lr f_co2_lf f_co2_lc f_co2_lr".split()]
    assert list(space.names) == expected
    assert space.tied_to[0] == 1 and space.tied_to[15] == 16


def test_range_file_and_bounds_yaml_are_read_into_the_same_space():
    from_csv = read_ranges(REPOSITORY / "configs" / "range_of_paras.csv")
    from_yaml = read_ranges(REPOSITORY / "configs" / "parameter_bounds.yaml")
    assert from_csv.names == from_yaml.names and from_csv.tied_to == from_yaml.tied_to
    np.testing.assert_array_equal(from_csv.lower, from_yaml.lower)
    np.testing.assert_array_equal(from_csv.upper, from_yaml.upper)


def test_ranges_lie_inside_the_legal_range_and_hold_the_baseline():
    space = read_ranges()
    for name, low, high in zip(space.names, space.lower, space.upper, strict=True):
        parameter = catalogue()[name]
        assert parameter.minimum <= low <= parameter.baseline <= high <= parameter.maximum, name


def test_slots_are_unique_and_names_are_found_in_any_case():
    slots = [parameter.slot for parameter in catalogue().values() if parameter.slot is not None]
    assert len(slots) == len(set(slots))
    assert canonical_name("TREE_QTF0") == "tree_qTf0" and canonical_name("tree_lf9") is None
    assert catalogue()["tree_lc0"].slot == 37 and catalogue()["tree_lf0"].slot == 36


@settings(deadline=None, max_examples=50)
@given(arrays(np.float64, (3, 36), elements=st.floats(-4.5, 4.5)))
def test_latent_and_physical_are_inverse_and_respect_bounds_and_ties(latent):
    space = read_ranges()
    physical = space.latent_to_physical(torch.from_numpy(latent)).numpy()
    space.check(physical)  # inside every bound
    assert (physical[:, 0] <= physical[:, 1]).all() and (physical[:, 15] <= physical[:, 16]).all()
    np.testing.assert_allclose(space.physical_to_latent(physical), latent, atol=1e-6)
    np.testing.assert_allclose(space.unit_to_physical(space.physical_to_unit(physical)), physical, rtol=1e-12)


def test_uniform_unit_draws_are_standard_normal_in_latent_space():
    space = read_ranges()
    unit = np.random.default_rng(0).uniform(size=(20000, len(space)))
    latent = space.physical_to_latent(space.unit_to_physical(unit))
    assert abs(latent.mean(axis=0)).max() < 0.03 and abs(latent.std(axis=0) - 1).max() < 0.03


def test_gradient_reaches_every_latent_coordinate_and_the_reference_of_a_tie():
    space = read_ranges()
    latent = torch.zeros(len(space), dtype=torch.float64, requires_grad=True)
    space.latent_to_physical(latent)[0].backward()  # tree_alloc_ass
    assert latent.grad[0] > 0 and latent.grad[1] > 0 and latent.grad[2] == 0


def test_a_value_on_its_bound_has_a_finite_latent():
    space = make_space([("a", 0.0, 1.0)], "here")
    latent = space.physical_to_latent(np.array([[0.0], [1.0]]))
    np.testing.assert_array_equal(latent, [[-LATENT_LIMIT], [LATENT_LIMIT]])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('0: "a", 0, b\n1: "b", 0, c\n2: "c", 0, a\n', "in a circle: a -> b -> c -> a"),
        ('0: "a", 0, ghost\n', "the maximum of a refers to 'ghost'"),
        ('0: "a", 2, 1\n', "a has minimum 2 above its maximum"),
        ('0: "a", 0, 1\n1: "a", 0, 2\n', "listed 2 times"),
        ('0: "a", zero, 1\n', "line 1: the minimum of a is 'zero', expected a number"),
        ('0: "a", nan, 1\n', "both must be finite"),
        ('0: "a", 0.5, b\n1: "b", 0.1, 1\n', "b can be as low as 0.1"),
        ("# nothing but comments\n", "holds no range"),
    ],
)
def test_bad_range_files_are_refused_with_the_reason(tmp_path: Path, lines, message):
    path = tmp_path / "ranges.csv"
    path.write_text(lines)
    with pytest.raises(UserError) as error:
        read_ranges(path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_stray_lines_and_comments_of_a_range_file_are_skipped(tmp_path: Path):
    path = tmp_path / "ranges.csv"
    path.write_text('# c\n0: "a", 1, b # tied\nstray line\n\n7: "b", 1, 3\n')
    space = read_ranges(path)
    assert space.names == ("a", "b") and space.tied_to == (1, -1)
    np.testing.assert_allclose(space.unit_to_physical(np.array([0.5, 0.5])), [1.5, 2.0])


def test_bounds_yaml_with_an_unknown_key_is_refused(tmp_path: Path):
    path = tmp_path / "bounds.yaml"
    path.write_text("parameter_bounds:\n  a: {min: 0, maximum: 1}\n")
    with pytest.raises(UserError, match="a must hold min and either max or max_from"):
        read_ranges(path)


@pytest.mark.parametrize(
    "text", ["parameter_bounds: 3", "parameter_bounds: {}\nmore: 1", "[parameter_bounds]", "other: {}"]
)
def test_bounds_yaml_of_another_form_is_refused(tmp_path: Path, text):
    (tmp_path / "bounds.yaml").write_text(text)
    with pytest.raises(UserError, match="bounds.yaml: expected one key 'parameter_bounds' with name"):
        read_ranges(tmp_path / "bounds.yaml")


@pytest.mark.parametrize("name", ["ranges.csv", "bounds.yaml"])
def test_a_range_file_in_another_encoding_is_refused(tmp_path: Path, name):
    (tmp_path / name).write_bytes(b"# \xfcber die Bl\xe4tter\n")
    with pytest.raises(UserError, match=f"{name}: not readable as"):
        read_ranges(tmp_path / name)


def test_a_value_out_of_bounds_is_named():
    space = read_ranges()
    values = space.unit_to_physical(np.full(len(space), 0.5))
    values[0] = values[1] + 0.1
    with pytest.raises(UserError, match="tree_alloc_ass is 0.65, allowed is 0.05 to 0.55 .= tree_alloc_abg"):
        space.check(values)


def test_subset_keeps_ties_and_refuses_a_lost_reference():
    space = read_ranges()
    assert space.subset(["tree_alloc_abg", "tree_alloc_ass"]).tied_to == (-1, 0)
    with pytest.raises(UserError, match="tree_alloc_ass is bounded by tree_alloc_abg"):
        space.subset(["tree_alloc_ass"])


def test_subset_of_a_tie_to_the_first_name_and_of_a_name_without_a_range():
    space = make_space([("b", 1.0, 3.0), ("a", 0.0, "b"), ("c", 0.0, 1.0)], "here")
    part = space.subset(["c", "b", "a"])
    assert part.names == ("c", "b", "a") and part.tied_to == (-1, -1, 1)
    np.testing.assert_allclose(part.unit_to_physical(np.full(3, 0.5)), [0.5, 2.0, 1.0])
    with pytest.raises(UserError, match="a is bounded by b, which is not among c, a"):
        space.subset(["c", "a"])
    with pytest.raises(UserError, match="parameter d has no range; known are b, a, c"):
        space.subset(["b", "d"])


def test_a_tie_to_the_first_parameter_bounds_as_any_other():
    space = make_space([("b", 1.0, 3.0), ("a", 0.0, "b")], "here")
    np.testing.assert_allclose(space.unit_to_physical([0.5, 0.25]), [2.0, 0.5])
    np.testing.assert_allclose(space.physical_to_unit([2.0, 0.5]), [0.5, 0.25])
    space.check([2.0, 2.0])
    with pytest.raises(UserError, match=r"^row: a is 2.5, allowed is 0 to 2 \(= b\); change the value"):
        space.check([[2.0, 1.0], [2.0, 2.5]], "row")


def test_width_scales_errors_and_a_range_of_no_width_has_its_middle():
    space = make_space([("b", 1.0, 3.0), ("a", 0.5, "b"), ("fixed", 7.0, 7.0)], "here")
    np.testing.assert_array_equal(space.width, [2.0, 2.5, 0.0])
    np.testing.assert_array_equal(space.physical_to_unit([2.0, 0.5, 7.0]), [0.5, 0.0, 0.5])
    np.testing.assert_allclose(space.physical_to_unit([5.0, -4.0, 7.0]), [2.0, -1.0, 0.5])  # outside is told apart
    assert len(space) == 3


@pytest.mark.parametrize("bound", [1e-6, 1.0, 1e6])
def test_what_the_digits_of_a_text_file_leave_is_allowed_and_more_is_not(bound):
    space = make_space([("a", -bound, bound)], "here")
    for sign in (-1, 1):
        near = np.array([sign * bound * (1 + 5e-10)])
        space.check(near)
        assert space.physical_to_latent(near)[0] == sign * LATENT_LIMIT
        with pytest.raises(UserError, match="a is .*, allowed is"):
            space.check([sign * bound * (1 + 1e-8)])
    with pytest.raises(UserError, match="a is nan"):
        space.check([np.nan])


def test_zero_is_inside_a_range_that_is_zero_alone():
    make_space([("a", 0.0, 0.0)], "here").check([0.0])


def test_the_ends_of_latent_space_are_a_three_millionth_of_the_range_inside():
    space = make_space([("a", 0.0, 1.0)], "here")
    ends = space.latent_to_physical(torch.tensor([[-LATENT_LIMIT], [LATENT_LIMIT]], dtype=torch.float64)).numpy()
    np.testing.assert_allclose([ends[0, 0], 1 - ends[1, 0]], 2.9e-7, rtol=0.02)


@pytest.mark.parametrize("name", ["tree_albedo", "c3_albedo"])
def test_an_albedo_of_fresh_snow_is_named_and_every_other_value_is_not(name):
    names = ["tree_sla", name]
    assert implausible(names, np.array([[900.0, 0.6], [900.0, 0.1]])) == ""
    said = implausible(names, np.array([[900.0, 0.2], [900.0, 0.75]]))
    assert said == f"implausible values, simulated as they are: {name} up to 0.75 (above 0.6)"
    assert implausible(names, np.array([900.0, 0.75])) == said  # one run


def test_columns_without_a_slot_do_not_reach_the_process_model():
    assert in_model(["tree_lue", "unused_tree_lc0", "my_parameter"]) == [0, 2]


def test_a_header_is_skipped_and_what_was_skipped_is_said(tmp_path: Path, capsys):
    path = tmp_path / "ranges.csv"
    path.write_text('index, name, minimum, maximum\n0: "a", 1, b\n1: "b", 1, 3\n')
    assert read_ranges(path).names == ("a", "b")
    assert "2 ranges read, 1 with another parameter as maximum; line 1 (index, name" in capsys.readouterr().err
    path.write_text('name, low (m), high\n"a", 1, 2\none\ntwo\n\n# words\n')
    assert read_ranges(path).names == ("a",)
    said = capsys.readouterr().err
    assert "1 ranges read, 0 with" in said and "line 1 (name, low (m), high) is taken for a header" in said
    assert said.rstrip().endswith(
        "line 3 has no three fields and is skipped, line 4 has no three fields and is skipped"
    )
    path.write_text('"a", 1, 2\none\ntwo\nthree\nfour\nfive\n')
    read_ranges(path)
    said = capsys.readouterr().err
    assert "line 4 has no" in said and "line 5" not in said and "skipped and 2 more lines" in said
    path.write_text('0: "a", 1, 2\n')
    read_ranges(path)
    assert capsys.readouterr().err == ""  # nothing was skipped, nothing to say


def test_a_first_line_with_a_bound_that_is_no_number_is_no_header(tmp_path: Path):
    path = tmp_path / "ranges.csv"
    for line, word in (("a, nan, b", "nan"), ("0: a, low, b", "'low'")):
        path.write_text(f"{line}\nb, 0, 1\n")
        with pytest.raises(UserError, match=word):
            read_ranges(path)
