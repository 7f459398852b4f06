// A query, and how it stands in the address and in a request to the API. The names are the API's.

const MIDDLE = 0.5;
// The least cosine of images that are shown as one, where the page groups them.
const GROUPED = 0.97;
// What only one in a thousand unrelated queries finds.
const MATCHING = "1/1000";
const DAY = /^\d{4}-\d\d-\d\d$/;

const quoted = (name) => `"${name.replaceAll('"', '""')}"`;

// A value that was clicked on stands in the address as [column, value, filter].
function pickOf(text) {
  try {
    const pick = JSON.parse(text);
    return Array.isArray(pick) && pick.length === 3 && pick.every((part) => typeof part === "string") ? [pick] : [];
  } catch {
    return [];
  }
}

function dayAfter(day) {
  const next = new Date(`${day}T00:00:00Z`);
  next.setUTCDate(next.getUTCDate() + 1);
  return next.toISOString().slice(0, 10);
}

export class Query {
  text = "";
  ids = [];
  negative = "";
  negativeIds = [];
  balance = MIDDLE;
  where = "";
  picks = []; // values of columns: [column, value, filter]
  span = { column: "", from: "", to: "" }; // days of a column of dates
  grouped = false;
  matching = false; // only images above the line
  files = []; // images of this device; the address cannot carry them

  static fromAddress(search, files = []) {
    const given = new URLSearchParams(search);
    const query = new Query();
    query.text = given.get("text") ?? "";
    query.ids = given.getAll("id");
    query.negative = given.get("negative") ?? "";
    query.negativeIds = given.getAll("negative_id");
    const balance = Number.parseFloat(given.get("balance") ?? MIDDLE);
    query.balance = balance >= 0 && balance <= 1 ? balance : MIDDLE;
    query.where = given.get("where") ?? "";
    query.picks = given.getAll("pick").flatMap(pickOf);
    const day = (name) => (DAY.test(given.get(name) ?? "") ? given.get(name) : "");
    query.span = { column: given.get("in") ?? "", from: day("from"), to: day("to") };
    query.grouped = given.has("collapse");
    query.matching = given.has("min_score");
    query.files = files;
    return query;
  }

  with(changes) {
    return Object.assign(new Query(), this, changes);
  }

  get mixed() {
    return this.text !== "" && this.ids.length + this.files.length > 0;
  }

  get positive() {
    return this.text !== "" || this.ids.length + this.files.length > 0;
  }

  get scored() {
    return this.positive || this.negative !== "" || this.negativeIds.length > 0;
  }

  // All filters as one: of the values of a column one is enough, everything else has to be so.
  get filter() {
    const columns = [...new Set(this.picks.map(([column]) => column))];
    const clauses = columns.map((name) =>
      this.picks.filter(([column]) => column === name).map(([, , filter]) => filter).join(" OR "),
    );
    if (this.where) clauses.unshift(this.where);
    const { column, from, to } = this.span;
    if (column && from) clauses.push(`${quoted(column)} >= '${from}'`);
    if (column && to) clauses.push(`${quoted(column)} < '${dayAfter(to)}'`);
    return clauses.length === 1 ? clauses[0] : clauses.map((clause) => `(${clause})`).join(" AND ");
  }

  // What the address and a request have in common.
  shared() {
    const given = new URLSearchParams();
    if (this.text) given.set("text", this.text);
    for (const id of this.ids) given.append("id", id);
    if (this.negative) given.set("negative", this.negative);
    for (const id of this.negativeIds) given.append("negative_id", id);
    if (this.mixed && this.balance !== MIDDLE) given.set("balance", this.balance);
    if (this.grouped) given.set("collapse", GROUPED);
    if (this.matching && this.positive) given.set("min_score", MATCHING);
    return given;
  }

  address() {
    const given = this.shared();
    if (this.where) given.set("where", this.where);
    for (const pick of this.picks) given.append("pick", JSON.stringify(pick));
    const { column, from, to } = this.span;
    if (column && (from || to)) given.set("in", column);
    if (column && from) given.set("from", from);
    if (column && to) given.set("to", to);
    return given.size > 0 ? `/?${given}` : "/";
  }

  // Ask the API for a page of results.
  request(k, offset, signal) {
    const given = this.shared();
    if (this.filter) given.set("where", this.filter);
    given.set("k", k);
    given.set("offset", offset);
    if (this.files.length === 0) return fetch(`/search?${given}`, { signal });
    const form = new FormData();
    for (const [name, value] of given) form.append(name, value);
    for (const file of this.files) form.append("image", file);
    return fetch("/search", { method: "POST", body: form, signal });
  }
}

export const thumbnail = (id, side) => `/thumbnail/${encodeURIComponent(id)}?side=${side}`;

export const original = (id) => `/image/${encodeURIComponent(id)}`;
