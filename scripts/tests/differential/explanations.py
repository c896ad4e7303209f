# SPDX-License-Identifier: GPL-2.0
"""The differences that there are, and should be. Documentation/differences-from-c.rst has each."""

from dataclasses import dataclass
from typing import Callable

from compare import pool_status

# Steps that may need blocks.
WRITES = ("write", "zero", "burst")


@dataclass
class Known:
    """A difference that is documented under this name. `lasts`: the drivers are not in the same state
    afterwards."""

    name: str
    explains: Callable
    lasts: bool = False


def _mode(status):
    fields = status.split()
    return fields[4] if len(fields) > 4 else status


def _has_origin(context):
    return any(step.kind == "activate" and step.get("origin") for step in context.steps)


def _origin(difference, context):
    """Behind the end of its origin a device reads as zeroes, also when the pool cannot be written."""
    return (
        _has_origin(context)
        and _mode(pool_status(context.c)) != "rw"
        and "EIO" in str(difference.c)
        and "EIO" not in str(difference.rust)
    )


def _stale(difference, context):
    """What was in blocks that are not zeroed depends on which blocks they are."""
    skipped = any("skip_block_zeroing" in str(step.get("features")) for step in context.steps)
    data = difference.what == "data" or difference.what.endswith(": contents")
    errors = "EIO" in f"{difference.c}{difference.rust}"
    return skipped and not errors and (data or difference.what.startswith("I/O of step"))


def _shape(difference, _context):
    """How many metadata blocks there are depends on the order of inserts, and on when there was a commit."""
    if difference.what != "pool: status":
        return False
    one, other = str(difference.c).split(), str(difference.rust).split()
    if len(one) < 6 or one[:1] + one[2:] != other[:1] + other[2:]:
        return False
    used = [int(fields[1].split("/")[0]) for fields in (one, other)]
    return one[1].split("/")[1] == other[1].split("/")[1] and abs(used[0] - used[1]) <= 16


def _flush(difference, context):
    """C looks block 0 up for a flush, and does with it what it does with a write."""
    modes = {_mode(pool_status(seen)) for seen in (context.c, context.before)}
    return (
        modes != {"rw"}
        and difference.what.startswith("I/O of step")
        and difference.rust == "ok"
        and any(step.kind in ("flush", "burst") or step.get("fua") for step in context.steps[-6:])
    )


def _failing(context, disk):
    """Whether a device fails at present."""
    for step in reversed(context.steps):
        if step.kind in ("heal", "reopen", "configure"):
            return False
        if step.kind == "fail" and step.disk == disk:
            return True
    return False


def _nothing_to_commit(_difference, context):
    """C commits whenever somebody asks; here there is no commit, and no failure, if nothing has changed."""
    seen = [_mode(pool_status(looked)) for looked in (context.c, context.rust)]
    return _failing(context, "metadata") and seen[0] in ("Fail", "ro") and seen[1] != seen[0]


def _leak(difference, context):
    """A block that could not be filled is lost in C."""
    if difference.what != "pool: status" or not _failing(context, "data"):
        return False
    one, other = str(difference.c).split(), str(difference.rust).split()
    if len(one) < 6 or one[:1] + one[3:] != other[:1] + other[3:]:
        return False
    used = [int(fields[2].split("/")[0]) for fields in (one, other)]
    return used[0] > used[1]


KNOWN = (
    Known("failed-copy-leaks", _leak, lasts=True),
    Known("nothing-to-commit", _nothing_to_commit, lasts=True),
    Known("shape-of-trees", _shape),
    Known("stale-data", _stale),
    Known("behind-an-origin", _origin),
    Known("flush-needs-no-block", _flush),
)


def explain(differences, context):
    """Which of the known differences these are, and those that are left."""
    used, left = [], []
    for difference in differences:
        for known in KNOWN:
            if known.explains(difference, context):
                used.append(known)
                break
        else:
            left.append(difference)
    return list({one.name: one for one in used}.values()), left

