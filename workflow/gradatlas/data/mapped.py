"""Samples of any dataset, from rows and a mapping of their columns.

None, Simplified and Detailed responses are built from their parts; other responses are `natural`.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from gradatlas.core.errors import InputError
from gradatlas.data.formats import RawValue
from gradatlas.data.options import OPTIONS, check_answer
from gradatlas.data.partners import PARTNERS, check_partners, report_left_out, with_partners
from gradatlas.data.samples import Sample, with_final


def variants_of(
    answer: str | None,
    rationale: str | None,
    detailed: str | None = None,
    natural: str | None = None,
    boxed: bool = False,
) -> dict[str, str]:
    """The responses by variant, from their parts; None for a part that the data do not have.

    `boxed`: the rationale contains the answer, and is the Simplified response.
    """
    responses = {"none": answer, "simplified": None, "detailed": detailed, "natural": natural}
    if rationale is not None:
        responses["simplified"] = rationale if boxed else with_final(rationale, answer)
    return {variant: response for variant, response in responses.items() if response is not None}


def read_mapped(
    rows: Iterable[Mapping[str, Any]],
    mapping: Mapping[str, Any],
    where: str,
    options: str,
    boxed: Callable[[str], str | None],
) -> list[Sample]:
    r"""The samples of rows by a checked `mapping` (`gradatlas.study.sheets.DatasetMapping`), read one after another.

    `where`: the rows' file, for messages. `options`: a name of `OPTIONS`. `boxed`: reads the last ``\boxed{}``. Without
    an answer in the mapping, samples have no `gold`. The log names unused columns once. Raises `InputError` with file,
    row (from 0) and column for a value that is missing, empty or not a text, a duplicate id, a partner column that the
    mapping does not name (`PARTNERS`), and an answer outside the options; and where the mapping matches no row.
    """
    columns, rows = mapping["columns"], iter(rows)
    used, names = set(columns.values()), {}
    samples, seen = [], {}
    for number, row in enumerate(rows):
        at = f"{where}, row {number}"
        names.update(dict.fromkeys(row))
        try:
            check_partners(row, used, at)
            sample = _sample(row, mapping, at, number, options, boxed)
        except InputError:
            # A column that is in no row is an error of the mapping, not of this row.
            rest = [row, *rows]
            _check_columns(columns, names | dict.fromkeys(name for each in rest for name in each), where)
            if number == 0:
                _check_separator(mapping, rest, where)
            raise
        if sample.sample_id in seen:
            raise InputError(
                f"{at}: column '{columns['id']}': '{sample.sample_id}' is also the id of row {seen[sample.sample_id]}; "
                "give every row its own"
            )
        seen[sample.sample_id] = number
        if options:
            check_answer(sample, options, f"{at}: column '{_answer_column(mapping)}'")
        samples.append(sample)
    _check_columns(columns, names, where)
    report_left_out(names, used, where)
    return samples


def _check_columns(columns: Mapping[str, str], names: Collection[str], where: str) -> None:
    for part, column in columns.items():
        if column not in names:
            raise InputError(
                f"{where}: the mapping's column '{column}' ({part}) is in no row; choose among "
                f"{', '.join(names) or 'none'}"
            )


def _check_separator(mapping: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], where: str) -> None:
    separator, column = mapping["separator"], mapping["columns"].get("rationale")
    if separator and not any(separator in str(row.get(column)) for row in rows):
        raise InputError(f"{where}: the mapping's separator '{separator}' is in no row of column '{column}'; fix it")


def _answer_column(mapping: Mapping[str, Any]) -> str:
    columns = mapping["columns"]
    return columns["rationale"] if mapping["separator"] or mapping["boxed"] else columns["answer"]


def _sample(
    row: Mapping[str, Any], mapping: Mapping[str, Any], at: str, number: int, options: str, boxed: Callable
) -> Sample:
    columns = mapping["columns"]
    texts = {part: _text(row, column, at) for part, column in columns.items() if part not in PARTNERS}
    rationale, answer = texts.get("rationale"), texts.get("answer")
    if mapping["separator"]:
        rationale, found, answer = rationale.rpartition(mapping["separator"])
        if not found:
            raise InputError(f"{at}: column '{columns['rationale']}' has no '{mapping['separator']}'; fix the row")
    elif mapping["boxed"]:
        answer = boxed(rationale)
        if answer is None:
            raise InputError(f"{at}: column '{columns['rationale']}' has no \\boxed{{}}; fix the row")
    if rationale is not None:
        rationale = re.sub(mapping["remove"], "", rationale).strip() if mapping["remove"] else rationale.strip()
    answer = None if answer is None else answer.strip()
    if mapping["answers"] and answer is not None:
        if answer not in mapping["answers"]:
            raise InputError(
                f"{at}: column '{_answer_column(mapping)}' answers {answer!r}, which is not in the mapping's answers: "
                f"{', '.join(mapping['answers'])}; add it"
            )
        answer = mapping["answers"][answer]
    for part, text in (("rationale", rationale), ("answer", answer)):
        if text == "":
            raise InputError(
                f"{at}: column '{columns.get(part) or _answer_column(mapping)}' gives an empty {part}; fix it"
            )
    responses = variants_of(answer, rationale, texts.get("detailed"), texts.get("response"), mapping["boxed"])
    instruction = with_partners(texts["instruction"], row, columns, at)
    return Sample(
        sample_id=texts.get("id", str(number)),
        instructions=dict.fromkeys((*responses, "detailed"), instruction),
        gold=answer,
        responses={(variant, "correct"): response for variant, response in responses.items()},
        options=OPTIONS[options](instruction),
    )


def _text(row: Mapping[str, Any], column: str, at: str) -> str:
    value = row.get(column)
    # Numbers and booleans can be answers: in the form of the file, or as Python writes them (True).
    if isinstance(value, (bool, RawValue)):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        state = "is missing" if value is None else "is empty" if isinstance(value, str) else "is not a text"
        raise InputError(f"{at}: column '{column}' {state}; give every row a text")
    return value
