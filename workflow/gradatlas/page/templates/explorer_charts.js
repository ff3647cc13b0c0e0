// The explorer's two charts, as Vega-Lite, in the page's own colours.
const HEIGHT = 180, STRIP = 44;

// rows: panel, layer, value, low, high, variant, relation; chosen: the two layers, or null for all.
function curveChart(index, rows, { metric, panels, variants, relations, chosen, last, width }) {
  const colours = index.colours[DARK.matches ? "dark" : "light"];
  // A panel holds its title: a wider one would push the last column off the page.
  const longest = Math.max(0, ...panels.map((title) => title.length)) * 6.3;
  const most = Math.max(1, Math.min(panels.length, Math.floor((width - 46) / Math.max(230, longest + 24))));
  // Rows as even as can be: four panels are two and two, not three and one.
  const columns = Math.ceil(panels.length / Math.ceil(panels.length / most));
  const across = Math.max(120, Math.floor((width - 80) / columns) - 24);
  const { scale, axis } = axisOf(rows.flatMap((row) => [row.value, row.low, row.high]), true);
  const perRow = width < 500 ? 2 : Math.floor(width / 130);
  return {
    data: { values: rows },
    config: config(index, across),
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
          // Invisible, and large enough to point at.
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
    config: config(index),
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
        mark: { type: "tick", thickness: 4, height: STRIP - 6, color: config(index).legend.labelColor, stroke: tone("--paper"), strokeWidth: 1.2 },
        encoding: { ...places, tooltip: tooltip(["set", "Responses"], ["shown", "Median"]) },
      },
    ],
  };
}
