// The dashboard: who looks, what comes in, and where it is shown.

import { showFigures } from "./board.js";
import { Charts } from "./charts.js";
import { byId, fillOptions, setText } from "./dom.js";
import * as format from "./format.js";
import { Heat } from "./heat.js";
import { Search } from "./search.js";
import { forget, isKept, keep } from "./session.js";
import { Stream } from "./stream.js";
import { startTheme } from "./theme.js";

const charts = new Charts(byId("charts"));
const heat = new Heat();
const search = new Search();
const stream = new Stream(show, showState);
let lastAt = null;

function show({ you, figures, clusters }) {
  const seesAll = figures.tenant === null;
  lastAt = figures.at;
  byId("sign-in").hidden = true;
  byId("board").hidden = false;
  byId("sign-out").hidden = !isKept();
  setText(byId("version"), figures.version);
  setText(byId("whose"), seesAll ? "All tenants" : `Tenant ${figures.tenant}`);
  showFigures(figures);
  charts.add(figures);
  heat.update(clusters);
  search.update(figures.indexes.items, you, seesAll);
  fillOptions(byId("clusters-index"), figures.indexes.items.map((one) => [
    `${one.tenant}/${one.name}`, seesAll ? `${one.tenant} / ${one.name}` : one.name]), 1);
}

function showState(state, told) {
  const status = byId("status");
  status.dataset.state = state;
  if (state === "live") {
    setText(status, "Live");
  } else if (state === "lost") {
    const since = lastAt === null ? "" : ` Figures are of ${format.clock(lastAt)}.`;
    setText(status, `Reconnecting: ${told}.${since}`);
  } else {
    signOut(isKept() ? told.detail : "");
  }
}

function look() {
  const index = byId("clusters-index").value;
  stream.open(index ? `v1/events?${new URLSearchParams({ index })}` : "v1/events");
}

function signOut(why) {
  stream.close();
  forget();
  lastAt = null;
  charts.clear();
  search.clear();
  byId("board").hidden = true;
  byId("sign-out").hidden = true;
  byId("sign-in").hidden = false;
  setText(byId("whose"), "");
  setText(byId("refusal"), why);
  byId("status").dataset.state = "refused";
  setText(byId("status"), "Not signed in");
  byId("sign-in").elements.login.focus();
}

byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  const { login, key } = event.target.elements;
  keep(login.value, key.value);
  key.value = "";
  setText(byId("refusal"), "");
  setText(byId("status"), "Connecting …");
  look();
});
byId("sign-out").addEventListener("click", () => signOut(""));
byId("clusters-index").addEventListener("change", look);

startTheme(() => charts.redraw());
look();
