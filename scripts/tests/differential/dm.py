# SPDX-License-Identifier: GPL-2.0
"""Devices of device-mapper, by its ioctls, and I/O to them.

Errors come as OSError, with the number that the kernel has given."""

import fcntl
import mmap
import os
import struct

CREATE, REMOVE, SUSPEND, STATUS, LOAD, CLEAR, TABLE, MESSAGE = 3, 4, 6, 7, 9, 10, 12, 14

SUSPEND_FLAG, STATUS_TABLE, ACTIVE, INACTIVE = 1 << 1, 1 << 4, 1 << 5, 1 << 6
SKIP_LOCKFS, NOFLUSH, QUERY_INACTIVE = 1 << 10, 1 << 11, 1 << 12

# struct dm_ioctl: version, data_size, data_start, target_count, open_count, flags, event_nr, padding,
# dev, name, uuid, data
HEADER = struct.Struct("=3I2IIiIIIQ128s129s7x")
# struct dm_target_spec: sector_start, length, status, next, target_type
TARGET = struct.Struct("=QQiI16s")
ROOM = 16384

_control = None


class Answer:
    """What an ioctl has left behind."""

    def __init__(self, data):
        fields = HEADER.unpack_from(data)
        self.start, self.targets, self.open = fields[4], fields[5], fields[6]
        self.flags, self.events, self.device = fields[7], fields[8], fields[10]
        self.data = data

    def text(self):
        """Of the first target."""
        if not self.targets:
            return ""
        begin = self.start + TARGET.size
        return bytes(self.data[begin : self.data.index(0, begin)]).decode(errors="replace")


def control(command, name, flags=0, data=b"", targets=0):
    global _control
    if _control is None:
        _control = os.open("/dev/mapper/control", os.O_RDWR)
    buffer = bytearray(HEADER.size + max(len(data), ROOM))
    HEADER.pack_into(
        buffer, 0, 4, 0, 0, len(buffer), HEADER.size, targets, 0, flags, 0, 0, 0, name.encode(), b""
    )
    buffer[HEADER.size : HEADER.size + len(data)] = data
    fcntl.ioctl(_control, 3 << 30 | HEADER.size << 16 | 0xFD << 8 | command, buffer)
    return Answer(buffer)


class Device:
    """One that is made here; with a table that is resumed if there is one."""

    def __init__(self, name, sectors=0, target="", arguments=""):
        self.name = name
        device = control(CREATE, name).device
        minor = (device & 0xFF) | (device >> 12 & ~0xFF)
        self.number = f"{device >> 8 & 0xFFF}:{minor}"
        self.path = f"/dev/dm-{minor}"
        if target:
            self.load(sectors, target, arguments)
            self.resume()

    def load(self, sectors, target, arguments):
        text = arguments.encode() + b"\0"
        size = -(-(TARGET.size + len(text)) // 8) * 8
        spec = TARGET.pack(0, sectors, 0, size, target.encode())
        control(LOAD, self.name, 0, (spec + text).ljust(size, b"\0"), 1)

    def clear(self):
        control(CLEAR, self.name)

    def resume(self):
        control(SUSPEND, self.name)

    def suspend(self, flush=True):
        flags = SUSPEND_FLAG | SKIP_LOCKFS
        control(SUSPEND, self.name, flags if flush else flags | NOFLUSH)

    def remove(self):
        control(REMOVE, self.name)

    def message(self, text):
        control(MESSAGE, self.name, 0, struct.pack("=Q", 0) + text.encode() + b"\0")

    def status(self, flush=True):
        return control(TABLE, self.name, 0 if flush else NOFLUSH).text()

    def table(self, inactive=False):
        flags = STATUS_TABLE | (QUERY_INACTIVE if inactive else 0)
        return control(TABLE, self.name, flags).text()

    def info(self):
        answer = control(STATUS, self.name)
        return {
            "events": answer.events,
            "suspended": bool(answer.flags & SUSPEND_FLAG),
            "active": bool(answer.flags & ACTIVE),
            "inactive": bool(answer.flags & INACTIVE),
        }


class Disk:
    """A block device that is open; what is read and written goes through `buffer`."""

    BLKDISCARD, BLKZEROOUT = 0x1277, 0x127F

    def __init__(self, path, buffer=None):
        self.path = path
        self.buffer = buffer or mmap.mmap(-1, 1 << 20)

    def __enter__(self):
        self.file = os.open(self.path, os.O_RDWR | os.O_DIRECT)
        return self

    def __exit__(self, *_):
        os.close(self.file)

    def read(self, at, length):
        view = memoryview(self.buffer)[:length]
        done = 0
        while done < length:
            got = os.preadv(self.file, [view[done:]], at + done)
            if got == 0:
                break
            done += got
        return bytes(view)

    def write(self, at, data, durable=False):
        view = memoryview(self.buffer)[: len(data)]
        view[:] = data
        done = 0
        while done < len(data):
            done += os.pwritev(self.file, [view[done:]], at + done, os.RWF_DSYNC if durable else 0)

    def flush(self):
        os.fsync(self.file)

    def discard(self, at, length):
        fcntl.ioctl(self.file, self.BLKDISCARD, struct.pack("=QQ", at, length))

    def zero(self, at, length):
        fcntl.ioctl(self.file, self.BLKZEROOUT, struct.pack("=QQ", at, length))
