"""Waiting for what another process does."""

import time


def waited(condition, seconds):
    """Whether `condition` came true within `seconds`."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True
