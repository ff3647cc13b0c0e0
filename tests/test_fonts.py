"""Where a reader has no font of the theme, no text of a figure is cut."""

import subprocess

import altair as alt
import pytest
from selenium.webdriver.common.by import By

from benchmarks.chromium import chromium, installed
from gradatlas.charts import theme
from gradatlas.charts.save import save

DEJAVU = subprocess.run(["sh", "-c", "fc-list | grep -q 'DejaVu Sans:'"]).returncode == 0
LABELS = ["Wrong descriptions look like correct ones, mmm", "Instructed models separate them no better"]


@pytest.mark.skipif(not (installed() and DEJAVU), reason="needs Chromium, chromedriver and the font DejaVu Sans")
def test_labels_are_not_cut_in_a_wider_font(tmp_path):
    axis = alt.Axis(labelLimit=400, title=None)
    bars = alt.Chart(alt.InlineData([{"y": each, "x": 1} for each in LABELS])).mark_point()
    chart = bars.encode(y=alt.Y("y:N", axis=axis), x="x:Q").properties(
        width=200, title=alt.Title("A title", subtitle=["A subtitle"]), description="A title"
    )
    save(chart, tmp_path / "chart", ["svg"])
    text = (tmp_path / "chart.svg").read_text()
    with chromium() as browser:

        def least(svg):
            (tmp_path / "shown.svg").write_text(svg)
            browser.get((tmp_path / "shown.svg").as_uri())
            return min(each.rect["x"] for each in browser.find_elements(By.CSS_SELECTOR, "text"))

        # As if no font of the theme were installed; without the family behind them a label is cut.
        bare = text.replace(theme.FAMILY.removesuffix("sans-serif"), "")
        assert f'font-family="{theme.STAND_IN}, sans-serif"' in bare and least(bare) > 0
        assert least(bare.replace(f"{theme.STAND_IN}, sans-serif", "DejaVu Sans")) < 0
