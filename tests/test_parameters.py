"""Parameter ranges, ties and the bijection between physical, unit and latent space."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from calibration.common.command_line import REPOSITORY, UserError
from calibration.common.parameters import LATENT_LIMIT, canonical_name, catalogue, make_space, read_ranges


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
