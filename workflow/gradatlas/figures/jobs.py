"""The jobs of the figures, one a rule."""

from pathlib import Path


def draw_audit(*, audit: Path, output: Path, formats: list[str]) -> None:
    """Draw the audit: what share of each response set states the right answer or is damaged.

    Parameters
    ----------
    audit
        the audit table (.parquet)
    output
        file to write, without its format
    formats
        any of vl.json, svg, png, pdf
    """
    from gradatlas.figures.audit import draw_audit

    draw_audit(audit, output, formats)
