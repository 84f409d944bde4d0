// The clusters of an index: a cell for each, coloured by its heat, with the time to live in force.

import { byId, make, setText } from "./dom.js";
import * as format from "./format.js";

const STEPS = [0.25, 0.5, 1];

function heatOf(cluster) {
  if (!cluster.writes || !cluster.threshold) return 0;
  const ratio = cluster.writes / cluster.threshold;
  const step = STEPS.findIndex((limit) => ratio < limit);
  return step < 0 ? STEPS.length + 1 : step + 1;
}

function describe(cluster) {
  const parts = [
    `Cluster ${cluster.id}`,
    `time to live ${format.lifetime(cluster.ttl)}`,
    `${format.count(cluster.writes)} writes in the window, hot from ${format.amount(cluster.threshold)}`,
  ];
  if (cluster.size !== null) parts.push(`about ${format.count(cluster.size)} vectors`);
  if (cluster.advice) {
    parts.push(`advised: ${cluster.advice.nature}, time to live × ${format.amount(cluster.advice.ttl_factor)}`);
  }
  return parts.join("; ");
}

export class Heat {
  #list = byId("heat");
  #detail = byId("cluster");
  #clusters = [];
  // The one that Tab goes to.
  #current = 0;

  constructor() {
    this.#list.addEventListener("keydown", (event) => this.#move(event));
    for (const kind of ["focusin", "pointerover"]) {
      this.#list.addEventListener(kind, (event) => {
        const number = this.#numberOf(event.target);
        if (number >= 0) this.#choose(number);
      });
    }
  }

  update(clusters) {
    const told = byId("clusters-told");
    this.#clusters = clusters ? clusters.items : [];
    if (!clusters) {
      setText(told, "There is no such index.");
    } else {
      setText(told, `${clusters.tenant} / ${clusters.index}: `
        + `${format.count(this.#clusters.length)} clusters (${clusters.source}), `
        + `time to live ${format.lifetime(clusters.base_ttl)} before heat; `
        + `writes of the last ${format.duration(clusters.window)}.`);
    }
    while (this.#list.children.length > this.#clusters.length) this.#list.lastElementChild.remove();
    while (this.#list.children.length < this.#clusters.length) {
      this.#list.append(make("li", {}, make("button", { type: "button", tabIndex: -1 })));
    }
    this.#clusters.forEach((cluster, number) => this.#show(cluster, this.#button(number)));
    this.#choose(Math.min(this.#current, Math.max(this.#clusters.length - 1, 0)));
  }

  #show(cluster, button) {
    const name = `heat-${heatOf(cluster)}`;
    if (button.className !== name) button.className = name;
    setText(button, cluster.ttl === 0 ? "∞" : format.duration(cluster.ttl));
    const label = describe(cluster);
    if (button.ariaLabel !== label) button.ariaLabel = label;
  }

  #button(number) {
    return this.#list.children[number].firstElementChild;
  }

  #numberOf(element) {
    return [...this.#list.children].indexOf(element.closest("li"));
  }

  #choose(number) {
    if (this.#current < this.#list.children.length) this.#button(this.#current).tabIndex = -1;
    this.#current = number;
    if (number < this.#list.children.length) this.#button(number).tabIndex = 0;
    setText(this.#detail, number < this.#clusters.length ? describe(this.#clusters[number]) : "");
  }

  #move(event) {
    const length = this.#clusters.length;
    const steps = {
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.#columns(), ArrowDown: this.#columns(),
      Home: -length, End: length,
    };
    const step = steps[event.key];
    if (step === undefined || !length) return;
    event.preventDefault();
    const target = Math.min(Math.max(this.#current + step, 0), length - 1);
    this.#button(target).focus();
  }

  #columns() {
    const cells = [...this.#list.children];
    const first = cells[0] ? cells[0].offsetTop : 0;
    return Math.max(cells.filter((cell) => cell.offsetTop === first).length, 1);
  }
}
