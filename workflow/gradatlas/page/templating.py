"""Pages made of templates; style and scripts are put into a page as they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

TEMPLATES = Path(__file__).with_name("templates")


def render(template: str, context: Mapping[str, Any]) -> str:
    """One page as text. What the context holds is escaped; ``asset(name)`` is a file of the templates as it is."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["asset"] = lambda name: markupsafe.Markup((TEMPLATES / name).read_text(encoding="utf-8"))
    return environment.get_template(template).render(context)
