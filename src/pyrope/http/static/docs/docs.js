"use strict";

// Shows openapi.json, and sends requests. Everything is set as text: nothing of the document, or
// of an answer, becomes markup.

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function resolve(schema, document_) {
  if (!schema || !schema.$ref) return schema || {};
  return document_.components.schemas[schema.$ref.split("/").pop()] || {};
}

function nameOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.const !== undefined) return String(schema.const);
  if (schema.anyOf) return schema.anyOf.map(nameOf).join(" | ");
  if (schema.type === "array") return `[${nameOf(schema.items || {})}]`;
  return schema.type || "any";
}

function table(rows, document_) {
  const body = make("tbody");
  for (const [name, schema, required] of rows) {
    const inner = resolve(schema, document_);
    body.append(make("tr", {},
      make("th", { scope: "row" }, make("code", {}, name), required ? " *" : ""),
      make("td", {}, nameOf(schema)),
      make("td", {}, schema.description || inner.description || "")));
  }
  return make("table", {}, body);
}

function sampleOf(schema, document_) {
  const inner = resolve(schema, document_);
  const sample = {};
  for (const name of inner.required || []) {
    const kind = nameOf(inner.properties[name]);
    sample[name] = kind === "integer" || kind === "number" ? 0 : kind.startsWith("[") ? [] : "";
  }
  return JSON.stringify(sample, null, 2);
}

function base64(text) {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}

async function send(method, path, operation, form, output) {
  const values = new FormData(form);
  const query = new URLSearchParams();
  const headers = {};
  let url = path;
  for (const one of operation.parameters || []) {
    const value = values.get(one.name);
    if (one.in === "path") url = url.replace(`{${one.name}}`, encodeURIComponent(value));
    else if (value && one.in === "query") query.set(one.name, value);
    else if (value && one.in === "header") headers[one.name] = value;
  }
  const access = new FormData(document.getElementById("access"));
  if (access.get("key")) {
    headers.Authorization = `Basic ${base64(`${access.get("login")}:${access.get("key")}`)}`;
  }
  const options = { method: method.toUpperCase(), headers };
  if (operation.requestBody) {
    headers["Content-Type"] = "application/json";
    options.body = values.get("body");
  }
  output.textContent = "…";
  try {
    const found = await fetch(query.size ? `${url}?${query}` : url, options);
    let text = await found.text();
    try { text = JSON.stringify(JSON.parse(text), null, 2); } catch { /* shown as it is */ }
    const tag = found.headers.get("etag");
    output.textContent = `${found.status} ${found.statusText}${tag ? `\nETag: ${tag}` : ""}\n${text}`;
  } catch (error) {
    output.textContent = String(error);
  }
}

function show(method, path, operation, document_) {
  const content = make("div");
  for (const part of (operation.description || "").split("\n\n")) {
    if (part) content.append(make("p", {}, part.replaceAll("`", "")));
  }
  const form = make("form", { autocomplete: "off" });
  const parameters = operation.parameters || [];
  if (parameters.length) {
    content.append(table(
      parameters.map((one) => [one.name, { description: one.description, ...one.schema }, one.required]),
      document_));
    for (const one of parameters) {
      form.append(make("label", {}, `${one.name} `, make("input", { name: one.name, required: one.required })));
    }
  }
  if (operation.requestBody) {
    const schema = operation.requestBody.content["application/json"].schema;
    const inner = resolve(schema, document_);
    const required = new Set(inner.required || []);
    content.append(table(
      Object.entries(inner.properties || {}).map(([name, one]) => [name, one, required.has(name)]), document_));
    form.append(make("textarea", { name: "body", value: sampleOf(schema, document_), ariaLabel: "Body" }));
  }
  const output = make("pre", { hidden: true });
  form.append(make("button", { type: "submit" }, "Send"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    output.hidden = false;
    send(method, path, operation, form, output);
  });
  content.append(form, output, table(
    Object.entries(operation.responses).map(([status, one]) => [status, { type: "", description: one.description }, false]),
    document_));
  const title = make("summary", {}, make("b", {}, method.toUpperCase()), make("code", {}, path), operation.summary || "");
  return make("details", {}, title, content);
}

async function start() {
  const target = document.getElementById("operations");
  try {
    const document_ = await (await fetch("openapi.json")).json();
    document.getElementById("version").textContent = `Version ${document_.info.version}.`;
    target.textContent = "";
    const sections = new Map();
    for (const [path, operations] of Object.entries(document_.paths)) {
      for (const [method, operation] of Object.entries(operations)) {
        const tag = (operation.tags || ["other"])[0];
        if (!sections.has(tag)) sections.set(tag, make("section", {}, make("h2", {}, tag)));
        sections.get(tag).append(show(method, path, operation, document_));
      }
    }
    target.append(...sections.values());
  } catch (error) {
    target.textContent = `openapi.json cannot be read: ${error}`;
  }
}

start();
