"""Requesting many texts from a writer: every answer is kept at once, and none is requested twice."""

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
from gradatlas.core.files import writing
from gradatlas.data.formats import json_lines

_HALF = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Completion:
    """A model's answer; `finished` is False where it was cut off at the limit of tokens."""

    text: str
    finished: bool


class Writer(Protocol):
    """A model that answers one prompt at a time.

    `facts`: everything that its answers depend on, for the key of a kept answer and for provenance; never a secret.
    `parallel`: the number of prompts at one time.
    """

    facts: Mapping[str, Any]
    parallel: int

    def complete(self, prompt: str) -> Completion:
        """Answer a prompt; `InputError` where the user can fix the failure."""


def complete_all(prompts: Mapping[str, str], writer: Writer, kept: str | Path) -> dict[str, Completion]:
    """The writer's answer to every prompt, by the prompts' names, in their order.

    Every answer is appended to the JSON Lines file `kept`, under a hash of the writer's facts and the prompt; later
    calls request only missing answers. After a failure no new request starts; the error is raised once the running
    requests are kept.
    """
    with _AnswerStore(kept) as store:
        keys = {name: _key(prompt, writer.facts) for name, prompt in prompts.items()}
        todo = {key: prompts[name] for name, key in keys.items() if key not in store.found}
        if todo:
            progress(f"{len(todo)} answers to request, {len(set(keys.values())) - len(todo)} found in {kept}")
        _request(todo, writer, store)
        return {name: store.found[key] for name, key in keys.items()}


def _request(todo: Mapping[str, str], writer: Writer, store: "_AnswerStore") -> None:
    done = 0
    stop = threading.Event()

    def one(key: str, prompt: str) -> None:
        nonlocal done
        if stop.is_set():
            return
        try:
            answer = writer.complete(prompt)
            # An endpoint can send a lone surrogate, which cannot be written: replace it, as decoders do.
            answer = replace(answer, text=_HALF.sub("\ufffd", answer.text))
        except BaseException:
            # At once, as every further request may cost money.
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
    """The file of kept answers: one line each, appended and synced to the disk; for one process at a time."""

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
            raise InputError(f"{self.path}: another process is writing to it; wait until it has ended") from None
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
            # A kill has left an incomplete last line: remove it.
            with open(self.path, "r+b") as file:
                file.truncate(whole)
        for number, entry in enumerate(json_lines(self.path, plain=True)):
            # Lines of earlier versions have no checksum, but may have cost money.
            checksum = entry.pop("checksum", None)
            key, text, finished = (entry.get(name) for name in ("key", "text", "finished"))
            typed = isinstance(key, str) and isinstance(text, str) and isinstance(finished, bool)
            if not typed or checksum not in (None, _checksum(entry)):
                raise InputError(f"{self.path}, row {number}: damaged; delete the line and run again")
            self.found[key] = Completion(text, finished)

    def keep(self, key: str, answer: Completion) -> None:
        """Append one answer; afterwards it survives a kill."""
        entry = {"key": key, **asdict(answer)}
        with writing(self.path):
            self.file.write(json.dumps({**entry, "checksum": _checksum(entry)}).encode() + b"\n")
            self.file.flush()
            os.fsync(self.file.fileno())
        self.found[key] = answer
