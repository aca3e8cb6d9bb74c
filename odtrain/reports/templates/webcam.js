
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
const PAGE = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
let draft = null;                           // {kind, points}: what is being drawn, in fractions of the frame
let places = {};                            // name -> x, y, x, y, ... in fractions
let counts = {};                            // name -> {in, out} or {entered}
const history = new Map();                  // name and way -> [seconds, number] of each change
let countingSince = 0, refreshChart = null;
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
  $("counting").hidden = !about.track;
  run();
}

const lastPart = (path) => plain(path.split(/[\\/]/).pop());

async function run() {
  const mine = ++turn;
  shot = null;
  resetCounts();
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
      $("lost").textContent = head.lost;
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
    const answer = await fetch(about.track ? `detect?page=${PAGE}` : "detect", { method: "POST", body: sent });
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
  if (shot.tracks) follow();
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
    text: `${nameOf(shot.classes[i])}${shot.tracks?.[i] ? ` #${shot.tracks[i]}` : ""} ${shot.scores[i].toFixed(2)}`,
  })), perPixel);
  paintPlaces(context, perPixel);
  count();
}

// ---- controls

function count() {
  const before = seen.size;
  for (const id of shot.classes) seen.add(id);
  if (!about.classes.length && seen.size !== before) filter.refresh();
  filter.count(counted(above().map((i) => shot.classes[i])));
}

// ---- lines and zones

const pairs = (numbers) => Array.from({ length: numbers.length / 2 }, (_, i) => numbers.slice(2 * i, 2 * i + 2));
const inWords = (ways) => Object.entries(ways).map(([way, number]) => `${way} ${number}`).join(", ");

function paintPlaces(context, perPixel) {
  const { width, height } = context.canvas, line = Math.max(1, 2.5 * perPixel);
  const drawn = Object.entries(places).map(([name, numbers]) => [`${plain(name)}: ${inWords(counts[name] || {})}`, pairs(numbers)]);
  if (draft) drawn.push(["", draft.points]);
  const boxes = [];
  for (const [text, points] of drawn) {
    if (!points.length) continue;
    const at = points.map(([x, y]) => [x * width, y * height]);
    context.beginPath();
    for (const [x, y] of at) context.lineTo(x, y);
    if (text && at.length > 2) context.closePath();
    for (const [wide, style] of [[line + 2, "rgb(20 20 22 / .75)"], [line, "#fff"]]) {
      Object.assign(context, { lineWidth: wide, strokeStyle: style });
      context.stroke();
    }
    if (!text) for (const [x, y] of at) { context.fillStyle = "#fff"; context.fillRect(x - 2 * line, y - 2 * line, 4 * line, 4 * line); }
    const [xs, ys] = [0, 1].map((side) => at.map((point) => point[side]));
    if (text) boxes.push({ corners: [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)], colour: "#f5f5f5", text });
  }
  const size = Math.max(10, 13 * perPixel);
  Object.assign(context, { font: `600 ${size}px system-ui, sans-serif`, textBaseline: "middle" });
  for (const each of tags(context, boxes, size)) tag(context, each, size);
}

function resetCounts() {
  [places, counts, draft] = [{}, {}, null];
  history.clear();
  countingSince = performance.now();
  listCounts();
}

// What a frame says of lines and counts.
function follow() {
  const before = JSON.stringify([places, counts]);
  [places, counts] = [shot.lines, shot.counts];
  if (JSON.stringify([places, counts]) === before) return;
  const now = (performance.now() - countingSince) / 1000, known = new Set();
  for (const [name, ways] of Object.entries(counts)) for (const [way, number] of Object.entries(ways)) {
    const key = `${name}: ${way}`, points = history.get(key) || [[now, number]];
    known.add(key);
    if (points.at(-1)[1] !== number) points.push([now, points.at(-1)[1]], [now, number]);
    history.set(key, points.slice(-2000));
  }
  for (const key of [...history.keys()]) if (!known.has(key)) history.delete(key);
  listCounts();
}

function listCounts() {
  const names = Object.keys(counts), cells = (ways) => ("entered" in ways
    ? [Object.assign(make("td", {}, `entered ${ways.entered}`), { colSpan: 2 })] : [make("td", {}, `${ways.in}`), make("td", {}, `${ways.out}`)]);
  $("counts").hidden = $("counted").hidden = !names.length;
  $("counts").tBodies[0].replaceChildren(...names.map((name) => make("tr", {}, Object.assign(make("th", {}, plain(name)), { scope: "row" }), ...cells(counts[name]),
    make("td", {}, make("button", { type: "button", className: "small", ariaLabel: `Take ${plain(name)} away`, onclick: () => takeAway(name) }, "✕")))));
  const coloured = [...history.keys()].map((key, i) => [about?.colours[i % about.colours.length], key]);
  $("legend").replaceChildren(...(coloured.length ? [legend(coloured.map(([colour, key]) => [colour, plain(key)]))] : []));
  if (!names.length) return;
  if (refreshChart) refreshChart();
  else refreshChart = plot($("chart"), countChart);
}

function countChart() {
  const now = (performance.now() - countingSince) / 1000, all = [...history.values()];
  const lines = all.map((points, i) => ({ colour: about.colours[i % about.colours.length], points: [...points, [now, points.at(-1)[1]]] }));
  const most = Math.max(4, ...all.map((points) => points.at(-1)[1]));
  return { x: { label: "seconds", low: Math.min(...all.map((points) => points[0][0])), high: now }, y: { label: "counted", low: 0, high: most }, lines };
}

async function sendPlaces(next) {
  try {
    const own = $("camera").value === HERE ? "" : `?page=${PAGE}`;
    const answer = await fetch(`lines${own}`, { method: "POST", body: JSON.stringify(next) });
    const said = await answer.json();
    if (!answer.ok) throw new Error(said.message);
    places = said.lines;
    tell("");
  } catch (error) {
    tell(error instanceof TypeError ? "Not kept: the server does not answer." : `Not kept: ${error.message}`);
  }
}

function takeAway(name) {
  const { [name]: gone, ...rest } = places;
  sendPlaces(rest);
}

function tell(text) { $("drawing").textContent = plain(text); }

function freeName(kind) {
  for (let number = 1; ; number++) if (!(`${kind} ${number}` in places)) return `${kind} ${number}`;
}

// Begins to draw; pressed again, a zone is closed and a line given up.
function press(kind) {
  if (draft?.kind === kind) return kind === "zone" && draft.points.length > 2 ? finish() : stopDrawing();
  draft = { kind, points: [] };
  tell(kind === "line" ? "Click both ends in the picture. Escape gives up." : "Click the corners in the picture, then the button again. Escape gives up.");
  showDrawing();
}

function stopDrawing() {
  draft = null;
  tell("");
  showDrawing();
}

function finish() {
  const name = $("place").value.trim() || freeName(draft.kind), numbers = draft.points.flat();
  $("place").value = "";
  stopDrawing();
  sendPlaces({ ...places, [name]: numbers });
}

function showDrawing() {
  for (const kind of ["line", "zone"]) $(kind).setAttribute("aria-pressed", draft?.kind === kind);
  $("zone").textContent = draft?.kind === "zone" ? "Close the zone" : "Draw a zone";
  $("view").parentElement.classList.toggle("drawing", Boolean(draft));
  draw();
}

function click(event) {
  if (!draft || !shot) return;
  const canvas = $("view"), area = canvas.getBoundingClientRect();
  const scale = Math.min(area.width / canvas.width, area.height / canvas.height);   // object-fit: contain
  const place = [[event.clientX - area.left, area.width, canvas.width], [event.clientY - area.top, area.height, canvas.height]];
  const point = place.map(([at, shown, own]) => (at - (shown - own * scale) / 2) / (own * scale));
  if (point.some((value) => value < 0 || value > 1)) return;
  draft.points.push(point);
  if (draft.kind === "line" && draft.points.length === 2) return finish();
  draw();
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
$("line").addEventListener("click", () => press("line"));
$("zone").addEventListener("click", () => press("zone"));
$("view").addEventListener("click", click);
$("save").addEventListener("click", save);
$("camera").addEventListener("change", run);
$("again").addEventListener("click", run);
addEventListener("resize", draw);
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && draft) return stopDrawing();
  if (event.target.matches("input[type=search], input[type=text], select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " " && !event.target.matches("button, input[type=checkbox], summary")) { event.preventDefault(); toggleFreeze(); }
  if (event.key === "s" || event.key === "S") save();
});
start().catch(() => say("The server does not answer. Is odtrain webcam still running?"));
