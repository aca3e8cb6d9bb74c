
// ---- the findings of a data check

const severities = [...document.querySelectorAll(".chip input")], sections = [...document.querySelectorAll("section[data-severity]")];
const texts = new Map([...document.querySelectorAll(".finding")].map((figure) => [figure, figure.textContent.toLowerCase()]));

function showFindings() {
  const on = new Set(severities.filter((box) => box.checked).map((box) => box.value)), words = $("words").value.toLowerCase().trim();
  let left = 0;
  for (const [figure, text] of texts) figure.hidden = !text.includes(words);
  for (const section of sections) {
    const some = [...section.querySelectorAll(".finding")].filter((figure) => !figure.hidden).length;
    section.hidden = !on.has(section.dataset.severity) || (words !== "" && !some);
    if (!section.hidden) left += some;
  }
  for (const row of document.querySelectorAll("tr[data-severity]")) row.hidden = !on.has(row.dataset.severity);
  $("count").textContent = left === texts.size ? "" : left ? `${left} of ${texts.size} shown` : "None of these is left: choose more, or other words.";
}
if ($("words")) {
  $("words").addEventListener("input", showFindings);
  for (const box of severities) box.addEventListener("change", showFindings);
}
