// The numbers of a claim, filled in when it is opened: what all its tests share as a list, the rest as a table.
async function fillClaim(claim) {
  const place = claim.querySelector(".numbers");
  if (!claim.open || place.hasChildNodes()) return;
  const { header, rows } = await piece("claims"), own = rows[claim.dataset.claim];
  const differ = header.map((_, column) => own.length > 1 && own.some((row) => row[column] !== own[0][column]));
  const facts = make("dl", undefined, { className: "facts" });
  header.forEach((name, column) => {
    if (!differ[column] && own[0][column]) facts.append(make("dt", name), make("dd", own[0][column]));
  });
  const kept = (row) => row.filter((_, column) => differ[column]);
  const box = make("div", undefined, { className: "scroll" }), table = make("table", undefined, { className: "cards words-all" });
  table.append(make("caption"), make("thead"), make("tbody"));
  fill(table, own.length === 1 ? "One test" : `${own.length} tests`, kept(header), own.map(kept).map((row) => row.map((cell) => cell || "–")));
  box.append(table);
  place.replaceChildren(facts, ...(own.length > 1 ? [box] : []));
}
for (const claim of document.querySelectorAll("details.claim")) claim.addEventListener("toggle", () => fillClaim(claim));
// A link to a claim opens it, and the study that it is in.
function openClaim() {
  const claim = location.hash.startsWith("#claim-") && $(decodeURIComponent(location.hash.slice(1)));
  if (!claim) return;
  for (let part = claim; part; part = part.parentElement?.closest("details")) part.open = true;
  claim.scrollIntoView();
}
addEventListener("hashchange", openClaim);
openClaim();
