"use strict";
// Draws the charts when they come into view, and makes each readable by pointer and by keyboard.
// Everything from results enters the page as text, never as markup.
(() => {
  let data; // what page.py calls so
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const filters = document.querySelector(".filters");
  const views = new Map(); // chart's element -> {view, chart, width}
  let printing = false;

  // Mako, whose lightness rises evenly, so that order survives colour blindness and grey print; on a dark page from its
  // other end: what fails stands out. The steps are narrow where models are good: 98% and 100% are worlds apart over a
  // run of hundreds of calls. [end, on light, on dark, in words]
  const SHARES = [
    [0.5, "#2b1c35", "#def5e5", "below 50%"], [0.8, "#413d7b", "#a0dfb9", "50–80%"],
    [0.9, "#37659e", "#54c9ad", "80–90%"], [0.95, "#348fa7", "#38aaac", "90–95%"],
    [0.99, "#40b7ad", "#348ba6", "95–99%"], [1, "#8bdab2", "#37659e", "99–100%"], [Infinity, "#def5e5", "#3e3672", "100%"],
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
  const colour = (bins, value) => bins.find(([end]) => value < end)[isDark() ? 2 : 1];

  function inkOn(fill) {
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(fill.slice(at, at + 2), 16));
    return 0.3 * red + 0.59 * green + 0.11 * blue > 108 ? "#15171c" : "#ffffff";
  }

  // The runs that a map of a panel shows: one, or two to compare.
  const chosenRun = (panel) => filters.elements.run?.value ?? Object.keys(panel.cells)[0];
  const mapped = (panel) => chosenRun(panel).split("-");

  // What a map shows of the class in a place: its run's accuracy, or the gain over the first run.
  function cell(panel, place, chosen) {
    const [run, first] = chosen.split("-");
    const count = (of) => data.counts[panel.cells[of]?.[place] ?? -1];
    const [now, before] = [count(run), first && count(first)];
    if (!now || (first && !before)) return null;
    if (!now[0] || (first && !before[0])) return { fill: theme().none, label: "–", text: "not evaluated" };
    if (!first) return { fill: colour(SHARES, now[2]), label: String(Math.floor(100 * now[2])), text: now[6] };
    const gain = now[2] - before[2];
    const points = `${gain < 0 ? "−" : "+"}${Math.abs(100 * gain).toFixed(1)}`;
    return { fill: colour(CHANGES, gain), label: points.split(".")[0], text: `${points} points, ${before[5]} to ${now[5]}` };
  }

  const ticks = (values) => (values.length <= 12 ? values : values.filter((one) => one % 10 === 0 || one === values[0]));

  function mapChart(panel, width) {
    const chosen = chosenRun(panel);
    const run = chosen.split("-")[0];
    const room = Math.min(44, (width - 62) / panel.a.length);
    const side = room > 1 ? Math.floor(room) : room; // whole pixels: no seams between cells
    const rows = panel.a.flatMap((a, x) => panel.b.flatMap((b, y) => {
      const found = cell(panel, x * panel.b.length + y, chosen);
      const digits = b ? `${plural(a, "digit")} and ${plural(b, "digit")}` : plural(a, "digit");
      return found ? [{
        a, b, x, y, fill: found.fill, ink: inkOn(found.fill), label: side >= 26 ? found.label : "",
        text: `${named(run)}${digits}: ${found.text}`,
      }] : [];
    }));
    const one = panel.b.length === 1 && !panel.b[0];
    return {
      rows, name: "cells", renderer: "canvas", flat: one,
      domains: { x: panel.a, y: [...panel.b].reverse() }, // given, or every choice would count the cells anew
      width: side * panel.a.length,
      height: Math.max(side * panel.b.length, 16), what: `accuracy over the digits of a${one ? "" : " and of b"}`,
      signals: {
        ticks_a: ticks(panel.a), ticks_b: one ? [] : ticks(panel.b), gap: side >= 8 ? 1 : 0,
      },
      hint: panel.totals[chosen] === undefined ? undefined : `${named(run)}all: ${data.counts[panel.totals[chosen]][6]}`,
    };
  }

  // A text for every run that has a value: "A 93.8%, B 97.9%".
  const runTexts = (values, text) => data.runs.filter((run) => run in values)
    .map((run) => (data.runs.length > 1 ? `${run} ${text(values[run])}` : text(values[run]))).join(", ");

  function lengthsChart(panel, width) {
    const rows = data.runs.flatMap((run, y) => (panel.lengths[run] ?? []).map(([length, place]) => {
      const [, , accuracy, low, high, , text] = data.counts[place];
      return { run, x: length, y, length, accuracy, low, high, text: `${named(run)}${plural(length, "digit")}: ${text}` };
    }));
    const all = rows.map((row) => row.length).sort((one, other) => one - other);
    const few = new Set(all).size <= 15;
    return {
      rows, name: "rows", renderer: "svg", width: width - 48, height: 190, what: "accuracy against length",
      hint: `all: ${runTexts(panel.totals, (place) => data.counts[place][5])}`,
      signals: { first: all[0] ?? 1, last: all.at(-1) ?? 2, dot: few ? 36 : 10, bars: few ? 0.5 : 0 },
    };
  }

  function tenthsChart(panel, width) {
    const rows = data.runs.flatMap((run, y) => (panel.tenths[run] ?? []).map((problems, tenth) => ({
      run, x: tenth, y, tenth, problems,
      text: `${named(run)}${10 * tenth} to ${10 * tenth + 10}% of the calls: ${plural(problems, "failed problem")}`,
    })));
    return {
      rows, name: "rows", renderer: "svg", width: width - 62, height: 170, what: "failed problems by step",
      hint: `failed: ${runTexts(panel.tenths, (tenths) => tenths.reduce((one, other) => one + other))}`,
      signals: { most: Math.max(1, ...rows.map((row) => row.problems)) },
    };
  }

  const MAKE = { map: mapChart, lengths: lengthsChart, tenths: tenthsChart };

  function config({ ink, soft, line }) {
    const font = "system-ui, sans-serif";
    const axis = { labelColor: soft, titleColor: soft, gridColor: line, domainColor: line, tickColor: line };
    return {
      background: "transparent", style: { cell: { stroke: "transparent" } },
      axis: { ...axis, labelFont: font, titleFont: font, labelFontSize: 11, titleFontSize: 11, titleFontWeight: 400 },
      text: { font, fill: ink },
    };
  }

  async function draw(box) {
    views.get(box)?.view?.finalize();
    const panel = data.panels[box.dataset.panel];
    const width = box.clientWidth;
    const chart = MAKE[box.dataset.kind](panel, Math.max(width, 160));
    const colours = theme();
    const spec = structuredClone(data.specs[box.dataset.kind]);
    const values = { ...chart.signals, ink: colours.ink, ground: colours.ground };
    for (const signal of spec.signals) if (signal.name in values) signal.value = values[signal.name];
    spec.data.find(({ name }) => name === chart.name).values = chart.rows;
    if (chart.domains) for (const scale of spec.scales) scale.domain = chart.domains[scale.name];
    if (chart.flat) for (const axis of spec.axes) if (axis.scale === "y") axis.title = null;
    Object.assign(spec, { width: chart.width, height: chart.height });
    const options = {
      mode: "vega", ast: true, actions: false, tooltip: false, renderer: chart.renderer, config: config(colours),
    };
    views.set(box, { chart, width });
    told(box).textContent = chart.hint ?? "";
    box.tabIndex = 0;
    box.setAttribute("role", "application");
    box.setAttribute("aria-roledescription", "chart");
    box.setAttribute("aria-label", `${panel.title}: ${chart.what}. Arrow keys read the values.`);
    const { view } = await vegaEmbed(box.firstElementChild, spec, options);
    if (views.get(box).chart !== chart) return view.finalize(); // drawn anew meanwhile
    views.get(box).view = view;
    for (const kind of ["pointermove", "click", "touchstart"]) {
      view.addEventListener(kind, (_, item) => item?.datum?.text && choose(box, item.datum));
    }
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

  function onFocus(event) {
    const box = event.target.closest?.(".chart");
    const drawn = views.get(box);
    if (drawn && !drawn.row && drawn.chart.rows.length && box.matches(":focus-visible")) choose(box, drawn.chart.rows[0]);
  }

  const element = (tag, text, attributes = {}) => {
    const made = Object.assign(document.createElement(tag), attributes);
    if (text !== "") made.textContent = text;
    return made;
  };

  // A map's numbers as a table; made when it is opened: a page of many maps has a million cells.
  function classTable(panel, chosen) {
    const table = element("table", "");
    const head = table.createTHead().insertRow();
    head.append(element("th", panel.b.length > 1 ? "a \\ b" : "a", { scope: "col" }));
    for (const b of panel.b) head.append(element("th", b || "right", { scope: "col" }));
    const body = table.createTBody();
    panel.a.forEach((a, x) => {
      const row = body.insertRow();
      row.append(element("th", a, { scope: "row" }));
      panel.b.forEach((_, y) => {
        const place = x * panel.b.length + y;
        const found = cell(panel, place, chosen);
        const count = data.counts[panel.cells[chosen.split("-")[0]]?.[place] ?? -1];
        const whole = !found || found.label === "–" || chosen.includes("-") ? null : `${count[5]} `;
        const shown = element("td", whole ?? (found ? (found.label === "–" ? "not evaluated" : found.label) : ""));
        if (whole) shown.append(element("small", `${count[1]}/${count[0]}`));
        row.append(shown);
      });
    });
    return table;
  }

  function fill(details) {
    const panel = data.panels[details.dataset.panel];
    const chosen = chosenRun(panel);
    details.querySelector(".scroll").replaceChildren(classTable(panel, chosen));
  }

  function legend() {
    const bins = filters.elements.run?.value.includes("-") ? CHANGES : SHARES;
    const swatch = (fill, text) => {
      const made = element("span", "");
      const box = element("i", "");
      box.style.background = fill;
      made.append(box, text);
      return made;
    };
    const parts = bins.map(([, light, deep, text]) => swatch(isDark() ? deep : light, text));
    document.querySelector(".legend").replaceChildren(...parts, swatch(theme().none, "not evaluated"));
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

  // Hides what was not asked for, and maps of what the chosen run did not evaluate.
  function filter() {
    for (const part of document.querySelectorAll("[data-task]")) {
      const box = part.querySelector(".map");
      part.hidden = ["task", "mode", "split"].some((name) => {
        const wanted = filters.elements[name]?.value;
        return wanted && part.dataset[name] !== wanted;
      }) || (box && mapped(data.panels[box.dataset.panel]).some((run) => !data.panels[box.dataset.panel].cells[run]));
    }
  }

  function start() {
    document.getElementById("no-charts").remove();
    filters.hidden = !filters.elements.length;
    filter(); // a browser may keep what was chosen before the page was loaded again
    legend();
    const seen = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) if (isIntersecting && !views.has(target)) draw(target);
    }, { rootMargin: "600px" });
    const sized = new ResizeObserver((entries) => {
      for (const { target } of entries) {
        if (views.has(target) && target.clientWidth && target.clientWidth !== views.get(target).width) draw(target);
      }
    });
    for (const box of boxes) {
      seen.observe(box);
      sized.observe(box);
    }
  }

  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("change", (event) => {
    filter();
    if (event.target.name !== "run") return;
    redraw(drawn().filter((box) => box.dataset.kind === "map"));
    document.querySelectorAll("details.classes[open]").forEach(fill);
  });
  document.addEventListener("keydown", onKey);
  document.addEventListener("focusin", onFocus);
  for (const details of document.querySelectorAll("details.classes")) {
    details.addEventListener("toggle", () => details.open && fill(details));
  }
  const openTarget = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (target?.matches("details")) target.open = true;
  };
  addEventListener("hashchange", openTarget);
  openTarget();
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
