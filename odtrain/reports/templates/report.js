
// ---- the report of a run

const report = dataOf("data");
if (report.shots.length) gallery(report);
for (const { id, x, y, lines } of report.charts) {
  const named = lines.map((line, i) => ({ ...line, colour: line.colour ?? (line.thick ? "var(--ink)" : `var(--s${1 + (i % 6)})`) }));
  plot($(id), () => ({ x, y, lines: named }));
  $(id).after(legend(named.filter((line) => line.name).map((line) => [line.colour, line.name])));
}
