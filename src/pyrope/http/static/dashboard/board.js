// The figures: tiles and tables.

import { byId, fillFacts, fillTable, setText } from "./dom.js";
import * as format from "./format.js";

// Means over levels, of how many.
function mean(levels, value, weight) {
  let sum = 0;
  let total = 0;
  for (const level of levels) {
    if (level[value] === null || !level[weight]) continue;
    sum += level[value] * level[weight];
    total += level[weight];
  }
  return { mean: total ? sum / total : null, total };
}

function tilesOf(figures) {
  const { traffic, cache, recall, server } = figures;
  const certified = mean(recall.levels, "certified", "hits");
  const audited = mean(recall.levels, "recall", "audited");
  const tiles = {
    queries_per_s: format.amount(traffic.queries_per_s),
    queries: format.count(traffic.queries),
    p99: format.microseconds(traffic.p99_us),
    p50: format.microseconds(traffic.p50_us),
    hit_ratio: format.share(cache.hit_ratio),
    hit_ratio_now: format.share(cache.hit_ratio_now),
    certified: format.recall(certified.mean),
    near_hits: format.count(certified.total),
    audited: format.recall(audited.mean),
    audited_hits: format.count(audited.total),
    audits: format.count(recall.audits),
    audits_skipped: format.count(recall.audits_skipped),
    saved: format.amount(cache.saved),
    spent: format.amount(cache.spent),
    vectors: format.count(figures.vectors),
    memory: format.bytes(figures.memory_bytes),
    entries: format.count(cache.entries),
    cache_bytes: cache.max_bytes === null
      ? format.bytes(cache.bytes)
      : `${format.bytes(cache.bytes)} of ${format.bytes(cache.max_bytes)}`,
    misses: format.count(cache.misses),
    uncached: format.count(cache.uncached),
    repairs: format.count(cache.repairs),
    stale: format.count(cache.stale),
    near_refused: format.count(recall.near_refused),
    month_gone: format.share(figures.tenants.month_gone),
    uptime: format.duration(figures.uptime),
    queued: format.count(figures.queued),
    disk: "",
  };
  if (server) {
    tiles.commands_per_s = format.amount(server.commands_per_s);
    tiles.clients = format.count(server.clients);
    tiles.errors = format.count(server.errors);
    tiles.errors_per_s = format.amount(server.errors_per_s);
    tiles.lag = format.microseconds(server.event_loop_lag_p99_us);
    tiles.disk = server.refuses_writes ? "The disk refuses writes" : "";
  }
  return tiles;
}

function levelRows({ cache, recall }) {
  const lookups = Object.values(cache.hits).reduce((sum, one) => sum + one, cache.misses);
  const known = new Map(recall.levels.map((one) => [one.level, one]));
  // Answers of graphs and lists are audited apart, as levels of their own.
  const names = [...new Set([...Object.keys(cache.hits), ...known.keys()])];
  return names.map((level) => {
    const hits = cache.hits[level];
    const one = known.get(level) || {};
    return [
      level,
      format.count(hits),
      hits === undefined || !lookups ? format.NONE : format.share(hits / lookups),
      format.share(cache.hit_ratio_now_by_level[level]),
      format.recall(one.certified),
      format.recall(one.estimated),
      format.count(one.audited),
      format.recall(one.recall),
      format.recall(one.promised),
    ];
  });
}

function tenantRow(tenant) {
  const has = tenant.budget !== null;
  const share = has ? (tenant.budget ? tenant.used / tenant.budget : 1) : null;
  const ahead = has && tenant.pace > 1;
  return [
    tenant.tenant,
    has
      ? { text: format.share(share), progress: {
        share, className: ahead ? "ahead" : "", label: `Budget used by ${tenant.tenant}` } }
      : format.NONE,
    has ? `${format.amount(tenant.pace)}${ahead ? " (too fast)" : ""}` : format.NONE,
    format.amount(tenant.used),
    has ? `${format.amount(tenant.budget)} (then ${tenant.onbudget.toLowerCase()})` : "none",
    format.amount(tenant.requests_per_s),
    format.count(tenant.requests),
    format.count(tenant.hits),
    format.count(tenant.misses),
    format.count(tenant.refused_quota),
    format.count(tenant.refused_budget),
    tenant.priority.toLowerCase(),
  ];
}

function indexRow(index) {
  return [
    index.name,
    index.tenant,
    index.type,
    index.metric,
    format.count(index.dim),
    format.count(index.vectors),
    format.bytes(index.memory_bytes),
    format.amount(index.queries_per_s),
    format.share(index.hit_ratio),
    format.count(index.cache_entries),
    format.count(index.clusters),
  ];
}

function slowRow(one) {
  return [
    format.moment(one.at),
    format.microseconds(one.microseconds),
    { text: one.index && !one.address ? `${one.command} ${one.index}` : one.command, className: "code long" },
    one.cache || format.NONE,
    format.microseconds(one.cache_us),
    format.microseconds(one.queue_us),
    format.microseconds(one.search_us),
    one.user,
    one.address || format.NONE,
    { text: one.request_id, className: "code" },
  ];
}

function modelFacts({ llm, tenants }) {
  if (llm) {
    return Object.entries(llm).map(([name, value]) => [
      name.replaceAll("_", " "),
      typeof value === "number" ? format.amount(value) : value || format.NONE]);
  }
  const own = tenants.items[0];
  return [
    ["tokens in, this month", format.count(own.llm_tokens_in)],
    ["tokens out", format.count(own.llm_tokens_out)],
    ["cost, in units", format.amount(own.llm_cost)],
  ];
}

function restOf({ count, items }) {
  const rest = count - items.length;
  return rest > 0 ? `${format.count(rest)} more are not shown.` : "";
}

function bodyOf(section) {
  return byId(section).querySelector("tbody");
}

export function showFigures(figures) {
  for (const element of document.querySelectorAll("[data-for='server']")) {
    element.hidden = !figures.server;
  }
  const tiles = tilesOf(figures);
  for (const element of document.querySelectorAll("[data-figure]")) {
    setText(element, tiles[element.dataset.figure] ?? format.NONE);
  }
  fillTable(bodyOf("levels"), levelRows(figures), "");
  fillTable(bodyOf("tenants"), figures.tenants.items.map(tenantRow), "There are none.");
  setText(byId("tenants-more"), restOf(figures.tenants));
  fillTable(bodyOf("indexes"), figures.indexes.items.map(indexRow), "There are none yet.");
  setText(byId("indexes-more"), restOf(figures.indexes));
  fillTable(bodyOf("slow"), figures.slow.map(slowRow), "Nothing took long.");
  fillFacts(byId("llm").querySelector("dl"), modelFacts(figures));
}
