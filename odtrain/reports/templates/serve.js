"use strict";

const $ = (id) => document.getElementById(id);
const LOWEST = 0.05;                        // scores below it are not asked for; the slider begins there

const SHARP = 960;                          // canvas pixels across, at least

let about = null;
let shot = null;                            // {image, name, boxes, scores, classes, class_names, model_ms}
let turn = 0;                               // counts pictures: the answer to an older one is not shown

async function start() {
  about = await (await fetch("about")).json();
  $("source").textContent = about.source.split(/[\\/]/).pop();
  $("source").title = about.source;
  setThreshold(about.threshold);
  $("example").textContent =
    `curl --data-binary @picture.jpg "${location.origin}/detect?threshold=${about.threshold}"`;
}

async function look(file) {
  if (!file) return;
  const mine = ++turn;
  tell("");
  $("facts").textContent = "Looking…";
  try {
    if (file.size > about.max_megabytes * 1e6) throw new Error(`The picture is larger than ${about.max_megabytes} MB.`);
    const body = await file.arrayBuffer().catch(() => {
      throw new Error(`${file.name} cannot be read: drop a picture, not a folder.`);
    });
    const answer = await fetch(`detect?threshold=${LOWEST}`, { method: "POST", body });
    const said = await answer.json();
    if (!answer.ok) throw new Error(said.message);
    const image = await createImageBitmap(file, { imageOrientation: "from-image" });
    if (mine !== turn) return image.close();
    shot = { ...said, image, name: file.name || "the picture" };
    document.body.classList.add("full");
    show();
  } catch (error) {
    if (mine !== turn) return;
    $("facts").textContent = "";
    tell(error instanceof TypeError ? "The server does not answer. Is odtrain serve still running?" : error.message);
  }
}

function tell(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

function setThreshold(value) {
  $("threshold").value = value;
  $("score").textContent = Number($("threshold").value).toFixed(2);
}

const colourOf = (id) => about.colours[(id - 1) % about.colours.length];

function shown() {
  return shot.scores.map((_, i) => i).filter((i) => shot.scores[i] >= Number($("threshold").value));
}

function show() {
  if (!shot) return;
  const canvas = $("view"), context = canvas.getContext("2d");
  const scale = Math.max(1, SHARP / shot.width);            // names on a small picture stay readable
  const width = Math.round(shot.width * scale), height = Math.round(shot.height * scale);
  Object.assign(canvas, { width, height });
  context.drawImage(shot.image, 0, 0, width, height);
  const perPixel = width / (canvas.clientWidth || width);
  const indices = shown();
  for (const i of indices.slice().reverse()) drawBox(context, corners(i, width, height), i, 14 * perPixel, 2.5 * perPixel);
  list(indices);
}

function corners(i, width, height) {
  const [top, left, bottom, right] = shot.boxes[i];
  return [left * width, top * height, right * width, bottom * height];
}

function drawBox(context, [left, top, right, bottom], i, size, line) {
  const colour = colourOf(shot.classes[i]);
  for (const [width, style] of [[line + 2, "rgb(20 20 22 / .7)"], [line, colour]]) {
    Object.assign(context, { lineWidth: width, strokeStyle: style });
    context.strokeRect(left, top, right - left, bottom - top);
  }
  const text = `${shot.class_names[i]} ${shot.scores[i].toFixed(2)}`;
  Object.assign(context, { font: `600 ${size}px system-ui, sans-serif`, textBaseline: "middle", fillStyle: colour });
  const width = context.measureText(text).width + size * 0.6, height = size * 1.35;
  const x = Math.max(0, Math.min(left, context.canvas.width - width)), y = top >= height ? top - height : top;
  context.fillRect(x, y, width, height);
  context.fillStyle = bright(colour) ? "#161618" : "#fff";
  context.fillText(text, x + size * 0.3, y + height / 2);
}

function bright(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 122;
}

function list(indices) {
  $("facts").textContent =
    `${indices.length} found in ${shot.name}, ${shot.width} × ${shot.height}, in ${shot.model_ms.toFixed(1)} ms`;
  const rows = indices.map((i) => {
    const row = document.createElement("tr"), name = document.createElement("td"), dot = document.createElement("i");
    dot.style.background = colourOf(shot.classes[i]);
    name.append(dot, shot.class_names[i]);
    row.append(name);
    for (const text of [shot.scores[i].toFixed(2), ...corners(i, shot.width, shot.height).map((v) => v.toFixed(0))]) {
      row.append(Object.assign(document.createElement("td"), { textContent: text }));
    }
    return row;
  });
  $("found").tBodies[0].replaceChildren(...rows);
  $("found").hidden = !rows.length;
}

$("threshold").addEventListener("input", () => { setThreshold($("threshold").value); show(); });
$("file").addEventListener("change", () => { look($("file").files[0]); $("file").value = ""; });
for (const name of ["dragover", "dragenter"]) {
  addEventListener(name, (event) => { event.preventDefault(); document.body.classList.add("over"); });
}
addEventListener("dragleave", () => document.body.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  look(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => look([...event.clipboardData.files].find((file) => file.type.startsWith("image/"))));
addEventListener("resize", show);
start().catch(() => tell("The server does not answer. Is odtrain serve still running?"));
