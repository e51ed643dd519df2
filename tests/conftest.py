"""One thread for every test and the scripts they start: tiny networks gain nothing from more, and two threads beside
another busy process wait for each other (seen: 50 times slower). And the small ensemble that two test files read."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported: no module that loads it above


@pytest.fixture(scope="module")
def weather():
    """Dates and values of the small ensemble's weather."""
    from small_ensemble import make_weather

    return make_weather()


@pytest.fixture
def ensemble(tmp_path, weather):
    """The folder of a small ensemble of four runs."""
    from small_ensemble import make_ensemble

    make_ensemble(tmp_path, weather)
    return tmp_path
