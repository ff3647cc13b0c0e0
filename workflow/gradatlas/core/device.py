"""A lease on GPUs, so that parallel jobs take different devices.

Snakemake counts GPUs but does not assign them: four jobs on four GPUs would all take the first. Here each job holds a
lock file per device, in a folder of the node. The kernel frees the lock however the process ends.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
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


@contextmanager
def lease(device: str, count: int = 1, folder: str | Path | None = None, poll: float = 1.0) -> Iterator[bool]:
    """Hold `count` visible GPUs for the block, and set CUDA_VISIBLE_DEVICES to them; import torch inside the block.

    Yields whether GPUs are held. None are held where `device` is ``cpu``, under Slurm (which assigns devices itself),
    and where fewer than `count` are visible. Waits while other jobs hold too many, and tries every `poll` seconds.
    """
    devices = visible_devices(os.environ)
    if device == "cpu" or "SLURM_JOB_ID" in os.environ or len(devices) < max(1, count):
        yield False
        return
    place = Path(folder or Path(tempfile.gettempdir()) / f"gradatlas-gpu-{os.getuid()}")
    place.mkdir(parents=True, exist_ok=True)
    waiting = False
    while True:
        with ExitStack() as locks:
            held = []
            for name in devices:
                with suppress(Timeout):
                    locks.enter_context(FileLock(place / f"gpu-{name.replace('/', '-')}.lock", timeout=0))
                    held.append(name)
                if len(held) == count:
                    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(held)
                    progress(f"GPU {','.join(held)} of {','.join(devices)} leased")
                    yield True
                    return
        if not waiting:
            progress(f"GPU {','.join(devices)}: other jobs of this user hold too many; waiting")
            waiting = True
        time.sleep(poll)
