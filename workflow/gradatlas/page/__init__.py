"""The atlas: one HTML file that needs no network, with what was run, the verdicts, an explorer, figures and tables."""
