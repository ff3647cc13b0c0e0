// Of all charts of a page: their colours, axes and brushes as Vega-Lite, and drawing one.
const DASHES = [[1, 0], [7, 3], [2, 2.5], [9, 3, 2, 3], [4, 2], [1, 3], [12, 4], [6, 2, 2, 2, 2, 2]];
const DARK = matchMedia("(prefers-color-scheme: dark)");

const tone = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function config(index, across = 400) {
  const [ink, quiet, rule] = ["--ink", "--quiet", "--rule"].map(tone);
  const given = index.config;
  return {
    ...given,
    background: null,
    padding: 2,
    axis: { ...given.axis, labelColor: quiet, titleColor: quiet, domainColor: quiet, tickColor: quiet, gridColor: rule, labelOverlap: true },
    header: { labelFont: given.font, labelFontSize: 12, labelFontWeight: "bold", labelColor: ink, labelAnchor: "start", labelLimit: across },
    legend: { ...given.legend, labelColor: ink, symbolBaseStrokeColor: ink, labelLimit: 240, layout: { top: { direction: "vertical", anchor: "start", margin: 4 } } },
    facet: { spacing: 22 },
  };
}

// As in the figures: a log axis where positive values span more than a decade, else from zero (`zero`) or around them.
function axisOf(values, zero) {
  // Not Math.min(...values): there can be more values than a call may have arguments.
  let least = Infinity, most = -Infinity;
  for (const value of values) if (value !== null) [least, most] = [Math.min(least, value), Math.max(most, value)];
  if (!(least > 0 && most / least > 10)) return { scale: { type: "linear", zero }, axis: {} };
  // A line of the grid for each tick that has a label.
  const gridOpacity = { condition: { test: "datum.label === ''", value: 0 }, value: 1 };
  return { scale: { type: "log", domain: [least / 1.1, most * 1.1], nice: false }, axis: { format: "~g", tickCount: 6, gridOpacity } };
}
// The chosen range of x, behind the marks. The brush alone would show it in one panel, and only when dragged by mouse.
const band = (chosen) => chosen
  ? [{ data: { values: [{ from: chosen[0], to: chosen[1] }] }, mark: { type: "rect", clip: true, opacity: 0.15 }, encoding: { color: { value: tone("--quiet") }, x: { field: "from", type: "quantitative" }, x2: { field: "to" } } }]
  : [];
const brush = (name) => ({ params: [{ name, select: { type: "interval", encodings: ["x"] } }] });
const tooltip = (...fields) => fields.map(([field, title, type = "nominal"]) => ({ field, title, type }));

const views = [];
// Into the element `place`; `to`: the drawn charts that are to end together.
async function embed(place, specification, label, to = views) {
  const result = await vegaEmbed(place, { $schema: "https://vega.github.io/schema/vega-lite/v6.json", ...specification }, { mode: "vega-lite", actions: false, renderer: "canvas", tooltip: { theme: DARK.matches ? "dark" : "light" } });
  place.querySelector("canvas").setAttribute("aria-label", label);
  to.push(result);
  return result.view;
}
