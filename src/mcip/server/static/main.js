// The page: what a person does becomes a query, the query becomes the address, and the address results.

import { Filters } from "./filters.js";
import { original, Query, thumbnail } from "./query.js";
import { nameOf, Results } from "./results.js";

const at = (id) => document.getElementById(id);
const [form, text, negative, where, balance, file] = ["ask", "text", "negative", "where", "balance", "file"].map(at);
const [status, problem, parts, viewer, login] = ["status", "problem", "parts", "viewer", "login"].map(at);
const [grouped, matching] = ["grouped", "matching"].map(at);
const number = new Intl.NumberFormat("en");

let about = null;
let query = new Query();
// Images of this device by the number of their place in the history, so that going back finds them.
const kept = new Map();
const previews = new WeakMap();

const results = new Results(at("results"), at("hit"), at("end"), act, report);

const filters = new Filters(
  { days: at("days"), from: at("from"), to: at("to"), label: at("dated"), values: at("values"), picked: at("picked") },
  (changes) => go(changes),
);

function go(changes, replace = false) {
  query = query.with(changes);
  const place = query.files.length > 0 ? { files: Date.now() } : null;
  if (place) kept.set(place.files, query.files);
  history[replace ? "replaceState" : "pushState"](place, "", query.address());
  return show();
}

function arrive() {
  query = Query.fromAddress(location.search, kept.get(history.state?.files) ?? []);
  show();
}

function show() {
  text.value = query.text;
  negative.value = query.negative;
  where.value = query.where;
  balance.value = query.balance;
  at("mix").hidden = !query.mixed;
  grouped.checked = query.grouped;
  matching.checked = query.matching;
  filters.show(query);
  showShares();
  if (query.negative || query.where || query.matching) at("more").open = true;
  at("unshared").hidden = query.files.length === 0;
  parts.replaceChildren(
    ...query.files.map((one) => part(preview(one), one.name, false, { files: query.files.filter((x) => x !== one) })),
    ...query.ids.map((id) => part(thumbnail(id, 128), id, false, { ids: query.ids.filter((x) => x !== id) })),
    ...query.negativeIds.map((id) =>
      part(thumbnail(id, 128), id, true, { negativeIds: query.negativeIds.filter((x) => x !== id) }),
    ),
  );
  document.title = query.text ? `${query.text} - mcip search` : "mcip search";
  // There is nothing to search for in negatives alone.
  if (query.scored && !query.positive) {
    results.clear();
    report({ state: "failed", status: 400, detail: "Say what to look for as well, by text or by image." });
    return null;
  }
  return results.show(query);
}

function showShares() {
  const words = Math.round(100 * balance.value);
  at("shares").textContent = `Text ${words} %`;
  balance.setAttribute("aria-valuetext", `${100 - words} % image, ${words} % text`);
}

function part(source, name, away, without) {
  const item = document.createElement("li");
  item.classList.toggle("away", away);
  const image = Object.assign(document.createElement("img"), { src: source, alt: away ? `not like ${name}` : name });
  image.addEventListener("error", () => item.classList.add("gone"), { once: true });
  const remove = Object.assign(document.createElement("button"), { type: "button", textContent: "×" });
  remove.setAttribute("aria-label", `Remove ${name} from the search`);
  remove.addEventListener("click", () => goOn(without));
  item.append(away ? "not" : "", image, remove);
  return item;
}

function preview(one) {
  if (!previews.has(one)) previews.set(one, URL.createObjectURL(one));
  return previews.get(one);
}

function act(what, hit) {
  if (what === "view") {
    view(hit);
    return;
  }
  const changes = {
    like: { text: "", ids: [hit.id], files: [], negative: "", negativeIds: [] },
    add: { ids: [...new Set([...query.ids, hit.id])], negativeIds: query.negativeIds.filter((id) => id !== hit.id) },
    away: { negativeIds: [...new Set([...query.negativeIds, hit.id])], ids: query.ids.filter((id) => id !== hit.id) },
  };
  if (viewer.open) viewer.close();
  scrollTo({ top: 0 });
  goOn(changes[what]);
}

// Go to another query from a button that it takes away: the keyboard continues at the first result.
async function goOn(changes) {
  await go(changes);
  results.focus();
}

function view(hit) {
  const image = viewer.querySelector("img");
  image.src = thumbnail(hit.id, 1600);
  image.alt = nameOf(hit);
  at("viewed").textContent = nameOf(hit);
  viewer.querySelector("a").href = original(hit.id);
  const facts = { id: hit.id, pixels: `${hit.width} × ${hit.height}`, ...hit.metadata };
  if (hit.score !== null) facts.score = hit.score.toFixed(4);
  viewer.querySelector("dl").replaceChildren(
    ...Object.entries(facts).filter(([, value]) => value !== null && value !== "").flatMap(([name, value]) => [
      Object.assign(document.createElement("dt"), { textContent: name }),
      Object.assign(document.createElement("dd"), {
        textContent: Array.isArray(value) ? value.join("; ") : typeof value === "object" ? JSON.stringify(value) : value,
      }),
    ]),
  );
  for (const button of viewer.querySelectorAll("[data-act]")) button.onclick = () => act(button.dataset.act, hit);
  viewer.showModal();
}

function report({ state, status: code, detail, count, whole }) {
  document.body.classList.toggle("asking", state === "asking");
  problem.hidden = state !== "failed" || code === 503;
  if (state === "asking") return;
  if (state === "shown") {
    status.textContent = shownText(count, whole);
  } else if (code === 401) {
    status.textContent = "";
    problem.hidden = true;
    if (!login.open) login.showModal();
  } else if (code === 503) {
    status.textContent = "The index is not ready yet, asking again…";
    setTimeout(() => (about ? results.show(query) : start()), 1000);
  } else {
    status.textContent = "";
    // Below the sentence about a wrong filter stands the filter, with a mark beneath the place.
    const [sentence, ...place] = (detail || "The server cannot be reached: is it still running?").split("\n");
    problem.textContent = sentence;
    if (place.length > 0) {
      problem.append(Object.assign(document.createElement("pre"), { textContent: place.join("\n") }));
    }
  }
}

function shownText(count, whole) {
  if (count === 0 && query.matching) {
    return "No image matches better than what one in 1,000 unrelated queries finds. Without “Only what matches” the nearest are shown.";
  }
  if (count === 0) return query.filter ? "No image fulfils the filter." : "No image found.";
  const images = count === 1 ? "1 image" : `${number.format(count)} images`;
  if (!query.scored && !query.filter && !query.grouped && about) {
    return `${number.format(about.images)} images. Describe one, drop one here, or click one to see more like it.`;
  }
  return whole ? `${images}, that is all.` : `${images}${query.scored ? ", best first" : ""}. Scroll for more.`;
}

async function start() {
  const response = await fetch("/about").catch(() => null);
  if (!response?.ok) {
    report({ state: "failed", status: response?.status, detail: "" });
    return;
  }
  about = await response.json();
  at("columns").textContent = `Columns: ${about.columns.map((column) => column.name).join(", ")}.`;
  arrive();
}

function take(files) {
  const taken = [...files];
  if (taken.length === 0) return;
  const size = [...query.files, ...taken].reduce((sum, one) => sum + one.size, 0);
  if (about && size > about.max_upload) {
    report({ state: "failed", status: 413, detail: `That is too large: at most ${about.max_upload / 1e6} MB are taken.` });
    return;
  }
  go({ files: [...query.files, ...taken], text: text.value.trim() });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  go({ text: text.value.trim(), negative: negative.value.trim(), where: where.value.trim() });
});
at("more").addEventListener("toggle", () => at("more").open && filters.load());
grouped.addEventListener("change", () => go({ grouped: grouped.checked }));
matching.addEventListener("change", () => go({ matching: matching.checked }));
balance.addEventListener("input", showShares);
balance.addEventListener("change", () => go({ balance: Number(balance.value) }, true));
at("choose").addEventListener("click", () => file.click());
file.addEventListener("change", () => {
  take(file.files);
  file.value = "";
});
addEventListener("paste", (event) => {
  if (event.clipboardData.files.length === 0) return;
  event.preventDefault();
  take(event.clipboardData.files);
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  at("drop").hidden = !event.dataTransfer.types.includes("Files");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) at("drop").hidden = true;
});
addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").hidden = true;
  take(event.dataTransfer.files);
});
addEventListener("popstate", arrive);
addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.matches("input") || viewer.open || login.open) return;
  event.preventDefault();
  text.focus();
  text.select();
});
text.addEventListener("keydown", (event) => {
  if (event.key !== "ArrowDown") return;
  event.preventDefault();
  results.focus();
});
at("enter").addEventListener("submit", async (event) => {
  event.preventDefault();
  const response = await fetch("/session", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ token: at("token").value }),
  });
  if (response.ok) location.reload();
  else at("refused").textContent = (await response.json()).detail;
});

start();
