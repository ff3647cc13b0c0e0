"""A lease on GPUs for the life of a process, so that jobs side by side take different devices.

Snakemake counts GPUs but does not name them: four jobs on four GPUs would all take the first. A lock file per
device in a node-local folder, freed by the kernel however the process ends, names them. Lease before importing
torch.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from gradatlas.core.command import progress


def visible_devices(environment: Mapping[str, str]) -> list[str]:
    """The devices this process may use, as elements for CUDA_VISIBLE_DEVICES."""
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [device.strip() for device in environment["CUDA_VISIBLE_DEVICES"].split(",") if device.strip()]
    try:
        listing = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, timeout=30
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    return listing.stdout.split() if listing.returncode == 0 else []


class Lease(list[FileLock]):
    """The locks of the devices that are held."""

    def release(self) -> None:
        """Let others have them."""
        while self:
            self.pop().release()


def lease(folder: str | Path | None = None, poll: float = 1.0, count: int = 1) -> Lease | None:
    """Hold `count` visible GPUs until the returned lease is released or the process ends.

    Sets CUDA_VISIBLE_DEVICES to these devices alone. Takes no lease (returns None) under Slurm, which binds devices
    itself, and where fewer devices than `count` are visible. Waits, with a line of progress and holding none, while too
    many are held; looks again every `poll` seconds.
    """
    devices = visible_devices(os.environ)
    if "SLURM_JOB_ID" in os.environ or len(devices) < max(1, count):
        return None
    place = Path(folder or Path(tempfile.gettempdir()) / f"gradatlas-gpu-{os.getuid()}")
    place.mkdir(parents=True, exist_ok=True)
    told = False
    while True:
        held, names = Lease(), []
        for device in devices:
            lock = FileLock(place / f"gpu-{device.replace('/', '-')}.lock", timeout=0)
            try:
                lock.acquire()
            except Timeout:
                continue
            held.append(lock)
            names.append(device)
            if len(held) == count:
                os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names)
                progress(f"GPU {','.join(names)} of {','.join(devices)} leased")
                return held
        held.release()
        if not told:
            progress(f"too few of GPU {','.join(devices)} are free of other jobs of this user; waiting")
            told = True
        time.sleep(poll)
