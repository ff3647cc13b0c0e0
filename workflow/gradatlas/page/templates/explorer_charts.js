// The explorer's two charts, as Vega-Lite, in the page's own colours.
const DASHES = [[1, 0], [7, 3], [2, 2.5], [9, 3, 2, 3], [4, 2], [1, 3], [12, 4], [6, 2, 2, 2, 2, 2]];
const DARK = matchMedia("(prefers-color-scheme: dark)");
const HEIGHT = 180, STRIP = 44;

const tone = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function look(index, across = 400) {
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

// As the figures: a log axis where positive values span more than a decade, else from zero (`zero`) or around the values.
function axisOf(values, zero) {
  const found = values.filter((value) => value !== null);
  // Not Math.min(...found): there can be more values than a call may have arguments.
  const least = found.reduce((a, b) => Math.min(a, b), Infinity), most = found.reduce((a, b) => Math.max(a, b), -Infinity);
  if (!found.length || least <= 0 || most / least <= 10) return { scale: { type: "linear", zero }, axis: {} };
  const round = [];
  for (let power = Math.floor(Math.log10(least)); power <= Math.ceil(Math.log10(most)); power++)
    for (const first of [1, 2, 5]) round.push(Number(`${first}e${power}`));
  const low = round.findLast((tick) => tick <= least), high = round.find((tick) => tick >= most);
  const inside = round.filter((tick) => tick >= low && tick <= high);
  const tens = inside.filter((tick) => String(tick.toExponential())[0] === "1");
  return { scale: { type: "log", domain: [low, high], nice: false }, axis: { values: inside.length > 9 ? tens : inside, format: "~g" } };
}
// Fast to slow from dark to light; variants with a look of their own keep it, the others share the rest.
function placesOf(index, variants) {
  const own = variants.map((v) => index.own[v]), count = index.colours.light.length;
  const free = [...Array(count).keys()].filter((place) => !own.includes(place));
  const spare = [...free, ...own.filter((place) => place !== null)];
  let next = 0;
  return own.map((place) => place ?? spare[next++ % count]);
}
// What is chosen along x, behind the marks; drawn rather than left to the brush, which is one panel's and the mouse's alone.
const band = (chosen) => chosen
  ? [{ data: { values: [{ from: chosen[0], to: chosen[1] }] }, mark: { type: "rect", clip: true, opacity: 0.15 }, encoding: { color: { value: "#7f8aa3" }, x: { field: "from", type: "quantitative" }, x2: { field: "to" } } }]
  : [];
const brush = (name) => ({ params: [{ name, select: { type: "interval", encodings: ["x"] } }] });
const tooltip = (...fields) => fields.map(([field, title, type = "nominal"]) => ({ field, title, type }));

// rows: panel, layer, value, low, high, variant, relation; chosen: the two layers, or null for all.
function curveChart(index, rows, { metric, panels, variants, relations, chosen, last, width }) {
  const colours = index.colours[DARK.matches ? "dark" : "light"];
  // A panel holds its title: a wider one would push the last column off the page.
  const longest = Math.max(0, ...panels.map((title) => title.length)) * 6.3;
  const most = Math.max(1, Math.min(panels.length, Math.floor((width - 46) / Math.max(230, longest + 24))));
  // Rows as full as can be: four panels are two and two, not three and one.
  const columns = Math.ceil(panels.length / Math.ceil(panels.length / most));
  const across = Math.max(120, Math.floor((width - 70) / columns) - 24);
  const { scale, axis } = axisOf(rows.flatMap((row) => [row.value, row.low, row.high]), true);
  const perRow = width < 500 ? 2 : Math.floor(width / 130);
  return {
    data: { values: rows },
    config: look(index, across),
    facet: { field: "panel", type: "nominal", sort: panels, title: null },
    columns,
    spec: {
      width: across,
      height: HEIGHT,
      encoding: {
        x: { field: "layer", type: "quantitative", title: "Layer", scale: { nice: false, domain: last ? [0, last] : [-0.5, 0.5] }, axis: { tickMinStep: 1, tickCount: 6, format: "d" } },
        color: {
          field: "variant", type: "nominal",
          scale: { domain: variants.map(([title]) => title), range: variants.map(([, place]) => colours[place]) },
          legend: { title: null, columns: perRow },
        },
      },
      layer: [
        ...band(chosen && [chosen[0] - 0.25, chosen[1] + 0.25]),
        {
          mark: { type: "area", style: "band" },
          encoding: { y: { field: "low", type: "quantitative", title: metric, scale, axis }, y2: { field: "high" }, detail: { field: "relation" } },
        },
        {
          mark: { type: "line", style: "curve" },
          encoding: {
            y: { field: "value", type: "quantitative", title: metric },
            strokeDash: {
              field: "relation", type: "nominal",
              scale: { domain: relations.map(([title]) => title), range: relations.map(([, place]) => DASHES[place % DASHES.length]) },
              legend: relations.length > 1 ? { title: null, symbolType: "stroke", symbolSize: 300, columns: perRow } : null,
            },
          },
        },
        {
          mark: { type: "point", filled: true, size: 30, strokeWidth: 0, opacity: 1 },
          encoding: {
            y: { field: "value", type: "quantitative", title: metric },
            shape: {
              field: "variant", type: "nominal",
              scale: { domain: variants.map(([title]) => title), range: variants.map(([, place]) => index.shapes[place]) },
              legend: { title: null, columns: perRow },
            },
          },
        },
        {
          // Unseen, and large enough to be met by a hand.
          ...brush("layers"),
          mark: { type: "point", filled: true, size: 160, opacity: 0 },
          encoding: {
            y: { field: "value", type: "quantitative", title: metric },
            tooltip: tooltip(["panel", "Of"], ["variant", "Variant"], ["relation", "Responses"], ["layer", "Layer"], ["shown", "Mean"], ["interval", "95 % interval"], ["n", "n"]),
          },
        },
      ],
    },
  };
}

// rows: set, variant, value, jitter, readable, sample; medians: set, value; chosen: the two values, or null for all.
function sampleChart(index, rows, medians, { metric, sets, variants, chosen, width }) {
  const colours = index.colours[DARK.matches ? "dark" : "light"];
  const { scale, axis } = axisOf(rows.map((row) => row.value), false);
  const places = {
    x: { field: "value", type: "quantitative", title: metric, scale, axis },
    y: { field: "set", type: "nominal", sort: sets, title: null, axis: { labelLimit: 190 }, scale: { paddingInner: 0.3 } },
  };
  const names = Math.min(190, Math.max(...sets.map((set) => set.length * 6.2)) + 16);
  return {
    data: { values: rows },
    config: look(index),
    width: Math.max(150, width - names - 24),
    height: { step: STRIP },
    layer: [
      ...band(chosen),
      {
        ...brush("range"),
        mark: { type: "circle", size: 34, strokeWidth: 0.6 },
        encoding: {
          ...places,
          yOffset: { field: "jitter", type: "quantitative", scale: { domain: [0, 1] } },
          color: {
            field: "variant", type: "nominal", legend: null,
            scale: { domain: variants.map(([title]) => title), range: variants.map(([, place]) => colours[place]) },
          },
          opacity: { condition: { test: "datum.readable", value: 0.85 }, value: 0.3 },
          tooltip: tooltip(["sample", "Sample"], ["set", "Responses"], ["shown", metric]),
        },
      },
      {
        data: { values: medians },
        mark: { type: "tick", thickness: 4, height: STRIP - 6, color: look(index).legend.labelColor, stroke: tone("--paper"), strokeWidth: 1.2 },
        encoding: { ...places, tooltip: tooltip(["set", "Responses"], ["shown", "Median"]) },
      },
    ],
  };
}
