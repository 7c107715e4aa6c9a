// Fills a page's ad placeholders with one call, and reports which of its ads were viewable.
// Rules: nothing is stored on the device, nothing is thrown into the page, styles are set through the CSSOM alone.
// Lines that begin with two slashes are left out when this is served, and blanks beside signs; see strip_script.
"use strict";

(() => {
  const VIEWABLE_MS = 1000;
  const LARGE_PX = 242500;
  const LEAST_REFRESH_S = 30;
  const RETRY_MS = 2000;
  const MOST_RETRIES = 5;
  const MOST_QUERY = 1900;
  const MOST_SLOTS = 100;
  const MOST_TAGS = 64;

  // A module is not told its own tag.
  const me = document.currentScript || document.querySelector('script[type=module][src*="/loader.js"]');
  const root = document.documentElement;
  if (!me || root.adserver) return;
  root.adserver = true;

  const base = me.src.replace(/\/loader[^/]*$/, "");
  // What the page says of itself: data-section on the script, or data-adserver-section on <html>.
  const said = (name) => me.dataset[name] ?? root.getAttribute(`data-adserver-${name}`) ?? "";
  let warned;
  const warn = (error) => (warned ||= !console.warn(`adserver: ${error}`));

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
  const loaded = (picture) => !picture || (picture.complete && picture.naturalWidth);
  // Of a large ad less is enough; one that is as wide as its column is no larger than it was made.
  const shown = ({ ad, target, picture, ratio }) => {
    const { width, height } = target.getBoundingClientRect();
    const { width: w = width, height: h = height } = ad.dataset;
    const area = Math.round(Math.min(width, w) * Math.min(height, h));
    return area > 1 && ratio >= (area < LARGE_PX ? 0.5 : 0.3) && loaded(picture);
  };
  // No event says that an ad fades in or out, so this is looked at when a second begins and when it ends.
  const clear = ({ target }) => target.checkVisibility?.({ checkOpacity: true, checkVisibilityCSS: true }) ?? true;
  const stop = (view) => {
    clearTimeout(view.timer);
    view.timer = view.steady = 0;
  };
  const follow = (view) => {
    if (!shown(view) || !active()) stop(view);
    else if (!view.timer) view.timer = setTimeout(ripen, VIEWABLE_MS, view, clear(view));
  };
  const followAll = () => views.forEach(follow);
  const look = (entries) => {
    for (const { target, intersectionRatio: ratio } of entries) {
      const view = views.get(target);
      if (view) follow(Object.assign(view, { ratio }));
    }
  };
  const observer = window.IntersectionObserver && new IntersectionObserver(look, { threshold: [0, 0.3, 0.5] });
  const ripen = (view, before) => {
    const { timer } = view;
    look(observer.takeRecords());
    follow(view);
    if (view.timer !== timer) return;
    if (!before || !clear(view)) {
      stop(view);
      return follow(view);
    }
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
  const watch = (ad, ahead) => {
    const pixel = ad.querySelector(":scope > img.adserver-pixel");
    const token = /\/i\/([\w-]{48})$/.exec(pixel?.src)?.[1];
    if (!token || ad.adserver) return;
    ad.adserver = true;
    pixel.style.position = "absolute";
    const picture = ad.querySelector(".adserver-link img");
    // An impression that was lost, or that was none yet because the page was rendered ahead; never of an ad whose
    // picture does not come either.
    const resend = () => (loaded(picture) ? send(`/i/${token}`) : picture.addEventListener("load", resend));
    pixel.onerror = resend;
    if (ahead) pixel.onload = resend;
    if (pixel.complete && (ahead || !pixel.naturalWidth)) resend();
    const shows = ad.querySelector(".adserver-link, div.adserver-html, iframe");
    const target = (ad.matches(".adserver-image") && picture) || shows || ad;
    const view = { ad, token, target, picture };
    views.set(target, view);
    if (picture) picture.onload = () => follow(view);
    observer?.observe(target);
    if (observer) send(`/m/${token}`);
    pass(ad);
  };
  // Who follows the ad has seen it; not who follows another link in it, such as the one past it.
  const click = ({ target, button }) => {
    const link = button < 2 && target.closest?.("a[href]");
    if (link) for (const view of views.values()) if (link.href.includes(view.token)) report(view);
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
  const rules = { createHTML: (html) => html };
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
    trusted ||= window.trustedTypes?.createPolicy("adserver", rules) ?? rules;
    template.innerHTML = trusted.createHTML(ad.html);
    box.style.minHeight = `${room}px`;
    box.replaceChildren(template.content);
    // Words that need more than was kept for them scroll in their box; what the law wants said is never cut.
    if (room && box.offsetHeight > room + 1 && !below(box) && !box.querySelector(".adserver-political")) {
      box.style.height = `${room}px`;
      box.style.overflow = "auto";
      box.tabIndex = 0;
    }
    for (const one of box.querySelectorAll(".adserver")) watch(one);
  };

  // What is said first is worth most; what does not fit into an address is not said.
  const query = (names) => {
    let found = "";
    const add = (name, value) => {
      const more = `${found}&${new URLSearchParams([[name, value]])}`;
      if (value && more.length < MOST_QUERY) found = more;
    };
    for (const name of names) add("id", name);
    for (const name of ["consent", "section", "country", "device", "reader"]) add(name, said(name));
    add("lang", said("lang") || root.lang);
    for (const tag of said("tags").split(",", MOST_TAGS)) add("tag", tag.trim());
    for (const [name, value] of new URLSearchParams(said("keys"))) add(`key.${name}`, value);
    add("url", location.origin + location.pathname);
    return found.slice(1);
  };
  const ask = async (boxes) => {
    try {
      // A page that waits for longer has been read by then.
      const signal = AbortSignal.timeout?.(15000);
      const answer = await fetch(`${base}/ads?${query(boxes.keys())}`, { credentials: "omit", signal });
      if (answer.ok) return (await answer.json()).ads;
      warn(`${base}/ads answered ${answer.status}`);
    } catch (error) {
      warn(error);
    }
    return {};
  };

  const load = async (boxes, anew) => {
    const ads = boxes.size && (await ask(boxes));
    for (const [name, box] of boxes) {
      if (!anew || ads[name]?.filled) put(box, ads[name]);
      plan(name, box);
    }
  };

  // Only slots that ask are filled anew, and only while their ad is viewable and nobody is using it: those whose time is
  // over are due.
  const due = new Map();
  const plan = (name, box) => {
    const seconds = box.dataset.refresh;
    const ripe = () => {
      due.set(box, name);
      renew();
    };
    if (seconds > 0) setTimeout(ripe, Math.max(LEAST_REFRESH_S, seconds) * 1000);
  };
  const refresh = async () => {
    const boxes = new Map();
    for (const [box, name] of due) {
      const seen = [...views.values()].some((view) => view.steady && box.contains(view.target));
      if (seen && active() && !box.contains(document.activeElement)) boxes.set(name, box);
    }
    for (const box of boxes.values()) due.delete(box);
    await load(boxes, true);
  };

  const renew = () => refresh().catch(warn);

  const fill = async () => {
    if (document.prerendering) return;
    const ahead = performance.getEntriesByType("navigation")[0]?.activationStart;
    for (const ad of document.querySelectorAll(".adserver")) watch(ad, ahead);
    const boxes = new Map();
    for (const box of document.querySelectorAll("[data-adserver-slot], [data-adserver-group]")) {
      if (box.adserver) continue;
      // A box without layout, such as one for another screen, is asked for once it has some.
      if (!box.getClientRects().length) {
        laid.observe(box);
        continue;
      }
      laid.unobserve(box);
      box.adserver = true;
      const { adserverSlot: slot, adserverGroup: group } = box.dataset;
      const name = slot || `group:${group}`;
      if (boxes.has(name) || boxes.size === MOST_SLOTS) collapse(box);
      else boxes.set(name, box);
    }
    await load(boxes);
  };

  const begin = () => fill().catch(warn);
  const laid = new ResizeObserver(begin);
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
  for (const kind of ["DOMContentLoaded", "prerenderingchange", "adserver:fill"]) document.addEventListener(kind, begin);
  if (document.readyState !== "loading") begin();
})();
