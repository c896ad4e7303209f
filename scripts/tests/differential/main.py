#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Does the same to the driver in C and to this one, and compares after each step what can be seen.

usage: main.py [--seed N] [--seeds N] [--steps N] [--seconds N] [--replay FILE] [--verbose]

A sequence is made from its seed alone. One that leads to a difference which explanations.py does not
know is made as short as possible and printed; --replay does it again."""

import argparse
import sys
import time
from collections import Counter

from pair import Pair
from shrink import shrink
from steps import Step, make
from worker import Hangs


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--steps", type=int, default=60, help="how many of a sequence, about")
    parser.add_argument("--seconds", type=int, default=0, help="begin none after so many")
    parser.add_argument("--replay", help="a file with steps")
    parser.add_argument("--no-shrink", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    return parser.parse_args()


def watch(number, step):
    print(f"    {time.monotonic():.1f} {number} {step}", flush=True)


def main():
    options = arguments()
    # A driver that takes as long as this hangs; one that has not caught up after that will not.
    pair = Pair(90, 3, watch if options.verbose else None)
    begin = time.monotonic()
    kinds, explained, total, failures = Counter(), Counter(), 0, 0
    seeds = range(options.seed, options.seed + options.seeds)
    for seed in [None] if options.replay else seeds:
        if options.seconds and time.monotonic() - begin > options.seconds:
            break
        if options.replay:
            with open(options.replay, encoding="ascii") as file:
                steps = [Step.parse(line.strip()) for line in file if line.strip()]
        else:
            steps = make(seed, options.steps)
        since = time.monotonic()
        try:
            outcome = pair.play(steps)
        except Hangs as hangs:
            print(f"seed {seed}: {hangs}")
            print("\n".join(map(str, steps)))
            return 1
        total += outcome.steps
        explained.update(outcome.explained)
        kinds.update(step.kind for step in steps[: outcome.steps + 1])
        known = "".join(f", {name} {count}" for name, count in sorted(outcome.explained.items()))
        result = "differs" if outcome.differences else "the same"
        seconds = time.monotonic() - since
        print(f"seed {seed}: {outcome.steps} steps, {seconds:.1f} s, {result}{known}", flush=True)
        if not outcome.differences:
            continue
        failures += 1
        report(outcome)
        if not options.no_shrink:
            steps, outcome = shrink(pair, steps[: outcome.steps + 1], outcome)
            report(outcome)
        print("--- the steps, for --replay:")
        print("\n".join(map(str, steps[: outcome.steps + 1])), flush=True)
    print(f"{total} steps, {failures} sequences with a difference that nothing explains")
    print("steps: " + ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())))
    print("explained: " + (", ".join(f"{n} {c}" for n, c in sorted(explained.items())) or "none"))
    return 1 if failures else 0


def report(outcome):
    for difference in outcome.differences:
        print(difference)
    for who, status in outcome.pool.items():
        print(f"  the pool, {who}: {status}")


if __name__ == "__main__":
    sys.exit(main())
