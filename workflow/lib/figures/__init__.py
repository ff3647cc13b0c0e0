"""One theme, charts that take a frame and return a chart, tables and the atlas page."""
