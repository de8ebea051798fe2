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

/* Tables: sorted by a click or Enter on a head, filtered by words; both stand in the address, as a deep link. */
const state = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
const number = (text) => { const found = parseFloat(text); return Number.isNaN(found) ? null : found; };
const drawn = 400;

function order(a, b) {
  const [x, y] = [number(a), number(b)];
  if (x !== null && y !== null) return x - y;
  if ((a === "–") !== (b === "–")) return a === "–" ? 1 : -1;
  return a.localeCompare(b);
}

function remember(key, value) {
  if (value) state.set(key, value); else state.delete(key);
  history.replaceState(null, "", state.toString() ? `#${state}` : location.pathname + location.search);
}

function sortable(section, { columns, rows, left }, prefix = "") {
  const [sort, down, filter] = ["sort", "down", "filter"].map((name) => prefix + name);
  const field = $("input", section);
  function shown() {
    const words = (field.value || "").toLowerCase().split(/\s+/).filter(Boolean);
    const kept = rows.filter((row) => words.every((word) => row.join(" ").toLowerCase().includes(word)));
    const column = columns.indexOf(state.get(sort));
    const sign = state.get(down) ? -1 : 1;
    return column < 0 ? kept : kept.sort((a, b) => sign * order(a[column], b[column]));
  }
  function draw() {
    const kept = shown();
    const cells = (row) => row.map((text, index) => element("td", text, index < left ? "left" : ""));
    $("tbody", section).replaceChildren(...kept.slice(0, drawn).map((row) => { const line = element("tr"); line.append(...cells(row)); return line; }));
    $("[role=status]", section).textContent = kept.length > drawn ? `the first ${drawn} of ${kept.length}; filter to see others`
      : `${kept.length} of ${rows.length} shown`;
    section.querySelectorAll("thead th").forEach((head, index) => {
      const sorted = columns[index] === state.get(sort);
      head.setAttribute("aria-sort", sorted ? (state.get(down) ? "descending" : "ascending") : "none");
    });
  }
  const headRow = element("tr");
  columns.forEach((name, index) => {
    const head = element("th", null, index < left ? "left" : "");
    head.scope = "col";
    const button = element("button", name);
    button.type = "button";
    button.addEventListener("click", () => {
      const again = state.get(sort) === name;
      remember(down, again && !state.get(down) ? "1" : "");
      remember(sort, name);
      draw();
    });
    head.append(button);
    headRow.append(head);
  });
  $("thead", section).append(headRow);
  field.value = state.get(filter) || "";
  field.addEventListener("input", () => { remember(filter, field.value); draw(); });
  draw();
  return { columns, shown };
}

const operatorTable = {
  columns: ["network", "layer", "operator", "type", "output", "µs", "M MACs"],
  rows: data.layers.rows.map((row) => row.map((value) => value === null ? "–" : String(value))), left: 5,
};
$("#operators").hidden = operatorTable.rows.length === 0;
const tables = { table: sortable($("#results"), data.table), operators: sortable($("#operators"), operatorTable, "operators-") };

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

/* Many lines at once are a tangle: the first ones are drawn, the rest are a click away. */
const firstFew = (items) => Object.fromEntries(items.map((item, index) => [item.name, index < 8]));

/* Names only where they do not cover each other; `first` have the choice. */
function apart(spots, first = []) {
  const scale = (values, log) => { const own = values.map((v) => log ? Math.log(v) : v); const low = Math.min(...own); const wide = Math.max(...own) - low || 1; return own.map((v) => (v - low) / wide); };
  const spans = (values) => Math.min(...values) > 0 && Math.max(...values) > 8 * Math.min(...values);
  const [x, y] = [0, 1].map((axis) => { const own = spots.map((spot) => spot[axis]); return scale(own, spans(own)); });
  const named = [];
  for (const i of [...first, ...spots.keys()])
    if (!named.some((j) => Math.abs(x[i] - x[j]) < 0.22 && Math.abs(y[i] - y[j]) < 0.07)) named.push(i);
  return new Set(named);
}

function axis(name, { unit = "", label, ...extra }) {
  const ink = dark.matches ? "#a5adb8" : "#57606a";
  const line = dark.matches ? "#353c45" : "#d5dae0";
  return { name, nameLocation: "middle", nameGap: 32, nameTextStyle: { color: ink }, axisLabel: { color: ink, hideOverlap: true, ...(unit && { formatter: `{value}${unit}` }), ...(label && { formatter: label, hideOverlap: false, interval: 0 }) },
    axisLine: { lineStyle: { color: line } }, splitLine: { lineStyle: { color: line } }, ...extra };
}

const roofNames = () => apart(data.roofline.points.map((p) => [p.x, p.y]));

const figures = {
  tradeoff: {
    rows: () => [["name", "family", "p50 ms", data.tradeoff.accuracy, "low", "high", "file MB", "on the front"],
      ...data.tradeoff.points.map((p, i) => [p.name, p.family, p.ms, p.top1, p.low, p.high, p.mb, data.tradeoff.front.includes(i)])],
    about: () => data.tradeoff.why ? `Not drawn: ${data.tradeoff.why}.`
      : `Up and to the left is better. Accuracy: ${data.tradeoff.accuracy}; a vertical line is its 95 % interval. The dashed line is the Pareto front: each point on it is more accurate than all faster ones by more than the sampling error. A bubble's area is the file's size.`
        + (data.tradeoff.left_out ? ` ${data.tradeoff.left_out} results are not drawn: they have no such accuracy.` : ""),
    option: () => {
      const points = data.tradeoff.points;
      const largest = Math.max(...points.map((p) => p.mb || 1));
      const named = apart(points.map((p) => [p.ms, p.top1]), data.tradeoff.front);
      const spot = (p) => ({ name: p.name, value: [p.ms, p.top1, p.mb], symbolSize: 12 + 38 * Math.sqrt((p.mb || 1) / largest),
        label: { show: innerWidth >= 640 && named.has(points.indexOf(p)) } });
      const families = [...new Set(points.map((p) => p.family))];
      const label = { formatter: "{b}", position: "top", color: base().textStyle.color, fontSize: 11 };
      return { ...base(),
        tooltip: { ...base().tooltip, formatter: (at) => at.seriesType === "line" ? "Pareto front"
          : `${at.name}\np50 ${short(at.value[0])} ms\n${short(at.value[1])} %\n${at.value[2] ? `${short(at.value[2])} MB` : ""}` },
        xAxis: axis("p50 latency, ms", spread(points.map((p) => p.ms))), yAxis: axis("", { type: "value", scale: true }),
        series: [...families.map((family) => ({ type: "scatter", name: family, label,
            itemStyle: { opacity: 0.8 }, data: points.filter((p) => p.family === family).map(spot) })),
          ...points.filter((p) => p.high > p.low).map((p) => ({ type: "line", symbol: "none", silent: true, z: 1, tooltip: { show: false },
            lineStyle: { width: 1, color: "#888888" }, data: [[p.ms, p.low], [p.ms, p.high]] })),
          { type: "line", name: "Pareto front", symbol: "none", z: 1, color: "#888888", lineStyle: { type: "dashed", color: "#888888" },
            data: data.tradeoff.front.map((i) => [points[i].ms, points[i].top1]) }] };
    },
    empty: () => data.tradeoff.points.length === 0 && !data.tradeoff.why,
    blank: () => data.tradeoff.points.length === 0,
  },
  latency: {
    rows: () => [["name", "ms", "per cent of the calls within it"], ...data.latency.flatMap((item) => item.points.map((p) => [item.name, ...p]))],
    about: () => "The share of calls that finished within each latency. A steep curve means stable latency; the slowest 1 % of the calls (above 99 %) are the tail.",
    option: () => ({ ...base(), legend: { ...base().legend, selected: firstFew(data.latency) },
      tooltip: { ...base().tooltip, trigger: "item", formatter: (at) => `${at.seriesName}\n${at.value[1]} % within ${short(at.value[0])} ms` },
      xAxis: axis("latency, ms", spread(data.latency.flatMap((item) => item.points.map((p) => p[0])))), yAxis: axis("", { type: "value", min: 0, max: 100, unit: " %" }),
      series: data.latency.map((item) => ({ type: "line", name: item.name, step: false, symbol: "circle", symbolSize: 5, showSymbol: false, data: item.points })) }),
    empty: () => data.latency.length === 0,
  },
  start: stacked("start", "ms", "Time from the start of a fresh process to its first answer, with the files in the page cache."),
  memory: stacked("memory", "MB", "How a fresh process uses its memory: libraries, the network's weights, the rest of the session, the arena of the activations, and memory that was allocated and freed again."),
  timeline: {
    rows: () => [["name", "ms", "resident MB", "stage"], ...data.timeline.flatMap((item) => item.points.map((p, i) => [item.name, ...p, item.stages[i]]))],
    about: () => "The resident size of a fresh process from its start to its tenth call; a larger dot marks the start of a stage; hover over it for the name. Choose other curves in the legend.",
    option: () => ({ ...base(), legend: { ...base().legend, selected: firstFew(data.timeline) },
      tooltip: { ...base().tooltip, formatter: (at) => `${at.seriesName}\n${data.timeline[at.seriesIndex].stages[at.dataIndex]}\n${short(at.value[0])} ms: ${short(at.value[1])} MB` },
      xAxis: axis("ms since the process was started", { type: "value" }), yAxis: axis("MB", { type: "value", nameGap: 40 }),
      series: data.timeline.map((item) => ({ type: "line", name: item.name, symbol: "circle", symbolSize: 4, data: item.points.map((p, i) => ({ value: p,
        symbolSize: i > 0 && item.stages[i] !== item.stages[i - 1] ? 9 : 3 })) })) }),
    empty: () => data.timeline.length === 0,
  },
  sensitivity: {
    rows: () => [["record", "kind", "layer or tensor", "SQNR dB"], ...data.sensitivity.rows],
    about: () => "Signal-to-quantisation-noise ratio (SQNR), lowest first: low bars show the layers that lose most in INT8. If each layer was quantised alone, the SQNR is that of the network's output; otherwise it is that of the tensor.",
    option: () => {
      const bars = data.sensitivity.records.flatMap((record) => record.bars.map((bar) => [data.sensitivity.records.length > 1 ? `${record.name}: ${bar[0]}` : bar[0], bar[1], record.name]));
      const names = data.sensitivity.records.map((record) => record.name);
      const tail = innerWidth < 640 ? 18 : 44;
      return { ...base(), grid: { left: 8, right: 32, top: 64, bottom: 56, containLabel: true },
        tooltip: { ...base().tooltip, formatter: (at) => `${at.name}\n${short(at.value)} dB` },
        xAxis: axis("dB", { type: "value" }),
        yAxis: axis("", { type: "category", inverse: true, data: bars.map((bar) => bar[0]),
          label: (text) => text.length > tail ? `…${text.slice(1 - tail)}` : text }),
        series: names.map((name) => ({ type: "bar", name, stack: "all", barMaxWidth: 16, data: bars.map((bar) => bar[2] === name ? bar[1] : null) })) };
    },
    empty: () => data.sensitivity.records.length === 0,
    height: () => 150 + 20 * data.sensitivity.records.reduce((sum, record) => sum + record.bars.length, 0),
  },
  layers: { ...stacked("layers", "ms", "Time of one inference by operator, as the backend executes them; the CSV lists each operator with its shape."),
    rows: () => [["name", "layer", "operator", "dtype", "output", "us", "M MACs"], ...data.layers.rows] },
  roofline: {
    rows: () => [["name", "MACs per byte of weights", "G MACs/s"], ...data.roofline.points.map((p) => [p.name, p.x, p.y])],
    about: () => "Multiply-accumulates per second against multiply-accumulates per byte of weights. The lines are the highest rates that were measured on this machine: dense operators, and memory copies.",
    option: () => ({ ...base(),
      tooltip: { ...base().tooltip, formatter: (at) => `${at.name || at.seriesName}\n${short(at.value[1])} G MACs/s` },
      xAxis: axis("MACs per byte of weights", { type: "log" }), yAxis: axis("G MACs/s", { type: "log", nameGap: 40 }),
      series: [{ type: "scatter", name: "networks", symbolSize: 14,
          label: { formatter: "{b}", position: "right", color: base().textStyle.color, fontSize: 11 },
          data: data.roofline.points.map((p, i) => ({ name: p.name, value: [p.x, p.y], label: { show: innerWidth >= 640 && roofNames().has(i) } })) },
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
    $(".chart", box).hidden = Boolean(figure.blank?.());
    if ($(".chart", box).hidden) continue;
    if (figure.height) $(".chart", box).style.height = `${figure.height()}px`;
    const chart = echarts.init($(".chart", box), null, { renderer: "canvas" });
    chart.setOption(figure.option());
    charts.push(chart);
  }
}

/* Downloads: the data behind each figure, as CSV. */
function csv(rows) {
  /* A spreadsheet computes what begins like a formula. */
  const plain = (value) => typeof value === "string" && /^[=+\-@\t\r]/.test(value) && Number.isNaN(Number(value)) ? `'${value}` : String(value ?? "");
  const cell = (value) => { const text = plain(value); return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text; };
  return rows.map((row) => row.map(cell).join(",")).join("\n") + "\n";
}

document.querySelectorAll("[data-download]").forEach((button) => button.addEventListener("click", () => {
  const name = button.dataset.download;
  const rows = tables[name] ? [tables[name].columns, ...tables[name].shown()] : figures[name].rows();
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
