"""What the tests share: the data files beside a developer's checkout, and running the scripts as a user does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


def needs_shared(name):
    """Skip where the folder ../shared/`name` is absent: it holds published data that are not ours to ship."""
    return pytest.mark.skipif(not (SHARED / name).is_dir(), reason=f"needs {SHARED / name}, which only developers and CI have")


def script(name, *arguments, **options):
    """Run a script of the workflow in a process of its own; returns the finished process, output as text."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    command = [sys.executable, "-m", f"workflow.scripts.{name}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, **options)


def user_error(done):
    """The one line of a script that ended with the user's error."""
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in done.stderr, done.stderr
    return errors[0]
