"""One sample of a training file, whatever the file's shape."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Statuses of a sample that cannot be measured as it is; a sample that can has ``ok``.
UNREADABLE = "unreadable"
NO_RESPONSE = "no_response"
DUPLICATE_ID = "duplicate_id"


@dataclass(frozen=True)
class TrainingRow:
    """One response of a row: the only one, or the chosen or the rejected one of a preference pair.

    `number`: the row in its file, from 0. `response`: empty, ``chosen`` or ``rejected``. `own`: the row's columns as in
    the file. Text shapes have `prompt` and `completion`; chats have `messages` ({role, content, ...}) and `tools`, and
    no `prompt`. `status`: ``ok``, or why it cannot be measured, with the `reason` in words.
    """

    number: int
    response: str
    id: str
    group: str | None
    own: Mapping[str, Any]
    prompt: str = ""
    completion: str = ""
    messages: tuple[Mapping[str, Any], ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    status: str = "ok"
    reason: str = ""
