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
  $("detail").showModal();
  $("detail").scrollTop = 0;
}
// A click beside the dialog closes it, as Escape does.
$("detail").addEventListener("click", (event) => { if (event.target === $("detail")) $("detail").close(); });

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
