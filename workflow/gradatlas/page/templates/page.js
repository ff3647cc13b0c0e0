// Shared by the scripts: elements by id, new elements that hold only text, and the dialog.
const $ = (id) => document.getElementById(id);
function make(tag, text, attributes = {}) {
  const element = Object.assign(document.createElement(tag), attributes);
  if (text !== undefined) element.textContent = text;
  return element;
}
function show(title, ...content) {
  $("detail-title").textContent = title;
  $("detail-body").replaceChildren(...content);
  if (!$("detail").open) $("detail").showModal();
  $("detail").scrollTop = 0;
}
// A click beside the dialog closes it, as Escape does.
$("detail").addEventListener("click", (event) => { if (event.target === $("detail")) $("detail").close(); });

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
let loading;
const library = () => (loading ??= textOf("vega").then((text) => document.head.append(make("script", text))));

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
const count = (value) => (value === null ? "–" : value.toLocaleString("en"));

function fill(table, caption, header, rows) {
  table.caption.textContent = caption;
  const line = (tag, cells) => {
    const row = make("tr");
    for (const cell of cells) {
      const made = make(tag, undefined, tag === "th" ? { scope: "col" } : {});
      made.append(cell);
      row.append(made);
    }
    return row;
  };
  table.tHead.replaceChildren(line("th", header));
  table.tBodies[0].replaceChildren(...rows.map((row) => line("td", row)));
}
function button(text, ariaLabel, onclick) {
  return make("button", text, { type: "button", ariaLabel, onclick });
}

// A verdict with the numbers of its row in the table, as a dialog.
for (const link of document.querySelectorAll("a.verdict")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const row = $(link.hash.slice(1)), names = row.closest("table").tHead.rows[0].cells, facts = make("dl");
    const claim = link.closest("tr").cells[0];
    const pairs = [...row.cells].map((cell, i) => [names[i].textContent, cell.textContent]);
    for (const [name, text] of [...pairs, ["Source", claim.dataset.source]])
      if (text && text !== "–") facts.append(make("dt", name), make("dd", text));
    facts.className = "facts";
    show(claim.firstChild.textContent, facts);
  });
}

// The filters of the figures. The style sheet hides a model or dataset of which every part is hidden.
if ($("filters")) {
  const form = $("filters"), count = form.querySelector("output");
  const parts = [...document.querySelectorAll("#gallery .model > :is(figure, details, p)")];
  const figures = parts.filter((part) => part.tagName === "FIGURE");
  function apply() {
    const chosen = [...new FormData(form)].filter(([, value]) => value);
    for (const part of parts)
      part.hidden = chosen.some(([key, value]) => (part.closest(`[data-${key}]`)?.dataset[key] ?? value) !== value);
    const shown = figures.filter((figure) => !figure.hidden).length;
    count.textContent = shown === figures.length ? `${shown} figures` : `${shown} of ${figures.length} figures`;
    $("nothing").hidden = shown > 0;
  }
  form.addEventListener("change", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  // A link to a dataset that is filtered out shows it again.
  addEventListener("hashchange", () => {
    const target = $(location.hash.slice(1));
    if (target && !target.checkVisibility()) { form.reset(); setTimeout(() => target.scrollIntoView()); }
  });
  apply();
}
