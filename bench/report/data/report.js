"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const charts = [];
const $ = (selector, root = document) => root.querySelector(selector);

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = text;
  if (className) made.className = className;
  return made;
}

/* The runs: what was measured, on what. */
data.runs.forEach((run, index) => {
  const box = element("details");
  box.open = data.runs.length === 1;
  box.append(element("summary", `Run ${index + 1}: ${run.facts.processor}, ${run.facts.when}`));
  const list = element("dl");
  for (const [name, value] of Object.entries(run.facts)) list.append(element("dt", name), element("dd", value));
  box.append(list);
  $("#runs").append(box);
});

const notes = data.runs.flatMap((run, index) => run.notes.map((text) => data.runs.length > 1 ? `run ${index + 1}: ${text}` : text));
$("#notes").hidden = notes.length === 0;
notes.forEach((text) => $("#notes ul").append(element("li", text)));

/* The table: sorted by a click or Enter on its head, filtered by words; both stand in the address, as a deep link. */
const state = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
const number = (text) => { const found = parseFloat(text); return Number.isNaN(found) ? null : found; };

function order(a, b) {
  const [x, y] = [number(a), number(b)];
  if (x !== null && y !== null) return x - y;
  if ((a === "–") !== (b === "–")) return a === "–" ? 1 : -1;
  return a.localeCompare(b);
}

function shownRows() {
  const words = ($("#filter").value || "").toLowerCase().split(/\s+/).filter(Boolean);
  const rows = data.table.rows.filter((row) => words.every((word) => row.join(" ").toLowerCase().includes(word)));
  const column = data.table.columns.indexOf(state.get("sort"));
  if (column < 0) return rows;
  const sign = state.get("down") ? -1 : 1;
  return rows.sort((a, b) => sign * order(a[column], b[column]));
}

function drawTable() {
  const rows = shownRows();
  const cells = (row) => row.map((text, index) => element("td", text, index < data.table.left ? "left" : ""));
  $("#table tbody").replaceChildren(...rows.map((row) => { const line = element("tr"); line.append(...cells(row)); return line; }));
  $("#count").textContent = `${rows.length} of ${data.table.rows.length} shown`;
  $("#table thead").querySelectorAll("th").forEach((head, index) => {
    const sorted = data.table.columns[index] === state.get("sort");
    head.setAttribute("aria-sort", sorted ? (state.get("down") ? "descending" : "ascending") : "none");
  });
}

function remember() {
  if ($("#filter").value) state.set("filter", $("#filter").value); else state.delete("filter");
  history.replaceState(null, "", state.toString() ? `#${state}` : location.pathname + location.search);
}

const headRow = element("tr");
data.table.columns.forEach((name, index) => {
  const head = element("th", null, index < data.table.left ? "left" : "");
  head.scope = "col";
  const button = element("button", name);
  button.type = "button";
  button.addEventListener("click", () => {
    if (state.get("sort") !== name) { state.set("sort", name); state.delete("down"); }
    else if (state.get("down")) state.delete("down"); else state.set("down", "1");
    remember();
    drawTable();
  });
  head.append(button);
  headRow.append(head);
});
$("#table thead").append(headRow);
$("#filter").value = state.get("filter") || "";
$("#filter").addEventListener("input", () => { remember(); drawTable(); });
drawTable();

/* What changed from run to run. */
if (data.changes.length) {
  $("#changes").hidden = false;
  const head = element("tr");
  ["runs", "subject", "answer", "median", "why"].forEach((name) => head.append(element("th", name, "left")));
  $("#changes thead").append(head);
  data.changes.forEach((item) => {
    const row = element("tr");
    const change = item.change === null ? "–" : `${item.change > 0 ? "+" : ""}${item.change.toFixed(1)} %`;
    row.append(element("td", item.runs, "left"), element("td", item.subject, "left"), element("td", item.answer, `left ${item.answer}`),
      element("td", change), element("td", item.why, "why"));
    $("#changes tbody").append(row);
  });
}

/* The figures. */
const dark = matchMedia("(prefers-color-scheme: dark)");
const colours = ["#3b7dd8", "#e07b39", "#3a9d6a", "#b5509c", "#8f7ae0", "#c9a227", "#4bb3c4", "#d05a5a"];
/* A logarithmic axis only where the values span it. */
function spread(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return high > 8 * low ? { type: "log" } : { type: "value", scale: true };
}
const short = (value) => Number(value.toPrecision(4)).toString();

function base() {
  const ink = dark.matches ? "#e6e8eb" : "#1b1f24";
  const narrow = innerWidth < 640;
  return {
    color: colours, textStyle: { color: ink, fontFamily: "inherit" }, animation: false, aria: { enabled: true },
    grid: { left: narrow ? 48 : 64, right: 24, top: 64, bottom: 56, containLabel: false },
    legend: { type: "scroll", top: 8, textStyle: { color: ink } },
    tooltip: { renderMode: "richText", confine: true },
  };
}

function axis(name, { unit = "", ...extra }) {
  const ink = dark.matches ? "#a5adb8" : "#57606a";
  const line = dark.matches ? "#353c45" : "#d5dae0";
  return { name, nameLocation: "middle", nameGap: 32, nameTextStyle: { color: ink }, axisLabel: { color: ink, hideOverlap: true, ...(unit && { formatter: `{value}${unit}` }) },
    axisLine: { lineStyle: { color: line } }, splitLine: { lineStyle: { color: line } }, ...extra };
}

const figures = {
  tradeoff: {
    rows: () => [["name", "family", "p50 ms", data.tradeoff.accuracy, "file MB", "on the front"],
      ...data.tradeoff.points.map((p, i) => [p.name, p.family, p.ms, p.top1, p.mb, data.tradeoff.front.includes(i)])],
    about: () => `Up and to the left is better; the line joins what nothing beats; a bubble's area is the file's size. ${data.tradeoff.accuracy}.`,
    option: () => {
      const points = data.tradeoff.points;
      const largest = Math.max(...points.map((p) => p.mb || 1));
      const spot = (p) => ({ name: p.name, value: [p.ms, p.top1, p.mb], symbolSize: 12 + 38 * Math.sqrt((p.mb || 1) / largest) });
      const families = [...new Set(points.map((p) => p.family))];
      const label = { show: innerWidth >= 640, formatter: "{b}", position: "top", color: base().textStyle.color, fontSize: 11 };
      return { ...base(),
        tooltip: { ...base().tooltip, formatter: (at) => at.seriesType === "line" ? "Pareto front"
          : `${at.name}\np50 ${short(at.value[0])} ms\n${short(at.value[1])} %\n${at.value[2] ? `${short(at.value[2])} MB` : ""}` },
        xAxis: axis("p50 latency, ms", spread(points.map((p) => p.ms))), yAxis: axis("", { type: "value", scale: true }),
        series: [...families.map((family) => ({ type: "scatter", name: family, labelLayout: { hideOverlap: true }, label,
            itemStyle: { opacity: 0.8 }, data: points.filter((p) => p.family === family).map(spot) })),
          { type: "line", name: "Pareto front", symbol: "none", z: 1, color: "#888888", lineStyle: { type: "dashed", color: "#888888" },
            data: data.tradeoff.front.map((i) => [points[i].ms, points[i].top1]) }] };
    },
    empty: () => data.tradeoff.points.length === 0,
  },
  latency: {
    rows: () => [["name", "ms", "per cent of the calls at most"], ...data.latency.flatMap((item) => item.points.map((p) => [item.name, ...p]))],
    about: () => "The share of calls that took at most so long: a steep curve is a steady network, its foot to the right of 99 % the tail.",
    option: () => ({ ...base(),
      tooltip: { ...base().tooltip, trigger: "item", formatter: (at) => `${at.seriesName}\n${at.value[1]} % within ${short(at.value[0])} ms` },
      xAxis: axis("latency, ms", spread(data.latency.flatMap((item) => item.points.map((p) => p[0])))), yAxis: axis("", { type: "value", min: 0, max: 100, unit: " %" }),
      series: data.latency.map((item) => ({ type: "line", name: item.name, step: false, symbol: "circle", symbolSize: 5, showSymbol: false, data: item.points })) }),
    empty: () => data.latency.length === 0,
  },
  start: stacked("start", "ms", "From nothing to the first answer, in a fresh process with the files in the page cache."),
  memory: stacked("memory", "MB", "What each stage added to the resident size of a fresh process."),
  layers: { ...stacked("layers", "ms", "Where an inference spends its time, by the operators that really run; the CSV has every one of them with its shape."),
    rows: () => [["name", "layer", "operator", "dtype", "output", "us", "M MACs"], ...data.layers.rows] },
  roofline: {
    rows: () => [["name", "MACs for each byte of weights", "G MACs/s"], ...data.roofline.points.map((p) => [p.name, p.x, p.y])],
    about: () => "Multiply-accumulates a second against those for each byte of weights; the lines are the highest rates this machine showed on dense operators and in copying memory.",
    option: () => ({ ...base(),
      tooltip: { ...base().tooltip, formatter: (at) => `${at.name || at.seriesName}\n${short(at.value[1])} G MACs/s` },
      xAxis: axis("MACs for each byte of weights", { type: "log" }), yAxis: axis("G MACs/s", { type: "log", nameGap: 40 }),
      series: [{ type: "scatter", name: "networks", symbolSize: 14, labelLayout: { hideOverlap: true },
          label: { show: innerWidth >= 640, formatter: "{b}", position: "right", color: base().textStyle.color, fontSize: 11 },
          data: data.roofline.points.map((p) => ({ name: p.name, value: [p.x, p.y] })) },
        ...data.roofline.roofs.map((roof) => ({ type: "line", name: roof.name, symbol: "none", data: roof.points }))] }),
    empty: () => data.roofline.points.length === 0,
  },
};

function stacked(name, unit, about) {
  return {
    rows: () => [["name", ...data[name].series.map((one) => `${one.name} ${unit}`)],
      ...data[name].names.map((label, i) => [label, ...data[name].series.map((one) => one.values[i])])],
    about: () => about,
    option: () => ({ ...base(), grid: { left: 8, right: 24, top: 64, bottom: 56, containLabel: true },
      tooltip: { ...base().tooltip, trigger: "item", formatter: (at) => `${at.name}\n${at.seriesName}: ${short(at.value)} ${unit}` },
      xAxis: axis(unit, { type: "value" }), yAxis: axis("", { type: "category", inverse: true, data: data[name].names }),
      series: data[name].series.map((one) => ({ type: "bar", stack: "all", name: one.name, data: one.values, barMaxWidth: 26 })) }),
    empty: () => data[name].names.length === 0,
    height: () => 130 + 34 * data[name].names.length,
  };
}

function draw() {
  charts.splice(0).forEach((chart) => chart.dispose());
  for (const [name, figure] of Object.entries(figures)) {
    const box = document.getElementById(name);
    box.hidden = figure.empty();
    if (box.hidden) continue;
    $(".about", box).textContent = figure.about();
    if (figure.height) $(".chart", box).style.height = `${figure.height()}px`;
    const chart = echarts.init($(".chart", box), null, { renderer: "canvas" });
    chart.setOption(figure.option());
    charts.push(chart);
  }
}

/* Downloads: the data behind each figure, as CSV. */
function csv(rows) {
  const cell = (value) => { const text = String(value ?? ""); return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text; };
  return rows.map((row) => row.map(cell).join(",")).join("\n") + "\n";
}

document.querySelectorAll("[data-download]").forEach((button) => button.addEventListener("click", () => {
  const name = button.dataset.download;
  const rows = name === "table" ? [data.table.columns, ...shownRows()] : figures[name].rows();
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([csv(rows)], { type: "text/csv" }));
  link.download = `edgesmith-${name}.csv`;
  link.click();
  URL.revokeObjectURL(link.href);
}));

draw();
dark.addEventListener("change", draw);
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; draw(); } });
addEventListener("beforeprint", () => charts.forEach((chart) => chart.resize()));
if (/^#[a-z]+$/.test(location.hash)) document.querySelector(location.hash)?.scrollIntoView();
document.documentElement.dataset.ready = "1";
