// The explorer: choices, curves, samples, one sample's text. Each step unpacks only the pieces that it shows.
(() => {
  const index = JSON.parse($("explorer-index").textContent), { lists, measured } = index;
  const form = $("choices"), body = $("explore");
  const MOST_PAIRS = 12, MOST_LACKS = 2, MOST_ROWS = 100, SHOWN = 3;
  const state = { layers: null, values: null, panel: null };

  // A piece's series, each with its own entry of every column.
  const seriesOf = ({ series, columns }) => series.map((places, s) => Object.assign({ ...places }, ...Object.keys(columns).map((name) => ({ [name]: columns[name][s] }))));

  const titleOf = (name, place) => lists[name][place].title;
  const chosen = (name) => [...form.querySelectorAll(`[name=${name}]:checked`)].map((input) => Number(input.value));
  // A variant or kind of response that no chosen dataset has is not offered; a variant that is new is chosen.
  function offer() {
    const pairs = chosen("datasets").flatMap((d) => chosen("models").map((m) => measured[`${d}-${m}`])).filter(Boolean);
    for (const name of pairs.length ? ["variants", "relations"] : []) {
      const inputs = [...form.querySelectorAll(`[name=${name}]`)];
      for (const input of inputs) {
        const chip = input.closest(".chip"), held = pairs.some((pair) => pair[name].includes(Number(input.value)));
        if (!held) input.checked = false;
        else if (name === "variants" && (chip.hidden || !offered)) input.checked = true;
        chip.hidden = !held;
      }
      if (name === "relations" && !chosen(name).length) inputs.find((input) => !input.closest(".chip").hidden).checked = true;
    }
    offered = true;
  }
  let offered = false;
  function showChoices() {
    for (const part of form.querySelectorAll("details.choice")) {
      const inputs = [...part.querySelectorAll(".chip:not([hidden]) input")], on = inputs.filter((input) => input.checked);
      const names = on.map((input) => input.nextElementSibling.textContent).join(", ");
      part.querySelector("summary b").textContent = on.length === inputs.length && on.length > 1 ? `all ${on.length}` : names || "none";
    }
  }
  const setName = ({ variant, relation }) => `${titleOf("variants", variant)}, ${titleOf("relations", relation).toLowerCase()}`;
  const setKey = ({ variant, relation }) => `${variant}-${relation}`;
  const curveNumber = (value) => number(value, 4), sampleNumber = (value) => number(value, SHOWN);
  const between = (low, high) => (low === null || high === null ? "–" : `${curveNumber(low)} to ${curveNumber(high)}`);
  const mean = (values) => (values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null);

  // The choices as pairs of a measured dataset and model, and panels, each a pair and a projection.
  function choices() {
    const [datasets, models, variants, relations, projections] = ["datasets", "models", "variants", "relations", "projections"].map(chosen);
    const all = datasets.flatMap((d) => models.filter((m) => measured[`${d}-${m}`]).map((m) => ({ d, m, id: `${d}-${m}` })));
    const pairs = all.slice(0, MOST_PAIRS);
    const panels = pairs.flatMap((pair) => projections.map((p) => {
      const names = [titleOf("datasets", pair.d), titleOf("models", pair.m), titleOf("projections", p)];
      const title = names.filter((_, i) => i === 2 || [datasets, models][i].length > 1).join(" · ");
      return { ...pair, p, key: `${pair.id}-${p}`, title, full: names.join(" · ") };
    }));
    const isChosen = ({ variant, relation }) => variants.includes(variant) && relations.includes(relation);
    return { variants, relations, pairs, left: all.length - pairs.length, panels, isChosen, metric: Number(form.metric.value) };
  }

  // Of what is drawn, the tasks that a model does not master, with its share of right answers.
  function showLacks({ pairs }, series) {
    const lacks = pairs.flatMap((pair) => {
      const { by, at_all, chance } = measured[pair.id].lacks, drawn = series.filter(({ panel }) => panel.id === pair.id);
      const parts = by.filter(([v]) => drawn.some(({ variant }) => variant === v)).map(([v, right]) => `${titleOf("variants", v)} ${right}`);
      const what = parts.length ? ` with ${parts.join(", ")}` : at_all && drawn.length ? `, ${at_all}` : "";
      return what ? [`${titleOf("models", pair.m)} on ${titleOf("datasets", pair.d)}${what} right (chance ${chance})`] : [];
    });
    const more = lacks.length > MOST_LACKS ? `; and ${lacks.length - MOST_LACKS} more` : "";
    $("not-mastered").hidden = !lacks.length;
    $("not-mastered").firstElementChild.textContent = `Not mastered: ${lacks.slice(0, MOST_LACKS).join("; ")}${more}.`;
  }

  // Calls `then` with a brush's two ends once it rests.
  function whenBrushed(view, name, field, then) {
    let waiting;
    view.addSignalListener(name, (_, { [field]: ends }) => {
      clearTimeout(waiting);
      if (ends && ends[0] !== ends[1]) waiting = setTimeout(() => then([...ends].sort((a, b) => a - b)), 150);
    });
  }

  // Layers ------------------------------------------------------------------------------------------------------------
  async function curvesOf(choice) {
    const found = await Promise.all(choice.panels.map(async (panel) => {
      return seriesOf(await piece(`curves-${panel.id}`)).filter((one) => one.projection === panel.p && one.metric === choice.metric && choice.isChosen(one)).map((one) => ({ panel, ...one }));
    }));
    return found.flat();
  }
  const rowsOf = (series) => series.flatMap(({ panel, layer, value, low, high, n, variant, relation }) => layer.map((layer, i) => ({
    panel: panel.title, layer, value: value[i], low: low[i], high: high[i], n,
    variant: titleOf("variants", variant), relation: titleOf("relations", relation),
    shown: curveNumber(value[i]), interval: between(low[i], high[i]),
  })));

  function showValues(choice, series, last) {
    const [from, to] = state.layers ?? [0, last];
    $("layer-from").value = from;
    $("layer-to").value = to;
    $("layer-from").max = $("layer-to").max = last;
    const one = from === to;
    const rows = series.map(({ panel, variant, relation, layer, value, low, high, n }) => {
      const inside = value.filter((each, i) => each !== null && layer[i] >= from && layer[i] <= to), at = layer.indexOf(from);
      return [
        titleOf("datasets", panel.d), titleOf("models", panel.m), titleOf("projections", panel.p),
        titleOf("variants", variant), titleOf("relations", relation),
        curveNumber(mean(inside)), one ? between(low[at] ?? null, high[at] ?? null) : "–", count(n),
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
    return draw(true);
  }

  // Samples -----------------------------------------------------------------------------------------------------------
  // A sample's value is its mean over the groups of layers that hold a chosen layer: `value` computes it, `words` names
  // the layers, `wider`: these are more than the chosen ones.
  function within(groups) {
    const end = groups.at(-1)?.[1] ?? 0, [from, to] = state.layers ?? [0, end];
    const held = [...groups.keys()].filter((g) => groups[g][0] <= to && groups[g][1] >= from);
    if (!held.length) return { value: () => null, words: `no layer (this model’s last is ${end})`, wider: false };
    const value = (series, metric, i) => {
      const values = series[lists.metrics[metric].key];
      const byLayer = held.flatMap((g) => Array(groups[g][1] - groups[g][0] + 1).fill(values[g][i]));
      // As it is shown, so that a range that starts at a shown value includes it.
      return byLayer.includes(null) ? null : Number(mean(byLayer).toPrecision(SHOWN));
    };
    const first = groups[held[0]][0], last = groups[held.at(-1)][1];
    const words = held.length === groups.length ? "all layers" : first === last ? `layer ${first}` : `layers ${first} to ${last}`;
    return { value, words, wider: first < from || last > Math.min(to, end) };
  }

  async function samplesOf(choice, panel) {
    const [samples, { ids, total, texts }] = await Promise.all([piece(`samples-${panel.id}`), piece(`texts-${panel.d}`)]);
    const layers = within(samples.groups), found = { panel, layers, ids, total, texts, rows: [], medians: [] };
    found.series = seriesOf(samples).filter(({ projection }) => projection === panel.p);
    for (const one of found.series.filter(choice.isChosen)) {
      const set = setName(one), values = [];
      ids.forEach((sample, i) => {
        const value = layers.value(one, choice.metric, i);
        if (value === null) return;
        values.push(value);
        const readable = Boolean(texts[i]?.[setKey(one)]);
        // Jitter by the golden ratio: even, and the same every time.
        const jitter = (i * 0.618034) % 1;
        found.rows.push({ set, s: found.series.indexOf(one), variant: titleOf("variants", one.variant), value, shown: sampleNumber(value), i, sample, jitter, readable, loss: one.loss[i], tokens: one.response_tokens[i] });
      });
      values.sort((a, b) => a - b);
      const median = mean([values[(values.length - 1) >> 1], values[values.length >> 1]]);
      if (values.length) found.medians.push({ set, value: median, shown: sampleNumber(median) });
    }
    return found;
  }

  function showSamples(choice, found) {
    const [from, to] = state.values ?? [null, null];
    $("value-from").value = from ?? "";
    $("value-to").value = to ?? "";
    const only = $("with-text").checked;
    const inside = found.rows.filter((row) => row.value >= (from ?? -Infinity) && row.value <= (to ?? Infinity) && (!only || row.readable));
    inside.sort((a, b) => b.value - a.value || a.i - b.i);
    found.inside = inside;
    const rows = inside.slice(0, MOST_ROWS).map((row) => [
      row.sample, row.set, row.shown, sampleNumber(row.loss), count(row.tokens),
      button("Read", `Read sample ${row.sample}`, () => showSample(found, row.i, row.s)),
    ]);
    const more = inside.length > MOST_ROWS ? `; the ${MOST_ROWS} largest are listed` : "";
    const caption = `${count(inside.length)} of ${count(found.rows.length)} values, means over ${found.layers.words}${more}`;
    fill($("sample-list"), caption, ["Sample", "Responses", capital(titleOf("metrics", choice.metric)), "Loss", "Tokens", ""], rows);
  }
  function chooseValues(range) {
    state.values = range;
    return draw(true);
  }
  function choosePanel(key) {
    state.panel = key;
    state.values = null;
    return draw(true);
  }

  // Of the texts, first the one of the dot or row, beside the same variant of another kind.
  function showSample({ texts, ids, series, panel, layers }, i, s) {
    const first = series[s];
    const shown = (one) => Object.fromEntries(lists.metrics.map(({ title }, metric) => [title, sampleNumber(layers.value(one, metric, i))]));
    const nearness = (one) => 2 * (one.variant === first.variant) + (setKey(one) === setKey(first));
    const sets = [...series].sort((a, b) => nearness(b) - nearness(a)).map((one) => {
      const [instruction, text] = texts[i]?.[setKey(one)] ?? [];
      return { name: setName(one), instruction, text, facts: { ...shown(one), loss: sampleNumber(one.loss[i]), tokens: count(one.response_tokens[i]) } };
    });
    const missing = `This sample’s text is not on the page. It is in results/responses/${lists.datasets[panel.d].key}.parquet.`;
    show(`Sample ${ids[i]}`, ...sampleBody(`${panel.full}. Values are means over ${layers.words}.`, sets.filter(({ text, facts }) => text || Object.values(facts).some((fact) => fact !== "–")), missing));
  }

  // Drawing -----------------------------------------------------------------------------------------------------------
  // One at a time; of those that wait only the last is drawn.
  let current = null, turn = 0, running = Promise.resolve(), width;
  // `touched`: by the reader; then the page's address becomes that of what is drawn.
  function draw(touched = false) {
    const mine = ++turn;
    showChoices();
    if (touched) history.replaceState(null, "", address());
    body.setAttribute("aria-busy", "true");
    running = running.then(async () => {
      if (mine !== turn) return;
      await drawNow().catch((error) => {
        $("curves-about").textContent = `This browser could not draw the explorer (${error.message}).`;
        reportError(error);
      });
      if (mine === turn) body.setAttribute("aria-busy", "false");
    });
    return running;
  }
  async function drawNow() {
    const choice = choices(), series = await curvesOf(choice);
    const shown = choice.panels.filter((panel) => series.some((one) => one.panel === panel));
    const panel = shown.find(({ key }) => key === state.panel) ?? shown[0];
    const found = panel && (await samplesOf(choice, panel));
    await library();
    for (const view of views.splice(0)) view.finalize();
    for (const id of ["curves-chart", "samples-chart"]) $(id).replaceChildren();
    const last = Math.max(0, ...series.map(({ layer }) => layer.at(-1)));
    if (state.layers && state.layers[1] > last) state.layers = null;
    current = { choice, found, series };
    width = $("curves-chart").clientWidth;
    $("panel").replaceChildren(...shown.map(({ key, full }) => make("option", full, { value: key, selected: key === panel.key })));
    showValues(choice, series, last);
    showLacks(choice, series);
    if (!panel) {
      $("curves-about").textContent = "Nothing was measured for this choice. Choose at least one of each row above.";
      $("samples-about").textContent = "";
      fill($("sample-list"), "", [], []);
      return;
    }
    const name = titleOf("metrics", choice.metric), metric = capital(name);
    const checked = choice.pairs.some((pair) => measured[pair.id].check) ? " A pipeline check is among them, which is no finding." : "";
    const left = choice.left ? ` The first ${MOST_PAIRS} pairs of dataset and model are drawn and ${choice.left} left out; choose fewer.` : "";
    const of = [["datasets", "d"], ["models", "m"]].map(([list, key]) => [...new Set(choice.pairs.map((pair) => titleOf(list, pair[key])))].join(", "));
    $("curves-about").textContent = `${metric}: mean over samples with its 95 % interval. ${of.join("; ")}.${checked}${left}`;
    const variants = choice.variants.filter((v) => series.some(({ variant }) => variant === v)).map((v) => [titleOf("variants", v), index.styles[v]]);
    const relations = choice.relations.filter((r) => series.some(({ relation }) => relation === r)).map((r) => [titleOf("relations", r), r]);
    const curves = await embed($("curves-chart"), curveChart(index, rowsOf(series), { metric, panels: shown.map(({ title }) => title), variants, relations, chosen: state.layers, last, width }), `Curves of ${name} by layer; the table below has their values`);
    whenBrushed(curves, "layers", "layer", ([from, to]) => chooseLayers([Math.ceil(from), Math.max(Math.ceil(from), Math.floor(to))]));
    curves.addEventListener("click", (_, item) => {
      const hit = shown.find(({ title }) => title === item?.datum?.panel);
      if (hit) choosePanel(hit.key);
    });

    const { ids, total, rows, medians, layers } = found;
    const groups = layers.wider ? " Samples’ values are stored by groups of layers; these are all groups that hold a chosen layer." : "";
    $("samples-about").textContent = `${metric} of ${panel.full}, mean over ${layers.words}: a dot is a sample, a bar the median.${groups} ${ids.length < total ? `${ids.length} of ${total} samples` : `All ${total} samples`}; those with a strong dot can be read.`;
    showSamples(choice, found);
    if (rows.length) {
      const dots = await embed($("samples-chart"), sampleChart(index, rows, medians, { metric, sets: medians.map(({ set }) => set), variants, chosen: state.values, width }), `Samples by ${name}; the table below lists them`);
      whenBrushed(dots, "range", "value", chooseValues);
      dots.addEventListener("click", (_, item) => { if (item?.datum?.i !== undefined) showSample(found, item.datum.i, item.datum.s); });
    }
  }

  // Controls ----------------------------------------------------------------------------------------------------------
  form.addEventListener("submit", (event) => event.preventDefault());
  const address = () => toAddress(lists, {
    ...Object.fromEntries(CHOSEN.map((name) => [name, chosen(name)])), metrics: [Number(form.metric.value)],
    panel: state.panel && Object.fromEntries(state.panel.split("-").map((place, i) => ["dmp"[i], place])), layers: state.layers, values: state.values,
  });
  function restore(saved) {
    const tick = (names) => { for (const name of names) if (saved[name].length) for (const input of form.querySelectorAll(`[name=${name}]`)) input.checked = saved[name].includes(Number(input.value)); };
    tick(["datasets", "models"]);
    offer();
    tick(["variants", "relations", "projections"]);
    form.metric.value = saved.metrics[0] ?? form.metric.value;
    Object.assign(state, { layers: saved.layers, values: saved.values, panel: saved.panel && Object.values(saved.panel).join("-") });
    $("explorer").scrollIntoView();
    draw();
  }
  form.addEventListener("change", ({ target }) => {
    // A range of values is of the measure chosen before.
    if (target === form.metric) state.values = null;
    if (["datasets", "models"].includes(target.name)) offer();
    draw(true);
  });
  // A list of choices closes by Escape, and by a click elsewhere.
  const close = (but) => { for (const part of form.querySelectorAll("details.choice[open]")) if (part !== but) part.open = false; };
  addEventListener("click", ({ target }) => close(target.closest("details.choice")));
  form.addEventListener("keydown", (event) => {
    const part = event.key === "Escape" && event.target.closest("details.choice[open]");
    if (part) part.querySelector("summary").focus(), close();
  });
  $("copy-link").addEventListener("click", async () => {
    const link = new URL(address(), location).href;
    try {
      await navigator.clipboard.writeText(link);
      $("copied").textContent = "Link copied.";
    } catch {
      show("Link to what is drawn", make("p", link));
    }
  });
  const keysOf = ({ d, m, p }, { variant, relation }) => [["datasets", d], ["models", m], ["projections", p], ["variants", variant], ["relations", relation], ["metrics", Number(form.metric.value)]].map(([name, place]) => lists[name][place].key);
  const COLUMNS = ["dataset", "model", "projection", "variant", "relation", "statistic"];
  $("curves-csv").addEventListener("click", () => download("curves.csv", [...COLUMNS, "layer", "value", "low", "high", "n"],
    current.series.flatMap((one) => one.layer.map((layer, i) => [...keysOf(one.panel, one), layer, one.value[i], one.low[i], one.high[i], one.n]))));
  $("samples-csv").addEventListener("click", () => download("samples.csv", [...COLUMNS, "layers", "sample_id", "value", "loss", "response_tokens"],
    (current.found?.inside ?? []).map(({ s, sample, value, loss, tokens }) => [...keysOf(current.found.panel, current.found.series[s]), current.found.layers.words, sample, value, loss, tokens])));
  // A range typed into two fields, an empty one without a limit. The end that was typed last wins.
  function onRange(name, least, most, choose) {
    for (const id of [`${name}-from`, `${name}-to`]) $(id).addEventListener("change", () => {
      const given = [$(`${name}-from`), $(`${name}-to`)].map((field) => field.valueAsNumber);
      const ends = [Number.isNaN(given[0]) ? least() : given[0], Number.isNaN(given[1]) ? most() : given[1]];
      if (ends[0] > ends[1]) ends.fill($(id).valueAsNumber);
      choose(given.every(Number.isNaN) ? null : ends);
    });
  }
  const values = () => current?.found?.rows.map(({ value }) => value) ?? [];
  onRange("layer", () => 0, () => Number($("layer-to").max), (range) => chooseLayers(range?.map(Math.round)));
  onRange("value", () => Math.min(...values()), () => Math.max(...values()), chooseValues);
  $("all-layers").addEventListener("click", () => chooseLayers(null));
  $("all-values").addEventListener("click", () => chooseValues(null));
  $("panel").addEventListener("change", () => choosePanel($("panel").value));
  $("with-text").addEventListener("change", () => current?.found && showSamples(current.choice, current.found));
  DARK.addEventListener("change", () => draw());
  let resting;
  addEventListener("resize", () => {
    clearTimeout(resting);
    if ($("curves-chart").clientWidth !== width) resting = setTimeout(() => draw(), 200);
  });
  function start() {
    const saved = fromAddress(lists, location.hash);
    if (saved) restore(saved);
    return saved;
  }
  addEventListener("hashchange", start);
  offer();
  // The charts push what follows them down: a link to a section leads there once they are drawn.
  start() ?? draw().then(() => location.hash && $(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView());
})();
