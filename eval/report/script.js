"use strict";
// Draws the charts when they come into view, and makes each readable by pointer and by keyboard.
// Everything from results enters the page as text, never as markup.
(() => {
  let data; // what page.py calls so
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const filters = document.querySelector(".filters");
  const views = new Map(); // chart's element -> {view, chart, width}
  let printing = false;

  // From red to green and on to what is quiet, on a dark page in the same hues. Lightness falls evenly away from the page's
  // own: what fails stands out, and order survives colour blindness and grey print. The steps are narrow where models are
  // good: 98% and 100% are worlds apart over a run of hundreds of calls. [end, on light, on dark, in words]
  const SHARES = [
    [0.5, "#6b0d1e", "#ffcac2", "below 50%"], [0.8, "#a8321a", "#ff9f80", "50–80%"],
    [0.9, "#d0601a", "#ec8138", "80–90%"], [0.95, "#e59a3a", "#c07518", "90–95%"],
    [0.99, "#ecc860", "#8a6a1a", "95–99%"], [1, "#b7dc9a", "#436a35", "99–100%"], [Infinity, "#e0f1ea", "#22403a", "100%"],
  ];
  const CHANGES = [
    [-0.2, "#b35806", "#f9a03f", "worse by 20 points or more"], [-0.05, "#f1a340", "#b8661a", "worse by 5–20"],
    [-1e-9, "#fee0b6", "#6b4318", "worse by up to 5"], [1e-9, "#f0f0f2", "#2c2f38", "equal"],
    [0.05, "#d0cfea", "#45407a", "better by up to 5"], [0.2, "#998ec3", "#7d6fc4", "better by 5–20"],
    [Infinity, "#542788", "#c6b8ff", "better by 20 or more"],
  ];
  const isDark = () => dark.matches && !printing;
  const theme = () => (isDark()
    ? { ink: "#f2f3f5", soft: "#a9adb8", line: "#3b3f4a", ground: "#1b1d23", none: "#4a4e5a" }
    : { ink: "#15171c", soft: "#5a5f6b", line: "#d9dbe1", ground: "#ffffff", none: "#d5d7dd" });
  const plural = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
  const named = (run) => (data.runs.length > 1 ? `run ${run}, ` : "");
  const runColour = (run) => getComputedStyle(document.querySelector(`.run.${run}`)).getPropertyValue(isDark() ? "--dark" : "--light");
  const colour = (bins, value) => bins.find(([end]) => value < end)[isDark() ? 2 : 1];

  function inkOn(fill) {
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(fill.slice(at, at + 2), 16));
    return 0.3 * red + 0.59 * green + 0.11 * blue > 108 ? "#15171c" : "#ffffff";
  }

  const shown = (box) => box.dataset.show ?? box.dataset.first;
  const chosenRun = () => filters.elements.run?.value ?? "";
  const runsOf = (values) => data.runs.filter((run) => run in values && (!chosenRun() || run === chosenRun()));

  // What a map shows of a class: a run's accuracy, or its gain over another run, perhaps in another mode.
  function cell(panel, x, y, show) {
    const count = (of, run) => {
      const place = [of.a.indexOf(panel.a[x]), of.b.indexOf(panel.b[y])];
      return place.includes(-1) ? undefined : data.counts[of.cells[run]?.[place[0] * of.b.length + place[1]] ?? -1];
    };
    const [run, other, old] = panel.changes[show] ?? [show];
    const [now, before] = [count(panel, run), old && count(data.panels[other], old)];
    if (!now || (old && !before)) return null;
    if (!now[0] || (old && !before[0])) return { fill: theme().none, label: "–", text: "not evaluated" };
    if (!old) {
      return { fill: colour(SHARES, now[2]), label: String(Math.floor((100 * now[1]) / now[0])), text: now[6], of: `${now[1]}/${now[0]}`, exact: now[5] };
    }
    const gain = now[2] - before[2];
    const points = `${gain < 0 ? "−" : "+"}${Math.abs(100 * gain).toFixed(1)}`;
    return { fill: colour(CHANGES, gain), label: points.split(".")[0], exact: points, text: `${points} points, ${before[5]} to ${now[5]}` };
  }

  const ticks = (values) => (values.length <= 12 ? values : values.filter((one) => one % 10 === 0 || one === values[0]));

  function mapChart(panel, width, box) {
    const show = shown(box);
    const room = Math.min(44, (width - 62) / panel.a.length);
    const side = room > 1 ? Math.floor(room) : room; // whole pixels: no seams between cells
    const rows = panel.a.flatMap((a, x) => panel.b.flatMap((b, y) => {
      const found = cell(panel, x, y, show);
      const digits = b ? `${plural(a, "digit")} and ${plural(b, "digit")}` : plural(a, "digit");
      return found ? [{
        a, b, x, y, fill: found.fill, ink: inkOn(found.fill), label: side >= 26 ? found.label : "",
        text: `${named(show)}${digits}: ${found.text}`,
      }] : [];
    }));
    const one = panel.b.length === 1 && !panel.b[0];
    return {
      rows, name: "cells", renderer: "canvas", flat: one,
      domains: { x: panel.a, y: [...panel.b].reverse() }, // given, or every choice would count the cells anew
      width: side * panel.a.length,
      height: Math.max(side * panel.b.length, 16),
      signals: {
        ticks_a: ticks(panel.a), ticks_b: one ? [] : ticks(panel.b), gap: side >= 8 ? 1 : 0,
      },
      hint: panel.totals[show] === undefined ? undefined : `${named(show)}all: ${data.counts[panel.totals[show]][6]}`,
    };
  }

  // A text for every run that has a value: "A 93.8%, B 97.9%".
  const runTexts = (values, text) => runsOf(values)
    .map((run) => (data.runs.length > 1 ? `${run} ${text(values[run])}` : text(values[run]))).join(", ");

  // Where the letters of lines stand: at their ends, and not on each other.
  function apart(ends) {
    const [least, sorted] = [0.075, ends.sort((one, other) => one.accuracy - other.accuracy)];
    sorted.forEach((end, place) => { end.accuracy = Math.max(end.accuracy, place ? sorted[place - 1].accuracy + least : 0); });
    sorted.reverse().forEach((end, place) => { end.accuracy = Math.min(end.accuracy, place ? sorted[place - 1].accuracy - least : 1); });
    return sorted;
  }

  function lengthsChart(panel, width) {
    const runs = runsOf(panel.lengths);
    const all = [...new Set(runs.flatMap((run) => panel.lengths[run].map(([length]) => length)))].sort((one, other) => one - other);
    const [first, last, few] = [all[0] ?? 1, all.at(-1) ?? 2, all.length <= 15];
    const inner = width - 66;
    const beside = few ? (6 * Math.max(last - first, 1)) / inner : 0; // runs side by side, 6 pixels apart
    const lines = runs.map((run, y) => panel.lengths[run].map(([length, place]) => {
      const [n, , accuracy, low, high, , text] = data.counts[place];
      const at = length + (y - (runs.length - 1) / 2) * beside;
      return { run, colour: runColour(run), x: length, y, at, n, accuracy, low, high, text: `${named(run)}${plural(length, "digit")}: ${text}` };
    }));
    return {
      rows: lines.flat(), name: "rows", renderer: "svg", width: inner, height: 190,
      ends: data.runs.length > 1 ? apart(lines.map((line) => ({ ...line.at(-1), at: line.at(-1).x === last ? last + (beside * (runs.length - 1)) / 2 : line.at(-1).at }))) : [],
      hint: `all: ${runTexts(panel.totals, (place) => data.counts[place][5])}`,
      signals: { first, last, dot: few ? 36 : 10, bars: few ? 0.5 : 0.2, ticks: ticks(all) },
    };
  }

  function tenthsChart(panel, width) {
    const runs = runsOf(panel.tenths);
    const rows = runs.flatMap((run, y) => panel.tenths[run].map((problems, tenth) => ({
      run, colour: runColour(run), x: tenth, y, problems,
      from: (tenth + 0.05 + (0.9 * y) / runs.length) / 10, to: (tenth + 0.05 + (0.9 * (y + 1)) / runs.length) / 10,
      text: `${named(run)}${10 * tenth} to ${10 * tenth + 10}% of the calls right before: ${plural(problems, "failed problem")}`,
    })));
    return {
      rows, name: "rows", renderer: "svg", width: width - 62, height: 170,
      hint: `failed: ${runTexts(panel.tenths, (tenths) => tenths.reduce((one, other) => one + other))}`,
      signals: { most: Math.max(1, ...rows.map((row) => row.problems)) },
    };
  }

  const MAKE = { map: mapChart, lengths: lengthsChart, tenths: tenthsChart };

  async function draw(box) {
    views.get(box)?.view?.finalize();
    const panel = data.panels[box.dataset.panel];
    const width = box.clientWidth;
    const chart = MAKE[box.dataset.kind](panel, Math.max(width, 160), box);
    const spec = structuredClone(data.specs[box.dataset.kind]);
    const values = { ...theme(), ...chart.signals };
    for (const signal of spec.signals) if (signal.name in values) signal.value = values[signal.name];
    spec.data.find(({ name }) => name === chart.name).values = chart.rows;
    if (chart.ends) spec.data.find(({ name }) => name === "ends").values = chart.ends;
    if (chart.domains) for (const scale of spec.scales) scale.domain = chart.domains[scale.name];
    if (chart.flat) for (const axis of spec.axes) if (axis.scale === "y") axis.title = null;
    Object.assign(spec, { width: chart.width, height: chart.height });
    const options = { mode: "vega", ast: true, actions: false, tooltip: false, renderer: chart.renderer };
    views.set(box, { chart, width, run: chosenRun() });
    told(box).textContent = chart.hint ?? "";
    const { view } = await vegaEmbed(box.firstElementChild, spec, options);
    if (views.get(box).chart !== chart) return view.finalize(); // drawn anew meanwhile
    views.get(box).view = view;
    for (const kind of ["pointermove", "click", "touchstart"]) {
      view.addEventListener(kind, (_, item) => item?.datum?.text && choose(box, item.datum));
    }
    focused(box); // it was drawn because it has the focus
  }

  const told = (box) => box.parentElement.querySelector(".readout");

  function choose(box, row) {
    const drawn = views.get(box);
    if (drawn.row === row || !drawn.view) return;
    drawn.row = row;
    drawn.view.data("chosen", [row]).run();
    told(box).textContent = row.text;
  }

  // The nearest row in a direction: along x in the same row of the chart, along y in the same column, else at its edge.
  function step(rows, from, dx, dy) {
    if (!from) return rows[0];
    const ahead = rows.filter((row) => (dx ? (row.x - from.x) * dx > 0 : (row.y - from.y) * dy > 0));
    const far = (row) => (dx
      ? Math.abs(row.y - from.y) * 1e4 + Math.abs(row.x - from.x) : Math.abs(row.x - from.x) * 1e4 + Math.abs(row.y - from.y));
    return ahead.reduce((best, row) => (best && far(best) <= far(row) ? best : row), null) ?? from;
  }

  const MOVES = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

  function onKey(event) {
    const box = event.target.closest?.(".chart");
    const move = MOVES[event.key];
    const drawn = views.get(box);
    if (!move || !drawn?.chart.rows.length || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    choose(box, step(drawn.chart.rows, drawn.row, ...move));
  }

  function focused(box) {
    const drawn = views.get(box);
    if (drawn?.view && !drawn.row && drawn.chart.rows.length && box.matches(":focus-visible")) choose(box, drawn.chart.rows[0]);
  }

  const element = (tag, inside, attributes = {}) => {
    const made = Object.assign(document.createElement(tag), attributes);
    made.append(...[inside].flat());
    return made;
  };

  // A map's numbers as a table; made when it is opened: a page of many maps has a million cells.
  function classTable(panel, show) {
    const header = (text, scope) => element("th", text, { scope });
    const told = (found) => (found.label === "–" ? "not evaluated" : [`${found.exact ?? found.label} `, found.of ? element("small", found.of) : ""]);
    const value = (x, y) => {
      const found = cell(panel, x, y, show);
      return element("td", found ? told(found) : "");
    };
    const head = [header(panel.b.length > 1 ? "a \\ b" : "a", "col"), ...panel.b.map((b) => header(b || "right", "col"))];
    const rows = panel.a.map((a, x) => element("tr", [header(a, "row"), ...panel.b.map((_, y) => value(x, y))]));
    return element("table", [element("thead", element("tr", head)), element("tbody", rows)]);
  }

  function fill(details) {
    const box = details.parentElement.querySelector(".map");
    details.querySelector(".scroll").replaceChildren(classTable(data.panels[box.dataset.panel], shown(box)));
  }

  function legend() {
    const changes = boxes.some((box) => box.dataset.show?.includes("−"));
    const swatch = (fill, text) => element("span", [element("i", "", { style: `background: ${fill}` }), text]);
    const parts = (bins) => bins.map(([, light, deep, text]) => swatch(isDark() ? deep : light, text));
    const rows = [[...parts(SHARES), swatch(theme().none, "not evaluated")], ...(changes ? [parts(CHANGES)] : [])];
    document.querySelector(".legend").replaceChildren(...rows.map((row) => element("div", row)));
  }

  async function unpacked(id) {
    const packed = Uint8Array.from(atob(document.getElementById(id).textContent), (one) => one.charCodeAt(0));
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }

  const boxes = [...document.querySelectorAll(".chart")];
  const drawn = () => [...views.keys()];

  function redraw(which) {
    which.forEach(draw);
    legend();
  }

  const CHOICES = ["task", "mode", "split", "run"];

  // Hides what was not asked for, and says so where nothing is left of a section.
  function filter() {
    const wanted = CHOICES.map((name) => [name, filters.elements[name]?.value]).filter(([, value]) => value);
    const unwanted = ({ dataset }) => wanted.some(([name, value]) => dataset[name] !== undefined
      && (name === "run" ? !dataset.run.includes(value) : ![dataset[name], name === "mode" && dataset.also].includes(value)));
    for (const part of document.querySelectorAll("[data-mode]")) part.hidden = unwanted(part);
    document.body.classList.toggle("filtered", wanted.length > 0);
    for (const section of document.querySelectorAll("section")) {
      const empty = section.querySelector(".empty");
      if (empty) empty.hidden = [...section.querySelectorAll(".part")].some((part) => !part.hidden);
    }
    for (const box of boxes) if (box.dataset.kind === "map" && !box.closest("[hidden]")) show(box, chosenRun());
    const section = location.hash.slice(1).split("&").find((word) => !word.includes("="));
    const hash = [section, new URLSearchParams(wanted).toString()].filter(Boolean).join("&");
    history.replaceState(null, "", hash ? `#${hash}` : location.href.split("#")[0]);
  }

  // Shows a run, or a comparison, in a map; without one the run that its panel begins with.
  function show(box, run) {
    const buttons = [...box.parentElement.querySelectorAll("[data-show]")];
    const wanted = run || box.dataset.first;
    if (wanted === box.dataset.show) return;
    box.dataset.show = wanted;
    for (const button of buttons) button.ariaPressed = String(button.dataset.show === wanted);
    const details = box.parentElement.querySelector("details[open]");
    if (details) fill(details);
    if (views.has(box)) draw(box);
  }

  function chosen() {
    filter();
    redraw(drawn().filter((box) => box.dataset.kind !== "map" && views.get(box).run !== chosenRun()));
  }

  // Takes what is chosen from the address, "#maps&task=div&run=G", and opens what it leads to.
  function recall() {
    const words = location.hash.slice(1).split("&");
    const given = new URLSearchParams(words.filter((word) => word.includes("=")).join("&"));
    for (const name of CHOICES) {
      const select = filters.elements[name];
      const known = select && [...select.options].some((one) => one.value === given.get(name));
      if (select && (given.size || !words.join(""))) select.value = known ? given.get(name) : "";
    }
    chosen();
    const target = document.getElementById(words.find((word) => word && !word.includes("=")) ?? "");
    if (target?.matches("details")) target.open = true;
    if (given.size) target?.scrollIntoView();
  }

  function start() {
    document.getElementById("no-charts").remove();
    filters.hidden = !filters.elements.length;
    recall();
    const each = (work) => (entries) => entries.forEach(({ target, isIntersecting }) => work(target, views.get(target), isIntersecting));
    const seen = new IntersectionObserver(each((box, view, near) => near && !view && draw(box)), { rootMargin: "600px" });
    const sized = new ResizeObserver(each((box, view) => view && box.clientWidth && box.clientWidth !== view.width && draw(box)));
    boxes.forEach((box) => [seen, sized].forEach((observer) => observer.observe(box)));
  }

  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("change", chosen);
  document.addEventListener("click", ({ target }) => {
    const button = target.closest?.("button");
    if (button?.dataset.show) {
      show(button.closest(".card").querySelector(".map"), button.dataset.show);
      legend();
    } else if (button?.closest(".empty")) {
      filters.reset();
      chosen();
      button.closest("section").scrollIntoView();
    }
  });
  document.addEventListener("keydown", onKey);
  document.addEventListener("focusin", (event) => event.target.closest?.(".chart") && focused(event.target));
  for (const details of document.querySelectorAll("details.classes")) {
    details.addEventListener("toggle", () => details.open && fill(details));
  }
  addEventListener("hashchange", recall);
  dark.addEventListener("change", () => redraw(drawn()));
  addEventListener("beforeprint", () => {
    printing = true;
    redraw(boxes.filter((box) => box.offsetParent));
  });
  addEventListener("afterprint", () => {
    printing = false;
    redraw(drawn());
  });
  Promise.all(["data", "library"].map(unpacked)).then(([numbers, library]) => {
    data = JSON.parse(numbers);
    document.head.append(element("script", library)); // the page's policy knows its hash
    start();
  });
})();
