"""Snakemake, and the jobs, as copies of processes that have imported what they need: most of a start is for imports.

`python starts.py` reads a request a line, a JSON object: the folder, the words of the command line, the environment and
two files for its output. It answers with the exit code.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("snakemake")


@cache
def _template(_process):
    process = subprocess.Popen(
        [sys.executable, "-P", __file__], env={}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    # It ends with its input.
    atexit.register(process.stdin.close)
    return process


def warm():
    """The environment that has jobs start as copies of one process of these tests, as in a run of many jobs."""
    return _warm(os.getpid())


@cache
def _warm(_process):
    from gradatlas.core import warm

    # A copy cannot use a GPU.
    if sys.platform != "linux" or Path("/dev/nvidiactl").exists():
        return {}
    warm.start()
    # For those alone that ask for it here.
    socket = os.environ.pop(warm.VARIABLE)
    while not os.path.exists(socket):
        time.sleep(0.05)
    return {warm.VARIABLE: socket}


def snakemake(folder, words, environment):
    """Run it in a folder and with nothing but this environment and `warm`; the ended process, its output as text."""
    template = _template(os.getpid())
    with tempfile.TemporaryDirectory() as place:
        files = [str(Path(place, name)) for name in ("stdout", "stderr")]
        words = list(map(str, words))
        template.stdin.write(json.dumps([str(folder), words, environment | warm(), files]) + "\n")
        template.stdin.flush()
        code = int(template.stdout.readline())
        return subprocess.CompletedProcess([PROGRAM, *words], code, *(Path(file).read_text() for file in files))


def _child(folder, words, environment, files):
    """Become a Snakemake."""
    from snakemake.cli import main

    for descriptor, path in enumerate([os.devnull, *files]):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [str(PROGRAM), *words]
    # As a start does.
    sys.path[:0] = [str(PROGRAM.parent), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    try:
        main()
    except SystemExit as end:
        return end.code or 0
    return 0


def _serve():
    # What a start imports, but for this project, whose copies have their own.
    for name in (
        "snakemake.cli", "snakemake.report.html_reporter", "numpy", "requests", "docutils", "cyclopts", "jinja2",
        "smart_open", "yaml", "pygments", "jsonschema", "yte", "dpath", "xxhash", "platformdirs",
    ):  # fmt: skip
        __import__(name)
    for line in sys.stdin:
        if not (child := os.fork()):
            code = 1
            try:
                code = _child(*json.loads(line))
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
