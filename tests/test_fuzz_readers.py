"""A few spoilt files for every reader, always the same ones; fuzz_readers.py gives thousands."""

import pytest
from fuzz_readers import fuzz, readers


@pytest.mark.parametrize("name", readers())
def test_a_spoilt_file_is_read_or_refused(tmp_path, name):
    assert fuzz(name, tmp_path, examples=60) > 5  # most changes do harm
