"""Preference pairs (prompt, chosen, rejected) of any origin, each with a status.

No pair is dropped here: `status` is the reason why one cannot be trained on, and every later job counts those that it
leaves out. A prompt is all text before the response (``...\\n\\nAssistant:``); a response begins with a space.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_table, write_table
from gradatlas.data.formats import RawValue
from gradatlas.data.partners import check_partners, report_left_out, with_partners
from gradatlas.data.tables import PAIRS
from gradatlas.study.seeds import seeded_hash

ASSISTANT = "\n\nAssistant:"
HUMAN = "\n\nHuman:"
ROLES = {"system", "user", "assistant"}
Pair = dict[str, Any]


def status_of(pair: Mapping[str, Any]) -> str:
    """The status from `mapped_pairs`, or the first that holds of ``empty_prompt``, ``empty_chosen``,
    ``empty_rejected``, ``equal``, ``ok``."""
    if pair.get("status"):
        return pair["status"]
    for part in ("prompt", "chosen", "rejected"):
        if not (pair[part] or "").strip():
            return f"empty_{part}"
    return "equal" if pair["chosen"].strip() == pair["rejected"].strip() else "ok"


def write_pairs(rows: Sequence[Mapping[str, Any]], path: str | Path, facts: Mapping[str, Any]) -> None:
    """Write the ``pairs`` table; rows need no `status`.

    A ``held_out`` pair with the prompt of a ``train`` pair gets the status ``not_held_out``. Raises `InputError` for a
    duplicate id, and for a split without a usable pair.
    """
    seen: set[str] = set()
    trained = {row["prompt"] for row in rows if row["split"] == "train"}
    done = []
    for number, row in enumerate(rows):
        if row["pair_id"] in seen:
            raise InputError(f"{path}: pair '{row['pair_id']}' (row {number}) occurs twice; give every pair its own id")
        seen.add(row["pair_id"])
        status = "ok" if row["split"] == "base" else status_of(row)
        if status == "ok" and row["split"] == "held_out" and row["prompt"] in trained:
            status = "not_held_out"
        done.append({**row, "status": status})
    counts = Counter((row["split"], row["status"]) for row in done)
    progress(", ".join(f"{split} {status}: {count}" for (split, status), count in sorted(counts.items())))
    for split in ("train", "held_out"):
        if not counts[split, "ok"]:
            found = ", ".join(f"{count} {status}" for (name, status), count in counts.items() if name == split)
            raise InputError(
                f"{path}: no usable pair in split '{split}' ({found or 'no rows'}); fix the data or the mapping"
            )
    write_table(PAIRS, done, path, {**facts, "statuses": {f"{s}/{why}": n for (s, why), n in sorted(counts.items())}})


def read_pairs(path: str | Path, split: str) -> list[Pair]:
    """The usable pairs of a split (train, held_out, or base of the miniature), in the table's order.

    Raises `InputError` where there is none.
    """
    rows = [row for row in read_table(PAIRS, path).to_pylist() if row["split"] == split and row["status"] == "ok"]
    if not rows:
        raise InputError(f"{path}: no usable pair in split '{split}'; choose another split, or build the table again")
    return rows


def _dialogue(row: Mapping[str, Any], columns: Mapping[str, str], where: str) -> tuple[str, ...]:
    """Two dialogues that differ in their last turn: the prompt ends with the last ``Assistant:``."""
    chosen, rejected = (_text(row, columns[part], where) for part in ("chosen", "rejected"))
    cut = chosen.rfind(ASSISTANT) + len(ASSISTANT)
    if cut < len(ASSISTANT):
        return "", chosen, rejected, "other_prompt"
    prompt = chosen[:cut]
    if not rejected.startswith(prompt) or ASSISTANT in rejected[cut:]:
        return prompt, chosen[cut:], rejected, "other_prompt"
    # A later turn of the user would be trained on as part of the answer.
    ended = HUMAN not in chosen[cut:] and HUMAN not in rejected[cut:]
    return prompt, chosen[cut:], rejected[cut:], "" if ended else "no_answer"


def _plain(row: Mapping[str, Any], columns: Mapping[str, str], where: str) -> tuple[str, ...]:
    return _prompt(row, columns, where), *(_text(row, columns[part], where) for part in ("chosen", "rejected")), ""


def _messages(row: Mapping[str, Any], columns: Mapping[str, str], where: str) -> tuple[str, ...]:
    """Lists of {role, content}: the response is the last message, by the assistant."""
    prompt = _prompt(row, columns, where)
    found, statuses = [prompt], []
    for part in ("chosen", "rejected"):
        text, status = _answer(row.get(columns[part]), prompt)
        found.append(text)
        statuses.append(status)
    return *found, next(filter(None, statuses), "")


def _answer(messages: Any, prompt: str) -> tuple[str, str]:
    """The last message's text, and a status where the messages are not an answer to the `prompt`."""
    if not isinstance(messages, list) or not messages or not all(isinstance(each, Mapping) for each in messages):
        return "", "no_messages"
    if any(not isinstance(each.get("content", 0), str | None) for each in messages):
        return "", "no_messages"
    text, roles = messages[-1]["content"] or "", [each.get("role") for each in messages]
    if not all(isinstance(role, str) and role in ROLES for role in roles):
        return text, "unknown_role"
    if roles[-1] != "assistant":
        return text, "no_answer"
    # All earlier messages must be in the prompt: else it answers another question.
    turns = [role for role in roles[:-1] if role != "system"]
    present = all((each["content"] or "").strip() in prompt for each in messages[:-1])
    same_prompt = present and turns[-1:] in ([], ["user"])
    return text, "" if same_prompt or not prompt.strip() else "other_prompt"


#: From a row, the columns and the row's place in messages: prompt, chosen, rejected, and a status ("": no problem).
FORMATS: dict[str, Callable[[Mapping[str, Any], Mapping[str, str], str], tuple[str, ...]]] = {
    "plain": _plain,
    "dialogue": _dialogue,
    "messages": _messages,
}


def mapped_pairs(
    rows: Sequence[Mapping[str, Any]], mapping: Mapping[str, Any], where: str, split: str, limit: int, seed: int
) -> list[Pair]:
    """At most `limit` pairs of rows by a checked `mapping` (`gradatlas.study.sheets.PairsMapping`).

    Its `order` says which: drawn by `seed`, or the first ones.

    `where`: the rows' file, for messages. A partner column in the mapping is added to the prompt, one that is not in it
    is refused (`gradatlas.data.partners`), and the log names other unused columns once. The mapping's `template` gives
    the prompt; a response without a leading space gets one. Raises `InputError` with file, row (from 0) and column for
    an unused partner or an unreadable value. Problems of a single row are a status, not an error: empty or equal
    responses, ``other_prompt`` (dialogues that differ before their last turn, or earlier messages that are not in the
    prompt), ``no_messages`` (no list of messages with `content`), ``unknown_role`` (not in `ROLES`), ``no_answer`` (the
    last message is not by the assistant).
    """
    columns = mapping["columns"]
    names = dict.fromkeys(name for row in rows for name in row)
    for part, column in columns.items():
        if rows and column not in names:
            raise InputError(
                f"{where}: column '{column}' ({part}) is in no row; choose among {', '.join(names) or 'none'}"
            )
    remedy = (
        "delete it from the file, as dialogues have no prompt to add it to" if mapping["format"] == "dialogue" else ""
    )
    for number, row in enumerate(rows):
        check_partners(row, columns.values(), f"{where}, row {number}", remedy)
    report_left_out(names, columns.values(), where)
    numbers = list(range(len(rows)))
    if mapping["order"] == "drawn":
        numbers.sort(key=lambda number: seeded_hash(seed, f"{split} {number}"))
    pairs = []
    for number in sorted(numbers[:limit]):
        prompt, *responses, status = FORMATS[mapping["format"]](rows[number], columns, f"{where}, row {number}")
        chosen, rejected = (text if text[:1].isspace() or not text.strip() else f" {text}" for text in responses)
        prompt = mapping["template"].replace("{prompt}", prompt) if prompt.strip() else ""
        pair = {"pair_id": f"{split}-{number}", "split": split, "prompt": prompt}
        pairs.append({**pair, "chosen": chosen, "rejected": rejected, "status": status})
    return pairs


def _prompt(row: Mapping[str, Any], columns: Mapping[str, str], where: str) -> str:
    return with_partners(_text(row, columns["prompt"], where), row, columns, where)


def _text(row: Mapping[str, Any], column: str, where: str) -> str:
    value = row.get(column)
    if value is None:
        return ""
    # Numbers and booleans can be answers, as in datasets.
    if not isinstance(value, (str, bool, RawValue)):
        raise InputError(f"{where}: column '{column}' is not a text; fix the row, or the mapping's format")
    return str(value)
