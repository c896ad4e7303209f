# SPDX-License-Identifier: GPL-2.0
"""Leaves steps out of a sequence as long as the difference stays."""

import time

from worker import Hangs


def shrink(pair, steps, outcome, seconds=300):
    """Returns the shorter sequence, and what came of it."""
    kinds = outcome.kinds()
    end = time.monotonic() + seconds
    size = max(1, len(steps) // 2)
    while time.monotonic() < end:
        at = 1  # Behind "configure".
        shorter = False
        while at < len(steps) and time.monotonic() < end:
            fewer = steps[:at] + steps[at + size :]
            try:
                again = pair.play(fewer)
            except (Hangs, RuntimeError):
                at += size
                continue
            if again.kinds() & kinds:
                steps, outcome, shorter = fewer[: again.steps + 1], again, True
            else:
                at += size
        if size == 1 and not shorter:
            break
        size = max(1, size // 2)
    return steps, outcome
