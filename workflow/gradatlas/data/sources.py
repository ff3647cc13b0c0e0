"""Fetching one published file over HTTP(S) or from a mirror, with a check of its SHA-256."""

import os
import re
import shutil
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import quote

import requests
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.core.files import replacing, sha256_of
from gradatlas.study.sources import is_address

ADVICE = "check the network or the proxy, or take the files from a folder: --config mirror=FOLDER"
# HTTP statuses that are tried again; other ones from 400 on are final.
RETRIED = {408, 425, 429, 500, 502, 503, 504}


def fetch(
    url: str,
    path: str,
    sha256: str,
    output: str | Path,
    mirror: str = "",
    *,
    timeout: float = 30.0,
    attempts: int = 5,
    wait: float = 1.0,
) -> None:
    """Fetch the published file `path` to `output`, atomically and with the checksum `sha256`.

    It comes from ``url/path`` (or from `url`, if that ends with `path`), or with a `mirror` from ``mirror/path``; a
    mirror is a folder or an http(s) address. A transfer is stopped after `timeout` seconds without a byte, and tried
    `attempts` times, with pauses of `wait` seconds that double; it is resumed where it was interrupted. An `output`
    that has the checksum already is not fetched again.

    Raises `InputError` for a source that does not exist or answer, and for a wrong checksum: the file is then kept as
    ``OUTPUT.corrupt``.
    """
    output = Path(output)
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise InputError(f"sha256 of {path} is '{sha256}'; give 64 lower-case hexadecimal digits")
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise InputError(f"path '{path}' is outside of its source; give a relative one, such as folder/file.json")
    if output.is_file() and sha256_of(output) == sha256:
        return
    with replacing(output) as temporary:
        if mirror and not is_address(mirror):
            origin = _copy(Path(mirror).expanduser(), path, temporary)
            found = sha256_of(temporary)
        else:
            origin = _address(mirror or url, path)
            advice = "check config key mirror and its server" if mirror else ADVICE
            resumed = _download(origin, temporary, advice, timeout, attempts, wait)
            found = sha256_of(temporary)
            if found != sha256 and resumed:
                # The parts may come from two versions of the file.
                progress(f"{origin}: the resumed transfer has a wrong checksum; fetching the whole file again")
                _download(origin, temporary, advice, timeout, attempts, wait)
                found = sha256_of(temporary)
        if found != sha256:
            corrupt = output.with_name(output.name + ".corrupt")
            os.replace(temporary, corrupt)
            raise InputError(
                f"{origin}: sha256 is {found}, not {sha256}; the file is kept as {corrupt}: if it changed on purpose, "
                f"correct the sha256 of {path} in config/sources.tsv or config/pairs/"
            )


def _address(base: str, path: str) -> str:
    if not is_address(base):
        raise InputError(f"'{base}' is not an http(s) address; give one that starts with https://")
    path = quote(path)
    return base if base.endswith(f"/{path}") else f"{base.rstrip('/')}/{path}"


def _copy(mirror: Path, path: str, target: Path) -> Path:
    if not mirror.is_dir():
        raise InputError(
            f"mirror {mirror}: no such folder; give a folder or an http(s) address: --config mirror=FOLDER"
        )
    origin = mirror / path
    try:
        shutil.copyfile(origin, target)
    except FileNotFoundError:
        raise InputError(f"{origin}: not in the mirror; add the file, or run without mirror") from None
    except OSError as error:
        raise InputError(f"{origin}: cannot be copied ({error.strerror}); check the mirror") from None
    return origin


def _download(address: str, target: Path, advice: str, timeout: float, attempts: int, wait: float) -> bool:
    """Download to `target`, from the start; True where the transfer was resumed."""
    pieces = []

    def note(state: RetryCallState) -> None:
        pause, error = state.next_action.sleep, state.outcome.exception()
        progress(f"{address}: {_phrase(error, timeout)}; try {state.attempt_number + 1} in {pause:.1f} s")

    retrying = Retrying(
        stop=stop_after_attempt(attempts),
        wait=wait_exponential_jitter(multiplier=wait, max=30, jitter=wait),
        retry=retry_if_exception(_is_passing),
        before_sleep=note,
        reraise=True,
    )
    try:
        with open(target, "wb") as file:
            retrying(lambda: pieces.append(_piece(address, file, timeout)))
    except requests.HTTPError as error:
        status = error.response.status_code
        if status in (404, 410):
            raise InputError(
                f"{address}: not found (HTTP {status}); check the address and the path; or {advice}"
            ) from None
        raise InputError(f"{address}: the server answers HTTP {status} {error.response.reason}; {advice}") from None
    except (requests.RequestException, _RangeRejected) as error:
        raise InputError(f"{address}: {_phrase(error, timeout)}; {advice}") from None
    return pieces[-1]


class _RangeRejected(Exception):
    """The server rejects the range of the rest: its file has changed."""


def _piece(address: str, file: BinaryIO, timeout: float) -> bool:
    """Append the rest of the file, or write all of it where the server ignores ranges; True for the rest."""
    have = file.tell()
    # Without compression, so that a transfer can be resumed.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(address, headers=headers, stream=True, timeout=timeout) as response:
        if have and response.status_code == 416:
            file.seek(0)
            file.truncate()
            raise _RangeRejected("the file's length has changed")
        response.raise_for_status()
        rest = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if not rest:
            file.seek(0)
            file.truncate()
        for chunk in response.iter_content(1 << 16):
            file.write(chunk)
    return rest


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, requests.HTTPError):
        return error.response.status_code in RETRIED
    if isinstance(error, requests.exceptions.SSLError):
        return False
    return isinstance(
        error, (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError, _RangeRejected)
    )


def _phrase(error: BaseException | None, timeout: float) -> str:
    if isinstance(error, requests.HTTPError):
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.Timeout) or "timed out" in str(error).lower():
        return f"no byte was received for {timeout:g} s"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the transfer was interrupted"
    if isinstance(error, requests.exceptions.SSLError):
        return f"no secure connection ({error})"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return str(error)
