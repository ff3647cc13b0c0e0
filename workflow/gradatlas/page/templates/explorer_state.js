// The explorer's state as an address, #explorer?datasets=...; and tables as CSV files.
const PREFIX = "#explorer?", CHOSEN = ["datasets", "models", "variants", "relations", "projections"];

// state: places chosen of each list, `metrics` with one, `panel` as {d, m, p} or null, `layers` and `values` or null.
function toAddress(lists, state) {
  const parts = new URLSearchParams();
  for (const name of [...CHOSEN, "metrics"]) for (const place of state[name]) parts.append(name, lists[name][place].key);
  if (state.panel) for (const [name, part] of [["datasets", "d"], ["models", "m"], ["projections", "p"]]) parts.append("panel", lists[name][state.panel[part]].key);
  for (const name of ["layers", "values"]) for (const end of state[name] ?? []) parts.append(name, end);
  return PREFIX + parts;
}
// What an address says; null where it is of no explorer. What this page does not have is left out.
function fromAddress(lists, hash) {
  if (!hash.startsWith(PREFIX)) return null;
  const parts = new URLSearchParams(hash.slice(PREFIX.length)), state = {};
  const placeOf = (name, key) => lists[name].findIndex((item) => item.key === key);
  for (const name of [...CHOSEN, "metrics"]) state[name] = parts.getAll(name).map((key) => placeOf(name, key)).filter((place) => place >= 0);
  const keys = parts.getAll("panel"), [d, m, p] = ["datasets", "models", "projections"].map((name, i) => placeOf(name, keys[i]));
  state.panel = d >= 0 && m >= 0 && p >= 0 ? { d, m, p } : null;
  for (const name of ["layers", "values"]) {
    const ends = parts.getAll(name).map(Number);
    state[name] = ends.length === 2 && ends.every(Number.isFinite) ? ends : null;
  }
  return state;
}

function download(name, header, rows) {
  const cell = (value) => (/[",\n\r]/.test(value ?? "") ? `"${value.replaceAll('"', '""')}"` : (value ?? ""));
  const text = [header, ...rows].map((row) => row.map(cell).join(",")).join("\n") + "\n";
  const link = make("a", undefined, { download: name, href: URL.createObjectURL(new Blob([text], { type: "text/csv" })) });
  link.click();
  URL.revokeObjectURL(link.href);
}
