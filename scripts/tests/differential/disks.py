# SPDX-License-Identifier: GPL-2.0
"""What the pools of a test are on: disks in memory, and devices over them that grow and fail."""

import os

import dm

CONFIG = "/sys/kernel/config/nullb"


class NullBlk:
    """A disk in memory."""

    def __init__(self, name, sectors, blocksize=512, discard=1):
        self.config = f"{CONFIG}/{name}"
        os.mkdir(self.config)
        for setting, value in (
            ("size", sectors // 2048),
            ("blocksize", blocksize),
            ("memory_backed", 1),
            ("discard", int(discard)),
            ("power", 1),
        ):
            self._set(setting, value)
        self.path = f"/dev/{name}"

    def _set(self, setting, value):
        with open(f"{self.config}/{setting}", "w", encoding="ascii") as file:
            file.write(str(value))

    def remove(self):
        self._set("power", 0)
        os.rmdir(self.config)


class Layer:
    """A device over a disk."""

    def __init__(self, name, disk, sectors):
        self.disk = disk
        self.sectors = sectors
        self.failing = None
        self.device = dm.Device(name, sectors, "linear", f"{disk.path} 0")

    def _load(self):
        if self.failing:
            self.device.load(self.sectors, "error", "")
        else:
            self.device.load(self.sectors, "linear", f"{self.disk.path} 0")
        self.device.suspend(flush=False)
        self.device.resume()

    def grow(self, sectors):
        self.sectors = sectors
        self._load()

    def fail(self, how):
        """All I/O, or with None nothing."""
        self.failing = how
        self._load()
