// A query, and how it stands in the address and in a request to the API. The names are the API's.

const MIDDLE = 0.5;

export class Query {
  text = "";
  ids = [];
  negative = "";
  negativeIds = [];
  balance = MIDDLE;
  where = "";
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

  parameters() {
    const given = new URLSearchParams();
    if (this.text) given.set("text", this.text);
    for (const id of this.ids) given.append("id", id);
    if (this.negative) given.set("negative", this.negative);
    for (const id of this.negativeIds) given.append("negative_id", id);
    if (this.mixed && this.balance !== MIDDLE) given.set("balance", this.balance);
    if (this.where) given.set("where", this.where);
    return given;
  }

  address() {
    const given = this.parameters().toString();
    return given ? `/?${given}` : "/";
  }

  // Ask the API for a page of results.
  request(k, offset, signal) {
    const given = this.parameters();
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
