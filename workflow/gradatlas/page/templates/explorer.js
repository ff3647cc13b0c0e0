// The explorer: choices, curves, samples, one sample's text. Each step unpacks only the pieces that it shows.
(() => {
  // A piece of the page is base64 of gzip of text, mostly JSON.
  async function textOf(id) {
    const packed = Uint8Array.from(atob($(`piece-${id}`).textContent), (character) => character.charCodeAt(0));
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }
  const unpacked = new Map();
  function piece(id) {
    if (!unpacked.has(id)) unpacked.set(id, textOf(id).then(JSON.parse));
    return unpacked.get(id);
  }

  const index = JSON.parse($("explorer-index").textContent), { lists, sets } = index;
  const form = $("choices"), body = $("explore");
  const MOST_PAIRS = 12, MOST_ROWS = 100, SHOWN = 3;
  const state = { layers: null, values: null, panel: null };
  const views = [];

  const titleOf = (name, place) => lists[name][place].title;
  const chosen = (name) => [...form.querySelectorAll(`[name=${name}]:checked`)].map((input) => Number(input.value));
  const setName = ([variant, relation]) => `${titleOf("variants", variant)}, ${titleOf("relations", relation).toLowerCase()}`;
  // A capital at the start, but never of a Greek letter: σ is not Σ.
  const capital = (text) => text.replace(/^[a-z]/, (letter) => letter.toUpperCase());
  function number(value, digits) {
    if (value === null) return "–";
    const size = Math.abs(value);
    const text = value && (size < 1e-4 || size >= 1e7)
      ? value.toExponential(digits - 1)
      : value.toLocaleString("en", value ? { minimumSignificantDigits: digits, maximumSignificantDigits: digits } : {});
    return text.replaceAll("-", "−");
  }
  const curveNumber = (value) => number(value, 4), sampleNumber = (value) => number(value, SHOWN);

  // The choices as pairs of a measured dataset and model, and panels, each a pair and a projection.
  function choices() {
    const [datasets, models, variants, relations, projections] = ["datasets", "models", "variants", "relations", "projections"].map(chosen);
    const all = datasets.flatMap((d) => models.filter((m) => sets[`${d}-${m}`]).map((m) => ({ d, m, id: `${d}-${m}` })));
    const pairs = all.slice(0, MOST_PAIRS);
    const panels = pairs.flatMap((pair) => projections.map((p) => ({
      ...pair, p, key: `${pair.id}-${p}`,
      title: [...(datasets.length > 1 ? [titleOf("datasets", pair.d)] : []), ...(models.length > 1 ? [titleOf("models", pair.m)] : []), titleOf("projections", p)].join(" · "),
      full: [titleOf("datasets", pair.d), titleOf("models", pair.m), titleOf("projections", p)].join(" · "),
    })));
    const isSet = ([v, r]) => variants.includes(v) && relations.includes(r);
    return { datasets, models, variants, relations, projections, pairs, left: all.length - pairs.length, panels, isSet, metric: Number(form.metric.value) };
  }

  async function curvesOf(choice) {
    const pieces = new Map(await Promise.all(choice.pairs.map(async (pair) => [pair.id, await piece(`curves-${pair.id}`)])));
    const found = [];
    for (const panel of choice.panels) {
      const { sets: known, layers, columns } = pieces.get(panel.id);
      known.forEach((set, s) => {
        if (!choice.isSet(set)) return;
        const at = (s * lists.projections.length + panel.p) * lists.metrics.length + choice.metric;
        const part = (name) => columns[name].slice(at * layers, (at + 1) * layers);
        const series = { panel, set, n: columns.n[at], value: part("value"), low: part("low"), high: part("high") };
        if (series.value.some((value) => value !== null)) found.push(series);
      });
    }
    return found;
  }

  function rowsOf(series) {
    return series.flatMap(({ panel, set, n, value, low, high }) => value.map((mean, layer) => ({
      panel: panel.title, layer, value: mean, low: low[layer], high: high[layer], n,
      variant: titleOf("variants", set[0]), relation: titleOf("relations", set[1]),
      shown: curveNumber(mean), interval: between(low[layer], high[layer]),
    })));
  }
  const between = (low, high) => (low === null || high === null ? "–" : `${curveNumber(low)} to ${curveNumber(high)}`);

  async function embed(id, specification, label) {
    const place = $(id);
    const result = await vegaEmbed(place, { $schema: "https://vega.github.io/schema/vega-lite/v6.json", ...specification }, { mode: "vega-lite", actions: false, renderer: "canvas", tooltip: { theme: DARK.matches ? "dark" : "light" } });
    place.querySelector("canvas").setAttribute("aria-label", label);
    views.push(result);
    return result.view;
  }

  // Calls `then` with a brush's two ends once it rests.
  function whenBrushed(view, name, field, then) {
    let waiting;
    view.addSignalListener(name, (_, { [field]: ends }) => {
      clearTimeout(waiting);
      if (ends && ends[0] !== ends[1]) waiting = setTimeout(() => then([...ends].sort((a, b) => a - b)), 150);
    });
  }

  function fill(table, caption, header, rows) {
    table.caption.textContent = caption;
    const cells = (tag, row) => row.map((cell) => {
      const made = make(tag);
      made.append(cell);
      if (tag === "th") made.scope = "col";
      return made;
    });
    const line = (tag, row) => { const made = make("tr"); made.append(...cells(tag, row)); return made; };
    table.tHead.replaceChildren(line("th", header));
    table.tBodies[0].replaceChildren(...rows.map((row) => line("td", row)));
  }
  function button(text, label, then) {
    const made = make("button", text, { type: "button" });
    made.setAttribute("aria-label", label);
    made.addEventListener("click", then);
    return made;
  }

  // Layers ------------------------------------------------------------------------------------------------------------
  function showValues(choice, series, last) {
    const [from, to] = state.layers ?? [0, last];
    $("layer-from").value = from;
    $("layer-to").value = to;
    $("layer-from").max = $("layer-to").max = last;
    const one = from === to;
    const rows = series.map(({ panel, set, n, value, low, high }) => {
      const inside = value.slice(from, to + 1).filter((mean) => mean !== null);
      const mean = inside.length ? inside.reduce((sum, item) => sum + item, 0) / inside.length : null;
      return [
        titleOf("datasets", panel.d), titleOf("models", panel.m), titleOf("projections", panel.p),
        titleOf("variants", set[0]), titleOf("relations", set[1]),
        curveNumber(mean), one ? between(low[from] ?? null, high[from] ?? null) : "–", n === null ? "–" : n.toLocaleString("en"),
        button("Samples", `Samples of ${panel.full}`, () => { choosePanel(panel.key); $("panel").focus(); }),
      ];
    });
    const metric = titleOf("metrics", choice.metric);
    const caption = one ? `Layer ${from}: mean ${metric} over samples` : `Layers ${from} to ${to}: mean of the layers’ mean ${metric}; choose one layer for its interval`;
    fill($("values"), caption, ["Dataset", "Model", "Projection", "Variant", "Responses", "Value", "95 % interval", "n", ""], rows);
  }
  function chooseLayers(range) {
    const last = Number($("layer-to").max), ends = range?.map((end) => Math.max(0, Math.min(last, end)));
    state.layers = ends && (ends[0] > 0 || ends[1] < last) ? ends : null;
    // A range of values is of the layers chosen before.
    state.values = null;
    return draw();
  }

  // Samples -----------------------------------------------------------------------------------------------------------
  // A sample's value is its mean over the groups of layers that hold a chosen layer: `value` computes it, `words` names
  // the layers, `wider`: these are more than the chosen ones.
  function within(samples, count, p) {
    const { sets: known, groups, columns } = samples, end = groups.at(-1)?.[1] ?? 0;
    const [from, to] = state.layers ?? [0, end];
    const touched = groups.flatMap(([first, last], g) => (first <= to && last >= from ? [{ g, first, last, size: last - first + 1 }] : []));
    const layers = touched.reduce((sum, { size }) => sum + size, 0);
    const value = (metric, s, i) => {
      let sum = 0;
      for (const { g, size } of touched) {
        const one = columns[lists.metrics[metric].key][((g * known.length + s) * lists.projections.length + p) * count + i];
        if (one === null) return null;
        sum += size * one;
      }
      // As it is shown, so that a range that starts at a shown value includes it.
      return layers ? Number((sum / layers).toPrecision(SHOWN)) : null;
    };
    if (!layers) return { value, words: `no layer (this model’s last is ${end})`, wider: false };
    const [first, last] = [touched[0].first, touched.at(-1).last];
    const words = layers === end + 1 ? "all layers" : first === last ? `layer ${first}` : `layers ${first} to ${last}`;
    return { value, words, wider: first < from || last > Math.min(to, end) };
  }

  async function samplesOf(choice, panel) {
    const [samples, texts] = await Promise.all([piece(`samples-${panel.id}`), piece(`texts-${panel.d}`)]);
    const count = texts.ids.length, rows = [], medians = [], layers = within(samples, count, panel.p);
    samples.sets.forEach((set, s) => {
      if (!choice.isSet(set)) return;
      const name = setName(set), mine = [];
      texts.ids.forEach((_, i) => {
        const value = layers.value(choice.metric, s, i);
        if (value === null) return;
        mine.push(value);
        const readable = Boolean(texts.texts[i]?.[set.join("-")]);
        // Jitter by the golden ratio: even, and the same every time.
        rows.push({ set: name, variant: titleOf("variants", set[0]), value, shown: sampleNumber(value), i, sample: texts.ids[i], jitter: (i * 0.618034) % 1, readable, loss: samples.columns.loss[s * count + i], tokens: samples.columns.response_tokens[s * count + i] });
      });
      mine.sort((a, b) => a - b);
      const middle = mine.length && (mine[(mine.length - 1) >> 1] + mine[mine.length >> 1]) / 2;
      if (mine.length) medians.push({ set: name, value: middle, shown: sampleNumber(middle) });
    });
    return { rows, medians, texts, samples, panel, layers };
  }

  function showSamples(choice, found) {
    const [from, to] = state.values ?? [null, null];
    $("value-from").value = from ?? "";
    $("value-to").value = to ?? "";
    const only = $("with-text").checked;
    const inside = found.rows.filter((row) => (from === null || row.value >= from) && (to === null || row.value <= to) && (!only || row.readable));
    inside.sort((a, b) => b.value - a.value || a.i - b.i);
    const metric = capital(titleOf("metrics", choice.metric));
    const rows = inside.slice(0, MOST_ROWS).map((row) => [
      row.sample, row.set, row.shown, sampleNumber(row.loss), row.tokens === null ? "–" : row.tokens.toLocaleString("en"),
      button("Read", `Read sample ${row.sample}`, () => showSample(found, row.i)),
    ]);
    const more = inside.length > MOST_ROWS ? `; the ${MOST_ROWS} largest are listed` : "";
    fill($("sample-list"), `${inside.length.toLocaleString("en")} of ${found.rows.length.toLocaleString("en")} values, means over ${found.layers.words}${more}`, ["Sample", "Responses", metric, "Loss", "Tokens", ""], rows);
  }
  function chooseValues(range) {
    state.values = range;
    return draw();
  }
  function choosePanel(key) {
    state.panel = key;
    state.values = null;
    return draw();
  }

  function showSample({ texts, samples, panel, layers }, i) {
    const parts = [], count = texts.ids.length;
    let instruction = null;
    samples.sets.forEach((set, s) => {
      const text = texts.texts[i]?.[set.join("-")];
      const values = lists.metrics.map(({ title }, metric) => [title, layers.value(metric, s, i)]);
      if (!text && values.every(([, value]) => value === null)) return;
      const tokens = samples.columns.response_tokens[s * count + i];
      const numbers = [...values, ["loss", samples.columns.loss[s * count + i]]].map(([name, value]) => `${name} ${sampleNumber(value)}`);
      const facts = make("p", [...numbers, `${tokens === null ? "–" : tokens.toLocaleString("en")} ${tokens === 1 ? "token" : "tokens"}`].join(" · "), { className: "hint" });
      if (text && text[0] !== instruction) {
        instruction = text[0];
        parts.push(make("h3", "Instruction"), make("blockquote", instruction, { dir: "auto" }));
      }
      parts.push(make("h3", setName(set)), facts);
      if (text) parts.push(make("blockquote", text[1], { dir: "auto" }));
    });
    if (!texts.texts[i] || !Object.keys(texts.texts[i]).length)
      parts.unshift(make("p", `This sample’s text is not on the page. It is in results/responses/${lists.datasets[panel.d].key}.parquet.`, { className: "note" }));
    parts.unshift(make("p", `${panel.full}. Values are means over ${layers.words}.`, { className: "hint" }));
    show(`Sample ${texts.ids[i]}`, ...parts);
  }

  // Everything ---------------------------------------------------------------------------------------------------------
  // One drawing at a time; of those that wait only the last is made.
  let current = null, turn = 0, running = Promise.resolve();
  function draw() {
    const mine = ++turn, run = () => (mine === turn ? drawNow() : undefined);
    const rest = () => { if (mine === turn) body.setAttribute("aria-busy", "false"); };
    body.setAttribute("aria-busy", "true");
    running = running.then(run, run);
    return running.then(rest, (error) => {
      $("curves-about").textContent = `This browser could not draw the explorer (${error.message}).`;
      rest();
      throw error;
    });
  }
  async function drawNow() {
    const choice = choices(), series = await curvesOf(choice);
    const shown = choice.panels.filter((panel) => series.some((one) => one.panel === panel));
    const panel = shown.find(({ key }) => key === state.panel) ?? shown[0];
    const found = panel && (await samplesOf(choice, panel));
    await library();
    for (const view of views.splice(0)) view.finalize();
    for (const id of ["curves-chart", "samples-chart"]) $(id).replaceChildren();
    const last = Math.max(0, ...series.map(({ value }) => value.length - 1));
    if (state.layers && state.layers[1] > last) state.layers = null;
    current = { choice, found };
    $("panel").replaceChildren(...shown.map(({ key, full }) => make("option", full, { value: key, selected: key === panel.key })));
    showValues(choice, series, last);
    const metric = titleOf("metrics", choice.metric);
    if (!panel) {
      $("curves-about").textContent = "Nothing was measured for this choice. Choose at least one of each row above.";
      $("samples-about").textContent = "";
      fill($("sample-list"), "", [], []);
      return;
    }
    const checked = choice.pairs.some((pair) => sets[pair.id].check) ? " A pipeline check is among them, which is no finding." : "";
    const left = choice.left ? ` The first ${MOST_PAIRS} pairs of dataset and model are drawn and ${choice.left} left out; choose fewer.` : "";
    const of = [...new Set(choice.pairs.map((pair) => titleOf("datasets", pair.d)))].join(", ");
    const by = [...new Set(choice.pairs.map((pair) => titleOf("models", pair.m)))].join(", ");
    $("curves-about").textContent = `${capital(metric)}: mean over samples with its 95 % interval. ${of}; ${by}.${checked}${left}`;
    const seen = (place, all) => all.filter((one) => series.some(({ set }) => set[place] === one));
    const variants = seen(0, choice.variants).map((v) => [titleOf("variants", v), index.styles[v]]);
    const relations = seen(1, choice.relations).map((r) => [titleOf("relations", r), r]);
    const width = $("curves-chart").clientWidth;
    const curves = await embed("curves-chart", curveChart(index, rowsOf(series), { metric: capital(metric), panels: shown.map(({ title }) => title), variants, relations, chosen: state.layers, last, width }), `Curves of ${metric} by layer; the table below has their values`);
    whenBrushed(curves, "layers", "layer", ([from, to]) => chooseLayers([Math.ceil(from), Math.max(Math.ceil(from), Math.floor(to))]));
    curves.addEventListener("click", (_, item) => {
      const hit = shown.find(({ title }) => title === item?.datum?.panel);
      if (hit) choosePanel(hit.key);
    });

    const { ids, total } = found.texts;
    const { words, wider } = found.layers;
    const groups = wider ? " Samples’ values are stored by groups of layers; these are all groups that hold a chosen layer." : "";
    $("samples-about").textContent = `${capital(metric)} of ${panel.full}, mean over ${words}: a dot is a sample, a bar the median.${groups} ${ids.length < total ? `${ids.length} of ${total} samples` : `All ${total} samples`}; the text of strong dots is on the page.`;
    showSamples(choice, found);
    if (found.rows.length) {
      const dots = await embed("samples-chart", sampleChart(index, found.rows, found.medians, { metric: capital(metric), sets: found.medians.map(({ set }) => set), variants, chosen: state.values, width }), `Samples by ${metric}; the table below lists them`);
      whenBrushed(dots, "range", "value", chooseValues);
      dots.addEventListener("click", (_, item) => { if (item?.datum?.i !== undefined) showSample(found, item.datum.i); });
    }
  }

  let loading;
  const library = () => (loading ??= textOf("vega").then((text) => document.head.append(make("script", text))));

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", ({ target }) => {
    // A range of values is of the measure chosen before.
    if (target === form.metric) state.values = null;
    draw();
  });
  for (const id of ["layer-from", "layer-to"]) $(id).addEventListener("change", () => {
    const ends = [$("layer-from").valueAsNumber, $("layer-to").valueAsNumber].map((end) => (Number.isNaN(end) ? 0 : Math.round(end)));
    // The end that was typed wins.
    if (ends[0] > ends[1]) ends[id === "layer-from" ? 1 : 0] = ends[id === "layer-from" ? 0 : 1];
    chooseLayers(ends);
  });
  $("all-layers").addEventListener("click", () => chooseLayers(null));
  $("panel").addEventListener("change", () => choosePanel($("panel").value));
  for (const id of ["value-from", "value-to"]) $(id).addEventListener("change", () => {
    if (!current?.found) return;
    const [from, to] = [$("value-from").valueAsNumber, $("value-to").valueAsNumber];
    const all = current.found.rows.map(({ value }) => value);
    const given = [Number.isNaN(from) ? Math.min(...all) : from, Number.isNaN(to) ? Math.max(...all) : to];
    chooseValues(Number.isNaN(from) && Number.isNaN(to) ? null : given);
  });
  $("all-values").addEventListener("click", () => chooseValues(null));
  $("with-text").addEventListener("change", () => current?.found && showSamples(current.choice, current.found));
  DARK.addEventListener("change", draw);
  let drawnWidth = $("curves-chart").clientWidth, resting;
  new ResizeObserver(() => {
    if ($("curves-chart").clientWidth === drawnWidth) return;
    drawnWidth = $("curves-chart").clientWidth;
    clearTimeout(resting);
    resting = setTimeout(draw, 200);
  }).observe($("curves-chart"));
  draw();
})();
