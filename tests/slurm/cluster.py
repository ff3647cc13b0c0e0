"""A real Slurm on this machine: a controller and several virtual nodes with counted fake GPUs, on loopback alone.

Needs Debian's slurmctld, slurmd, slurm-client and munge, and root. Each node runs in a PID namespace of its own:
killing it takes its jobs along, as a crash does. Nothing isolates GPUs: Slurm counts them, and sets
CUDA_VISIBLE_DEVICES.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "unshare")
PUBLISHED = Path("/etc/slurm")
#: GPUs of each node.
GPUS = {"n1": 2, "n2": 1, "n3": 2, "n4": 1}
#: Where nothing fails, and where nodes and jobs do: both are used at one time.
SOUND, FAULTY = ("n1", "n2"), ("n3", "n4")
#: Of each node.
CPUS, MEMORY = 2, 64_000

CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits as long as a credential lives, by default 120 s.
AuthInfo=socket={folder}/munge/socket,cred_expire=10
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherParams=OverMemoryKill
JobAcctGatherFrequency=task=1
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
ReturnToService=2
MinJobAge=86400
SlurmctldTimeout=10
SlurmdTimeout=10
KillWait=3
MessageTimeout=5
JobRequeue=0
DefMemPerCPU=500
SlurmdParameters=config_overrides
GresTypes=gpu
PartitionName=cpu Nodes={sound} Default=YES MaxTime=60 State=UP
PartitionName=gpu Nodes={sound} MaxTime=60 State=UP
PartitionName=faulty Nodes={faulty} MaxTime=60 State=UP
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory={memory}"
    " Gres=gpu:{gpus}\n"
)


def missing():
    """Why Slurm cannot be started here; empty where it can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None]
    if absent:
        return f"needs a real Slurm: {', '.join(absent)} not installed (slurmctld slurmd slurm-client munge)"
    if os.geteuid() != 0:
        return "needs root, for nodes in namespaces of their own and for /etc/slurm"
    if any(
        (PUBLISHED / name).is_file() and not (PUBLISHED / name).is_symlink() for name in ("slurm.conf", "gres.conf")
    ):
        return f"{PUBLISHED} holds the configuration of another cluster"
    return ""


#: What is read of each job, by squeue's names.
FIELDS = (
    "JobID", "State", "NodeList", "tres-per-job", "MinMemory", "Comment", "StartTime", "EndTime",
    "Partition", "Account", "WorkDir",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A job in the controller's record. `rule` is its comment: rule and wildcards. Times are None until known."""

    id: int
    state: str
    nodes: str
    gpus: int
    memory: str
    rule: str
    start: datetime | None
    end: datetime | None
    partition: str
    account: str
    folder: Path

    def overlaps(self, other):
        """Whether both ran at one time."""
        return self.start < other.end and other.start < self.end


class Cluster:
    """A running cluster; a context manager."""

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.running = {}
        self.port = _free_ports(1 + len(GPUS))
        self._configure()
        try:
            self._start_all()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(["scancel", "-u", "root"], timeout=10, capture_output=True)
        for name in [*self.running]:
            self.kill(name)
        for name in ("slurm.conf", "gres.conf"):
            (PUBLISHED / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start_all(self):
        munge = self.folder / "munge"
        self._start(
            "munged", "-F", "--force", f"--key-file={munge}/key", f"--socket={munge}/socket",
            f"--pid-file={munge}/pid", f"--seed-file={munge}/seed", f"--log-file={munge}/log",
        )  # fmt: skip
        _wait(lambda: (munge / "socket").exists(), 120, "munged")
        self._start("slurmctld", "-D", "-c")
        for name in GPUS:
            self.start_node(name)
        self.wait_idle(GPUS)

    def _configure(self):
        for name in ("munge", "state", *(f"spool.{node}" for node in GPUS)):
            (self.folder / name).mkdir(mode=0o755)
        self.folder.chmod(0o755)
        key = self.folder / "munge/key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(1024))
        host = socket.gethostname().split(".")[0]
        nodes, devices = "", ""
        for number, (name, gpus) in enumerate(GPUS.items()):
            place = {"name": name, "host": host, "port": self.port + 1 + number, "gpus": gpus}
            nodes += NODE.format(**place, cpus=CPUS, memory=MEMORY)
            for gpu in range(gpus):
                # Slurm wants a device: a link to one is enough.
                link = self.folder / f"{name}.gpu{gpu}"
                link.symlink_to("/dev/null")
                devices += f"NodeName={name} Name=gpu File={link}\n"
        config = CONFIG.format(
            folder=self.folder, host=host, port=self.port, sound=",".join(SOUND), faulty=",".join(FAULTY)
        )
        # Nodes come before the partition of all of them.
        (self.folder / "slurm.conf").write_text(config.replace("PartitionName", nodes + "PartitionName", 1))
        (self.folder / "gres.conf").write_text(devices)
        PUBLISHED.mkdir(exist_ok=True)
        # The executor drops the variable SLURM_CONF within jobs.
        for name in ("slurm.conf", "gres.conf"):
            (PUBLISHED / name).unlink(missing_ok=True)
            (PUBLISHED / name).symlink_to(self.folder / name)

    def _start(self, name, *arguments, within=(), label=""):
        path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
        with (self.folder / f"{label or name}.out").open("ab") as log:
            self.running[label or name] = subprocess.Popen(
                [*within, path, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def start_node(self, name):
        """Start a node."""
        space = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
        # A shell as the first process: it collects the node's orphans.
        self._start("sh", "-c", f"slurmd -D -N {name}; :", within=space, label=name)

    def kill(self, name):
        """Kill a node with its jobs, or a daemon; returns at once."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def wait_idle(self, nodes):
        """Wait until these nodes are idle."""

        def idle():
            # Each node has a line for each of its partitions.
            return {*_ask("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").split()} >= {*nodes}

        _wait(idle, 300, f"idle nodes (logs in {self.folder})")

    def jobs(self, folder):
        """The controller's record of the jobs that were submitted for a folder, the first one first."""
        text = _ask("squeue", "--states=all", "-h", "-O", ",".join(f"{name}:|" for name in FIELDS))
        rows = [line.split("|") for line in text.splitlines()]
        found = [
            Job(
                int(id),
                state,
                nodes,
                _count(gpus),
                memory,
                rule,
                _time(start),
                _time(end),
                partition,
                account,
                Path(place),
            )
            for id, state, nodes, gpus, memory, rule, start, end, partition, account, place, _ in rows
        ]
        return sorted((job for job in found if job.folder == Path(folder)), key=lambda job: job.id)

    def steps(self, job):
        """How many steps the job's script started, by the nodes' logs."""
        logs = [path.read_text(errors="replace") for path in self.folder.glob("slurmd.*.log")]
        return sum(log.count(f"launch task StepId={job}.") for log in logs)


def most_gpus(jobs):
    """By node, the most GPUs that jobs held at one time."""
    most = Counter()
    for node in GPUS:
        here = [job for job in jobs if job.nodes == node and job.gpus and job.start and job.end]
        for job in here:
            held = sum(other.gpus for other in here if other.start <= job.start < other.end)
            most[node] = max(most[node], held)
    return most


def _ask(*command):
    # A client hangs for long where the controller is gone.
    return subprocess.run(command, capture_output=True, text=True, timeout=120).stdout


def _count(gres):
    """GPUs of ``gres:gpu:2`` or ``gpu:1``."""
    return int(gres.rpartition(":")[2]) if "gpu" in gres else 0


def _time(text):
    return datetime.fromisoformat(text) if text[:1].isdigit() else None


def _wait(condition, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"no {what} after {seconds} s")
        time.sleep(0.2)


def _free_ports(count):
    """The first of so many ports in a row that are free."""
    for first in range(16_900, 18_000, count):
        with contextlib.ExitStack() as taken, contextlib.suppress(OSError):
            for port in range(first, first + count):
                taken.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise OSError("no free ports")
