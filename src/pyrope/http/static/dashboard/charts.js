// Charts of the last minutes, drawn by uPlot. What they show is in their captions, too.

import { make, setText } from "./dom.js";
import * as format from "./format.js";

const KEPT = 300;
const HEIGHT = 130;
// Shown from the beginning on, so that the first points do not fly about.
const LEAST_S = 60;

const CHARTS = [
  {
    title: "Queries per second",
    show: format.amount,
    series: [["queries", (figures) => figures.traffic.queries_per_s]],
  },
  {
    title: "Latency",
    show: format.microseconds,
    series: [
      ["p99", (figures) => figures.traffic.p99_us],
      ["p50", (figures) => figures.traffic.p50_us],
    ],
  },
  {
    title: "Hit ratio by level",
    show: format.share,
    range: [0, 1],
    series: ["exact", "alias", "quantized", "cluster", "prefetch"].map(
      (level) => [level, (figures) => figures.cache.hit_ratio_now_by_level[level]]),
  },
  {
    title: "Cost units per second",
    show: format.amount,
    series: [
      ["saved", (figures) => figures.cache.saved_per_s],
      ["spent", (figures) => figures.cache.spent_per_s],
    ],
  },
];

class Chart {
  #chart;
  #figure;
  #swatches;
  #values;
  #plot = null;
  #data;

  constructor(chart, parent) {
    this.#chart = chart;
    this.#data = [[], ...chart.series.map(() => [])];
    this.#swatches = chart.series.map((_, number) => make("span", {
      className: `swatch series-${number + 1}`, ariaHidden: "true" }));
    this.#values = chart.series.map(() => make("span"));
    const caption = make("figcaption", {}, make("b", {}, chart.title));
    chart.series.forEach(([label], number) => caption.append(make(
      "span", {}, this.#swatches[number], `${label} `, this.#values[number])));
    const canvas = make("div", { ariaHidden: "true" });
    this.#figure = make("figure", {}, caption, canvas);
    parent.append(this.#figure);
    new ResizeObserver(() => this.#resize(canvas)).observe(this.#figure);
  }

  #resize(target) {
    const width = target.clientWidth;
    if (!width) return;
    if (this.#plot) this.#plot.setSize({ width, height: HEIGHT });
    else this.#plot = new uPlot(this.#options(width), this.#data, target);
  }

  #options(width) {
    const ink = () => getComputedStyle(this.#figure.parentElement).color;
    const line = () => getComputedStyle(this.#figure).borderTopColor;
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { show: false } };
    return {
      width,
      height: HEIGHT,
      legend: { show: false },
      cursor: { show: false },
      scales: {
        x: { range: (_, first, last) => [Math.min(first, last - LEAST_S), last] },
        y: { range: (_, least, most) => this.#chart.range || [0, most > 0 ? most * 1.1 : 1] },
      },
      axes: [
        { ...axis, size: 24, space: 90, values: (_, splits) => splits.map(format.clock) },
        { ...axis, size: 62, values: (_, splits) => splits.map((one) => this.#chart.show(one)) },
      ],
      series: [
        {},
        ...this.#chart.series.map(([label], number) => ({
          label,
          width: 2,
          points: { show: false },
          stroke: () => getComputedStyle(this.#swatches[number]).backgroundColor,
        })),
      ],
    };
  }

  add(figures) {
    const [times, ...columns] = this.#data;
    times.push(figures.at);
    this.#chart.series.forEach(([, read], number) => {
      const value = read(figures);
      columns[number].push(value);
      setText(this.#values[number], this.#chart.show(value));
    });
    if (times.length > KEPT) for (const column of this.#data) column.shift();
    if (this.#plot) this.#plot.setData(this.#data);
  }

  redraw() {
    if (this.#plot) this.#plot.redraw(false, true);
  }

  clear() {
    for (const column of this.#data) column.length = 0;
    if (this.#plot) this.#plot.setData(this.#data);
  }
}

export class Charts {
  #charts;

  constructor(parent) {
    this.#charts = CHARTS.map((chart) => new Chart(chart, parent));
  }

  add(figures) {
    for (const chart of this.#charts) chart.add(figures);
  }

  // The theme is another.
  redraw() {
    for (const chart of this.#charts) chart.redraw();
  }

  // Somebody else looks.
  clear() {
    for (const chart of this.#charts) chart.clear();
  }
}
