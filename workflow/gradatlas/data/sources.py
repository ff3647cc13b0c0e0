"""Fetching one published file: over HTTP(S) or from a mirror, checked against its SHA-256 before it takes its name."""

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

ADVICE = "check the network or the proxy, or take the files from a folder: --config mirror=FOLDER"
# Passing troubles of a server; every other status from 400 on is an answer.
RETRIED = {408, 425, 429, 500, 502, 503, 504}


def fetch(
    url: str,
    path: str,
    sha256: str,
    output: str | Path,
    mirror: str | None = None,
    *,
    timeout: float = 30.0,
    attempts: int = 5,
    wait: float = 1.0,
) -> None:
    """Place the published file `path` at `output`, whole and with the checksum `sha256`, or not at all.

    It comes from ``url/path`` (a `url` that ends with `path` is the file's own address), or, with a `mirror`, from
    ``mirror/path``, the mirror being a folder or an http(s) address. `timeout` is in seconds without one byte;
    a transfer is tried `attempts` times, the first pause being `wait` seconds and each next one twice as long, and
    goes on from where it was cut. An `output` that has the checksum already is left as it is.

    Raises `InputError` for a source that is not there or does not answer, and for another checksum: then what came
    is kept aside as ``OUTPUT.corrupt``.
    """
    output = Path(output)
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise InputError(f"sha256 of {path} is '{sha256}'; 64 lower-case hexadecimal digits are needed")
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise InputError(f"path '{path}' leaves its source; give one relative to it, such as folder/file.json")
    if output.is_file() and sha256_of(output) == sha256:
        return
    with replacing(output) as temporary:
        if mirror and not _is_address(mirror):
            origin = _copy(Path(mirror).expanduser(), path, temporary)
            found = sha256_of(temporary)
        else:
            origin = _address(mirror or url, path)
            mend = "check --mirror and its server" if mirror else ADVICE
            resumed = _download(origin, temporary, mend, timeout, attempts, wait)
            found = sha256_of(temporary)
            if found != sha256 and resumed:
                # The pieces of a resumed transfer may be of two versions of a file: try it in one.
                progress(f"{origin}: the resumed transfer has another checksum; fetching all of it again")
                _download(origin, temporary, mend, timeout, attempts, wait)
                found = sha256_of(temporary)
        if found != sha256:
            corrupt = output.with_name(output.name + ".corrupt")
            os.replace(temporary, corrupt)
            raise InputError(
                f"{origin}: sha256 is {found}, {sha256} was expected; what came is kept as {corrupt}: "
                f"if the file changed on purpose, correct the row of {path} in config/sources.tsv"
            )


def _is_address(place: str) -> bool:
    return place.lower().startswith(("http://", "https://"))


def _address(base: str, path: str) -> str:
    if not _is_address(base):
        raise InputError(f"'{base}' is no http(s) address; give one that starts with https://")
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


def _download(address: str, target: Path, mend: str, timeout: float, attempts: int, wait: float) -> bool:
    """Download to `target`, anew; True where the bytes came in more than one piece."""
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
                f"{address}: not there (HTTP {status}); check the address and the path; or {mend}"
            ) from None
        raise InputError(f"{address}: the server answers HTTP {status} {error.response.reason}; {mend}") from None
    except (requests.RequestException, _RangeRejected) as error:
        raise InputError(f"{address}: {_phrase(error, timeout)}; {mend}") from None
    return pieces[-1]


class _RangeRejected(Exception):
    """The server says that a partial file does not fit the one it has."""


def _piece(address: str, file: BinaryIO, timeout: float) -> bool:
    """Append the rest of the file, or all of it where the server knows no ranges; True where it was the rest."""
    have = file.tell()
    # Compressed bytes could neither be counted nor resumed.
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
        return f"no byte came for {timeout:g} s"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the transfer was cut"
    if isinstance(error, requests.exceptions.SSLError):
        return f"no safe connection ({error})"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return str(error)
