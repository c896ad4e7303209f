# SPDX-License-Identifier: GPL-2.0
"""What is different between what is seen of both drivers."""

import re
from dataclasses import dataclass

NOWHERE = "nothing"


@dataclass
class Difference:
    """One thing that is seen, of each driver."""

    what: str
    c: object
    rust: object

    def kind(self):
        """The same for differences that are likely to have the same cause."""
        return re.sub(r"\d+", "N", self.what)

    def __str__(self):
        return f"{self.what}:\n  C    {self.c}\n  Rust {self.rust}"


def pool_status(seen):
    return seen.get("pool: status", "")


class Context:
    """What has been done and seen so far."""

    def __init__(self):
        self.step = None
        self.steps = []
        self.before = {}
        self.before_rust = {}
        self.c = {}
        self.rust = {}

    def enter(self, step):
        self.step = step
        self.steps.append(step)
        self.before = self.c
        self.before_rust = self.rust

    def look(self, c, rust):
        """The differences."""
        self.c, self.rust = c, rust
        found = []
        for what in [*c, *(what for what in rust if what not in c)]:
            one, other = c.get(what, NOWHERE), rust.get(what, NOWHERE)
            if isinstance(one, dict) and isinstance(other, dict):
                found += [
                    Difference(f"{what}: {part}", one.get(part, NOWHERE), other.get(part, NOWHERE))
                    for part in dict.fromkeys([*one, *other])
                    if one.get(part) != other.get(part)
                ]
            elif what.endswith(": events"):
                # How many there are depends on how fast one is; whether there are, does not.
                if self._news(what, one, "c") != self._news(what, other, "rust"):
                    found.append(Difference(what, one, other))
            elif one != other:
                found.append(Difference(what, one, other))
        return found

    def _news(self, what, events, side):
        before = (self.before if side == "c" else self.before_rust).get(what)
        if before is None or events == NOWHERE:
            return False
        return events != before

