// The charts of scores, as Vega-Lite, in the page's own colours.
const TALL = 260;

// Colours and shapes by group: the largest groups have their own, the others share the last.
function byGroup(index, width = 600) {
  const merged = { title: null, columns: Math.max(1, Math.floor(width / 150)), labelLimit: 130 };
  const names = [...index.groups.slice(0, index.coloured), ...(index.others ? ["other or no group"] : [])];
  return {
    names,
    colour: { field: "group", type: "nominal", legend: merged, scale: { domain: names, range: index.colours[DARK.matches ? "dark" : "light"].slice(0, names.length) } },
    shape: { field: "group", type: "nominal", legend: merged, scale: { domain: names, range: index.shapes.slice(0, names.length) } },
    dash: { field: "group", type: "nominal", legend: merged, scale: { domain: names, range: DASHES.slice(0, names.length) } },
  };
}
const one = (index) => ({ value: index.colours[DARK.matches ? "dark" : "light"][0] });

// edges: of the bins; counts: by group (the coloured ones, then the rest) and bin.
function histogramChart(index, { edges, log, counts }, { title, width }) {
  const groups = byGroup(index, width), last = edges.length - 1;
  const scale = { type: log ? "log" : "linear", domain: [edges[0], edges[last]], nice: false, zero: false };
  const x = { type: "quantitative", title, scale, axis: { tickCount: 8, format: log ? "~g" : undefined, grid: false } };
  const between = (b) => `${number(edges[b], 3)} to ${number(edges[b + 1], 3)}`;
  const base = { config: config(index), width: Math.max(150, width - 70), height: TALL };
  if (!index.coloured) {
    const rows = counts.at(-1).map((n, b) => ({ from: edges[b], to: edges[b + 1], n, between: between(b) }));
    return {
      ...base,
      data: { values: rows },
      mark: { type: "bar", binSpacing: 1 },
      encoding: {
        x: { ...x, field: "from" }, x2: { field: "to" }, color: one(index),
        y: { field: "n", type: "quantitative", title: "Samples", axis: { tickMinStep: 1, format: ",d" } },
        tooltip: tooltip(["between", title], ["n", "Samples"]),
      },
    };
  }
  const rows = counts.flatMap((found, g) => {
    const all = found.reduce((sum, n) => sum + n, 0);
    if (!all) return [];
    // The last edge once more, so that the last bin is as wide as the others.
    return [...found.keys(), last].map((b) => ({ at: edges[b], n: found[Math.min(b, last - 1)], share: (100 * found[Math.min(b, last - 1)]) / all, group: groups.names[g], between: b < last ? between(b) : "" }));
  });
  const stroke = { ...groups.dash.legend, symbolType: "stroke", symbolSize: 300 };
  const y = { field: "share", type: "quantitative", title: "Share of the group’s samples, %" };
  return {
    ...base,
    data: { values: rows },
    encoding: { x: { ...x, field: "at" }, y },
    layer: [
      { mark: { type: "line", interpolate: "step-after", strokeWidth: 2 }, encoding: { color: { ...groups.colour, legend: stroke }, strokeDash: { ...groups.dash, legend: stroke } } },
      { mark: { type: "point", filled: true, opacity: 0, size: 120 }, encoding: { detail: { field: "group" }, tooltip: tooltip(["group", "Group"], ["between", title], ["n", "Samples"]) } },
    ],
  };
}

// rows: x, y, group, inside, i, id; box: the selected ranges of x and y, each null for all.
function scatterChart(index, rows, { xTitle, yTitle, logarithmic, box, width }) {
  const groups = byGroup(index, width);
  const places = (field, title, log) => {
    const values = rows.map((row) => row[field]), found = axisOf(values, false);
    const ends = log && values.length ? [values.reduce((a, b) => Math.min(a, b)) / 1.1, values.reduce((a, b) => Math.max(a, b)) * 1.1] : null;
    return { field, type: "quantitative", title, ...(ends && ends[0] > 0 ? { scale: { type: "log", domain: ends, nice: false }, axis: { format: "~g", tickCount: 6 } } : found) };
  };
  const range = (name, [from, to]) => ({ [name]: { datum: from, type: "quantitative" }, [`${name}2`]: { datum: to } });
  return {
    data: { values: rows },
    config: config(index),
    width: Math.max(150, width - 70),
    height: TALL,
    layer: [
      ...(box.x || box.y ? [{ data: { values: [{}] }, mark: { type: "rect", clip: true, opacity: 0.15 }, encoding: { color: { value: tone("--quiet") }, ...(box.x ? range("x", box.x) : {}), ...(box.y ? range("y", box.y) : {}) } }] : []),
      {
        params: [{ name: "box", select: { type: "interval", encodings: ["x", "y"] } }],
        mark: { type: "point", filled: true, size: 42, strokeWidth: 0 },
        encoding: {
          x: places("x", xTitle, logarithmic),
          y: places("y", yTitle, false),
          color: index.coloured ? groups.colour : one(index),
          ...(index.coloured ? { shape: groups.shape } : {}),
          opacity: { condition: { test: "datum.inside", value: 0.75 }, value: 0.15 },
          tooltip: tooltip(["id", "Sample"], ["group", "Group"], ["shownX", xTitle], ["shownY", yTitle]).filter(({ field }) => field !== "group" || index.coloured),
        },
      },
    ],
  };
}

// One metric of one sample by layer, a panel for each projection: curves[projection][layer], bands[projection].
function sampleCurves(index, curves, bands, { metric, projections, width }) {
  const rows = bands.flatMap(({ layer, p10, p50, p90 }, p) => layer.map((layer, i) => ({ projection: projections[p], layer, p10: p10[i], p50: p50[i], p90: p90[i], value: curves[p]?.[layer] ?? null, shown: number(curves[p]?.[layer] ?? null, 3), median: number(p50[i], 3) })));
  const { scale, axis } = axisOf(rows.flatMap(({ p10, p90, value }) => [p10, p90, value]), false);
  const columns = Math.max(1, Math.min(projections.length, Math.floor((width - 50) / 150)));
  const last = Math.max(0, ...rows.map(({ layer }) => layer));
  const y = (field) => ({ field, type: "quantitative", title: metric, scale, axis });
  const [accent, quiet] = ["--accent", "--quiet"].map(tone);
  return {
    data: { values: rows },
    config: config(index),
    facet: { field: "projection", type: "nominal", sort: projections, title: null },
    columns,
    spec: {
      width: Math.max(90, Math.floor((width - 70) / columns) - 24),
      height: 120,
      encoding: { x: { field: "layer", type: "quantitative", title: "Layer", scale: { nice: false, domain: last ? [0, last] : [-0.5, 0.5] }, axis: { tickMinStep: 1, tickCount: 5, format: "d" } } },
      layer: [
        { mark: { type: "area", style: "band", color: quiet, opacity: 0.25 }, encoding: { y: y("p10"), y2: { field: "p90" } } },
        { mark: { type: "line", color: quiet, strokeWidth: 1.4, strokeDash: [4, 3] }, encoding: { y: y("p50") } },
        { mark: { type: "line", color: accent, strokeWidth: 2, point: { filled: true, size: 30, color: accent } }, encoding: { y: y("value") } },
        { mark: { type: "point", opacity: 0, size: 160, filled: true }, encoding: { y: y("value"), tooltip: tooltip(["layer", "Layer"], ["shown", "This sample"], ["median", "Median of the file"]) } },
      ],
    },
  };
}
