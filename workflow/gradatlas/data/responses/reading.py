"""Reading a dataset's samples: from published files, from rows by a mapping, or from the miniature's grammar."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.data.formats import checked_lines
from gradatlas.data.made_up import miniature
from gradatlas.data.mapped import read_mapped
from gradatlas.data.published import read_samples
from gradatlas.data.responses.labels import GOLD, boxed
from gradatlas.data.samples import Sample
from gradatlas.data.tabular import WHOLE, read_rows
from gradatlas.study.mappings import names_answers

# A new line written as backslash and n, but no LaTeX command that begins with n.
_NEWLINE = re.compile(
    r"\\n(?!(?:e|eq|abla|ot|otin|u|i|geq|leq|mid|exists|parallel|earrow|warrow|onumber|ewline|ormalsize)(?![a-zA-Z]))"
)


@dataclass(frozen=True)
class Source:
    """The source of a dataset's samples.

    `reader`: ``published`` reads the JSON lists in `files`, by (variant, relation); ``mapped`` reads the file `rows` by
    the checked `mapping`; ``miniature`` draws `questions` held-out questions by `seed`. `gold`: how published files
    state their answers (`GOLD`; empty: they have none). `options`: how questions list options. `detailed`: a file of
    written Detailed responses (``generate_detailed``); samples without one are left out. `normalise_newlines`: replace
    backslash-n in instructions by a new line.
    """

    dataset: str
    reader: str
    files: Mapping[tuple[str, str], str] = field(default_factory=dict)
    rows: str = ""
    mapping: Mapping[str, Any] = field(default_factory=dict)
    gold: str = ""
    options: str = ""
    detailed: str = ""
    normalise_newlines: bool = False
    seed: int = 0
    questions: int = 1

    @property
    def answers(self) -> str:
        """How responses state their answer: a name of `GOLD`, empty for data without answers."""
        if self.reader == "mapped":
            return "boxed" if self.mapping["boxed"] else "none" if names_answers(self.mapping) else ""
        return self.gold


def read(source: Source) -> list[Sample]:
    """The samples of `source`; `InputError` with file, row and column for unusable data."""
    samples = READERS[source.reader](source)
    if source.normalise_newlines:
        samples = [
            replace(sample, instructions={key: normalise_newlines(text) for key, text in sample.instructions.items()})
            for sample in samples
        ]
    return _with_detailed(samples, source) if source.detailed else samples


def _read_published(source: Source) -> list[Sample]:
    return read_samples(source.files, GOLD.get(source.gold), source.options)


def _read_mapped(source: Source) -> list[Sample]:
    # A hub dataset's split was taken when it was fetched.
    path = Path(source.rows)
    fetched = path.suffix.lower() == ".parquet" and path != Path(source.mapping["source"])
    split = "train" if fetched else source.mapping["split"]
    where = source.rows if split in WHOLE else f"{source.rows}, split '{split}'"
    return read_mapped(read_rows(source.rows, split), source.mapping, where, source.options, boxed)


def _read_miniature(source: Source) -> list[Sample]:
    return miniature.held_out(source.dataset, source.questions, source.seed)


READERS: dict[str, Callable[[Source], list[Sample]]] = {
    "published": _read_published,
    "mapped": _read_mapped,
    "miniature": _read_miniature,
}


def normalise_newlines(text: str) -> str:
    r"""The text with a new line for each backslash and n that does not begin a LaTeX command.

    >>> normalise_newlines(r"Which?\nOptions: $a \neq b$")
    'Which?\nOptions: $a \\neq b$'
    """
    return _NEWLINE.sub("\n", text)


def _with_detailed(samples: list[Sample], source: Source) -> list[Sample]:
    """The samples with an accepted written response, with it as Detailed response."""
    lines = read_written(source.detailed)
    written = {line["sample_id"]: line["response"] for line in lines if line["status"] == "accepted"}
    kept = []
    for sample in samples:
        if sample.sample_id in written:
            responses = {**sample.responses, ("detailed", "correct"): written[sample.sample_id]}
            instructions = {**sample.instructions, "detailed": next(iter(sample.instructions.values()))}
            kept.append(replace(sample, responses=responses, instructions=instructions))
    if not kept:
        raise InputError(
            f"{source.detailed}: has no accepted response for dataset '{source.dataset}'; see the log of "
            "generate_detailed"
        )
    left = len(samples) - len(kept)
    if left:
        progress(f"{source.dataset}: {left} of {len(samples)} samples have no accepted Detailed response; left out")
    return kept


def read_written(path: str | Path) -> list[dict[str, Any]]:
    """The lines that ``generate_detailed`` wrote: one per sample, accepted or rejected.

    `InputError` with file and row for an invalid line, and for a duplicate sample.
    """
    lines: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(checked_lines(path, "generate_detailed")):
        if missing := [key for key in ("sample_id", "status", "response", "writer") if key not in line]:
            raise InputError(
                f"{path}, row {number}: not a line of generate_detailed, has no '{missing[0]}'; delete the file and "
                "run again"
            )
        for key in ("sample_id", "response"):
            if not isinstance(line[key], str):
                raise InputError(f"{path}, row {number}: '{key}' is not a text; delete the file and run again")
        if line["sample_id"] in lines:
            raise InputError(f"{path}, row {number}: sample '{line['sample_id']}' occurs twice; remove one line")
        # Older files have no template.
        lines[line["sample_id"]] = {"template": None, **line}
    return list(lines.values())


def written_facts(path: str | Path) -> dict[str, Any]:
    """The writer and the prompt of the Detailed responses, and how many were accepted and rejected."""
    lines = read_written(path)
    if not lines:
        raise InputError(f"{path}: has no lines; delete it and run again")
    counts = {status: sum(line["status"] == status for line in lines) for status in ("accepted", "rejected")}
    return {"writer": lines[0]["writer"], "prompt": lines[0]["template"], **counts}
