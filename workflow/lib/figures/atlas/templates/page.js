// What the scripts share: elements by id, new elements with text alone in them, and the dialog.
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
    const claim = link.closest("tr").cells[0], { source } = claim.dataset;
    const told = [...row.cells].map((cell, i) => [names[i].textContent, cell.textContent]);
    for (const [name, text] of [...told, ["Source", source]])
      if (text && text !== "–") facts.append(make("dt", name), make("dd", text));
    facts.className = "facts";
    show(claim.firstChild.textContent, facts);
  });
}

// The filters of the figures.
(() => {
  const form = $("filters");
  if (!form) return;
  const count = form.querySelector("output");
  const figures = [...document.querySelectorAll("#gallery figure")];
  const choice = () => Object.fromEntries(new FormData(form));
  const fits = (element, wanted, keys) => keys.every((key) => !wanted[key] || element.dataset[key] === wanted[key]);
  function apply() {
    const wanted = choice();
    for (const section of document.querySelectorAll("section[data-dataset]")) {
      let any = false;
      for (const model of section.querySelectorAll("[data-model]")) {
        for (const part of model.querySelectorAll("figure")) part.hidden = !fits(part, wanted, ["relation", "kind"]);
        for (const part of model.querySelectorAll("details")) part.hidden = !fits(part, wanted, ["relation"]);
        const shown = [...model.querySelectorAll("figure, details")].some((part) => !part.hidden);
        model.hidden = !fits(model, wanted, ["model"]) || !(shown || !model.querySelector("figure, details"));
        any ||= !model.hidden;
      }
      section.hidden = !any || !fits(section, wanted, ["dataset"]);
    }
    const seen = figures.filter((figure) => !figure.closest("[hidden]")).length;
    count.textContent = seen === figures.length ? `${seen} figures` : `${seen} of ${figures.length} figures`;
    $("nothing").hidden = seen > 0;
  }
  form.addEventListener("change", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  // A link to a dataset that is filtered away shows it.
  addEventListener("hashchange", () => {
    const target = $(location.hash.slice(1));
    if (target?.closest("[hidden]")) { form.reset(); setTimeout(() => target.scrollIntoView()); }
  });
  apply();
})();
