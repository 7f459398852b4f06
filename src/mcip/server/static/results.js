// The grid of results: endless, and walked through by keyboard.

import { thumbnail } from "./query.js";

const PAGE = 48;
const SIDE = 320;

// What an image is called: its caption, title or label, or its id.
export function nameOf(hit) {
  for (const key of ["captions", "caption", "title", "text", "label"]) {
    const value = Array.isArray(hit.metadata[key]) ? hit.metadata[key][0] : hit.metadata[key];
    if (typeof value === "string" && value) return value;
  }
  return hit.id;
}

// A result without the images that were searched by: the best one that is left stands for its group.
function withoutQueried(hit, queried) {
  const [best, ...others] = [hit, ...hit.others].filter((one) => !queried.has(one.id));
  return best ? [{ ...best, others }] : [];
}

export class Results {
  #list;
  #template;
  #query = null;
  #next = null;
  #control = new AbortController();
  #loading = false;
  #nearEnd;
  #hits = new Map();
  #lined = false;

  // `report` is called with the progress: {state: "asking" | "shown" | "failed", ...}.
  constructor(list, template, end, act, report) {
    this.#list = list;
    this.#template = template;
    this.act = act;
    this.report = report;
    list.addEventListener("click", (event) => this.#click(event));
    list.addEventListener("keydown", (event) => this.#key(event));
    list.addEventListener("focusin", (event) => this.#reach(event.target.closest("li")));
    this.#nearEnd = new IntersectionObserver((entries) => entries.at(-1).isIntersecting && this.more(), {
      rootMargin: "600px",
    });
    this.#nearEnd.observe(end);
    this.end = end;
  }

  get count() {
    return this.#list.querySelectorAll("li:not(.member, .line)").length;
  }

  focus() {
    this.#list.querySelector('.tile[tabindex="0"]')?.focus({ preventScroll: true });
  }

  clear() {
    this.#control.abort();
    this.#control = new AbortController();
    this.#query = null;
    this.#empty();
  }

  show(query) {
    this.#control.abort();
    this.#control = new AbortController();
    this.#query = query;
    this.#next = 0;
    this.#loading = false;
    return this.more(true);
  }

  async more(first = false) {
    if (this.#loading || this.#next === null || this.#query === null) return;
    this.#loading = true;
    const { signal } = this.#control;
    if (first) this.report({ state: "asking" });
    try {
      const response = await this.#query.request(PAGE, this.#next, signal);
      const answer = await response.json();
      if (signal.aborted) return;
      if (!response.ok) throw Object.assign(new Error(answer.detail), { status: response.status });
      if (first) this.#empty();
      // A query image is the best match of itself.
      const queried = new Set([...this.#query.ids, ...this.#query.negativeIds]);
      const shown = answer.hits.flatMap((hit) => withoutQueried(hit, queried));
      this.#list.append(...shown.flatMap((hit) => [...this.#line(hit, answer.line), this.#tile(hit)]));
      if (!this.#list.querySelector('[tabindex="0"]')) this.#reach(this.#list.querySelector("li:not(.line)"));
      this.#next = answer.next_offset;
      this.report({ state: "shown", count: this.count, whole: this.#next === null });
    } catch (error) {
      if (signal.aborted) return;
      if (first) this.#empty();
      this.#next = null;
      this.report({ state: "failed", status: error.status, detail: error.status ? error.message : "" });
    } finally {
      if (!signal.aborted) this.#loading = false;
    }
    // An observer reports changes only. New results push the end away, and scrolling may bring it back before the
    // next frame, which is no change: so it is observed anew.
    this.#nearEnd.unobserve(this.end);
    this.#nearEnd.observe(this.end);
  }

  #empty() {
    this.#list.replaceChildren();
    this.#lined = false;
    this.#hits.clear();
  }

  // Before the first image that matches no better than for unrelated queries: what says so.
  #line(hit, line) {
    if (this.#lined || line === null || hit.score === null || hit.score >= line) return [];
    this.#lined = true;
    const item = Object.assign(document.createElement("li"), { className: "line" });
    item.textContent = "Below this: what one in 1,000 unrelated queries finds as well";
    return [item];
  }

  #tile(hit) {
    const item = this.#template.content.cloneNode(true).firstElementChild;
    const name = nameOf(hit);
    const score = hit.score === null ? "" : hit.score.toFixed(2);
    item.dataset.id = hit.id;
    this.#hits.set(hit.id, hit);
    const image = item.querySelector("img");
    image.alt = name;
    image.src = thumbnail(hit.id, SIDE);
    image.addEventListener("error", () => item.classList.add("gone"), { once: true });
    item.querySelector(".score").textContent = score;
    const group = item.querySelector(".group");
    group.hidden = hit.others.length === 0;
    group.textContent = `+${hit.others.length}`;
    group.title = `${hit.others.length} near-duplicates`;
    const labels = { like: "More like", view: "View", add: "Add to search:", away: "Less like", open: "Near-duplicates of" };
    for (const button of item.querySelectorAll("[data-act]")) {
      button.setAttribute("aria-label", `${labels[button.dataset.act]} ${name}`);
    }
    if (score) item.querySelector(".tile").setAttribute("aria-label", `More like ${name}, score ${score}`);
    return item;
  }

  #click(event) {
    const button = event.target.closest("[data-act]");
    if (button?.dataset.act === "open") this.#open(button);
    else if (button) this.act(button.dataset.act, this.#hits.get(button.closest("li").dataset.id));
  }

  // Show the images that a result stands for behind it, or hide them again.
  #open(button) {
    const item = button.closest("li");
    const open = button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", open);
    if (open) {
      const members = this.#hits.get(item.dataset.id).others.map((hit) => this.#tile(hit));
      for (const member of members) member.classList.add("member");
      item.after(...members);
    } else {
      while (item.nextElementSibling?.classList.contains("member")) item.nextElementSibling.remove();
    }
  }

  #key(event) {
    const item = event.target.closest("li");
    if (!item || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = { o: "view", "+": "add", "-": "away" }[event.key];
    const tiles = [...this.#list.querySelectorAll("li:not(.line)")];
    const target = act ? item : this.#neighbour(tiles, tiles.indexOf(item), event.key);
    if (!target) return;
    event.preventDefault();
    if (act) this.act(act, this.#hits.get(item.dataset.id));
    else target.querySelector(".tile").focus();
  }

  #neighbour(tiles, at, key) {
    const top = (number) => tiles[number].offsetTop;
    const across = tiles.findIndex((_, number) => top(number) !== top(0));
    const step = across < 0 ? tiles.length : across;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - step, ArrowDown: at + step };
    return tiles[{ ...to, Home: 0, End: tiles.length - 1 }[key]];
  }

  // The tab key stops at one result only; arrows move among them.
  #reach(item) {
    if (!item) return;
    for (const button of this.#list.querySelectorAll('[tabindex="0"]')) button.tabIndex = -1;
    for (const button of item.querySelectorAll("button")) button.tabIndex = 0;
  }
}
