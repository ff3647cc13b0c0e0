"""What the `source` of a model or of data means: a folder or file here, a name on the hub, or an address."""

import re
from pathlib import Path


def is_folder(source: str) -> bool:
    """True for a model named by a local folder (starts with ``.``, ``/`` or ``~``, or is there), not by a hub id."""
    return source.startswith((".", "/", "~")) or (source != "" and Path(source).is_dir())


def is_address(place: str) -> bool:
    """True for an http(s) address."""
    return place.lower().startswith(("http://", "https://"))


def is_hub_id(source: str) -> bool:
    """True for ORG/NAME that is not a folder here."""
    return bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", source)) and not is_folder(source)
