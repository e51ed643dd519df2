"""One thread for every test and the scripts they start: tiny networks gain nothing from more, and two threads beside
another busy process wait for each other (seen: 50 times slower). And what several test files read: a small ensemble,
the one tiny emulator that is trained for all of them. And the order of files in `make test`."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported: no module that loads it above

# A minute and more each. Files are dealt to processes one by one: a long one that came last would keep a core waiting.
LONGEST_FIRST = ("test_demo", "test_refine", "test_train", "test_inversion_scripts")


def pytest_configure(config):
    if hasattr(config.option, "loadscopereorder"):  # pytest-xdist: by number of tests otherwise, and the demo has four
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    order = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


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


@pytest.fixture(scope="session")
def tiny_training(tmp_path_factory):
    """A folder with data/ (12 runs of the analytic forest) and artifacts/ (a tiny emulator of them): read it, or copy
    it first.
    """
    from emulator_examples import TINY, tiny_ensemble, write_ensemble
    from script_calls import script

    root = tmp_path_factory.mktemp("tiny")
    data = write_ensemble(root / "data", tiny_ensemble(runs=12))
    made = script("train.py", "--data-dir", data, "--artifacts-dir", root / "artifacts", *TINY, "--hidden-size", 8)
    assert made.returncode == 0, made.stderr
    return root
