"""The study on which faults are tried, how it is run, and the table of what became of them (docs/faults.md)."""

import os
import random
import re
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import starts
from conftest import ROOT, SMALL_STUDY
from test_workflow import BARE, clone, results_of, snakemake
from test_workflow import make as make_study

#: ``FAULTS=long``: as many tries as docs/faults.md states; ``FAULTS=write``: the same, and the table is written.
MODE = os.environ.get("FAULTS", "")
LONG = MODE in ("long", "write")
SEED = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(10**6))
TABLE = ROOT / "docs" / "faults.md"
SAME, LINE, BOTH = "the same bytes", "one line", "one line, then the same bytes"

STUDY = (
    """\
models: [mini]
datasets: [mini_arithmetic]
relations: [correct, derangement]
controls: none
samples: 4
batch_tokens: 128
miniature: {questions: 8, accuracy_questions: 8, retrain: true, steps: 3}
"""
    + SMALL_STUDY
)
RUN = ["--cores", "2", "--configfile", "study.yaml"]


@dataclass(frozen=True)
class Job:
    """A job of the study: its rule, its files, and its command line behind ``python -m gradatlas``."""

    rule: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    arguments: tuple[str, ...]

    def remove_outputs(self, folder: Path) -> None:
        for path in map(folder.joinpath, self.outputs):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def start(folder: Path, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.Popen:
    """Snakemake in `folder`, as the leader of a group of processes; `output`: what it writes."""
    command = [*before, starts.PROGRAM, *RUN, *map(str, arguments)]
    # A file, which jobs that outlive Snakemake do not keep waiting.
    output = tempfile.TemporaryFile("w+")  # noqa: SIM115
    process = subprocess.Popen(command, cwd=folder, env=BARE, start_new_session=True,
                               stdout=output, stderr=subprocess.STDOUT)  # fmt: skip
    process.output = output
    return process


def run(folder: Path, *arguments: str, before: tuple[str, ...] = ()) -> tuple[int, str]:
    """Exit code and output of Snakemake in `folder`."""
    if before:
        return ended(start(folder, *arguments, before=before))
    done = snakemake(folder, *RUN, *arguments)
    return done.returncode, done.output


def ended(process: subprocess.Popen) -> tuple[int, str]:
    """Exit code and output of a Snakemake, once it has ended."""
    code = process.wait(timeout=600)
    process.output.seek(0)
    return code, process.output.read()


def plain_run(folder: Path, *targets: str) -> None:
    """The plain rerun after a fault, and one more that has nothing to do."""
    code, output = run(folder, *targets)
    assert code == 0, output[-3000:]
    code, output = run(folder, *targets)
    assert code == 0 and "Nothing to be done" in output, output[-3000:]


def make(folder: Path) -> None:
    """The undisturbed study."""
    clone(folder)
    (folder / "study.yaml").write_text(STUDY)
    (folder / "output.txt").write_text(make_study(folder, *RUN))


def jobs_of(folder: Path) -> list[Job]:
    """The jobs of the undisturbed study, in the order in which they started."""
    text = (folder / "output.txt").read_text()
    found = []
    blocks = re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)+)Shell command: python -m gradatlas (.*)\n", text, re.M)
    for rule, block, command in blocks:
        lines = dict(line.strip().partition(": ")[::2] for line in block.splitlines())
        files = (tuple(filter(None, lines.get(kind, "").split(", "))) for kind in ("input", "output"))
        found.append(Job(rule, *files, tuple(shlex.split(command.partition(" > ")[0]))))
    return found


def following(jobs: list[Job], rules: set[str]) -> list[Job]:
    """The jobs of these rules, and all that take what these make."""
    found = [job for job in jobs if job.rule in rules]
    while more := [job for job in jobs if job not in found and {*job.inputs} & {o for f in found for o in f.outputs}]:
        found += more
    return found


def assert_same(folder: Path, undisturbed: Path) -> None:
    """The results are those of the undisturbed study, byte by byte, with no file more and none less."""
    ours, theirs = results_of(folder), results_of(undisturbed)
    assert {*ours} ^ {*theirs} == set()
    assert [name for name in ours if ours[name] != theirs[name]] == []


def error_line(text: str, template: str, *files: str) -> str:
    """The one line of an error in a log or in Snakemake's output, which follows the `template` (FILE, RULE, …)."""
    assert "Traceback" not in text, text[-3000:]
    lines = sorted({line for line in text.splitlines() if line.startswith("error: ")})
    assert len(lines) == 1, text[-3000:]
    pattern = re.sub(r"FILE|RULE|…", ".*", re.escape(template))
    assert re.fullmatch(pattern, lines[0].removeprefix("error: ")), (lines[0], template)
    for file in files:
        assert file in lines[0], (lines[0], file)
    return lines[0]


# --- The table ---

_ROWS: list[str] = []


def survived(fault: str, where: str, tried: int, outcome: str, line: str = "") -> None:
    """State what became of a fault: a row of docs/faults.md, which is compared, or written (`MODE`)."""
    row = f"| {fault} | {where} | {tried} | {outcome} | {f'`{line}`' if line else ''} |"
    if MODE == "write":
        _ROWS.append(row)
        return
    rows = {tuple(each.split(" | ")[:2]): each for each in rows_of_table()}
    listed = rows.get(tuple(row.split(" | ")[:2]))
    assert listed, f"docs/faults.md has no row {row}; write it with FAULTS=write pytest -m '' tests/faults"
    at = slice(None) if LONG else slice(3, None)
    assert row.split(" | ")[at] == listed.split(" | ")[at]


def rows_of_table() -> list[str]:
    lines = TABLE.read_text().splitlines()
    return [line for line in lines if line.startswith("| ") and not line.startswith("| Fault ")]


def write_rows() -> None:
    """Put the rows of this run into docs/faults.md, in place of earlier ones of the same fault and place."""
    lines = TABLE.read_text().splitlines()
    rows = {tuple(each.split(" | ")[:2]): each for each in [*rows_of_table(), *_ROWS]}
    TABLE.write_text(
        "\n".join([*(line for line in lines if line not in rows_of_table()), *sorted(rows.values())]) + "\n"
    )


def damaged(content: bytes, kind: str, rng: random.Random) -> bytes:
    """The content with one fault."""
    if kind == "empty":
        return b""
    at = rng.randrange(len(content))
    if kind == "truncated":
        return content[:at]
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


KINDS = ("empty", "truncated", "bit flipped")
