# SPDX-License-Identifier: GPL-2.0
"""What is done to the drivers, one step after the other; made from a seed alone."""

import random

FEATURES = ("no_discard_passdown", "error_if_no_space")


class Step:
    """`kind name=value ...`"""

    def __init__(self, kind, **values):
        self.kind = kind
        self.values = values

    def __getattr__(self, name):
        values = self.__dict__.get("values", {})
        if name not in values:
            raise AttributeError(name)
        return values[name]

    def get(self, name, default=0):
        return self.values.get(name, default)

    def __str__(self):
        return " ".join([self.kind, *(f"{name}={value}" for name, value in self.values.items())])

    @classmethod
    def parse(cls, line):
        kind, *words = line.split(" ")
        values = {}
        for word in words:
            if "=" not in word:
                # The rest of a text with blanks.
                values[last] += " " + word
                continue
            last, value = word.split("=", 1)
            values[last] = int(value) if value.lstrip("-").isdigit() else value
        return cls(kind, **values)


class Maker:
    """Makes the steps of a sequence. What it believes about the pool need not be so."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.block = self.chance.choice((128, 128, 128, 256, 384))
        self.sector = self.chance.choice((512, 512, 4096))
        self.data = self.chance.choice((16, 40, 120, 120))
        self.metadata = self.chance.choice((512, 1024, 2048))
        self.origins = self.chance.random() < 0.3
        # Then contents cannot be compared.
        self.zeroes = self.chance.random() < 0.9
        # Whether devices fail.
        self.trouble = self.chance.random() < 0.25
        self.devices = []
        self.active = {}
        self.last_device = -1
        self.last_value = 0
        self.transaction = 0

    def features(self, ignore=False):
        words = [word for word in FEATURES if self.chance.random() < 0.3]
        if not self.zeroes and self.chance.random() < 0.7:
            words.append("skip_block_zeroing")
        if ignore:
            words.append("ignore_discard")
        if self.chance.random() < 0.04:
            words.append("read_only")
        return ",".join(words) or "none"

    def configure(self):
        return Step(
            "configure",
            block=self.block,
            data=self.data,
            metadata=self.metadata,
            low=self.chance.choice((0, 4, 1000)),
            sector=self.sector,
            discard=int(self.chance.random() < 0.8),
            features=self.features(self.chance.random() < 0.1),
        )

    def value(self):
        self.last_value += 1
        return self.last_value

    def place(self, thin):
        """A few blocks that everybody comes to, on both sides of the border of a region, too."""
        blocks = self.active[thin]
        first = self.chance.choice((0, 0, 0, 1016, max(blocks - 12, 0)))
        return min(first + self.chance.randrange(12), blocks - 1)

    def extent(self, thin, longest):
        at = self.place(thin) * self.block
        length = self.chance.choice((1, 1, 1, 2, 3, longest)) * self.block
        if self.chance.random() < 0.4:
            at += self.chance.randrange(self.block // 8) * 8
            length = self.chance.choice((8, 16, 88 if self.block > 128 else 40, length))
        return {"at": at, "length": min(length, self.active[thin] * self.block - at)}

    def someone(self):
        return self.chance.choice(sorted(self.active))

    def steps(self, count):
        yield self.configure()
        yield from self.begin()
        for _ in range(count):
            for step in self.next():
                if self.chance.random() < 0.5:
                    step.values["commit"] = 1
                yield step
        yield Step("verify", commit=1)
        yield Step("reopen", features="none")
        yield Step("verify", commit=1)

    def begin(self):
        yield self.create()
        yield self.activate(0)

    def create(self):
        self.last_device += 1
        self.devices.append(self.last_device)
        return Step("create", device=self.last_device)

    def activate(self, device):
        blocks = self.chance.choice((24, 24, 1040, 2500))
        self.active[device] = blocks
        step = Step("activate", thin=device, blocks=blocks, tail=self.chance.choice((0, 0, 8, 120)))
        if self.origins and self.chance.random() < 0.5:
            # In sectors: it ends in the middle of a block.
            step.values["origin"] = self.chance.choice((self.block * 5, self.block * 3 + 40))
        return step

    def next(self):
        kinds = {
            "write": 30,
            "read": 8,
            "discard": 9,
            "zero": 4,
            "flush": 3,
            "burst": 4,
            "snapshot": 6,
            "create": 2,
            "delete": 3,
            "deactivate": 2,
            "verify": 3,
            "wait": 1,
            "suspend": 2,
            "reload-pool": 4,
            "resume-pool": 2,
            "grow": 2,
            "transaction": 1,
            "wrong-message": 1,
            "reopen": 1,
            "clear": 1,
        }
        if self.trouble:
            kinds["trouble"] = 4
        if not self.active:
            kinds = {"create": 1, "reload-pool": 1}
        kind = self.chance.choices(list(kinds), kinds.values())[0]
        return getattr(self, "next_" + kind.replace("-", "_"))()

    def next_write(self):
        thin = self.someone()
        step = Step("write", thin=thin, **self.extent(thin, 8), value=self.value())
        if self.chance.random() < 0.15:
            step.values["fua"] = 1
        return [step]

    def next_read(self):
        thin = self.someone()
        return [Step("read", thin=thin, **self.extent(thin, 8))]

    def next_discard(self):
        thin = self.someone()
        return [Step("discard", thin=thin, **self.extent(thin, 12))]

    def next_zero(self):
        thin = self.someone()
        return [Step("zero", thin=thin, **self.extent(thin, 4))]

    def next_flush(self):
        return [Step("flush", thin=self.someone(), at=0, length=8)]

    def next_burst(self):
        whole = int(self.chance.random() < 0.5)
        return [Step("burst", seed=self.chance.randrange(1 << 30), value=self.value(), whole=whole)]

    def next_snapshot(self):
        origin = self.chance.choice(self.devices)
        self.last_device += 1
        device = self.last_device
        self.devices.append(device)
        steps = [Step("snapshot", device=device, origin=origin)]
        if origin in self.active:
            steps = [
                Step("suspend", thin=origin, flush=1),
                *steps,
                Step("resume", thin=origin),
            ]
        if len(self.active) < 6:
            steps.append(self.activate(device))
        return steps

    def next_create(self):
        step = self.create()
        if len(self.active) >= 6:
            return [step]
        return [step, self.activate(step.device)]

    def next_delete(self):
        if not self.devices:
            return [Step("delete", device=77)]
        device = self.chance.choice(self.devices)
        if device in self.active:
            if self.chance.random() < 0.2:
                # It is in use.
                return [Step("delete", device=device)]
            del self.active[device]
            self.devices.remove(device)
            return [Step("deactivate", thin=device), Step("delete", device=device)]
        self.devices.remove(device)
        return [Step("delete", device=device)]

    def next_deactivate(self):
        thin = self.someone()
        again = [Step("deactivate", thin=thin)]
        if thin in self.devices:
            again.append(self.activate(thin))
        else:
            del self.active[thin]
        return again

    def next_verify(self):
        return [Step("verify")]

    def next_wait(self):
        return [Step("wait")]

    def next_suspend(self):
        thin = self.someone()
        steps = [Step("suspend", thin=thin, flush=self.chance.randrange(2))]
        if self.chance.random() < 0.5:
            steps += self.next_write()
        return [*steps, Step("resume", thin=thin)]

    def next_reload_pool(self):
        steps = [
            Step("suspend-pool", flush=self.chance.randrange(2)),
            Step("load-pool", blocks=self.data, low=0, features=self.features()),
            Step("resume-pool"),
        ]
        if self.chance.random() < 0.3 and self.active:
            steps[1:1] = self.next_write()
        return steps

    def next_resume_pool(self):
        return [Step("suspend-pool", flush=self.chance.randrange(2)), Step("resume-pool")]

    def next_grow(self):
        if self.chance.random() < 0.4:
            self.metadata = min(self.metadata + 256, 8192)
            first = Step("grow-metadata", blocks=self.metadata)
        else:
            self.data = min(self.data + self.chance.choice((1, 8, 20)), 160)
            first = Step("grow-data", blocks=self.data)
        return [
            first,
            Step("load-pool", blocks=self.data, low=self.chance.choice((0, 4)), features=self.features()),
            Step("suspend-pool", flush=0),
            Step("resume-pool"),
        ]

    def next_transaction(self):
        self.transaction += 1
        before = self.transaction - 1 + int(self.chance.random() < 0.2)
        return [Step("message", text=f"set_transaction_id {before} {self.transaction}")]

    def next_wrong_message(self):
        texts = (
            "nonsense",
            "create_thin",
            "create_thin x",
            "create_thin 16777216",
            "create_thin 0",
            "create_snap 9999 9998",
            "create_snap 1",
            "delete 9999",
            "delete -1",
            "set_transaction_id 99 100",
            "release_metadata_snap",
            "release_metadata_snap 1",
            "CREATE_THIN 0",
        )
        return [Step("wrong-message", text=self.chance.choice(texts))]

    def next_reopen(self):
        steps = [Step("reopen", features=self.features())]
        active = sorted(self.active)
        self.active = {}
        steps += [self.activate(device) for device in active if device in self.devices]
        return steps

    def next_trouble(self):
        """A device fails for a while; afterwards all is opened anew, and repaired if need be."""
        steps = [Step("fail", disk=self.chance.choice(("data", "data", "data", "metadata")), how="all")]
        for _ in range(self.chance.randrange(1, 4)):
            steps += self.chance.choice((self.next_write, self.next_flush, self.next_discard))()
        return steps + self.next_reopen()

    def next_clear(self):
        thin = self.someone()
        load = Step("load", thin=thin, device=thin, blocks=self.active[thin], tail=0)
        return [load, Step("clear", thin=thin)]


def make(seed, count):
    return list(Maker(seed).steps(count))
