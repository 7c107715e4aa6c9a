/* What makes the console pleasant and is not needed: fields checked as they are left, an image dropped and looked at,
   parts of a form shown when they apply. Everything works without. */
"use strict";

for (const form of document.querySelectorAll("form[data-check]")) {
  const touched = new Set();
  let asked = 0;
  let refused = "";
  const named = (name) => form.querySelectorAll(`[name="${CSS.escape(name)}"]`);
  const say = (name, sentence) => {
    const place = document.getElementById("w-" + name);
    if (!place) return;
    if (place.textContent !== (sentence || "")) place.textContent = sentence || "";
    if (sentence) place.closest("details")?.setAttribute("open", "");
    for (const input of named(name)) {
      if (sentence) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    }
  };
  /* What is wrong is said of what was left already, and of what holds something and is not being typed in. */
  const may = (name) => touched.has(name) || [...named(name)].some((one) => one !== document.activeElement
    && one.type !== "file" && (/^(checkbox|radio)$/.test(one.type) ? one.checked : one.value !== ""));
  const ask = async (body) => {
    const turn = ++asked;
    const answer = await fetch(form.dataset.check, { method: "POST", body }).catch(() => null);
    if (!answer || !answer.ok) return null;
    const found = await answer.json();
    if (turn !== asked) return found;
    if (refused) found.wrong.image ||= refused;
    for (const place of form.querySelectorAll(".wrong[id^='w-']")) {
      const name = place.id.slice(2);
      if (!found.wrong[name] || may(name)) say(name, found.wrong[name]);
    }
    return found;
  };
  const check = () => {
    const body = new FormData(form);
    body.delete("image");
    ask(new URLSearchParams(body));
  };
  const left = (event) => {
    const { name, type } = event.target;
    const typed = event.type === "change" && !/^(select-one|checkbox|radio)$/.test(type);
    if (!name || type === "file" || name === "csrf" || typed) return;
    touched.add(name);
    check();
  };
  form.addEventListener("focusout", left);
  form.addEventListener("change", left);
  /* An image is looked at as soon as it is chosen, and kept: whatever else is wrong, it need not be chosen again. */
  form.elements.image?.addEventListener("change", async () => {
    const input = form.elements.image;
    const [file] = input.files;
    refused = "";
    if (!file) return;
    form.elements.picture.value = "";
    const body = new FormData(form);
    touched.add("image");
    const found = await ask(body);
    if (!found || input.files[0] !== file) return;
    refused = found.picture ? "" : found.wrong.image || "";
    say("image", found.wrong.image);
    form.elements.picture.value = found.picture;
    form.elements.picture_notes.value = found.notes.join("\n");
    form.querySelector("[data-kept]").hidden = !found.picture;
    form.querySelector("[data-notes]").replaceChildren(...found.notes.map((one) => {
      const line = document.createElement("li");
      line.textContent = one;
      return line;
    }));
    if (found.picture) input.value = "";
  });
  form.addEventListener("submit", () => {
    for (const button of form.querySelectorAll("button")) button.setAttribute("aria-busy", "true");
  });
}

for (const part of document.querySelectorAll("[data-when]")) {
  const [name, values] = part.dataset.when.split("=");
  const form = part.closest("form");
  const show = () => {
    const data = new FormData(form);
    part.hidden = !values.split("|").includes(data.get(name));
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
    if (!event.dataTransfer.files.length) return;
    input.files = event.dataTransfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
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
