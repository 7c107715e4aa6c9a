// Fills a page's ad placeholders with one call, and reports which of its ads were viewable.
// Rules: nothing is stored on the device, nothing is thrown into the page, styles are set through the CSSOM alone.
// Lines that begin with two slashes are left out when this is served, so no string may span lines.
"use strict";

(() => {
  const VIEWABLE_MS = 1000;
  const LARGE_PX = 242500;
  const LEAST_REFRESH_S = 30;
  const RETRY_MS = 2000;
  const MOST_RETRIES = 5;
  const MOST_QUERY = 1900;
  const MOST_SLOTS = 100;

  const me = document.currentScript || document.querySelector('script[src*="/loader"]');
  const once = Symbol.for("adserver");
  if (!me || window[once]) return;
  window[once] = true;

  const root = document.documentElement;
  const base = me.src.replace(/\/loader[^/]*$/, "");
  // What the page says of itself: data-section on the script, or data-adserver-section on <html>.
  const said = (name) => me.dataset[name] ?? root.getAttribute(`data-adserver-${name}`) ?? "";
  let warned = false;
  const warn = (error) => {
    if (!warned) console.warn(`adserver: ${error}`);
    warned = true;
  };

  // Beacons. An answer of 503 means: not safe on a disk yet, send it again; a token counts once however often it comes.
  // fetch can hear that and sendBeacon cannot, so sendBeacon takes over what is unanswered when the page is left.
  const unanswered = new Set();
  const send = (path, tries = 0) => {
    const url = base + path;
    unanswered.add(url);
    const again = () => {
      if (tries < MOST_RETRIES) setTimeout(() => unanswered.has(url) && send(path, tries + 1), RETRY_MS * 2 ** tries);
    };
    fetch(url, { method: "POST", keepalive: true, credentials: "omit" }).then(
      (answer) => (answer.status === 503 ? again() : unanswered.delete(url)),
      again,
    );
  };
  const leave = () => {
    for (const url of unanswered) if (navigator.sendBeacon?.(url)) unanswered.delete(url);
  };

  // Viewability: so much of an ad, for one second without a break, in a tab that is visible and has the focus.
  const views = new Map();
  const active = () => document.visibilityState === "visible" && document.hasFocus();
  const stop = (view) => {
    clearTimeout(view.timer);
    view.timer = view.steady = 0;
  };
  const follow = (view) => {
    if (!view.shown || !active()) stop(view);
    else if (!view.timer) view.timer = setTimeout(ripen, VIEWABLE_MS, view);
  };
  const followAll = () => views.forEach(follow);
  const look = (entries) => {
    for (const { target, intersectionRatio, boundingClientRect: box } of entries) {
      const view = views.get(target);
      const area = Math.round(box.width * box.height);
      if (view) follow(Object.assign(view, { shown: area > 1 && intersectionRatio >= (area < LARGE_PX ? 0.5 : 0.3) }));
    }
  };
  const observer = window.IntersectionObserver && new IntersectionObserver(look, { threshold: [0, 0.3, 0.5] });
  const ripen = (view) => {
    look(observer.takeRecords());
    follow(view);
    if (!view.timer) return;
    view.steady = true;
    report(view);
    renew();
  };
  const report = (view) => {
    if (!view.reported) send(`/v/${view.token}`);
    view.reported = true;
    // What moves has done so for long enough: its still is for everybody now, not only for who wants less motion.
    const still = view.ad.querySelector(".adserver-link source");
    if (still) setTimeout(() => (still.media = ""), 30000);
  };
  const watch = (ad) => {
    const pixel = ad.querySelector(":scope > img.adserver-pixel");
    const token = /\/i\/([\w-]{48})$/.exec(pixel?.src)?.[1];
    if (!token || ad.adserver) return;
    ad.adserver = true;
    pixel.style.position = "absolute";
    const resend = () => send(`/i/${token}`);
    if (pixel.complete && !pixel.naturalWidth) resend();
    else pixel.addEventListener("error", resend);
    const shown = ad.matches(".adserver-image") ? ".adserver-link img" : ".adserver-link, div.adserver-html, iframe";
    const target = ad.querySelector(shown) || ad;
    views.set(target, { ad, token, target });
    observer?.observe(target);
    if (observer) send(`/m/${token}`);
    pass(ad);
  };
  const click = ({ target, button }) => {
    const link = button < 2 && target.closest?.("a[href]");
    if (link) for (const view of views.values()) if (view.ad.contains(link)) report(view);
  };

  // A way past an ad that stays on the screen, for those who read by keyboard or by ear.
  const pass = (ad) => {
    let at = ad;
    while (at && !/sticky|fixed/.test(getComputedStyle(at).position)) at = at.parentElement;
    if (!at) return;
    const link = document.createElement("a");
    const end = document.createElement("span");
    end.tabIndex = -1;
    link.className = "adserver-skip";
    link.href = "#";
    link.textContent = said("skip") || "Skip advertisement";
    link.addEventListener("click", (event) => {
      event.preventDefault();
      end.focus({ preventScroll: true });
    });
    ad.prepend(link);
    ad.append(end);
  };

  // Boxes. One that stays empty goes when that moves nothing the reader looks at: while it is below the screen.
  const below = (box) => box.getBoundingClientRect().top >= innerHeight;
  const collapse = (box) => {
    const go = () => below(box) && (box.style.display = "none");
    if (go() || !window.IntersectionObserver) return;
    const waiting = new IntersectionObserver(() => go() && waiting.disconnect());
    waiting.observe(box);
  };
  let trusted;
  const put = (box, ad) => {
    const room = box.offsetHeight;
    for (const [target, view] of views) {
      if (!box.contains(target)) continue;
      stop(view);
      observer?.unobserve(target);
      views.delete(target);
    }
    if (!ad?.html) return collapse(box);
    const template = document.createElement("template");
    trusted ||= window.trustedTypes?.createPolicy("adserver", { createHTML: (html) => html });
    template.innerHTML = trusted ? trusted.createHTML(ad.html) : ad.html;
    box.style.minHeight = `${room}px`;
    box.replaceChildren(template.content);
    // Words that need more than was kept for them scroll in their box; what the law wants said is never cut.
    if (room && box.offsetHeight > room + 1 && !below(box) && !box.querySelector(".adserver-political")) {
      box.style.height = `${room}px`;
      box.style.overflow = "auto";
      box.tabIndex = 0;
    }
    box.querySelectorAll(".adserver").forEach(watch);
  };

  const query = (names) => {
    const found = new URLSearchParams(names.map((name) => ["id", name]));
    const add = (name, value) => value && found.append(name, value);
    for (const name of ["section", "country", "device", "reader", "consent"]) add(name, said(name));
    add("lang", said("lang") || root.lang);
    for (const tag of said("tags").split(",")) add("tag", tag.trim());
    for (const [name, value] of new URLSearchParams(said("keys"))) add(`key.${name}`, value);
    const without = String(found);
    add("url", location.origin + location.pathname);
    return String(found).length > MOST_QUERY ? without : String(found);
  };
  const ask = async (boxes) => {
    try {
      // A page that waits for longer has been read by then.
      const signal = AbortSignal.timeout?.(15000);
      const answer = await fetch(`${base}/ads?${query([...boxes.keys()])}`, { credentials: "omit", signal });
      if (answer.ok) return (await answer.json()).ads;
      warn(`${base}/ads answered ${answer.status}`);
    } catch (error) {
      warn(error);
    }
    return {};
  };

  // Only slots that ask are filled anew, and only while their ad is viewable and nobody is using it.
  const due = new Map();
  const plan = (name, box) => {
    const seconds = Number(box.dataset.refresh);
    if (!seconds) return;
    const wait = Math.max(LEAST_REFRESH_S, seconds) * 1000;
    due.set(name, { box });
    setTimeout(() => renew(Object.assign(due.get(name), { ripe: true })), wait);
  };
  const refresh = async () => {
    const boxes = new Map();
    for (const [name, { box, ripe }] of due) {
      const seen = [...views.values()].some((view) => view.steady && box.contains(view.target));
      if (ripe && seen && active() && !box.contains(document.activeElement)) boxes.set(name, box);
    }
    if (!boxes.size) return;
    for (const name of boxes.keys()) due.delete(name);
    const ads = await ask(boxes);
    for (const [name, box] of boxes) {
      if (ads[name]?.filled) put(box, ads[name]);
      plan(name, box);
    }
  };

  const renew = () => refresh().catch(warn);

  const fill = async () => {
    if (document.prerendering) return;
    document.querySelectorAll(".adserver").forEach(watch);
    const boxes = new Map();
    for (const box of document.querySelectorAll("[data-adserver-slot], [data-adserver-group]")) {
      if (box.adserver) continue;
      box.adserver = true;
      const { adserverSlot: slot, adserverGroup: group } = box.dataset;
      const name = slot || `group:${group}`;
      if (boxes.has(name) || boxes.size === MOST_SLOTS) collapse(box);
      else boxes.set(name, box);
      // a box written by hand has its size, and nothing in it yet
      if (!box.childElementCount && box.dataset.height) box.style.minHeight = `${Number(box.dataset.height)}px`;
    }
    if (!boxes.size) return;
    const ads = await ask(boxes);
    for (const [name, box] of boxes) {
      put(box, ads[name]);
      if (ads[name]?.filled) plan(name, box);
    }
  };

  const begin = () => fill().catch(warn);
  addEventListener("focus", followAll);
  addEventListener("blur", followAll);
  addEventListener("pageshow", followAll);
  addEventListener("pagehide", () => {
    views.forEach(stop);
    leave();
  });
  document.addEventListener("visibilitychange", () => {
    followAll();
    if (!active()) leave();
  });
  for (const kind of ["click", "auxclick"]) document.addEventListener(kind, click, true);
  document.addEventListener("prerenderingchange", begin);
  document.addEventListener("adserver:fill", begin);
  begin();
})();
