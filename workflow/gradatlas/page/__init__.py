"""The atlas: one HTML file that needs no network, with what was run, the verdicts, an explorer, figures and tables."""

from gradatlas.page.page import write_atlas

__all__ = ["write_atlas"]
