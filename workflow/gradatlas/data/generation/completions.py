"""What a writer of texts is, and many texts from one: each kept as soon as it is there, none asked for twice."""

import hashlib
import json
import os
import re
import threading
from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout
from xxhash import xxh3_128

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.data.formats import json_lines

_HALF = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Completion:
    """What a model wrote; `finished` is False where it was cut off at the limit of tokens."""

    text: str
    finished: bool


class Writer(Protocol):
    """A model that answers one prompt at a time.

    `facts` is all that its answers depend on, for the key of a kept answer and for provenance; never a secret.
    `parallel`: how many prompts it takes at one time.
    """

    facts: Mapping[str, Any]
    parallel: int

    def complete(self, prompt: str) -> Completion:
        """Answer a prompt; `InputError` for what the user can mend."""


def complete_all(prompts: Mapping[str, str], writer: Writer, kept: str | Path) -> dict[str, Completion]:
    """The writer's answer to every prompt, by the prompts' names, in their order.

    Answers are kept in the JSON Lines file `kept` as they come, by a hash of the writer's facts and the prompt; a later
    call asks for what is missing there alone. When one answer cannot be had, the error is raised once the answers
    under way are kept.
    """
    with _AnswerStore(kept) as store:
        keys = {name: _key(prompt, writer.facts) for name, prompt in prompts.items()}
        todo = {key: prompts[name] for name, key in keys.items() if key not in store.found}
        if todo:
            progress(f"{len(todo)} answers to ask for, {len(set(keys.values())) - len(todo)} found in {kept}")
        _ask(todo, writer, store)
        return {name: store.found[key] for name, key in keys.items()}


def _ask(todo: Mapping[str, str], writer: Writer, store: "_AnswerStore") -> None:
    done = 0
    stop = threading.Event()

    def one(key: str, prompt: str) -> None:
        nonlocal done
        if stop.is_set():
            return
        try:
            answer = writer.complete(prompt)
            # An endpoint can send half a character, which no file holds: it is marked, as decoders mark it.
            answer = replace(answer, text=_HALF.sub("\ufffd", answer.text))
        except BaseException:
            # At once, not when somebody looks: every further question may cost money.
            stop.set()
            raise
        with store.lock:
            store.keep(key, answer)
            done += 1
            if done % 25 == 0 or done == len(todo):
                progress(f"{done} of {len(todo)} answers")

    with ThreadPoolExecutor(max_workers=max(1, writer.parallel)) as pool:
        waiting = [pool.submit(one, key, prompt) for key, prompt in todo.items()]
        over, _ = wait(waiting, return_when=FIRST_EXCEPTION)
        failed = next((future.exception() for future in over if future.exception()), None)
    if failed:
        raise failed


def _key(prompt: str, facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([prompt, facts], sort_keys=True).encode()).hexdigest()


def _checksum(entry: Mapping[str, Any]) -> str:
    return xxh3_128(json.dumps(entry, sort_keys=True).encode()).hexdigest()


class _AnswerStore:
    """The file of kept answers: one line each, appended and flushed to the disk; one process at a time."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.found: dict[str, Completion] = {}
        self.lock = threading.Lock()

    def __enter__(self) -> "_AnswerStore":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.held = FileLock(f"{self.path}.lock")
        try:
            self.held.acquire(timeout=0)
        except Timeout:
            raise InputError(f"{self.path}: another process is writing to it; wait for it to end") from None
        self._read()
        self.file = open(self.path, "ab")
        return self

    def __exit__(self, *_) -> None:
        self.file.close()
        self.held.release()

    def _read(self) -> None:
        if not self.path.is_file():
            return
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            # A kill in the middle of a line: what is not whole was never kept.
            with open(self.path, "r+b") as file:
                file.truncate(whole)
        for number, entry in enumerate(json_lines(self.path, plain=True)):
            # Lines of earlier versions have no checksum; they were paid for.
            checksum = entry.pop("checksum", None)
            key, text, finished = (entry.get(name) for name in ("key", "text", "finished"))
            typed = isinstance(key, str) and isinstance(text, str) and isinstance(finished, bool)
            if not typed or checksum not in (None, _checksum(entry)):
                raise InputError(f"{self.path}, row {number}: damaged; delete the line and run again")
            self.found[key] = Completion(text, finished)

    def keep(self, key: str, answer: Completion) -> None:
        """Append one answer; it survives a kill from here on."""
        entry = {"key": key, **asdict(answer)}
        self.file.write(json.dumps({**entry, "checksum": _checksum(entry)}).encode() + b"\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        self.found[key] = answer
