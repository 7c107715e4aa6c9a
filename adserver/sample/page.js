// Fills "Live counts" from the ad server's own report, every two seconds while the page is looked at.
// The status line is the only thing a screen reader is told of, and it changes only when the state does.
"use strict";

(() => {
  const REPORT = "/api/report?by=slot";
  const EVERY_MS = 2000;
  const PATIENCE_MS = 5000;
  const COLUMNS = [
    ["requests", "Requests"],
    ["served", "Served"],
    ["impressions", "Impressions"],
    ["measured", "Measured"],
    ["viewables", "Viewable"],
    ["clicks", "Clicks"],
    ["invalid", "Invalid"],
  ];

  const panel = document.getElementById("live");
  const status = document.getElementById("live-status");
  const totals = document.getElementById("live-totals");
  const slots = document.getElementById("live-slots");
  const rows = document.getElementById("live-rows");
  const pause = document.getElementById("live-pause");
  if (!panel || !status || !totals || !slots || !rows || !pause) return;

  const here = new Set([...document.querySelectorAll("[data-slot]")].map((ad) => ad.dataset.slot));
  const written = new Intl.NumberFormat(document.documentElement.lang || "en");
  const bySlot = new Map(); // slot id -> its row's cells
  let tiles = null;
  let opened = null; // the totals when this page first saw them
  let paused = false;
  let timer = 0;
  let asking = null;

  function make(name, text = "", className = "") {
    const element = document.createElement(name);
    if (text) element.textContent = text;
    if (className) element.className = className;
    return element;
  }

  function whole(value) {
    return Number.isFinite(value) ? value : 0;
  }

  function countsOf(row) {
    const counts = {};
    for (const [field] of COLUMNS) counts[field] = whole(row[field]);
    counts.invalid = Object.values(row.invalid || {}).reduce((sum, n) => sum + whole(n), 0);
    return counts;
  }

  function sumOf(all) {
    const sum = {};
    for (const [field] of COLUMNS) sum[field] = all.reduce((n, counts) => n + counts[field], 0);
    return sum;
  }

  // Writes a number only when it is another one, and lights it up when it rose.
  function show(cell, number) {
    const before = cell.dataset.n;
    if (before === String(number)) return;
    cell.dataset.n = String(number);
    cell.textContent = written.format(number);
    if (before === undefined || number < Number(before)) return;
    cell.classList.remove("rose");
    void cell.offsetWidth; // lets the same animation start over
    cell.classList.add("rose");
  }

  function buildFrame() {
    const columns = document.getElementById("live-columns");
    for (const title of ["Slot", ...COLUMNS.map(([, words]) => words)]) {
      const head = make("th", title);
      head.scope = "col";
      columns.append(head);
    }
    tiles = {};
    for (const [field, words] of COLUMNS) {
      const tile = make("div");
      const number = make("dd");
      const since = make("dd", "", "live-since");
      tile.append(make("dt", words), number, since);
      totals.append(tile);
      tiles[field] = { number, since };
    }
    totals.hidden = slots.hidden = false;
  }

  function addRow(slot) {
    const row = make("tr");
    const head = make("th", slot);
    head.scope = "row";
    if (here.has(slot)) {
      row.className = "here";
      head.append(make("small", "on this page"));
    }
    row.append(head);
    const cells = {};
    for (const [field] of COLUMNS) {
      cells[field] = make("td");
      row.append(cells[field]);
    }
    rows.append(row);
    bySlot.set(slot, cells);
    return cells;
  }

  function draw(report) {
    const all = report.rows.map((row) => [String(row.slot), countsOf(row)]);
    all.sort(([a], [b]) => here.has(b) - here.has(a) || Number(a) - Number(b));
    const sum = sumOf(all.map(([, counts]) => counts));
    if (!tiles) buildFrame();
    opened ??= sum;
    for (const [field] of COLUMNS) {
      show(tiles[field].number, sum[field]);
      const more = sum[field] - opened[field];
      tiles[field].since.textContent = more > 0 ? `${written.format(more)} more since you opened this page` : "";
    }
    for (const [slot, counts] of all) {
      const cells = bySlot.get(slot) || addRow(slot);
      for (const [field] of COLUMNS) show(cells[field], counts[field]);
    }
  }

  function say(state, words) {
    panel.dataset.state = state;
    if (status.textContent !== words) status.textContent = words;
  }

  function wordsFor(failure) {
    const again = "Trying again every two seconds; the ads on this page do not depend on it.";
    if (failure.name === "AbortError") return `The ad server has not answered for five seconds. ${again}`;
    if (failure.status === 401 || failure.status === 403) {
      return "The counts are not open to this page. Sign in to the console and reload it.";
    }
    if (failure.status) return `The ad server cannot give its counts now (it answered ${failure.status}). ${again}`;
    if (failure.unreadable) return `The ad server answered something that is not a report. ${again}`;
    return `The ad server cannot be reached. ${again}`;
  }

  async function readReport(signal) {
    const answer = await fetch(REPORT, { headers: { Accept: "application/json" }, cache: "no-store", signal });
    if (!answer.ok) throw Object.assign(new Error("refused"), { status: answer.status });
    const report = await answer.json().catch((cause) => {
      throw cause.name === "AbortError" ? cause : Object.assign(new Error("not JSON"), { unreadable: true });
    });
    if (!report || !Array.isArray(report.rows)) throw Object.assign(new Error("no rows"), { unreadable: true });
    return report;
  }

  function resting() {
    return paused || document.hidden;
  }

  async function ask() {
    clearTimeout(timer);
    if (resting() || asking) return;
    asking = new AbortController();
    const patience = setTimeout(() => asking.abort(), PATIENCE_MS);
    try {
      const report = await readReport(asking.signal);
      if (!paused) {
        draw(report);
        say("counting", "Counting. The numbers follow every two seconds.");
      }
    } catch (failure) {
      if (!paused) say("away", wordsFor(failure));
    } finally {
      clearTimeout(patience);
      asking = null;
      if (!resting()) timer = setTimeout(ask, EVERY_MS);
    }
  }

  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    if (paused) {
      clearTimeout(timer);
      say("paused", "Paused. The numbers stand still until you resume.");
    } else {
      say("waiting", "Asking the ad server for its counts…");
      ask();
    }
  });
  document.addEventListener("visibilitychange", ask);

  pause.hidden = false;
  ask();
})();
