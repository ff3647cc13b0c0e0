"""The jobs of the study's config."""

from pathlib import Path
from typing import Any

from gradatlas.core.jobs import Json


def write_config(*, output: Path, settings: Json[dict[str, Any]]) -> None:
    """Write the effective config: what the config files, the command line and the defaults came to.

    Parameters
    ----------
    output
        file to write (.yaml)
    settings
        the config, as one JSON object
    """
    import yaml

    from gradatlas.core.checked import write_lines

    write_lines(output, yaml.safe_dump(settings, sort_keys=True, allow_unicode=True), "# checksum: {}")
