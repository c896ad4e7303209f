# SPDX-License-Identifier: GPL-2.0
"""What metadata say, without the numbers of data blocks: who allocates which is up to the driver."""

import subprocess
import xml.etree.ElementTree as ElementTree


def dump(metadata):
    """Devices with their details, and which of their blocks share a data block."""
    done = subprocess.run(["thin_dump", metadata], capture_output=True, check=False, text=True)
    if done.returncode:
        return {"dump": f"thin_dump ends with {done.returncode}"}
    root = ElementTree.fromstring(done.stdout)
    seen = {
        "superblock": " ".join(
            f"{name}={root.get(name)}" for name in ("time", "transaction", "data_block_size")
        )
    }
    names = {}
    shared = {one.get("name"): one for one in root if one.tag == "def"}
    devices = [one for one in root if one.tag == "device"]
    for device in sorted(devices, key=lambda one: int(one.get("dev_id"))):
        lines = [
            f"{name}={device.get(name)}"
            for name in ("mapped_blocks", "transaction", "creation_time", "snap_time")
        ]
        for block, data, time in sorted(_blocks(device, shared)):
            # A data block is called after the first who has it.
            owner = names.setdefault(data, f"{device.get('dev_id')}.{block}")
            lines.append(f"{block}={owner}@{time}")
        seen[f"device {device.get('dev_id')}"] = " ".join(lines)
    return seen


def _blocks(device, shared):
    for mapping in device:
        if mapping.tag == "ref":
            yield from _blocks(shared[mapping.get("name")], shared)
            continue
        time = int(mapping.get("time"))
        if mapping.tag == "single_mapping":
            yield int(mapping.get("origin_block")), int(mapping.get("data_block")), time
        else:
            begin, data = int(mapping.get("origin_begin")), int(mapping.get("data_begin"))
            for at in range(int(mapping.get("length"))):
                yield begin + at, data + at, time
