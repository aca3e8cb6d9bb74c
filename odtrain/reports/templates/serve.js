
// ---- a model behind a page

const LOWEST = 0.05;                        // scores below it are not asked for; the slider begins there
const SHARP = 960;                          // canvas pixels across, at least
const SILENT = "The server does not answer. Is odtrain serve still running?";

let about = null;
let shot = null;                            // {image, name, boxes, scores, classes, class_names, model_ms}
let turn = 0;                               // counts pictures: the answer to an older one is not shown
let filter = null;

async function start() {
  about = await (await fetch("about")).json();
  $("source").textContent = plain(about.source.split(/[\\/]/).pop());
  $("source").title = plain(about.source);
  setScore(about.threshold);
  $("sample").hidden = !about.sample;
  $("example").textContent =
    `curl --data-binary @picture.jpg "${location.origin}/detect?threshold=${about.threshold}"`;
  filter = classFilter($("classes"), seenClasses, colourOf, show);
}

// Classes of the picture, by id.
function seenClasses() {
  const names = new Map(shot ? shot.classes.map((id, i) => [id, plain(shot.class_names[i])]) : []);
  return [...names].sort(([a], [b]) => a - b);
}

async function look(file) {
  if (!file) return;
  const mine = ++turn;
  tell("");
  $("facts").textContent = "Looking…";
  try {
    if (file.size > about.max_megabytes * 1e6) throw new Error(`The picture is larger than ${about.max_megabytes} MB.`);
    const body = await file.arrayBuffer().catch(() => {
      throw new Error(`${plain(file.name)} cannot be read: drop a picture, not a folder.`);
    });
    const answer = await fetch(`detect?threshold=${LOWEST}`, { method: "POST", body });
    const said = await answer.json();
    if (!answer.ok) throw new Error(said.message);
    const image = await createImageBitmap(file, { imageOrientation: "from-image" });
    if (mine !== turn) return image.close();
    shot = { ...said, image, name: plain(file.name || "the picture") };
    for (const name of ["again", "classes"]) $(name).hidden = false;
    $("drop").hidden = true;
    filter.refresh();
    show();
  } catch (error) {
    if (mine !== turn) return;
    $("facts").textContent = shot ? `The picture before is shown: ${shot.name}.` : "Nothing was looked at yet.";
    tell(error instanceof TypeError ? SILENT : plain(error.message));
  }
}

async function sample() {
  try {
    const answer = await fetch("sample");
    if (!answer.ok) throw new Error("There is no sample.");
    look(new File([await answer.blob()], about.sample));
  } catch (error) {
    tell(error instanceof TypeError ? SILENT : error.message);
  }
}

function tell(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

const colourOf = (id) => about.colours[(id - 1) % about.colours.length];
const above = () => shot.scores.map((_, i) => i).filter((i) => shot.scores[i] >= Number($("threshold").value));

function show() {
  if (!shot) return;
  const canvas = $("view"), context = canvas.getContext("2d");
  const scale = Math.max(1, SHARP / shot.width);            // names on a small picture stay readable
  const width = Math.round(shot.width * scale), height = Math.round(shot.height * scale);
  Object.assign(canvas, { width, height });
  context.drawImage(shot.image, 0, 0, width, height);
  const indices = above().filter((i) => !filter.hidden.has(shot.classes[i]));
  paint(context, indices.map((i) => ({
    corners: cornersOn(shot.boxes[i], width, height), colour: colourOf(shot.classes[i]),
    text: `${plain(shot.class_names[i])} ${shot.scores[i].toFixed(2)}`,
  })), width / (canvas.clientWidth || width));
  filter.count(counted(above().map((i) => shot.classes[i])));
  list(indices);
}

function list(indices) {
  const best = Math.max(...shot.scores);
  const none = shot.scores.length ? `The best score is ${best.toFixed(2)}: move the slider, or show more classes.` : "The model found nothing in it at any score.";
  $("facts").textContent =
    `${indices.length} found in ${shot.name}, ${shot.width} × ${shot.height}, in ${shot.model_ms.toFixed(1)} ms.${indices.length ? "" : ` ${none}`}`;
  $("view").setAttribute("aria-label", `${shot.name} with ${indices.length} boxes`);
  const rows = indices.map((i) => make("tr", {},
    make("td", {}, dot(colourOf(shot.classes[i])), plain(shot.class_names[i])),
    ...[shot.scores[i].toFixed(2), ...cornersOn(shot.boxes[i], shot.width, shot.height).map((v) => v.toFixed(0))].map((textContent) => make("td", { textContent }))));
  $("found").tBodies[0].replaceChildren(...rows);
  $("found").hidden = $("table").disabled = !rows.length;
}

const stem = () => shot.name.replace(/\.[^.]*$/, "") || "picture";

$("threshold").addEventListener("input", () => { setScore($("threshold").value); show(); });
$("file").addEventListener("change", () => { look($("file").files[0]); $("file").value = ""; });
$("other").addEventListener("click", () => $("file").click());
$("sample").addEventListener("click", sample);
$("table").addEventListener("click", () => download(`${stem()}-boxes.csv`, csv(tableRows($("found"))), "text/csv"));
$("picture").addEventListener("click", () => $("view").toBlob((blob) => download(`${stem()}-boxes.png`, blob)));
for (const name of ["dragover", "dragenter"]) {
  addEventListener(name, (event) => { event.preventDefault(); $("stage").classList.add("target"); });
}
addEventListener("dragleave", () => $("stage").classList.remove("target"));
addEventListener("drop", (event) => {
  event.preventDefault();
  $("stage").classList.remove("target");
  look(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => look([...event.clipboardData.files].find((file) => file.type.startsWith("image/"))));
addEventListener("resize", show);
start().catch(() => tell(SILENT));
