// The search box.

import { byId, fillFacts, fillOptions, fillTable, setText } from "./dom.js";
import * as format from "./format.js";
import { ask, refusalOf } from "./session.js";

function idText(id) {
  return typeof id === "string" ? id : `base64:${id.base64}`;
}

function vectorOf(text) {
  const numbers = text.replace(/^\s*\[|\]\s*$/g, "").split(/[\s,]+/).filter(Boolean).map(Number);
  if (!numbers.length || !numbers.every(Number.isFinite)) {
    throw new Error("A vector is numbers with blanks or commas between them.");
  }
  return numbers;
}

function bodyOf(form, index) {
  const values = new FormData(form);
  const by = values.get("by");
  const query = values.get("query");
  const body = { index, count: Number(values.get("count")), cache: values.get("cache") };
  body[by] = by === "vector" ? vectorOf(query) : query;
  if (values.get("filter")) body.filter = values.get("filter");
  if (values.get("truth")) body.truth = true;
  return body;
}

function told(value) {
  if (value === null) return format.NONE;
  return typeof value === "number" ? String(Number(value.toPrecision(7))) : String(value);
}

// Members of members get both names.
function* flat(info, prefix = "") {
  for (const [name, value] of Object.entries(info)) {
    if (value !== null && typeof value === "object" && !Array.isArray(value)) {
      yield* flat(value, `${prefix}${name}.`);
    } else {
      yield [prefix + name, told(value)];
    }
  }
}

export class Search {
  #form = byId("search-form");
  #told = byId("search-told");
  // Whether others' indexes are shown, so that the tenant has to be named.
  #namesTenant = false;

  constructor() {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#search().catch((error) => this.#refuse(error.message));
    });
  }

  update(indexes, you, seesAll) {
    this.#namesTenant = you.administrator;
    fillOptions(this.#form.elements.index, indexes.map((one) => [
      JSON.stringify([one.tenant, one.name]), seesAll ? `${one.tenant} / ${one.name}` : one.name]));
  }

  async #search() {
    if (!this.#form.elements.index.value) throw new Error("There is no index yet.");
    const [tenant, index] = JSON.parse(this.#form.elements.index.value);
    const body = bodyOf(this.#form, index);
    const query = this.#namesTenant ? `?${new URLSearchParams({ tenant })}` : "";
    setText(this.#told, "Searching …");
    const answer = await ask(`v1/search${query}`, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    });
    if (!answer.ok) {
      const { code, detail } = await refusalOf(answer);
      this.#refuse(`${code}: ${detail}`);
      return;
    }
    this.#show(await answer.json());
  }

  #refuse(detail) {
    byId("found").hidden = true;
    setText(this.#told, detail);
  }

  #show({ hits, info }) {
    setText(this.#told, `${format.count(hits.length)} hits in `
      + `${format.microseconds(info.latency_us.total)}; cache: ${info.cache}.`);
    const rows = hits.map((hit, number) => [
      String(number + 1),
      { text: idText(hit.id), className: "code long" },
      hit.score === null ? format.NONE : hit.score.toPrecision(7),
      { text: hit.attributes === null ? "" : JSON.stringify(hit.attributes), className: "code long" },
    ]);
    fillTable(byId("hits").tBodies[0], rows, "Nothing was found.");
    fillFacts(byId("info"), [...flat(info)]);
    byId("found").hidden = false;
  }

  clear() {
    byId("found").hidden = true;
    setText(this.#told, "");
  }
}
