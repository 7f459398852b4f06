// What can be filtered by with a click: days, and frequent values of columns. The server counts them once.

import { Query } from "./query.js";

const number = new Intl.NumberFormat("en");
const named = (name) => name.replaceAll("_", " ");

export class Filters {
  #places;
  #facets = null;
  #loading = null;
  #query = new Query();

  // `places`: the elements {days, from, to, label, values, picked}. `go` is called with changes of the query.
  constructor(places, go) {
    this.#places = places;
    this.go = go;
    for (const input of [places.from, places.to]) input.addEventListener("change", () => this.#days());
  }

  show(query) {
    this.#query = query;
    this.#places.from.value = query.span.from;
    this.#places.to.value = query.span.to;
    this.#places.picked.replaceChildren(...this.#picked(query));
    for (const button of this.#places.values.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", this.#has(button.dataset.where));
    }
  }

  // Ask for the values when somebody first wants to see them.
  load() {
    this.#loading ??= fetch("/facets").then(async (response) => {
      if (!response.ok) {
        this.#loading = null;
        return;
      }
      this.#facets = await response.json();
      this.#draw();
    });
    return this.#loading;
  }

  #draw() {
    const { days, from, to, label, values } = this.#places;
    const [span] = this.#facets.dates;
    days.hidden = !span;
    if (span) {
      label.textContent = named(span.name);
      for (const input of [from, to]) Object.assign(input, { min: span.first, max: span.last });
    }
    values.replaceChildren(
      ...this.#facets.columns.map((column) => {
        const group = document.createElement("div");
        group.setAttribute("role", "group");
        group.setAttribute("aria-label", named(column.name));
        const title = Object.assign(document.createElement("span"), { className: "soft", textContent: named(column.name) });
        group.append(title, ...column.values.map((value) => this.#button(column.name, value)));
        return group;
      }),
    );
    this.show(this.#query);
  }

  #button(column, { value, count, where }) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "chip" });
    button.dataset.where = where;
    button.append(value, Object.assign(document.createElement("small"), { textContent: number.format(count) }));
    button.addEventListener("click", () => {
      const others = this.#query.picks.filter(([, , filter]) => filter !== where);
      this.go({ picks: this.#has(where) ? others : [...others, [column, value, where]] });
    });
    return button;
  }

  #has(where) {
    return this.#query.picks.some(([, , filter]) => filter === where);
  }

  #days() {
    const column = this.#query.span.column || this.#facets?.dates[0]?.name || "";
    this.go({ span: { column, from: this.#places.from.value, to: this.#places.to.value } });
  }

  #picked(query) {
    const { column, from, to } = query.span;
    const chips = query.picks.map((pick) =>
      this.#chip(`${named(pick[0])}: ${pick[1]}`, { picks: query.picks.filter((other) => other !== pick) }),
    );
    if (column && (from || to)) {
      chips.unshift(this.#chip(`${named(column)}: ${from || "…"} – ${to || "…"}`, { span: { column: "", from: "", to: "" } }));
    }
    return chips;
  }

  #chip(name, without) {
    const item = document.createElement("li");
    const remove = Object.assign(document.createElement("button"), { type: "button", textContent: "×" });
    remove.setAttribute("aria-label", `Remove the filter ${name}`);
    remove.addEventListener("click", () => this.go(without));
    item.append(name, remove);
    return item;
  }
}
