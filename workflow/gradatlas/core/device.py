"""The GPUs that a process may use, and a lease on them, so that parallel jobs take different ones.

Snakemake counts GPUs but does not assign them: four jobs on four GPUs would all take the first. Here each job locks a
file per GPU, in a folder of the node; jobs that wait are served first come, first served. The locks belong to the
process, and the kernel frees them however it ends.
"""

import os
import re
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, lockf
from pathlib import Path
from typing import BinaryIO

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError


def visible_devices(environment: Mapping[str, str]) -> dict[str, str]:
    """The GPUs that CUDA gives a process in this environment: name in CUDA_VISIBLE_DEVICES -> UUID, in CUDA's order.

    As CUDA does: a name is an index (nvidia-smi's), the UUID of a GPU or its beginning, or a MIG instance; the list
    ends at the first name that no GPU has. Without nvidia-smi, names cannot be checked and stand for UUIDs (indices
    with Slurm's job id, because they count the GPUs of the job). Raises `InputError` for a GPU named twice, and for
    GPUs that nvidia-smi does not list.
    """
    given = environment.get("CUDA_VISIBLE_DEVICES")
    if given == "":
        return {}
    gpus = _installed(given is None)
    if given is None:
        # Of a GPU divided into MIG instances, these.
        return {uuid: uuid for gpu, *instances in gpus for uuid in instances or [gpu]}
    found: dict[str, str] = {}
    for name in map(str.strip, given.split(",")):
        uuid = _uuid(name, gpus, environment.get("SLURM_JOB_ID", "")) if _form(name) == _form(given) else None
        if uuid is None:
            break
        if uuid in found.values():
            raise InputError(f"CUDA_VISIBLE_DEVICES={given} names a GPU twice, and CUDA then uses none; name it once")
        found[name] = uuid
    return found


def check_devices(wanted: Collection[int], limit: int | None, environment: Mapping[str, str]) -> None:
    """`InputError` where jobs of a run on this machine would share a GPU, or wait for one that does not exist.

    `wanted` has the numbers of GPUs that jobs take, `limit` is Snakemake's limit of all jobs at a time.
    """
    if not wanted:
        return
    devices = visible_devices(environment)
    names = ",".join(devices) or "none"
    visible = f"{len(devices)} GPU{'s are' if len(devices) != 1 else ' is'} visible ({names})"
    given = environment.get("CUDA_VISIBLE_DEVICES", "")
    if len(devices) < len(list(filter(None, given.split(",")))):
        progress(f"note: CUDA_VISIBLE_DEVICES={given} names a GPU that does not exist: CUDA stops there, and {visible}")
    if limit is not None and limit > len(devices):
        raise InputError(f"--resources gpu={limit} is given, but {visible}; give no more, or leave it out")
    most = max(wanted)
    usable = len(_usable(devices, most))
    limited = limit is not None and limit < usable
    if devices and most > (limit if limited else usable):
        by = f", and --resources gpu={limit} is given" if limited else ""
        raise InputError(
            f"a job asks for {most} GPUs, but can use {usable} of {names}{by}; lower dynamics.processes, or gpus in "
            "config/models.tsv"
        )
    if "SLURM_JOB_ID" in environment and limit is None and len(devices) in wanted:
        raise InputError(
            f"parallel jobs would share GPUs: {visible} to this Slurm job; add "
            f"--workflow-profile profiles/workstation, or --resources gpu={len(devices)}"
        )


@contextmanager
def lease(device: str, count: int = 1, folder: str | Path | None = None, poll: float = 1.0) -> Iterator[bool]:
    """Hold `count` visible GPUs for the block, and set CUDA_VISIBLE_DEVICES to them; import torch inside the block.

    Yields whether GPUs are held. None are held where `device` is ``cpu``, where fewer than `count` are visible, and in
    a Slurm job that has exactly `count`. Waits while other jobs of this user hold too many, and tries every `poll`
    seconds. A `count` of 0 holds none: a profile on a machine without GPUs gives it. Raises `InputError` below that.
    """
    if count < 0:
        raise InputError(f"--gpus {count}: give how many GPUs the job holds, 0 or more")
    devices = {} if device == "cpu" else _usable(visible_devices(os.environ), count)
    if not count or len(devices) < count or ("SLURM_JOB_ID" in os.environ and len(devices) == count):
        yield False
        return
    # Not TMPDIR: jobs may have different ones.
    place = Path(folder or f"/tmp/gradatlas-gpu-{os.getuid()}")
    with ExitStack() as closed_at_end:
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            counter, *files = (
                closed_at_end.enter_context(_opened(place / f"{name.replace('/', '-')}.lock"))
                for name in ("queue", *devices.values())
            )
        except OSError as error:
            raise InputError(f"{place}: GPUs cannot be locked ({error.strerror}); make this folder yours") from None
        number = _queue(counter, files)
        leased: set[str] = set()
        waiting = False
        while len(leased) < count:
            # One's turn: no earlier job waits for any of these GPUs. Only then is holding some of them no deadlock.
            if all(_locked(file, LOCK_SH, 1, number - 1) for file in files):
                for name, file in zip(devices, files, strict=True):
                    if len(leased) < count and name not in leased and _locked(file, LOCK_EX, 0, 1):
                        leased.add(name)
            if len(leased) < count:
                if not waiting:
                    progress(f"GPU {','.join(devices)}: other jobs of this user hold too many; waiting")
                waiting = True
                time.sleep(poll)
        for file in files:
            lockf(file, LOCK_UN, number, 1)
        held = ",".join(name for name in devices if name in leased)
        os.environ["CUDA_VISIBLE_DEVICES"] = held
        progress(f"GPU {held} of {','.join(devices)} leased")
        yield True


def _usable(devices: dict[str, str], count: int) -> dict[str, str]:
    """Those of which a job can use `count`: a process sees one MIG instance at most."""
    return {name: uuid for name, uuid in devices.items() if count == 1 or not uuid.startswith("MIG-")}


def _opened(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0)


def _locked(file: BinaryIO, kind: int, start: int, length: int) -> bool:
    """Lock these bytes of a file, if no other process has them."""
    try:
        lockf(file, kind | LOCK_NB, length, start)
    except BlockingIOError:
        return False
    return True


def _queue(counter: BinaryIO, files: list[BinaryIO]) -> int:
    """Join the queue of every GPU: lock the byte of this job's number, above all earlier ones, in every file.

    Byte 0 is the lease itself. All files are joined at once, so that no two jobs wait for each other.
    """
    lockf(counter, LOCK_EX)
    number = int(counter.read() or 1) + 1
    counter.seek(0)
    counter.write(f"{number:020}".encode())
    for file in files:
        lockf(file, LOCK_EX, 1, number)
    lockf(counter, LOCK_UN)
    return number


def _installed(needed: bool) -> list[list[str]]:
    """UUIDs that nvidia-smi lists: of each GPU, then of its MIG instances. `InputError` if it fails and is `needed`."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
        failure = f"ends with {done.returncode}: {done.stdout} {done.stderr}" if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        failure = str(error)
    if failure:
        if needed and any(Path("/dev").glob("nvidia[0-9]*")):
            raise InputError(
                f"this machine has NVIDIA devices, but nvidia-smi does not list them ({failure}); set "
                "CUDA_VISIBLE_DEVICES to those to use, or to nothing for the CPU"
            )
        return []
    gpus: list[list[str]] = []
    for kind, uuid in re.findall(r"^ *(GPU|MIG) .*\(UUID: (.+)\)", done.stdout, re.MULTILINE):
        if kind == "GPU":
            gpus.append([])
        gpus[-1].append(uuid)
    return gpus


def _form(name: str) -> str:
    """Which kind of name this is; CUDA takes a list of one kind."""
    return name[:4] if name.startswith(("GPU-", "MIG-")) else "index"


def _uuid(name: str, gpus: list[list[str]], slurm_job: str) -> str | None:
    """The UUID of what CUDA takes by this name; None where there is nothing."""
    if _form(name) == "index" and not name.isdecimal():
        return None
    if name.isdecimal() and not gpus:
        return f"{slurm_job}-{int(name)}"
    # Drivers before R470 call an instance MIG-GPU-UUID/1/2, a name that later ones still take.
    if not gpus or "/" in name:
        return name
    if name.isdecimal():
        named = gpus[int(name) : int(name) + 1]
    elif _form(name) == "GPU-":
        named = [gpu for gpu in gpus if gpu[0].startswith(name)]
    else:
        named = [[uuid] for gpu in gpus for uuid in gpu[1:] if uuid.startswith(name)]
    if len(named) != 1:
        return None
    gpu, *instances = named[0]
    return (instances or [gpu])[0]
