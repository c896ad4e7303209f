# SPDX-License-Identifier: GPL-2.0
"""One of the two drivers: does steps, and says what can be seen afterwards."""

import errno
import mmap
import os
import random
import struct
import subprocess
import threading
import time
import zlib

import dm
import mappings
from disks import Layer, NullBlk
from steps import Step

TARGETS = {"c": ("thin-pool", "thin"), "rust": ("thin-pool-rs", "thin-rs")}

# The most that the disks below may grow to, in sectors.
DATA_SECTORS = 64 * 2048
METADATA_SECTORS = 32 * 2048
ORIGIN_SECTORS = 12 * 2048

# What is compared of the queue limits, if there.
LIMITS = (
    "logical_block_size",
    "minimum_io_size",
    "optimal_io_size",
    "max_sectors_kb",
    "discard_granularity",
    "discard_max_bytes",
    "write_zeroes_max_bytes",
    "write_cache",
    "fua",
    "rotational",
)

# How long an I/O may take before it counts as one that waits for something. The
# other driver is given more time if only one is through by then.
PATIENCE = 1.0


def name_of(error):
    return errno.errorcode.get(error.errno, str(error.errno))


def pattern(value, at, length):
    """What is written at a sector: each sector is unlike all others."""
    return b"".join(
        struct.pack("<QQ", value, sector) * 32 for sector in range(at, at + length)
    )


class Io(threading.Thread):
    """An I/O that may have to wait."""

    def __init__(self, work):
        super().__init__(daemon=True)
        self.work = work
        self.answer = "waits"
        self.start()

    def run(self):
        try:
            self.answer = self.work() or "ok"
        except OSError as error:
            self.answer = name_of(error)


class Side:
    def __init__(self, driver):
        self.driver = driver
        self.pool_target, self.thin_target = TARGETS[driver]
        self.ready = False
        self.buffer = mmap.mmap(-1, 1 << 20)
        self.pool = None
        self.waiting = {}
        self.dumped = {}
        self.touched = None
        self.verifies = False
        self.number = 0
        self.room = 0

    # --- Setting up ---

    def configure(self, step):
        self.block = step.block
        self.sector = step.sector
        self.low = step.low
        self.data_blocks = step.data
        limits = {"blocksize": step.sector, "discard": step.discard}
        self.disks = {
            "data": NullBlk(f"{self.driver}data", DATA_SECTORS, **limits),
            "metadata": NullBlk(f"{self.driver}meta", METADATA_SECTORS, blocksize=512),
            "origin": NullBlk(f"{self.driver}orig", ORIGIN_SECTORS, blocksize=512),
        }
        with dm.Disk(self.disks["origin"].path) as disk:
            for at in range(0, ORIGIN_SECTORS, 2048):
                disk.write(at * 512, pattern(1 << 40, at, 2048))
        # What an earlier user has left.
        with dm.Disk(self.disks["data"].path) as disk:
            for at in range(0, min(step.data * step.block, 16 * 2048), 2048):
                disk.write(at * 512, pattern(1 << 41, at, 2048))
        self.layers = {
            "data": Layer(
                f"{self.driver}-data", self.disks["data"], step.data * step.block
            ),
            "metadata": Layer(
                f"{self.driver}-metadata", self.disks["metadata"], step.metadata * 8
            ),
        }
        self.origins = {}
        self.pool = None
        self.pool_suspended = False
        self.thins = {}
        self.suspended = set()
        self.ready = True
        return self._open_pool(step.features)

    def close(self):
        """Nothing may be left, whatever went wrong."""
        if not self.ready:
            return
        self._close_pool()
        for origin in self.origins.values():
            origin.remove()
        for layer in self.layers.values():
            layer.device.remove()
        for disk in self.disks.values():
            disk.remove()
        self.ready = False

    def _arguments(self, step, features=None):
        words = [f for f in (features or step.features).split(",") if f != "none"]
        data, metadata = self.layers["data"].device, self.layers["metadata"].device
        if step and step.get("swap"):
            data, metadata = metadata, data
        count = step.get("count", len(words)) if step else len(words)
        block = step.get("block", self.block) if step else self.block
        low = step.get("low") if step else self.low
        return f"{metadata.path} {data.path} {block} {low} {count} {' '.join(words)}".strip()

    def _open_pool(self, features):
        self.pool = dm.Device(f"{self.driver}-pool")
        try:
            self.pool.load(
                self.data_blocks * self.block, self.pool_target, self._arguments(None, features)
            )
            self.pool.resume()
        except OSError as error:
            self.pool.remove()
            self.pool = None
            return f"open: {name_of(error)}"
        return "ok"

    def _close_pool(self):
        if self.pool is None:
            return
        if self.waiting:
            self._let_waiting_go()
        for thin in self.thins.values():
            thin.remove()
        self.thins = {}
        self.suspended = set()
        self.pool.remove()
        self.pool = None
        self.pool_suspended = False
        for origin in self.origins.values():
            origin.remove()
        self.origins = {}

    def _let_waiting_go(self):
        """I/O that waits for space or for a device to be resumed: what it gets is
        seen by the next step, and it must not be in the way."""
        features = [*self.pool.table().split()[5:], "error_if_no_space"]
        features = [f for f in features if f != "read_only"][:4]
        self.pool.suspend(flush=False)
        try:
            self.pool.load(
                self.data_blocks * self.block,
                self.pool_target,
                self._arguments(None, ",".join(dict.fromkeys(features))),
            )
            self.pool.resume()
        except OSError:
            self.pool.resume()
        for thin in self.thins.values():
            if thin.info()["suspended"]:
                thin.resume()
        for io in self.waiting.values():
            io.join(30)

    # --- Steps ---

    def run(self, step, room=0):
        """Returns what there is to be seen of the step itself. `room`: for how many blocks both
        drivers have space."""
        self.room = room
        self.waiting = {n: io for n, io in self.waiting.items() if io.answer == "waits"}
        self.number += 1
        self.dumped = {}
        self.touched = None
        self.verifies = False
        if step.kind == "configure":
            return self.configure(step)
        if self.pool is None and step.kind not in ("reopen", "heal", "fail", "grow-data"):
            return "no pool"
        try:
            return getattr(self, "_do_" + step.kind.replace("-", "_"))(step) or "ok"
        except OSError as error:
            return name_of(error)

    def _disk(self, thin):
        """Only for what does not go on beside other I/O."""
        return dm.Disk(thin.path, self.buffer)

    def _io(self, step, work):
        """In a thread: it may have to wait."""
        thin = self.thins.get(step.thin)
        if thin is None:
            return "no such device"

        if self.waiting:
            # When there is room or the device resumes, several would race.
            return "not tried"
        size = max(4096, step.get("length") * 512)

        def on_disk():
            with dm.Disk(thin.path, mmap.mmap(-1, size)) as disk:
                return work(disk)

        io = Io(on_disk)
        if step.thin in self.suspended or self.pool_suspended:
            # Not for long: that it waits is known.
            io.join(0.05)
        else:
            io.join(PATIENCE)
            self.touched = step
        self.waiting[self.number] = io
        return "begun"

    def _do_write(self, step):
        step = self._fitting(step)
        data = pattern(step.value, step.at, step.length)
        return self._io(
            step, lambda disk: disk.write(step.at * 512, data, bool(step.get("fua")))
        )

    def _do_read(self, step):
        return self._io(step, lambda disk: self._checksum(disk, step.at, step.length))

    def _do_discard(self, step):
        return self._io(step, lambda disk: disk.discard(step.at * 512, step.length * 512))

    def _do_zero(self, step):
        step = self._fitting(step)
        return self._io(step, lambda disk: disk.zero(step.at * 512, step.length * 512))

    def _do_flush(self, step):
        return self._io(step, lambda disk: disk.flush())

    def _do_flush_all(self, step):
        for thin in self._usable():
            with self._disk(thin) as disk:
                disk.flush()

    def _checksum(self, disk, at, length):
        """Of what is read; in pieces, of which each may fail."""
        found = []
        while length:
            piece = min(length, 2048)
            found.append(f"{zlib.crc32(disk.read(at * 512, piece * 512)):08x}")
            at += piece
            length -= piece
        return " ".join(found)

    def _read(self, disk, at, length):
        try:
            return self._checksum(disk, at, length)
        except OSError as error:
            return name_of(error)

    def _usable(self):
        if self.pool_suspended:
            return []
        return [self.thins[n] for n in sorted(self.thins) if n not in self.suspended]

    def _do_burst(self, step):
        """Several at once, each in a place of its own: in which order they get to
        the driver must not matter."""
        if self.waiting or not self._is_roomy(36):
            return "not tried"
        chance = random.Random(step.seed)
        jobs = []
        for number, thin in enumerate(self._usable()[:6]):
            places = list(range(0, self._sectors(thin) // self.block))[:24]
            chance.shuffle(places)
            for place in places[:6]:
                what = chance.choice(("write", "write", "write", "discard", "flush", "read"))
                at, length = place * self.block, self.block
                if what == "write" and not step.whole and chance.random() < 0.6:
                    at += chance.randrange(0, length // 8) * 8
                    length = 8
                jobs.append(Io(self._burst_job(thin, what, at, length, step.value + number)))
        for job in jobs:
            job.join(PATIENCE * 10)
        for index, job in enumerate(jobs):
            self.waiting[f"{self.number}.{index}"] = job
        return "begun"

    def _fitting(self, step):
        """One block of it, unless there is room for all: if not all of its blocks
        find space, which ones do is a matter of luck."""
        first = step.at // self.block
        last = (step.at + step.length - 1) // self.block
        if first == last or self._is_roomy(last - first + 1):
            return step
        return Step(step.kind, **{**step.values, "length": (first + 1) * self.block - step.at})

    def free_blocks(self):
        """How many blocks can be written that are not mapped."""
        if self.pool is None:
            return 0
        fields = self.pool.status(flush=False).split()
        if len(fields) < 6 or fields[4] != "rw":
            return 0
        used, total = fields[2].split("/")
        return int(total) - int(used)

    def _is_roomy(self, blocks):
        return self.room >= blocks

    def _burst_job(self, thin, what, at, length, value):
        def work():
            with dm.Disk(thin.path, mmap.mmap(-1, length * 512)) as disk:
                if what == "write":
                    disk.write(at * 512, pattern(value, at, length))
                elif what == "discard":
                    disk.discard(at * 512, length * 512)
                elif what == "flush":
                    disk.flush()
                else:
                    disk.read(at * 512, length * 512)

        return work

    def _sectors(self, thin):
        with open(f"/sys/block/{os.path.basename(thin.path)}/size", encoding="ascii") as file:
            return int(file.read())

    def _do_verify(self, step):
        self.verifies = True

    def _contents(self, thin):
        """Those parts where anything is ever written, and the errors met there."""
        size = self._sectors(thin)
        blocks = -(-size // self.block)
        found = []
        with self._disk(thin) as disk:
            for first, last in ((0, 24), (1012, 1040), (blocks - 24, blocks + 8)):
                first, last = max(first, 0), min(last, blocks)
                step = max(1, 1024 // self.block)
                for block in range(first, last, step):
                    at = block * self.block
                    length = min(step, last - block) * self.block
                    found.append(self._read(disk, at, min(length, size - at)))
        errors = sorted({one for one in found if one.startswith("E")})
        return " ".join([f"{zlib.crc32(' '.join(found).encode()):08x}", *errors])

    def _do_message(self, step):
        self.pool.message(step.text)

    _do_wrong_message = _do_message

    def _do_create(self, step):
        self.pool.message(f"create_thin {step.device}")

    def _do_snapshot(self, step):
        self.pool.message(f"create_snap {step.device} {step.origin}")

    def _do_delete(self, step):
        self.pool.message(f"delete {step.device}")

    def _thin_arguments(self, device, origin=0):
        words = [self.pool.path, str(device)]
        if origin:
            if origin not in self.origins:
                self.origins[origin] = dm.Device(
                    f"{self.driver}-origin{origin}",
                    origin,
                    "linear",
                    f"{self.disks['origin'].path} 0",
                )
            words.append(self.origins[origin].path)
        return " ".join(words)

    def _thin_length(self, step):
        """The tail is less than a block and a multiple of the sectors below."""
        unit = self.sector // 512
        return step.blocks * self.block + step.get("tail") // unit * unit

    def _do_activate(self, step):
        if step.thin in self.thins:
            return "exists"
        if len(self.thins) > 8:
            return "not tried"
        device = dm.Device(f"{self.driver}-thin{step.thin}")
        try:
            device.load(
                self._thin_length(step),
                self.thin_target,
                self._thin_arguments(step.thin, step.get("origin")),
            )
            device.resume()
        except OSError:
            device.remove()
            raise
        self.thins[step.thin] = device

    def _do_deactivate(self, step):
        if step.thin not in self.thins:
            return "no such device"
        if self.waiting:
            return "not tried"
        self.thins[step.thin].remove()
        del self.thins[step.thin]
        self.suspended.discard(step.thin)

    def _do_suspend(self, step):
        """Not beneath a suspended pool: that waits for the pool."""
        if step.thin not in self.thins or self.pool_suspended:
            return "not tried"
        if step.flush and self.waiting:
            return "not tried"
        self.thins[step.thin].suspend(bool(step.flush))
        self.suspended.add(step.thin)

    def _do_resume(self, step):
        if step.thin not in self.thins or self.pool_suspended:
            return "not tried"
        try:
            self.thins[step.thin].resume()
        finally:
            self._look_who_is_suspended()
            self._await_resumed()

    def _look_who_is_suspended(self):
        self.suspended = {n for n, thin in self.thins.items() if thin.info()["suspended"]}
        self.pool_suspended = self.pool.info()["suspended"]

    def _await_resumed(self):
        """What waited only for the resume is through soon."""
        for io in self.waiting.values():
            io.join(PATIENCE / 4)

    def _do_load(self, step):
        if step.thin not in self.thins:
            return "no such device"
        self.thins[step.thin].load(
            self._thin_length(step), self.thin_target, self._thin_arguments(step.device)
        )

    def _do_clear(self, step):
        if step.thin not in self.thins:
            return "no such device"
        self.thins[step.thin].clear()

    def _do_load_pool(self, step):
        self.pool.load(step.blocks * self.block, self.pool_target, self._arguments(step))

    def _do_clear_pool(self, step):
        self.pool.clear()

    def _do_suspend_pool(self, step):
        try:
            self.pool.suspend(bool(step.flush))
        finally:
            self._look_who_is_suspended()

    def _do_resume_pool(self, step):
        try:
            self.pool.resume()
        finally:
            self._look_who_is_suspended()
            self._await_resumed()

    def _do_grow_data(self, step):
        if step.blocks * self.block < self.layers["data"].sectors:
            return "not tried"
        self.layers["data"].grow(step.blocks * self.block)
        self.data_blocks = step.blocks

    def _do_grow_metadata(self, step):
        if step.blocks * 8 < self.layers["metadata"].sectors:
            return "not tried"
        self.layers["metadata"].grow(step.blocks * 8)

    # --- Trouble ---

    def _do_fail(self, step):
        self.layers[step.disk].fail(step.how)

    def _do_heal(self, step):
        self.layers[step.disk].fail(None)

    def _do_wait(self, step):
        """For the commit that comes by itself each second."""
        time.sleep(1.3)

    def _do_reopen(self, step):
        """All of it, with a look at the metadata in between."""
        for layer in self.layers.values():
            if layer.failing:
                layer.fail(None)
        self._close_pool()
        metadata = self.layers["metadata"].device.path
        self.dumped = mappings.dump(metadata)
        self.dumped["check"] = self._check(metadata)
        return self._open_pool(step.features)

    def _check(self, metadata):
        """Repairs what can be, so that what follows can go on."""
        if not _thin_check("--clear-needs-check-flag", metadata):
            return "clean"
        if _thin_check("--ignore-non-fatal-errors", metadata):
            return "broken"
        _thin_check("--auto-repair", metadata)
        _thin_check("--clear-needs-check-flag", metadata)
        return "leaks"

    # --- What can be seen ---

    def observe(self, commit):
        """By name. Whatever of it changes by itself does so soon."""
        seen = {f"I/O of step {n}": io.answer for n, io in sorted(self.waiting.items(), key=str)}
        if self.dumped:
            seen["metadata"] = self.dumped
        if self.pool is None:
            return seen
        names = {layer.device.number: name for name, layer in self.layers.items()}
        names[self.pool.number] = "pool"
        for origin, device in self.origins.items():
            names[device.number] = f"origin{origin}"
        seen |= self._observe_device("pool", self.pool, names, commit)
        for number, thin in sorted(self.thins.items()):
            seen |= self._observe_device(f"thin {number}", thin, names, commit)
        waits = any(io.answer == "waits" for io in self.waiting.values())
        if self.touched is not None and not waits:
            seen["data"] = self._surroundings(self.touched)
        if self.verifies and not self.pool_suspended:
            for number, thin in sorted(self.thins.items()):
                if number not in self.suspended:
                    seen[f"thin {number}: contents"] = self._contents(thin)
        return seen

    def _observe_device(self, name, device, names, commit):
        seen = {}
        for field, look in (
            ("status", lambda: device.status(flush=commit)),
            ("table", lambda: renamed(device.table(), names)),
            ("loaded table", lambda: renamed(device.table(inactive=True), names)),
        ):
            try:
                seen[f"{name}: {field}"] = look()
            except OSError as error:
                seen[f"{name}: {field}"] = name_of(error)
        info = device.info()
        seen[f"{name}: events"] = info.pop("events")
        seen[f"{name}: state"] = " ".join(f"{field}={value}" for field, value in info.items())
        limits = []
        for limit in LIMITS:
            path = f"/sys/block/{os.path.basename(device.path)}/queue/{limit}"
            try:
                with open(path, encoding="ascii") as file:
                    limits.append(f"{limit}={file.read().strip()}")
            except OSError:
                limits.append(f"{limit}: none")
        seen[f"{name}: limits"] = " ".join(limits)
        return seen

    def _surroundings(self, step):
        """The blocks that an I/O has touched."""
        thin = self.thins.get(step.thin)
        if thin is None or not hasattr(step, "at"):
            return ""
        size = self._sectors(thin)
        first = step.at // self.block * self.block
        last = min(-(-(step.at + step.length) // self.block) * self.block, size)
        if first >= last:
            return ""
        with self._disk(thin) as disk:
            return self._read(disk, first, last - first)


def renamed(table, names):
    """With names for the numbers of devices."""
    return " ".join(names.get(word, word) for word in table.split(" "))


def _thin_check(*arguments):
    done = subprocess.run(["thin_check", "-q", *arguments], capture_output=True, check=False)
    return done.returncode
