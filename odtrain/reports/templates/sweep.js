
// ---- the front of a sweep

const sweep = dataOf("data"), keys = sweep.columns.map(([key]) => key), words = Object.fromEntries(sweep.columns);
const files = sweep.rows.map((values, id) => ({ id, ...Object.fromEntries(keys.map((key, i) => [key, values[i]])) }));
const formats = [...new Set(files.map((row) => row.file))].sort(), without = new Set();
const colourOf = (name) => `var(--s${1 + (formats.indexOf(name) % 6)})`;
const RELATION = /^(\w+)(<=|>=|<|>)([\d.]+)$/;
let chosen = null;

function matches(row) {
  if (without.has(row.file) || ($("alone").checked && !row.front)) return false;
  return $("words").value.split(/\s+/).filter(Boolean).every((word) => {
    const [, key, sign, limit] = word.match(RELATION) ?? [];
    if (!key) return JSON.stringify(Object.values(row)).toLowerCase().includes(word.toLowerCase());
    const value = row[key], than = Number(limit);
    return typeof value === "number" && { "<": value < than, ">": value > than, "<=": value <= than, ">=": value >= than }[sign];
  });
}

function choose(id, scroll) {
  chosen = chosen === id ? null : id;
  refresh();
  const line = document.querySelector("tr.chosen");
  if (scroll && line) line.scrollIntoView({ block: "center" });
}

function rowOf(row) {
  const cells = keys.filter((key) => key !== "mAP_hi").map((key) => {
    const value = row[key] ?? "", made = make("td", { textContent: typeof value === "number" && key !== "trial" ? value.toFixed(key.startsWith("mAP") ? 3 : 2) : value });
    if (typeof value !== "number" && key !== "mAP_lo") made.className = "text";
    if (key === "file") made.prepend(dot(colourOf(value)));
    if (key === "mAP_lo" && value !== "") made.textContent = ends(row, "mAP").map((end) => end.toFixed(3)).join(" to ");
    if (key === "trial") made.replaceChildren(make("button", { type: "button", className: "small", textContent: value, onclick: () => choose(row.id, false) }));
    return made;
  });
  row.line = make("tr", {}, ...cells);
}

const isNumber = (key) => typeof files[0][key] === "number" && key !== "trial" && files.every((row) => typeof row[key] === "number");

// Ends of the interval of a number, where it has one.
const ends = (row, key) => (row[`${key}_lo`] === undefined || row[`${key}_lo`] === null ? [] : [row[`${key}_lo`], row[`${key}_hi`]]);

function chart() {
  const across = $("x").value, up = $("y").value, rows = files.filter(matches);
  const axis = (key) => {
    const values = rows.flatMap((row) => [row[key], ...ends(row, key)]);
    return { label: words[key], low: Math.min(...values), high: Math.max(...values) };
  };
  const marks = rows.map((row) => {
    const [low, high] = ends(row, up), [left, right] = ends(row, across);
    const title = `trial ${row.trial}, ${row.file}: mAP ${row.mAP.toFixed(3)}, ${row.latency_ms_p50.toFixed(2)} ms, ${row.size_mb.toFixed(2)} MB\n${row.chosen}`;
    return { x: row[across], y: row[up], low, high, left, right, title, colour: colourOf(row.file),
      big: row.front, chosen: row.id === chosen, onclick: () => choose(row.id, true) };
  });
  const front = rows.filter((row) => row.front).sort((a, b) => a.latency_ms_p50 - b.latency_ms_p50);
  const joined = across === "latency_ms_p50" && up === "mAP" ? [{ colour: "var(--edge)", points: front.map((row) => [row.latency_ms_p50, row.mAP]) }] : [];
  return { x: axis(across), y: axis(up), lines: front.length > 1 ? joined : [], marks };
}

let redraw = () => {}, table = null;
function refresh() {
  const rows = files.filter(matches);
  for (const row of rows) row.line.className = `${row.front ? "front" : ""}${row.id === chosen ? " chosen" : ""}`;
  table.fill(rows.map((row) => row.line));
  $("plot").toggleAttribute("hidden", !rows.length);
  $("nothing").hidden = rows.length > 0;
  if (rows.length) redraw();
  $("count").textContent = `${rows.length} of ${files.length} files`;
}

if (files.length) {
  files.forEach(rowOf);
  for (const [id, first] of [["x", "latency_ms_p50"], ["y", "mAP"]]) {
    for (const key of keys.filter(isNumber)) $(id).add(new Option(words[key], key, key === first, key === first));
    $(id).onchange = refresh;
  }
  for (const name of formats) {
    const box = make("input", { type: "checkbox", checked: true });
    box.onchange = () => { if (box.checked) without.delete(name); else without.add(name); refresh(); };
    $("formats").append(make("label", { className: "chip" }, box, dot(colourOf(name)), make("span", {}, name)));
  }
  table = sortable($("files"), [keys.indexOf("mAP"), false]);
  $("words").oninput = $("alone").onchange = refresh;
  redraw = plot($("plot"), chart);
  refresh();
}
