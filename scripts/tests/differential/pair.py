# SPDX-License-Identifier: GPL-2.0
"""Does a sequence on both drivers and compares after each step."""

import time
from collections import Counter
from dataclasses import dataclass, field

import compare
from explanations import WRITES, explain
from steps import Step
from worker import Worker


@dataclass
class Outcome:
    """Of a sequence."""

    steps: int = 0  # that were done
    differences: list = field(default_factory=list)  # without an explanation
    explained: Counter = field(default_factory=Counter)
    pool: dict = field(default_factory=dict)  # what its status was at a difference

    def kinds(self):
        return {difference.kind() for difference in self.differences}


class Pair:
    """`limit`: seconds after which a driver that does not answer hangs; `settle`:
    after which one that still differs from the other will not change."""

    def __init__(self, limit, settle, watch=None):
        self.limit = limit
        self.settle = settle
        self.watch = watch or (lambda number, step: None)

    def play(self, steps):
        """Stops at a difference without an explanation. Raises Hangs."""
        outcome = Outcome()
        configure = next(step for step in steps if step.kind == "configure")
        self._start(configure, outcome)
        context = compare.Context()
        context.enter(configure)
        for number, step in enumerate(steps, 1):
            if step.kind == "configure":
                continue
            if outcome.differences:
                break
            self.watch(number, step)
            context.enter(step)
            found = self._step(step, context)
            outcome.steps += 1
            used, outcome.differences = explain(found, context)
            outcome.explained.update(known.name for known in used)
            if outcome.differences:
                looks = {"C before": context.before, "C": context.c, "Rust": context.rust}
                outcome.pool = {who: compare.pool_status(seen) for who, seen in looks.items()}
            if any(known.lasts for known in used) and not outcome.differences:
                # From here on they are not the same any more.
                self._stop()
                self._start(configure, outcome)
                self._restore(context.c)
                context = compare.Context()
                context.enter(configure)
        self._stop()
        return outcome

    def _start(self, configure, outcome):
        self.workers = [Worker(driver, self.limit) for driver in ("c", "rust")]
        answers = self._both("run", configure)
        if answers[0] != answers[1]:
            outcome.differences.append(compare.Difference("result", *answers))

    def _restore(self, seen):
        """Empty devices in place of those that there were."""
        for name, table in seen.items():
            if name.startswith("thin ") and name.endswith(": table") and table:
                number = int(name.split()[1].strip(":"))
                self._both("run", Step("create", device=number))
                self._both("run", Step("activate", thin=number, blocks=24))

    def _stop(self):
        for worker in self.workers:
            worker.stop()

    def _both(self, *question):
        for worker in self.workers:
            worker.ask(*question)
        return [worker.answer() for worker in self.workers]

    def _step(self, step, context):
        # Where one has leaked blocks, both must do the same nevertheless.
        room = min(self._both("free_blocks")) if step.kind in WRITES else 0
        results = self._both("run", step, room)
        commit = bool(step.get("commit"))
        end = time.monotonic() + self.settle
        pause = 0.01
        while True:
            seen = [
                {"result": result, **observed}
                for result, observed in zip(results, self._both("observe", commit), strict=True)
            ]
            found = context.look(*seen)
            if not found or results[0] != results[1] or time.monotonic() > end:
                return found
            if not explain(found, context)[1] and pause > 0.5:
                return found
            time.sleep(pause)
            pause *= 2
