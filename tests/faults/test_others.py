"""Two Snakemakes in one folder, a clock that jumps back, a network that stalls or lies."""

import hashlib
import os
import re
import shutil
import time

import pytest

from faults.study import BOTH, LINE, SAME, assert_same, ended, following, jobs_of, plain_run, run, start, survived
from gradatlas.core.errors import InputError
from gradatlas.data import sources
from loopback import Loopback

BODY = bytes(range(256)) * 1000
SUM = hashlib.sha256(BODY).hexdigest()


def test_two_snakemakes(copy, undisturbed):
    for job in following(jobs_of(undisturbed), {"regress_gradients", "draw_overview"}):
        job.remove_outputs(copy)
    first = start(copy)
    while not list((copy / ".snakemake/locks").glob("*")):
        assert first.poll() is None
        time.sleep(0.01)
    code, output = run(copy)
    line = "Error: Directory cannot be locked. Please make sure that no other Snakemake process is trying to create …"
    assert code == 1 and line.removesuffix(" …") in " ".join(output.split()) and "Traceback" not in output, output
    assert ended(first)[0] == 0
    plain_run(copy)
    assert_same(copy, undisturbed)
    survived("two Snakemakes", "in one folder", 1, f"{LINE} of the second, the same bytes of the first", line)


@pytest.mark.skipif(not shutil.which("faketime"), reason="needs faketime (Debian: apt-get install faketime)")
def test_a_clock_that_jumps_back(copy, undisturbed):
    """A day, before a part of the study is made: its outputs are older than its inputs."""
    for job in following(jobs_of(undisturbed), {"gather_evidence", "draw_figures"}):
        job.remove_outputs(copy)
    code, output = run(copy, before=("faketime", "--exclude-monotonic", "-f", "-1d"))
    line = "Output FILE has older modification time (…) than input FILE (…). This could indicate a clock skew problem …"
    pattern = re.sub(r"FILE|…", ".+", re.escape(line))
    assert code == 1 and re.search(pattern, output) and "Traceback" not in output, output[-3000:]
    plain_run(copy)
    assert_same(copy, undisturbed)
    survived("a clock that jumps back", "a day, in the middle of the study", 1, BOTH, line)


def test_times_of_files(copy, undisturbed, rng):
    for path in [*(copy / "results").rglob("*"), *(copy / "resources").rglob("*"), *(copy / "config").rglob("*")]:
        moment = time.time() + rng.uniform(-1, 1) * 365 * 86_400
        os.utime(path, (moment, moment))
    plain_run(copy)
    assert_same(copy, undisturbed)
    survived("a clock that jumps", "files up to a year older or newer than they are", 1, SAME)


#: What the next requests meet, and the end of the line; none, where the transfer goes on.
TROUBLES = {
    "it accepts and never answers": (["mute"], "no byte was received for … s; …"),
    "it stalls in the middle": (["stall"], "no byte was received for … s; …"),
    "it breaks off": (["cut"], "the transfer was interrupted; …"),
    "it sends other bytes": ([BODY[::-1]], "sha256 is …, not …; the file is kept as …: …"),
}


@pytest.mark.parametrize("what", TROUBLES)
def test_a_download(what, tmp_path, monkeypatch):
    """Once: the transfer goes on. Always: one line; and the next run, on a network that works, has the file."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    plan, end = TROUBLES[what]
    output = tmp_path / "file"
    with Loopback() as server:
        server.files["/file"] = BODY

        def fetch():
            sources.fetch(server.url, "file", SUM, output, timeout=1, attempts=3, wait=0.01)

        if isinstance(plan[0], str):
            server.troubles["/file"] = list(plan)
            fetch()
            assert output.read_bytes() == BODY
            output.unlink()
        server.troubles["/file"] = plan * 3
        with pytest.raises(InputError) as error:
            fetch()
        assert str(error.value).startswith(f"{server.url}/file: ") and end.split("…")[0] in str(error.value)
        assert not output.exists()
        server.troubles["/file"] = []
        fetch()
        assert output.read_bytes() == BODY
    survived("a network that fails", what, 2, BOTH, f"FILE: {end}")
