"""Hardware and versions that a job ran with, for a result's metadata and its JSON sidecar."""

import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any


def libraries() -> dict[str, str]:
    """Versions of the libraries that a model's numbers depend on, for a table's metadata."""
    import torch
    import transformers

    return {"torch": torch.__version__, "transformers": transformers.__version__}


def machine(device: str) -> dict[str, Any]:
    """Hardware, driver and versions of `device` (``cpu`` or ``cuda``), for a sidecar; never for a table's metadata.

    GPU: its name, the driver's release, and the versions of CUDA and cuDNN. CPU: its name.
    """
    versions = {"python": platform.python_version(), **libraries()}
    if device != "cuda":
        return {"device": device, "name": _cpu(), "versions": versions}
    import torch

    return {
        "device": device,
        "name": torch.cuda.get_device_name(),
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "versions": versions,
    }


def free_memory() -> float:
    """Bytes of main memory that this process may still take, by the machine and its control group; inf if unknown."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
        free = 1024 * float(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        free = float("inf")
    try:
        group = Path("/proc/self/cgroup").read_text(encoding="utf-8").partition("0::")[2].split("\n")[0]
        folders = [Path(f"/sys/fs/cgroup{group}"), *Path(f"/sys/fs/cgroup{group}").parents]
    except OSError:
        folders = []
    for folder in folders:
        try:
            most, used = (int((folder / f"memory.{name}").read_text()) for name in ("max", "current"))
        except (OSError, ValueError):
            # No such group, or no limit: "max".
            continue
        free = min(free, most - used)
    return free


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    # On Linux platform.processor() is empty, or only the architecture.
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _driver() -> str | None:
    """The release of NVIDIA's driver; None without nvidia-smi."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.split("\n")[0].strip() or None
