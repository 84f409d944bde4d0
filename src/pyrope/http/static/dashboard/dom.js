// Elements. Whatever comes from the server is set as text: nothing of it becomes markup.

export function byId(id) {
  return document.getElementById(id);
}

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// Leaves alone what is the same, so that a selection stays and nothing is read out again.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Gives a parent so many children: those it has are kept.
function fit(parent, length, create) {
  while (parent.children.length > length) parent.lastElementChild.remove();
  while (parent.children.length < length) parent.append(create());
}

// Rows of a table. A cell is a text, or an object: text, className, or progress (a share and its
// label). The first cell of a row is its header.
export function fillTable(body, rows, nothing) {
  const columns = body.closest("table").tHead.rows[0].cells.length;
  if (!rows.length) {
    const cell = make("td", { colSpan: columns, className: "more" }, nothing);
    body.replaceChildren(make("tr", {}, cell));
    return;
  }
  if (body.rows[0] && body.rows[0].cells.length !== columns) body.replaceChildren();
  fit(body, rows.length, () => {
    const row = make("tr", {}, make("th", { scope: "row" }));
    for (let column = 1; column < columns; column += 1) row.append(make("td"));
    return row;
  });
  rows.forEach((cells, number) => {
    const row = body.rows[number];
    cells.forEach((cell, column) => fillCell(row.cells[column], cell));
  });
}

function fillCell(element, cell) {
  if (typeof cell === "string") {
    element.className = "";
    setText(element, cell);
    return;
  }
  element.className = cell.className || "";
  if (!cell.progress) {
    setText(element, cell.text);
    return;
  }
  let bar = element.querySelector("progress");
  if (!bar) {
    bar = make("progress", { max: 1 });
    element.replaceChildren(bar, " ", make("span"));
  }
  bar.value = Math.min(cell.progress.share, 1);
  bar.className = cell.progress.className;
  bar.ariaLabel = cell.progress.label;
  setText(element.lastElementChild, cell.text);
}

// Terms and what they stand for, as pairs of texts.
export function fillFacts(list, pairs) {
  fit(list, pairs.length, () => make("div", {}, make("dt"), make("dd")));
  pairs.forEach(([term, told], number) => {
    setText(list.children[number].firstElementChild, term);
    setText(list.children[number].lastElementChild, told);
  });
}

// Options of a select, as pairs of value and text, behind those that are always there; what was
// chosen stays so while it is there.
export function fillOptions(select, pairs, fixed = 0) {
  const shown = [...select.options].slice(fixed).map((one) => [one.value, one.text]);
  if (JSON.stringify(shown) === JSON.stringify(pairs)) return;
  const chosen = select.value;
  while (select.options.length > fixed) select.options[fixed].remove();
  for (const [value, text] of pairs) select.append(make("option", { value }, text));
  if (pairs.some(([value]) => value === chosen)) select.value = chosen;
}
