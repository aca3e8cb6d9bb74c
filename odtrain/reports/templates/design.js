"use strict";

// ---- elements

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const UNSEEN = /[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]/gu;

// A stranger's text on one line; what would turn or hide it is shown by its number.
const plain = (text) => String(text).replace(UNSEEN, numbered);
function numbered(letter) {
  const code = letter.charCodeAt(0);
  return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
}

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function node(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const name in attributes) made.setAttribute(name, attributes[name]);
  made.append(...children);
  return made;
}

const dot = (colour) => {
  const made = node("svg", { class: "dot", viewBox: "0 0 10 10", "aria-hidden": "true" });
  made.append(node("circle", { cx: 5, cy: 5, r: 4.5, fill: colour }));
  return made;
};

const dataOf = (id) => ($(id) ? JSON.parse($(id).textContent) : null);

// ---- files to take along

function download(name, content, kind) {
  const link = make("a", { href: URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type: kind })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// As odtrain.io.cells writes them: no cell runs in a spreadsheet.
const NUMBER = /^[+-]?\d+(\.\d*)?(e[+-]?\d+)?$/i, RUNS = /^'*[=+\-@]/, PARTED = /;(?=\s*[=+\-@])/;
const CONTROL = /[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]/;
function cell(text) {
  if (NUMBER.test(text)) return text;
  if (CONTROL.test(text) || text.startsWith("'\\") || PARTED.test(text)) {
    const each = new RegExp(`\\\\|${CONTROL.source}|${PARTED.source}`, "g");
    return "'\\" + text.replace(each, (found) => (found === "\\" ? "\\\\" : numbered(found)));
  }
  return RUNS.test(text) ? `'${text}` : text;
}
const quoted = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const csv = (rows) => rows.map((row) => row.map((value) => quoted(cell(String(value)))).join(",") + "\n").join("");

function tableRows(table) {
  const kept = (each) => [...each.cells].filter((one) => !one.hasAttribute("data-drawn")).map((one) => one.dataset.value ?? one.textContent.trim());
  return [...table.rows].map(kept);
}

for (const table of document.querySelectorAll("table[data-csv]")) {
  const button = make("button", { type: "button", className: "small", textContent: "Download CSV" });
  button.setAttribute("aria-label", `Download CSV: ${table.dataset.csv}`);
  button.onclick = () => download(`${table.dataset.csv}.csv`, csv(tableRows(table)), "text/csv");
  table.closest("section").querySelector(".head").append(button);
}

// ---- tables that sort

const sortValue = (each) => {
  const value = each.dataset.value ?? each.textContent.trim();
  return value !== "" && !isNaN(value) ? Number(value) : value;
};

// Buttons in the header sort the rows, which `fill` gives; `first` is the column sorted by, from 0, and whether it rises.
function sortable(table, first = null) {
  let [by, rising] = first ?? [null, true], rows = [...table.tBodies[0].rows];
  const heads = [...table.tHead.rows[0].cells];
  function refresh() {
    heads.forEach((head, i) => (i === by ? head.setAttribute("aria-sort", rising ? "ascending" : "descending") : head.removeAttribute("aria-sort")));
    const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0) * (rising ? 1 : -1);
    const sorted = by === null ? rows : [...rows].sort((a, b) => order(sortValue(a.cells[by]), sortValue(b.cells[by])));
    table.tBodies[0].replaceChildren(...sorted);
  }
  heads.forEach((head, i) => {
    if (head.hasAttribute("data-drawn")) return;
    const button = make("button", { type: "button" }, ...head.childNodes);
    button.onclick = () => { [by, rising] = [i, i === by ? !rising : true]; refresh(); };
    head.replaceChildren(button);
  });
  return { fill(next) { rows = next; refresh(); } };
}
for (const table of document.querySelectorAll("table[data-sortable]")) sortable(table);

// ---- charts

// Round numbers that span low to high, about `most` of them.
function ticks(low, high, most = 6) {
  if (!(high > low)) high = low + (Math.abs(low) || 1);
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((part) => part * power >= rough * 0.999);
  const first = Math.floor(low / step + 1e-9), last = Math.ceil(high / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}
const shown = (value) => value.toLocaleString("en", { maximumFractionDigits: 9 });

// A chart in `svg`, drawn anew when its width changes. `chart()` gives
// {x: {label, low, high}, y: ..., lines: [{colour, points, thick}], marks: [{x, y, low, high, left, right, colour, big, chosen, title, onclick}]}.
function plot(svg, chart) {
  let drawn = 0;
  function refresh() {
    const width = (drawn = Math.max(280, Math.round(svg.clientWidth || 640))), height = Math.round(Math.min(420, Math.max(240, width * 0.5)));
    const { x, y, lines = [], marks: given = [] } = chart(), marks = [...given];
    const left = 46, right = width - 14, top = 26, bottom = height - 42;
    const across = ticks(x.low, x.high, Math.max(3, Math.floor(width / 110))), up = ticks(y.low, y.high, Math.max(3, Math.floor(height / 60)));
    const place = (marked, from, to) => (value) => from + ((to - from) * (value - marked[0])) / (marked.at(-1) - marked[0]);
    const px = place(across, left, right), py = place(up, bottom, top);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.replaceChildren(
      ...up.flatMap((value) => [node("line", { class: "grid", x1: left, x2: right, y1: py(value), y2: py(value) }),
        node("text", { x: left - 7, y: py(value) + 4, "text-anchor": "end" }, shown(value))]),
      ...across.flatMap((value) => [node("line", { class: "grid", x1: px(value), x2: px(value), y1: bottom, y2: bottom + 4 }),
        node("text", { x: px(value), y: bottom + 18, "text-anchor": value === across.at(-1) ? "end" : "middle" }, shown(value))]),
      node("text", { class: "axis", x: (left + right) / 2, y: height - 6, "text-anchor": "middle" }, x.label),
      node("text", { class: "axis", x: 4, y: 13 }, y.label));
    for (const { colour, points, thick } of lines) {
      const path = points.map(([a, b]) => `${px(a).toFixed(1)},${py(b).toFixed(1)}`).join(" ");
      if (points.length === 1) marks.push({ x: points[0][0], y: points[0][1], colour });
      svg.append(node("polyline", { class: thick ? "line thick" : "line", points: path, stroke: colour }));
    }
    for (const { x: a, y: b, low, high, left: l, right: r, colour, big, chosen, title, onclick } of marks) {
      if (low !== undefined) svg.append(node("path", { class: "whisker", stroke: colour, d: `M${px(a) - 3} ${py(low)}h6m-3 0V${py(high)}m-3 0h6`, fill: "none" }));
      if (l !== undefined) svg.append(node("path", { class: "whisker", stroke: colour, d: `M${px(l)} ${py(b) - 3}v6m0-3H${px(r)}m0-3v6`, fill: "none" }));
      const circle = node("circle", { class: chosen ? "file chosen" : "file", cx: px(a), cy: py(b), r: big ? 7 : 5, fill: colour });
      if (title) circle.append(node("title", {}, title));
      if (onclick) circle.onclick = onclick;
      svg.append(circle);
    }
  }
  refresh();
  new ResizeObserver(() => { if (Math.abs(svg.clientWidth - drawn) > 1 && svg.clientWidth) refresh(); }).observe(svg);
  return refresh;
}

const legend = (rows) => make("ul", { className: "legend" }, ...rows.map(([colour, name]) => make("li", {}, dot(colour), name)));

// ---- boxes

function bright(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 122;
}

// Boxes {corners: [left, top, right, bottom] in pixels of the canvas, colour, text, dashed}; the first ones lie on top.
function paint(context, boxes, perPixel) {
  const line = Math.max(1, 2.5 * perPixel), size = Math.max(10, 13 * perPixel);
  for (const box of boxes.slice().reverse()) frame(context, box, line);
  Object.assign(context, { font: `600 ${size}px system-ui, sans-serif`, textBaseline: "middle" });
  for (const each of tags(context, boxes, size).reverse()) tag(context, each, size);
}

// A place for each text, where it hides no earlier one if there is such a place at its box.
function tags(context, boxes, size) {
  const { width: across, height: down } = context.canvas, height = size * 1.35, taken = [];
  for (const { corners: [left, top, right, bottom], colour, text } of boxes) {
    if (!text) continue;
    const width = context.measureText(text).width + size * 0.6;
    const places = [top - height, bottom, top, bottom - height].flatMap((y) => [left, right - width].map((x) => (
      { x: Math.max(0, Math.min(x, across - width)), y, width, height, colour, text })));
    const inside = places.filter(({ y }) => y >= 0 && y + height <= down);
    const free = ({ x, y }) => !taken.some((one) => x < one.x + one.width && one.x < x + width && y < one.y + one.height && one.y < y + height);
    taken.push(inside.find(free) ?? inside[0] ?? { ...places[0], y: 0 });
  }
  return taken;
}

function frame(context, { corners: [left, top, right, bottom], colour, dashed }, line) {
  for (const [width, style] of [[line + 2, "rgb(20 20 22 / .75)"], [line, colour]]) {
    context.setLineDash(dashed && style === colour ? [3 * line, 3 * line] : []);
    Object.assign(context, { lineWidth: width, strokeStyle: style });
    context.strokeRect(left, top, right - left, bottom - top);
  }
  context.setLineDash([]);
}

function tag(context, { x, y, width, height, colour, text }, size) {
  context.fillStyle = colour;
  context.fillRect(x, y, width, height);
  context.fillStyle = bright(colour) ? "#161618" : "#fff";
  context.fillText(text, x + size * 0.3, y + height / 2);
}

const cornersOn = ([top, left, bottom, right], width, height) => [left * width, top * height, right * width, bottom * height];

// ---- which boxes are shown

const MANY_CLASSES = 13;

// Chips in `place`, one a class; `change()` is called when one is pressed. `names()` gives [id, name] of those there are.
function classFilter(place, names, colourOf, change, empty = "No class of that name.") {
  const hidden = new Set(), cells = new Map(), list = make("div", { className: "classes" });
  const search = make("input", { type: "search", placeholder: "search a class", hidden: true });
  search.setAttribute("aria-label", "Search a class");
  const both = ["all", "none"].map((which) => {
    const button = make("button", { type: "button", className: "small", textContent: which });
    button.id = which;
    button.setAttribute("aria-label", which === "all" ? "all classes" : "none of the classes");
    button.onclick = () => { hidden.clear(); if (which === "none") for (const [id] of names()) hidden.add(id); refresh(); change(); };
    return button;
  });
  function refresh() {
    const wanted = search.value.trim().toLowerCase(), known = names();
    search.hidden = known.length < MANY_CLASSES;
    cells.clear();
    const chips = known.filter(([, name]) => name.toLowerCase().includes(wanted)).map(([id, name]) => {
      const box = make("input", { type: "checkbox", checked: !hidden.has(id) }), number = make("b");
      box.onchange = () => { if (box.checked) hidden.delete(id); else hidden.add(id); change(); };
      cells.set(id, number);
      return make("label", { className: "chip", title: name }, box, dot(colourOf(id)), make("span", {}, name), number);
    });
    list.replaceChildren(...(chips.length ? chips : [make("span", { className: "dim", textContent: wanted ? "No class of that name." : empty })]));
  }
  search.oninput = refresh;
  place.setAttribute("role", "group");
  place.setAttribute("aria-label", "Classes that are shown");
  place.replaceChildren(...both, search, list);
  list.className = "classes list";
  refresh();
  return { hidden, refresh, count: (numbers) => { for (const [id, each] of cells) each.textContent = numbers.get(id) || ""; } };
}

function counted(ids) {
  const numbers = new Map();
  for (const id of ids) numbers.set(id, (numbers.get(id) || 0) + 1);
  return numbers;
}

function setScore(value) {
  $("threshold").value = value;
  $("score").textContent = Number($("threshold").value).toFixed(2);
}

// ---- pictures whose boxes answer to a filter

// Every [data-shot] holds an <img> below a <canvas>; `shots` has what is drawn:
// {boxes, scores, classes, right, labels: {boxes, classes, scores of what found them}}.
function gallery({ shots, names, colours }) {
  const colourOf = (id) => colours[(id - 1) % colours.length], nameOf = (id) => plain(names[id - 1] ?? `class ${id}`);
  const figures = [...document.querySelectorAll("[data-shot]")].map((figure) => ({
    figure, shot: shots[figure.dataset.shot], image: figure.querySelector("img"), canvas: figure.querySelector("canvas"),
  }));
  const ids = [...new Set(shots.flatMap((shot) => [...shot.classes, ...shot.labels.classes]))].sort((a, b) => a - b);
  const filter = classFilter($("classes"), () => ids.map((id) => [id, nameOf(id)]), colourOf, refresh);
  const least = () => Number($("threshold").value);

  function boxesOf(shot, width, height) {
    const seen = (i) => shot.scores[i] >= least() && !filter.hidden.has(shot.classes[i]);
    const found = shot.boxes.flatMap((box, i) => (seen(i) ? [{
      corners: cornersOn(box, width, height), colour: colourOf(shot.classes[i]),
      text: `${shot.right[i] ? "" : "✗ "}${nameOf(shot.classes[i])} ${shot.scores[i].toFixed(2)}`,
    }] : []));
    const { boxes, classes, scores } = shot.labels;
    const labels = $("labels").checked ? boxes.flatMap((box, i) => (filter.hidden.has(classes[i]) ? [] : [{
      corners: cornersOn(box, width, height), colour: "#ffffff", dashed: true, text: scores[i] >= least() ? "" : `missed: ${nameOf(classes[i])}`,
    }])) : [];
    return [...found, ...labels];
  }

  function counts(shot) {
    const above = shot.scores.map((_, i) => i).filter((i) => shot.scores[i] >= least() && !filter.hidden.has(shot.classes[i]));
    const right = above.filter((i) => shot.right[i]).length;
    const missed = shot.labels.scores.filter((score, i) => !(score >= least()) && !filter.hidden.has(shot.labels.classes[i])).length;
    return `${right} found, ${missed} missed, ${above.length - right} wrong`;
  }

  function show({ shot, image, canvas }, perPixel = 0.85) {
    const width = image.clientWidth, height = image.clientHeight, sharp = devicePixelRatio || 1;
    if (!width) return;
    Object.assign(canvas, { width: Math.round(width * sharp), height: Math.round(height * sharp) });
    paint(canvas.getContext("2d"), boxesOf(shot, canvas.width, canvas.height), perPixel * sharp);
  }

  function refresh() {
    for (const each of figures) {
      show(each);
      each.figure.querySelector("[data-count]").textContent = counts(each.shot);
    }
    filter.count(counted(figures.flatMap(({ shot }) => shot.classes.filter((_, i) => shot.scores[i] >= least()))));
  }

  const open = viewer(figures, show);
  figures.forEach((each, i) => {
    const ratio = each.image.width / each.image.height;         // so that the pictures of a row are equally high
    Object.assign(each.figure.style, { flex: `${ratio} 1 ${Math.min(30, 15 * ratio)}rem`, maxWidth: `min(100%, ${Math.max(14, (each.figure.closest(".two") ? 28 : 20) * ratio)}rem)` });
    each.image.addEventListener("load", () => show(each));
    each.figure.querySelector("button").onclick = () => open(i);
  });
  $("threshold").addEventListener("input", () => { setScore($("threshold").value); refresh(); });
  $("labels").addEventListener("change", refresh);
  addEventListener("resize", refresh);
  refresh();
}

// Shows one picture on the whole screen; arrows go on, Escape closes.
function viewer(figures, show) {
  const image = make("img"), canvas = make("canvas"), said = make("p");
  const step = (by, name) => make("button", { type: "button", textContent: name, onclick: () => turn(at + by) });
  const close = make("button", { type: "button", className: "main", textContent: "Close", onclick: () => dialog.close() });
  const stack = make("div", { className: "stack" }, image, canvas);
  const dialog = make("dialog", {}, make("div", { className: "frame" }, stack),
    make("div", { className: "bar" }, said, make("div", { className: "row" }, step(-1, "Previous"), step(1, "Next"), close)));
  let at = 0;
  dialog.setAttribute("aria-label", "A picture with its boxes");
  const redraw = () => show({ shot: figures[at].shot, image, canvas }, 1.1);
  function turn(to) {
    at = (to + figures.length) % figures.length;
    const { figure, image: small } = figures[at];
    Object.assign(image, { src: small.src, alt: small.alt });
    image.style.width = `min(100vw - 1rem, (100vh - 5.5rem) * ${small.width / small.height})`;
    said.textContent = figure.querySelector("figcaption").textContent.trim();
    image.decode().then(redraw, () => {});
  }
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") turn(at + (event.key === "ArrowLeft" ? -1 : 1));
  });
  addEventListener("resize", () => dialog.open && redraw());
  document.body.append(dialog);
  return (i) => { dialog.showModal(); turn(i); };
}
