// One sample: its numbers by set of responses, and the texts of two sets with the words in which they differ.

// The words of two texts, each with whether the other text has it too, by the longest common subsequence.
function differences(one, other) {
  const [a, b] = [one, other].map((text) => text.match(/\s+|[^\s]+/g) ?? []);
  const longest = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      longest[i][j] = a[i] === b[j] ? longest[i + 1][j + 1] + 1 : Math.max(longest[i + 1][j], longest[i][j + 1]);
  const sides = [[], []];
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      sides[0].push([a[i++], true]);
      sides[1].push([b[j++], true]);
    } else if (j === b.length || (i < a.length && longest[i + 1][j] >= longest[i][j + 1])) sides[0].push([a[i++], false]);
    else sides[1].push([b[j++], false]);
  }
  return sides;
}
function marked(words, tag) {
  const quote = make("blockquote", undefined, { dir: "auto" });
  for (const [word, common] of words) quote.append(common || !word.trim() ? word : make(tag, word));
  return quote;
}

// sets: of a sample, each with key, name, text (or none) and facts, numbers as shown by name; the two compared at first.
function sampleBody(about, sets, missing) {
  const table = make("table", undefined, { className: "cards words-1" }), box = make("div", undefined, { className: "scroll" });
  table.append(make("caption"), make("thead"), make("tbody"));
  const names = [...new Set(sets.flatMap(({ facts }) => Object.keys(facts)))];
  fill(table, about, ["Responses", ...names.map(capital)], sets.map(({ name, facts }) => [name, ...names.map((each) => facts[each])]));
  box.append(table);
  const readable = sets.filter(({ text }) => text);
  if (!readable.length) return [box, make("p", missing, { className: "note" })];
  const parts = [], pair = make("div", undefined, { className: "pair" });
  const instruction = make("blockquote", undefined, { dir: "auto" });
  const selects = [0, Math.min(1, readable.length - 1)].map((at, side) => {
    const select = make("select", undefined, { id: side ? "text-b" : "text-a" });
    select.append(...readable.map(({ name }, i) => make("option", name, { value: i, selected: i === at })));
    select.addEventListener("change", compare);
    return select;
  });
  function compare() {
    const [a, b] = selects.map((select) => readable[select.value]);
    instruction.textContent = a.instruction;
    const sides = a === b ? [[[a.text, true]], [[b.text, true]]] : differences(a.text, b.text);
    pair.replaceChildren(...sides.map((words, side) => {
      const column = make("div"), name = make("label", side ? "compared with " : "Response ", { className: "field" });
      name.append(selects[side]);
      column.append(name, marked(words, side ? "ins" : "del"));
      return column;
    }));
  }
  compare();
  parts.push(make("h3", "Instruction"), instruction, make("h3", "Responses, and the words in which they differ"), pair, make("h3", "Numbers"), box);
  return parts;
}
