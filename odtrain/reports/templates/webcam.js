
// ---- the live page

const HERE = "here", BROWSER = "browser";   // the camera of the server, or the one of this browser
const SENT_SIDE = 640;                      // longest side, in pixels, of a frame sent to be looked at
const LENGTH_BYTES = 4;

let about = null;
let ownThresholds = {};                     // class id -> score; until the slider is moved
let filter = null;                          // which classes are shown
const seen = new Set();                     // ids of classes that were found in any frame
let shot = null;                            // {image, picture, boxes, scores, classes}
let frozen = false;
let turn = 0;                               // counts changes of the camera: an older loop ends
const shownAt = [];

// ---- frames

async function start() {
  about = await (await fetch("about")).json();
  document.title = `odtrain webcam – ${lastPart(about.source)}`;
  $("source").textContent = lastPart(about.source);
  $("source").title = plain(about.source);
  $("threshold").min = about.lowest;
  setScore(about.threshold);
  ownThresholds = about.by_class;
  $("own").hidden = Object.keys(ownThresholds).length === 0;
  if (about.camera) $("camera").append(new Option(`${lastPart(about.camera)} (of the server)`, HERE));
  $("camera").append(new Option("this browser's camera", BROWSER));
  filter = classFilter($("classes"), known, colourOf, draw, "The model has no names: classes are listed as they are seen.");
  run();
}

const lastPart = (path) => plain(path.split(/[\\/]/).pop());

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
  $("said").textContent = plain(text);
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

const nameOf = (id) => plain(about.classes[id - 1] || `class ${id}`);
const colourOf = (id) => about.colours[(id - 1) % about.colours.length];
const least = (id) => ownThresholds[id] ?? Number($("threshold").value);

// Classes that can be chosen: those of the model, or that were seen.
function known() {
  const ids = about.classes.length ? about.classes.map((_, i) => i + 1) : [...seen].sort((a, b) => a - b);
  return ids.map((id) => [id, nameOf(id)]);
}

const above = () => shot.scores.map((_, i) => i).filter((i) => shot.scores[i] >= least(shot.classes[i]));
const onView = () => above().filter((i) => !filter.hidden.has(shot.classes[i]));

function draw() {
  if (!shot) return;
  const canvas = $("view"), context = canvas.getContext("2d");
  const { width, height } = shot.image;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  context.drawImage(shot.image, 0, 0);
  const perPixel = width / (canvas.clientWidth || width);   // canvas pixels of one pixel of the screen
  paint(context, onView().map((i) => ({
    corners: cornersOn(shot.boxes[i], width, height), colour: colourOf(shot.classes[i]),
    text: `${nameOf(shot.classes[i])} ${shot.scores[i].toFixed(2)}`,
  })), perPixel);
  count();
}

// ---- controls

function count() {
  const before = seen.size;
  for (const id of shot.classes) seen.add(id);
  if (!about.classes.length && seen.size !== before) filter.refresh();
  filter.count(counted(above().map((i) => shot.classes[i])));
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
  const { image, picture, boxes, scores, classes } = shot, indices = onView();
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
  $("saved").textContent = plain(text);
  $("saved").className = failed ? "alert" : "dim";
}

$("threshold").addEventListener("input", () => {
  ownThresholds = {};
  $("own").hidden = true;
  setScore($("threshold").value);
  draw();
});
$("freeze").addEventListener("click", toggleFreeze);
$("save").addEventListener("click", save);
$("camera").addEventListener("change", run);
$("again").addEventListener("click", run);
addEventListener("resize", draw);
addEventListener("keydown", (event) => {
  if (event.target.matches("input[type=search], select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " " && !event.target.matches("button, input[type=checkbox], summary")) { event.preventDefault(); toggleFreeze(); }
  if (event.key === "s" || event.key === "S") save();
});
start().catch(() => say("The server does not answer. Is odtrain webcam still running?"));
