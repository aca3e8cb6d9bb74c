"use strict";

const $ = (id) => document.getElementById(id);
const HERE = "here", BROWSER = "browser";   // the camera of the server, or the one of this browser
const SENT_SIDE = 640;                      // longest side, in pixels, of a frame sent to be looked at
const LENGTH_BYTES = 4;

let about = null;
let ownThresholds = {};                     // class id -> score; until the slider is moved
const hidden = new Set();                   // class ids that are not shown
const seen = new Map();                     // class id -> how many are on the frame shown
let shot = null;                            // {image, picture, boxes, scores, classes}
let frozen = false;
let turn = 0;                               // counts changes of the camera: an older loop ends
const shownAt = [];

// ---- frames

async function start() {
  about = await (await fetch("about")).json();
  document.title = `odtrain webcam – ${lastPart(about.source)}`;
  $("source").textContent = lastPart(about.source);
  $("source").title = about.source;
  $("threshold").min = about.lowest;
  setThreshold(about.threshold);
  ownThresholds = about.by_class;
  $("own").hidden = Object.keys(ownThresholds).length === 0;
  if (about.camera) $("camera").append(new Option(`${lastPart(about.camera)} (of the server)`, HERE));
  $("camera").append(new Option("this browser's camera", BROWSER));
  $("search").hidden = about.classes.length < 13;
  listClasses();
  run();
}

const lastPart = (path) => path.split(/[\\/]/).pop();

async function run() {
  const mine = ++turn;
  shot = null;
  if (frozen) toggleFreeze();
  say("Waiting for the first frame…");
  const loop = $("camera").value === HERE ? watchServer : watchBrowser;
  try {
    await loop(() => mine === turn);
  } catch (error) {
    if (mine !== turn) return;
    say(error.message || String(error));
    $("again").hidden = false;
  }
}

async function watchServer(current) {
  let number = 0;
  while (current()) {
    if (frozen || document.hidden) { await pause(100); continue; }
    try {
      const answer = await fetch(`frame?after=${number}`);
      const begun = performance.now();
      if (!answer.ok) throw new Error((await answer.json()).message);
      const { head, picture } = split(await answer.arrayBuffer());
      number = head.number;
      const image = await createImageBitmap(picture);
      if (!current() || frozen) { image.close(); continue; }
      show({ ...head, image, picture });
      measure(head.model_ms, head.age_ms + performance.now() - begun);
    } catch (error) {
      if (!current()) return;
      say(error instanceof TypeError ? "The server does not answer. Is odtrain webcam still running?" : error.message);
      shownAt.length = 0;
      await pause(1000);
    }
  }
}

async function watchBrowser(current) {
  if (!navigator.mediaDevices) {
    throw new Error("Browsers give a page their camera only at http://127.0.0.1 or http://localhost.");
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia(
      { video: { facingMode: "environment", width: { ideal: 1280 } }, audio: false });
  } catch (error) {
    throw new Error(`The browser's camera cannot be used: ${error.message}. Is it plugged in, free, and allowed to this page?`);
  }
  const track = stream.getVideoTracks()[0];
  const video = Object.assign(document.createElement("video"), { srcObject: stream, muted: true, playsInline: true });
  try {
    await video.play();
    while (current()) {
      if (track.readyState === "ended") throw new Error("The camera was unplugged.");
      if (frozen || document.hidden) { await pause(100); continue; }
      await lookAt(video, current);
    }
  } finally {
    track.stop();
  }
}

async function lookAt(video, current) {
  const begun = performance.now();
  const image = await createImageBitmap(video);
  const scale = Math.min(1, SENT_SIDE / Math.max(image.width, image.height));
  const sent = await encode(image, Math.round(image.width * scale), Math.round(image.height * scale), 0.85);
  let found;
  try {
    const answer = await fetch("detect", { method: "POST", body: sent });
    found = await answer.json();
    if (!answer.ok) throw new Error(found.message);
  } catch (error) {
    image.close();
    if (current()) say(error instanceof TypeError ? "The server does not answer. Is odtrain webcam still running?" : error.message);
    return pause(1000);
  }
  if (!current() || frozen) return image.close();
  show({ ...found, image, picture: null });
  measure(found.model_ms, performance.now() - begun);
}

function split(buffer) {
  const length = new DataView(buffer).getUint32(0);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, LENGTH_BYTES, length)));
  return { head, picture: new Blob([new Uint8Array(buffer, LENGTH_BYTES + length)], { type: "image/jpeg" }) };
}

function encode(image, width, height, quality) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d").drawImage(image, 0, 0, width, height);
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("The frame cannot be encoded."))), "image/jpeg", quality));
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// ---- what is shown

function show(next) {
  if (shot) shot.image.close();
  shot = next;
  say("");
  draw();
}

function say(text) {
  $("said").textContent = text;
  $("message").hidden = !text;
  $("again").hidden = true;
  $("save").disabled = !shot;
}

function measure(modelMs, latencyMs) {
  const now = performance.now();
  shownAt.push(now);
  while (shownAt[0] < now - 2000) shownAt.shift();
  const seconds = (now - shownAt[0]) / 1000;
  $("rate").textContent = shownAt.length > 1 ? ((shownAt.length - 1) / seconds).toFixed(1) : "–";
  $("model").textContent = `${modelMs.toFixed(modelMs < 10 ? 1 : 0)} ms`;
  $("latency").textContent = `${latencyMs.toFixed(0)} ms`;
}

const nameOf = (id) => about.classes[id - 1] || `class ${id}`;
const colourOf = (id) => about.colours[(id - 1) % about.colours.length];
const least = (id) => ownThresholds[id] ?? Number($("threshold").value);

function shown() {
  return shot.scores.map((_, i) => i).filter((i) => shot.scores[i] >= least(shot.classes[i]) && !hidden.has(shot.classes[i]));
}

function draw() {
  if (!shot) return;
  const canvas = $("view"), context = canvas.getContext("2d");
  const { width, height } = shot.image;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  context.drawImage(shot.image, 0, 0);
  const perPixel = width / (canvas.clientWidth || width);   // canvas pixels of one pixel of the screen
  const size = Math.max(10, 14 * perPixel), line = Math.max(1, 2.5 * perPixel);
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const indices = shown();
  const best = indices.slice().reverse();                   // the first ones last, so that they lie on top
  for (const i of best) drawBox(context, i, width, height, line);
  for (const i of best) drawTag(context, i, width, height, size, line);
  count(indices);
}

function drawBox(context, i, width, height, line) {
  const [top, left, bottom, right] = shot.boxes[i];
  const x = left * width, y = top * height, w = (right - left) * width, h = (bottom - top) * height;
  const colour = colourOf(shot.classes[i]);
  context.lineWidth = line + 2;
  context.strokeStyle = "rgb(20 20 22 / .7)";
  context.strokeRect(x, y, w, h);
  context.lineWidth = line;
  context.strokeStyle = colour;
  context.strokeRect(x, y, w, h);
}

function drawTag(context, i, width, height, size, line) {
  const x = shot.boxes[i][1] * width, y = shot.boxes[i][0] * height, colour = colourOf(shot.classes[i]);
  const text = `${nameOf(shot.classes[i])} ${shot.scores[i].toFixed(2)}`;
  const tagWidth = context.measureText(text).width + size * 0.6, tagHeight = size * 1.35;
  const tagX = Math.max(0, Math.min(x - line / 2, width - tagWidth)), tagY = y >= tagHeight ? y - tagHeight : y;
  context.fillStyle = colour;
  context.fillRect(tagX, tagY, tagWidth, tagHeight);
  context.fillStyle = bright(colour) ? "#161618" : "#fff";
  context.fillText(text, tagX + size * 0.3, tagY + tagHeight / 2);
}

function bright(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 122;
}

// ---- controls

function listClasses() {
  const ids = about.classes.length ? about.classes.map((_, i) => i + 1) : [...seen.keys()].sort((a, b) => a - b);
  const wanted = $("search").value.trim().toLowerCase();
  const rows = ids.filter((id) => nameOf(id).toLowerCase().includes(wanted)).map((id) => {
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: !hidden.has(id) });
    box.addEventListener("change", () => {
      if (box.checked) hidden.delete(id); else hidden.add(id);
      draw();
    });
    const dot = document.createElement("i"), number = document.createElement("b"), label = document.createElement("label");
    dot.style.background = colourOf(id);
    number.dataset.id = id;
    label.append(box, dot, nameOf(id), number);
    const row = document.createElement("li");
    row.append(label);
    return row;
  });
  if (!rows.length) {
    const row = Object.assign(document.createElement("li"), { className: "empty" });
    row.textContent = wanted ? "No class of that name." : "The model has no names: classes are listed as they are seen.";
    rows.push(row);
  }
  $("classes").replaceChildren(...rows);
}

function count(indices) {
  const known = seen.size;
  for (const id of shot.classes) if (!seen.has(id)) seen.set(id, 0);
  if (!about.classes.length && seen.size !== known) listClasses();
  const now = new Map();
  for (const i of indices) now.set(shot.classes[i], (now.get(shot.classes[i]) || 0) + 1);
  for (const cell of $("classes").querySelectorAll("b")) cell.textContent = now.get(Number(cell.dataset.id)) || "";
}

function setThreshold(value) {
  $("threshold").value = value;
  $("score").textContent = Number($("threshold").value).toFixed(2);
}

function toggleFreeze() {
  frozen = !frozen && Boolean(shot);
  $("freeze").setAttribute("aria-pressed", frozen);
  $("freeze").firstChild.data = frozen ? "Go on " : "Freeze ";
  $("frozen").hidden = !frozen;
  shownAt.length = 0;
}

async function save() {
  if (!shot) return;
  const { image, picture, boxes, scores, classes } = shot, indices = shown();
  const pick = (values) => indices.map((i) => values[i]);
  $("save").disabled = true;
  try {
    // Encoded before anything else: the frame may be replaced by the next one.
    const file = picture || await encode(image, image.width, image.height, 0.95);
    const head = new TextEncoder().encode(JSON.stringify({ boxes: pick(boxes), scores: pick(scores), classes: pick(classes) }));
    const length = new DataView(new ArrayBuffer(LENGTH_BYTES));
    length.setUint32(0, head.length);
    const answer = await fetch("save", { method: "POST", body: new Blob([length, head, file]) });
    const said = await answer.json();
    if (!answer.ok) throw new Error(said.message);
    note(`${said.saved} and its boxes (${indices.length}) are in ${said.folder}`);
  } catch (error) {
    note(error instanceof TypeError ? "Not saved: the server does not answer." : `Not saved: ${error.message}`, true);
  } finally {
    $("save").disabled = !shot;
  }
}

function note(text, failed = false) {
  $("saved").textContent = text;
  $("saved").classList.toggle("failed", failed);
}

$("threshold").addEventListener("input", () => {
  ownThresholds = {};
  $("own").hidden = true;
  setThreshold($("threshold").value);
  draw();
});
$("freeze").addEventListener("click", toggleFreeze);
$("save").addEventListener("click", save);
$("camera").addEventListener("change", run);
$("again").addEventListener("click", run);
$("search").addEventListener("input", listClasses);
$("all").addEventListener("click", () => { hidden.clear(); listClasses(); draw(); });
$("none").addEventListener("click", () => {
  const ids = about.classes.length ? about.classes.map((_, i) => i + 1) : [...seen.keys()];
  ids.forEach((id) => hidden.add(id));
  listClasses();
  draw();
});
addEventListener("resize", draw);
addEventListener("keydown", (event) => {
  if (event.target.matches("input[type=search], select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " " && !event.target.matches("button")) { event.preventDefault(); toggleFreeze(); }
  if (event.key === "s" || event.key === "S") save();
});
start().catch(() => say("The server does not answer. Is odtrain webcam still running?"));
