"""Config files merged as Snakemake merges them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradatlas.core.errors import InputError
from gradatlas.core.files import ROOT


def merged(paths: Sequence[Path], settings: Mapping[str, Any]) -> dict[str, Any]:
    """config/config.yaml, the config files at `paths` and `settings`, each over those before it, key by key."""
    import yaml

    config: dict[str, Any] = {}
    for path in [ROOT / "config/config.yaml", *paths]:
        try:
            given = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"--config {path}: cannot be read as YAML ({' '.join(str(error).split())})") from None
        _update(config, given or {})
    _update(config, settings)
    return config


def _update(config: dict[str, Any], given: Mapping[str, Any]) -> None:
    for key, value in given.items():
        if isinstance(value, Mapping) and isinstance(config.get(key), dict):
            _update(config[key], value)
        else:
            config[key] = value
