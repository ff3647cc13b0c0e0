// The figures: a thumbnail opens its picture with caption and files; the filters narrow what is listed.
for (const link of document.querySelectorAll("a.thumbnail")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const image = link.firstElementChild.cloneNode(), about = link.parentElement.querySelector(".about").cloneNode(true);
    image.loading = "eager";
    show(image.alt, image, about);
  });
}
if ($("filters")) {
  const form = $("filters"), count = form.querySelector("output"), groups = [...document.querySelectorAll("#gallery > details")];
  const figures = groups.flatMap((group) => [...group.querySelectorAll("figure")]);
  // Without a choice the first group is open; with one, every group that has a figure of it.
  function apply() {
    const chosen = [...new FormData(form)].filter(([, value]) => value);
    for (const figure of figures)
      figure.hidden = chosen.some(([key, value]) => (figure.dataset[key] ?? figure.closest("details").dataset[key]) !== value);
    groups.forEach((group, place) => {
      group.hidden = !group.querySelector("figure:not([hidden])");
      group.open = chosen.length > 0 || place === 0;
    });
    const shown = figures.filter((figure) => !figure.hidden).length;
    count.textContent = shown === figures.length ? `${shown} figures` : `${shown} of ${figures.length} figures`;
    $("nothing").hidden = shown > 0;
  }
  form.addEventListener("change", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  apply();
}
