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
    no `prompt`. `joint`: what stands between prompt and completion in a plain text. `raw`: the text is complete, so it
    goes through no chat template. `given`: how many of the first messages are the prompt; the loss is over assistant
    turns behind them. `status`: ``ok``, or why it cannot be measured, with the `reason` in words.
    """

    number: int
    response: str
    id: str
    group: str | None
    own: Mapping[str, Any]
    prompt: str = ""
    completion: str = ""
    joint: str = ""
    raw: bool = False
    messages: tuple[Mapping[str, Any], ...] = ()
    given: int = 0
    tools: tuple[Mapping[str, Any], ...] = ()
    status: str = "ok"
    reason: str = ""
