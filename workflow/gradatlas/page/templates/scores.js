// The scored file: a number's distribution, its scatter plots, the table, and one sample.
(async () => {
  const index = JSON.parse($("scores-index").textContent), { titles } = index;
  const PAGE = 50;
  const data = await piece("samples"), all = [...data.row.keys()];
  // Samples with scores come first; only they have a text.
  const scored = data.status.filter((status) => status === "ok").length;
  // ranges: by key, the two ends of a selection; `number` stands for the chosen number.
  const state = { number: $("number").value, ranges: {}, sort: { key: "outlier", down: true }, page: 0, colour: "losses", listed: [] };
  const counted = new Set(index.numbers.filter((one) => one.count).map((one) => one.key));
  const valueOf = (key, i) => data.numbers[key][i];
  const written = (key, value) => (counted.has(key) && Math.abs(value) < 1e15 ? count(value) : number(value, 3));
  const cell = (key, i) => (key in data.numbers ? written(key, valueOf(key, i)) : data[key][i] ?? "");
  const nameOf = (i) => `${data.id[i]}${data.response[i] ? `, ${data.response[i]}` : ""}`;

  // What is listed ----------------------------------------------------------------------------------------------------
  let texts;
  const allTexts = () => (texts ??= Promise.all(Array.from({ length: Math.ceil(scored / index.chunk) }, (_, c) => piece(`text-${c}`)))
    .then((chunks) => chunks.flat().map(({ tokens }) => tokens.join("").toLowerCase())));

  const keyOf = (range) => (range === "number" ? state.number : range);
  const inside = (i) => Object.entries(state.ranges).every(([range, ends]) => {
    const value = valueOf(keyOf(range), i);
    return value !== null && value >= ends[0] && value <= ends[1];
  });
  async function choose() {
    const wanted = $("search").value.trim().toLowerCase(), group = $("group")?.value, status = $("status")?.value;
    const text = wanted ? await allTexts() : [];
    state.listed = all.filter((i) => inside(i)
      && (!group || data.place[i] === Number(group))
      && (!status || data.status[i] === status)
      && (!wanted || data.id[i].toLowerCase().includes(wanted) || text[i]?.includes(wanted)));
    const { key, down } = state.sort, values = data.numbers[key] ?? data[key], missing = (value) => value === null || value === "";
    const before = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
    // Without a value: at the end, whichever the direction. Equal ones keep their order.
    state.listed.sort((i, j) => missing(values[i]) - missing(values[j]) || (missing(values[i]) ? 0 : (down ? -1 : 1) * before(values[i], values[j])));
  }

  function showTable() {
    const pages = Math.max(1, Math.ceil(state.listed.length / PAGE));
    state.page = Math.min(state.page, pages - 1);
    const shown = state.listed.slice(state.page * PAGE, (state.page + 1) * PAGE);
    const words = (text) => make("bdi", String(text), { title: String(text) });
    const header = index.columns.map((key) => button(titles[key], undefined, () => sortBy(key)));
    const rows = shown.map((i) => index.columns.map((key, c) => (c ? words(cell(key, i)) : button(String(data.row[i]), `Show sample ${nameOf(i)}`, () => showSample(i)))));
    const focused = [...$("table").tHead.rows[0].cells].findIndex((th) => th.contains(document.activeElement));
    fill($("table"), $("table").caption.textContent, header, rows);
    const heads = $("table").tHead.rows[0].cells;
    heads[index.columns.indexOf(state.sort.key)].ariaSort = state.sort.down ? "descending" : "ascending";
    if (focused >= 0) heads[focused].firstChild.focus();
    [...$("table").tBodies[0].rows].forEach((row, r) => row.addEventListener("click", (event) => { if (!event.target.closest("button")) showSample(shown[r]); }));
    $("found").textContent = `${count(state.listed.length)} of ${count(all.length)} samples`;
    $("page").textContent = `${count(state.listed.length && state.page * PAGE + 1)} to ${count(state.page * PAGE + shown.length)}`;
    $("previous").disabled = state.page === 0;
    $("next").disabled = state.page === pages - 1;
  }
  function sortBy(key) {
    const { sort } = state;
    state.sort = { key, down: sort.key === key ? !sort.down : key in data.numbers && key !== "rank" };
    state.page = 0;
    update(false);
  }

  // Charts ------------------------------------------------------------------------------------------------------------
  let width;
  async function drawCharts() {
    await library();
    for (const view of views.splice(0)) view.finalize();
    width = $("explore").clientWidth;
    const key = state.number, title = titles[key], found = index.histograms[key];
    const n = found ? found.counts.flat().reduce((sum, each) => sum + each, 0) : 0;
    const rest = index.all_groups > index.coloured ? ` The ${index.coloured} largest of ${count(index.all_groups)} groups have a curve of their own.` : "";
    $("distribution-about").textContent = found ? `${n === index.total ? `All ${count(n)}` : `${count(n)} of ${count(index.total)}`} samples with scores.${n < index.total ? " The others have no such number." : ""}${rest}` : "No sample has this number.";
    $("histogram").replaceChildren();
    if (found) await embed($("histogram"), histogramChart(index, found, { title, width: $("histogram").clientWidth }), `Histogram of ${title}`);

    const dots = all.slice(0, scored).filter((i) => valueOf(key, i) !== null);
    $("relations-about").textContent = `${title}: a dot is one of ${count(dots.length)} samples on this page. Click a dot to show the sample. Drag over a chart, or type a range, to select samples; the table lists them.`;
    const groups = byGroup(index).names;
    for (const [id, x] of [["by-length", "response_tokens"], ["by-loss", "loss"]]) {
      const rows = dots.filter((i) => valueOf(x, i) !== null).map((i) => ({
        i, id: nameOf(i), x: valueOf(x, i), y: valueOf(key, i), inside: inside(i), shownX: written(x, valueOf(x, i)), shownY: written(key, valueOf(key, i)),
        group: groups[Math.min(data.place[i], groups.length - 1)],
      }));
      $(id).replaceChildren();
      if (!rows.length) continue;
      const ends = (range, field) => state.ranges[range]?.map((end, e) => (Number.isFinite(end) ? end : rows.map((row) => row[field]).reduce((a, b) => Math[e ? "max" : "min"](a, b)))) ?? null;
      const chart = scatterChart(index, rows, { xTitle: titles[x], yTitle: title, logarithmic: x === "response_tokens", box: { x: ends(x, "x"), y: ends("number", "y") }, width: $(id).clientWidth });
      const view = await embed($(id), chart, `${title} by ${titles[x].toLowerCase()}; the table below lists the samples`);
      view.addEventListener("click", (_, item) => { if (item?.datum?.i !== undefined) showSample(item.datum.i); });
      let resting;
      view.addSignalListener("box", (_, box) => {
        clearTimeout(resting);
        if ([box.x, box.y].every((range) => range && range[0] !== range[1])) resting = setTimeout(() => select({ number: box.y, [x]: box.x }), 150);
      });
    }
  }
  function select(ranges) {
    state.ranges = Object.fromEntries(Object.entries(ranges).map(([range, ends]) => [range, ends.map((end) => Number(end.toPrecision(4))).sort((a, b) => a - b)]));
    state.page = 0;
    showRanges();
    update();
  }
  function showRanges() {
    $("ranges").querySelector("[data-range=number] legend").textContent = titles[state.number];
    for (const range of ["number", "response_tokens", "loss"])
      ["from", "to"].forEach((end, e) => {
        const value = state.ranges[range]?.[e];
        $("ranges")[`${range}-${end}`].value = Number.isFinite(value) ? value : "";
      });
  }

  // One at a time; of those that wait only the last is drawn.
  let turn = 0, charts = false, running = Promise.resolve();
  function update(withCharts = true) {
    const mine = ++turn;
    charts ||= withCharts;
    $("explore").setAttribute("aria-busy", "true");
    running = running.then(async () => {
      if (mine !== turn) return;
      try {
        await choose();
        showTable();
        if (charts) await drawCharts();
        charts = false;
      } catch (error) {
        $("distribution-about").textContent = `This browser could not draw the page (${error.message}).`;
        reportError(error);
      }
      if (mine === turn) $("explore").setAttribute("aria-busy", "false");
    });
    return running;
  }

  // One sample --------------------------------------------------------------------------------------------------------
  // Where a step of the colour scale begins: losses in nats (by their distribution), terms as shares of the largest.
  const SCALES = {
    losses: { title: "Loss", steps: index.steps, unit: 0.01, words: (from, to) => (to === undefined ? `${from} nats or more` : `${from} to ${to}`) },
    terms: { title: "Term of the gradient", steps: [0, 1 / 16, 1 / 8, 1 / 4, 1 / 2], unit: 0.001, words: (from, to) => (to === undefined ? `${100 * from} % of the largest or more` : `${100 * from} to ${100 * to} %`) },
  };
  const stepOf = ({ steps }, value) => steps.findLastIndex((from) => value >= from);
  const sampleViews = [];

  async function showSample(i) {
    const chunk = Math.floor(i / index.chunk), at = i % index.chunk;
    const [text, curves] = i < scored ? (await Promise.all([piece(`text-${chunk}`), piece(`curves-${chunk}`)])).map((part) => part[at]) : [];
    const place = state.listed.indexOf(i);
    const step = (by, words) => {
      const other = place < 0 ? undefined : state.listed[place + by];
      return Object.assign(button(words, undefined, () => showSample(other)), { disabled: other === undefined });
    };
    const about = [`Row ${count(data.row[i])}`, data.group[i] && `group ${data.group[i]}`, data.status[i], data.truncated[i] && "cut to the window", data.reason[i]];
    const around = make("div", undefined, { className: "tools" });
    around.append(step(-1, "Previous sample"), step(1, "Next sample"), make("span", place < 0 ? "" : `${count(place + 1)} of ${count(state.listed.length)} listed`));
    const parts = [make("p", about.filter(Boolean).join(" · "), { className: "hint", dir: "auto" }), around];
    if (text) parts.push(...tokensOf(text));
    if (i < scored) parts.push(make("h3", "Numbers"), numbersOf(i));
    const places = index.layers.metrics.map(() => make("div", undefined, { className: "chart" }));
    if (curves) parts.push(make("h3", "By layer"), make("p", "Line: this sample. Dashed: the median of all samples with scores, and the band from the 10th to the 90th percentile.", { className: "hint" }), ...places);
    for (const view of sampleViews.splice(0)) view.finalize();
    show(`Sample ${nameOf(i)}`, ...parts);
    if (!curves) return;
    await library();
    for (const [m, { key, title }] of index.layers.metrics.entries())
      await embed(places[m], sampleCurves(index, curves[m], index.layers.bands[key], { metric: capital(title), projections: index.layers.projections, width: places[m].clientWidth }), `${capital(title)} by layer of this sample and of the file`, sampleViews);
  }

  function tokensOf(text) {
    const field = make("fieldset"), chips = make("div", undefined, { className: "chips" }), key = make("ul", undefined, { className: "key", ariaLabel: "Colours" });
    const box = make("div", undefined, { className: "tokens", dir: "auto", tabIndex: 0, role: "group", ariaLabel: "Tokens; the arrow keys move from one to the next" });
    const shown = make("output", "Point at a token for its numbers, or use the arrow keys within the text.", { id: "token", ariaLive: "polite" });
    const spans = text.tokens.map((token, t) => {
      const span = make("span", token);
      // A line's end, and a token with no text of its own (a part of a character), have a mark to point at.
      if (!token || /^\s*\n\s*$/.test(token)) span.dataset.mark = token ? "⏎" : "▯";
      span.dataset.token = t;
      return span;
    });
    const about = make("p", "", { className: "hint" });
    const colour = () => {
      const scale = SCALES[state.colour], { steps, unit, words } = scale;
      spans.forEach((span, t) => {
        const value = text[state.colour][t];
        span.className = ["token", text.losses[t] === null && "prompt", span.dataset.mark && "unseen-text", value !== null && `s${stepOf(scale, value * unit)}`].filter(Boolean).join(" ");
      });
      const item = (className, words) => { const li = make("li"); li.append(make("span", words, { className })); return li; };
      key.replaceChildren(...steps.map((from, s) => item(`token s${s}`, words(from, steps[s + 1]))), item("token prompt", "no loss (prompt)"));
      about.textContent = state.colour === "losses" ? "A colour for half of the tokens with a loss on this page, then for the next 25, 15, 7 and 3 %." : "Terms are relative to the largest one of this sample.";
    };
    const point = (t) => {
      if (!spans[t]) return;
      box.querySelector(".current")?.classList.remove("current");
      spans[t].classList.add("current");
      const loss = text.losses[t], term = text.terms[t];
      const facts = [
        loss === null ? "no loss" : `loss ${(loss / 100).toFixed(2)} (probability ${number(100 * Math.exp(-loss / 100), 2)} %)`,
        term === null ? "no term" : `term ${number((term / 1000) * text.largest, 3)}, ${number(term / 10, 2)} % of the largest`,
      ];
      shown.textContent = `Token ${t + 1} ${JSON.stringify(text.tokens[t])}: ${facts.join("; ")}`;
    };
    box.addEventListener("pointerover", ({ target }) => point(Number(target.dataset.token)));
    box.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!by) return;
      event.preventDefault();
      const now = spans.findIndex((span) => span.classList.contains("current"));
      point(Math.max(0, Math.min(spans.length - 1, now + by)));
      box.querySelector(".current").scrollIntoView({ block: "nearest" });
    });
    for (const [name, { title }] of Object.entries(SCALES)) {
      const chip = make("label", undefined, { className: "chip" });
      const input = make("input", undefined, { type: "radio", name: "colour", value: name, checked: state.colour === name, onchange: () => { state.colour = name; colour(); } });
      chip.append(input, make("span", title));
      chips.append(chip);
    }
    field.append(make("legend", "Colour by"), chips);
    box.append(...spans);
    colour();
    const cut = text.all > spans.length ? [make("p", `The first ${count(spans.length)} of ${count(text.all)} tokens.`, { className: "hint" })] : [];
    return [make("h3", "Text"), field, key, about, box, shown, ...cut];
  }

  function numbersOf(i) {
    const table = make("table", undefined, { className: "words-1" }), scroll = make("div", undefined, { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "Numbers of this sample" });
    table.append(make("caption"), make("thead"), make("tbody"));
    const rows = index.numbers.map(({ key, title }) => [make("bdi", title), written(key, valueOf(key, i)), Number.isInteger(data.percentiles[key]?.[i]) ? `${data.percentiles[key][i]} %` : "–"]);
    fill(table, "Percentile: the share of the file’s samples with a smaller value, and half of those with the same", ["Number", "Value", "Percentile"], rows);
    scroll.append(table);
    return scroll;
  }

  // Controls ----------------------------------------------------------------------------------------------------------
  $("number").addEventListener("change", () => {
    state.number = $("number").value;
    delete state.ranges.number;
    showRanges();
    update();
  });
  $("ranges").addEventListener("change", () => {
    state.ranges = {};
    for (const range of ["number", "response_tokens", "loss"]) {
      const [from, to] = ["from", "to"].map((end) => $("ranges")[`${range}-${end}`].valueAsNumber);
      if (!Number.isNaN(from) || !Number.isNaN(to)) state.ranges[range] = [Number.isNaN(from) ? -Infinity : from, Number.isNaN(to) ? Infinity : to];
    }
    state.page = 0;
    update();
  });
  $("ranges").addEventListener("reset", () => select({}));
  for (const form of [$("ranges"), $("filter")]) form.addEventListener("submit", (event) => event.preventDefault());
  let typing;
  $("search").addEventListener("input", () => {
    state.page = 0;
    $("explore").setAttribute("aria-busy", "true");
    clearTimeout(typing);
    typing = setTimeout(() => update(false), 150);
  });
  for (const id of ["group", "status"]) $(id)?.addEventListener("change", () => { state.page = 0; update(false); });
  for (const [id, by] of [["previous", -1], ["next", 1]]) $(id).addEventListener("click", () => { state.page += by; showTable(); });
  DARK.addEventListener("change", () => update());
  let resizing;
  addEventListener("resize", () => {
    clearTimeout(resizing);
    if ($("explore").clientWidth !== width) resizing = setTimeout(update, 200);
  });
  showRanges();
  await update();
})();
