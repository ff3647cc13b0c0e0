"""Start the jobs of a run on one machine without importing the large packages in each.

torch and transformers take seven seconds of a processor to import, which is longer than most jobs of the miniature. A
server beside Snakemake imports them once. A job then asks it over a socket for a copy of itself (`os.fork`), and waits
for the copy to do the work in its place: same arguments, folder, environment, package and output. Without a server, or
before it is ready, a job starts as usual. The server imports nothing of this package: edits during a run act as usual.
"""

import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress

#: The environment variable with the way to the socket.
VARIABLE = "GRADATLAS_WARM"
#: What most jobs import. None may start threads that a copy would miss.
PACKAGES = (
    "cyclopts",
    "polars",
    "pyarrow.parquet",
    "altair",
    "jinja2",
    "scipy.stats",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "torch._inductor",  # by torch.use_deterministic_algorithms
)
#: Signals that a waiting job passes on to its copy.
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


# Without a package, jobs that need it say so.
_SERVER = """\
import importlib, sys
from contextlib import suppress
for name in sys.argv[2:]:
    with suppress(ImportError):
        importlib.import_module(name)
from gradatlas.core.warm import serve
serve(sys.argv[1])
"""


def start(packages: Sequence[str] = PACKAGES) -> None:
    """Start a server of these modules, and make it known to the jobs that this process starts. It ends with this one.

    Nothing where one is known already.
    """
    if VARIABLE in os.environ:
        return
    path = os.path.join(tempfile.mkdtemp(prefix="gradatlas-"), "socket")
    # As in every job: threads that wait must not spin.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    # Its input is never written to; it closes when this process ends, however it ends.
    subprocess.Popen([sys.executable, "-c", _SERVER, path, *packages], stdin=subprocess.PIPE, env=environment)
    os.environ[VARIABLE] = path


def run_in_copy() -> int | None:
    """Have this process's command run in a copy of the server; returns its exit code, or None without a server."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(os.environ[VARIABLE])
    except (KeyError, OSError):
        return None
    for number in PASSED_ON:
        signal.signal(number, lambda number, _: connection.send(bytes([number])))
    socket.send_fds(connection, [b"."], [0, 1, 2])
    asked = {"argv": sys.argv, "folder": os.getcwd(), "environment": dict(os.environ), "path": sys.path}
    connection.sendall(json.dumps(asked).encode() + b"\n")
    code = int(connection.makefile("rb").readline() or -signal.SIGKILL)
    if code < 0:
        # As the copy ended, so that Snakemake sees the signal.
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def serve(path: str) -> None:
    """Make copies of this process until the one that started it has ended."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path + ".new")
    listener.listen(1000)
    gc.freeze()
    # OpenBLAS' threads, which it ends before a copy and begins again after it.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    # The system removes the ended copies.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # A terminal sends it to all; jobs take it, and the server ends with Snakemake.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.rename(path + ".new", path)
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        connection = listener.accept()[0]
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _follow(connection)
        connection.close()
    os.unlink(path)
    os.rmdir(os.path.dirname(path))


def _follow(connection: socket.socket) -> None:
    """Fork once more: one process is the job, the other watches it, and ends it with the process that asked for it."""
    _, outputs, *_ = socket.recv_fds(connection, 1, 3)
    lines = connection.makefile("rb")
    asked = json.loads(lines.readline())
    if (job := os.fork()) == 0:
        connection.close()
        lines.close()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for at, output in enumerate(outputs):
            os.dup2(output, at)
            os.close(output)
        os.chdir(asked["folder"])
        os.environ.clear()
        # The copy asks for no other.
        os.environ.update({name: value for name, value in asked["environment"].items() if name != VARIABLE})
        sys.argv = asked["argv"]
        # The package of the one that asks, which may be another copy of it.
        sys.path[:] = asked["path"]
        for name in [name for name in sys.modules if name.partition(".")[0] == "gradatlas"]:
            del sys.modules[name]
        runpy.run_module("gradatlas", run_name="__main__", alter_sys=True)
        return

    def pass_on() -> None:
        while number := lines.read(1):
            os.kill(job, number[0])
        with suppress(ProcessLookupError):
            os.kill(job, signal.SIGKILL)

    threading.Thread(target=pass_on, daemon=True).start()
    code = os.waitstatus_to_exitcode(os.waitpid(job, 0)[1])
    with suppress(OSError):
        connection.sendall(b"%d\n" % code)
    os._exit(0)
