/* What makes the console pleasant and is not needed: fields checked as they are left, an image dropped and looked at,
   parts of a form shown when they apply. Everything works without. */
"use strict";

for (const form of document.querySelectorAll("form[data-check]")) {
  const touched = new Set();
  let asked = 0;
  const say = (name, sentence) => {
    const place = document.getElementById("w-" + name);
    if (!place) return;
    place.textContent = sentence || "";
    for (const input of form.querySelectorAll(`[name="${CSS.escape(name)}"]`)) {
      if (sentence) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    }
  };
  const check = async () => {
    const turn = ++asked;
    const body = new FormData(form);
    body.delete("image");
    const answer = await fetch(form.dataset.check, { method: "POST", body: new URLSearchParams(body) }).catch(() => null);
    if (!answer || !answer.ok || turn !== asked) return;
    const wrong = await answer.json();
    for (const name of touched) say(name, wrong[name]);
  };
  form.addEventListener("focusout", (event) => {
    const name = event.target.name;
    if (!name || event.target.type === "file" || name === "csrf") return;
    if (event.target.value === "" && !touched.has(name)) return;
    touched.add(name);
    check();
  });
  form.addEventListener("submit", () => {
    for (const button of form.querySelectorAll("button")) button.setAttribute("aria-busy", "true");
  });
}

for (const part of document.querySelectorAll("[data-when]")) {
  const [name, value] = part.dataset.when.split("=");
  const form = part.closest("form");
  const show = () => {
    const data = new FormData(form);
    part.hidden = data.get(name) !== value;
  };
  form.addEventListener("change", show);
  show();
}

const choices = document.getElementById("choices");
if (choices) {
  const advertiser = choices.closest("form").elements.advertiser;
  advertiser.addEventListener("change", async () => {
    const answer = await fetch(`${choices.dataset.from}?advertiser=${encodeURIComponent(advertiser.value)}`).catch(() => null);
    if (answer && answer.ok) choices.innerHTML = await answer.text();
  });
}

for (const drop of document.querySelectorAll("[data-drop]")) {
  const input = drop.querySelector("input[type=file]");
  const picture = drop.querySelector("[data-picture]");
  const look = () => {
    const [file] = input.files;
    if (!picture) return;
    if (picture.src) URL.revokeObjectURL(picture.src);
    picture.hidden = !file;
    if (file) picture.src = URL.createObjectURL(file);
  };
  input.addEventListener("change", look);
  for (const kind of ["dragenter", "dragover"]) {
    drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) { input.files = event.dataTransfer.files; look(); }
  });
}

/* A field that narrows a long list of choices by what is typed; what is chosen stays in sight. */
for (const field of document.querySelectorAll("[data-filter]")) {
  field.closest("[hidden]").hidden = false;
  const choices = [...document.getElementById(field.dataset.filter).children];
  const texts = choices.map((one) => one.textContent.toLowerCase());
  field.addEventListener("input", () => {
    const text = field.value.trim().toLowerCase();
    choices.forEach((one, n) => { one.hidden = !texts[n].includes(text) && !one.querySelector(":checked"); });
  });
}

/* In the calendar, arrow keys go from link to link: along a line, and to the nearest of the line above or below. */
for (const table of document.querySelectorAll("table[data-arrows]")) {
  table.addEventListener("keydown", (event) => {
    const link = event.target.closest("a");
    if (!link || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const rows = [...table.tBodies].flatMap((body) => [...body.rows]).filter((row) => row.querySelector("a"));
    const row = rows.indexOf(link.closest("tr"));
    const line = row < 0 ? [] : [...rows[row].querySelectorAll("a")];
    const middle = (one) => { const box = one.getBoundingClientRect(); return box.left + box.width / 2; };
    const nearest = (other) => other && [...other.querySelectorAll("a")].reduce(
      (best, one) => (Math.abs(middle(one) - middle(link)) < Math.abs(middle(best) - middle(link)) ? one : best));
    const next = {
      ArrowRight: () => line[line.indexOf(link) + 1],
      ArrowLeft: () => line[line.indexOf(link) - 1],
      ArrowDown: () => nearest(rows[row + 1]),
      ArrowUp: () => nearest(rows[row - 1]),
    }[event.key];
    const to = row >= 0 && next && next();
    if (to) { event.preventDefault(); to.focus(); }
  });
}

for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  });
}

for (const part of document.querySelectorAll("[data-load]")) {
  fetch(part.dataset.load).then((answer) => (answer.ok ? answer.text() : Promise.reject())).then(
    (text) => { part.innerHTML = text; part.removeAttribute("aria-busy"); },
    () => { part.textContent = part.dataset.failed || "This could not be loaded."; },
  );
}

const problems = document.getElementById("problems");
if (problems) problems.focus();
