"""What every script expects of a library in the same words: refusals, and what comes in time."""

import time

# Seconds that something may take that must happen.
EVENTUALLY = 60


def refused(error, call):
    """The call is refused with this error, which is returned."""
    try:
        call()
    except error as refusal:
        return refusal
    raise AssertionError(f"{call} is not refused with {error.__name__}")


def eventually(holds):
    """Waits until something holds."""
    end = time.monotonic() + EVENTUALLY
    while not holds():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.1)
