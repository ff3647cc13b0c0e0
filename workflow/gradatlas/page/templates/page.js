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
      // On a narrow screen a row is a card, and this names its lines.
      if (tag === "td") made.dataset.label = header[row.cells.length];
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
