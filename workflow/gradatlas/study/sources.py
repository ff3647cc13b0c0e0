"""What the `source` of a model means: a folder here, or a model of the hub."""

import re
from pathlib import Path


def is_folder(source: str) -> bool:
    """True for a model named by a local folder (starts with ``.``, ``/`` or ``~``, or is there), not by a hub id."""
    return source.startswith((".", "/", "~")) or (source != "" and Path(source).is_dir())


def is_hub_id(source: str) -> bool:
    """True for ORG/NAME that is not a folder here."""
    return bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", source)) and not is_folder(source)
