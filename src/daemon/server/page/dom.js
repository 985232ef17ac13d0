"use strict";
// Elements and texts. Values reach the page as text nodes alone: nothing here parses markup.

/** Control characters, and characters that reorder or hide text. */
const DISRUPTIVE = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\u{e0000}-\u{e0fff}]/gu;

/** A text with disruptive characters as escapes, at most `limit` characters long. */
function visible(value, limit = 4000) {
  const text = typeof value === "string" ? value : value === null || value === undefined ? "" : String(value);
  const cut = text.length > limit ? text.slice(0, limit) + "…" : text;
  return cut.replace(DISRUPTIVE, (letter) => "\\u{" + letter.codePointAt(0).toString(16) + "}").toWellFormed();
}

/** An element with attributes and children; strings become text. Event handlers are functions under `on…`. */
function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined) continue;
    element.append(typeof child === "object" ? child : String(child));
  }
  return element;
}

/** A value from an event, isolated from the direction of the text around it. */
function val(value, limit) {
  // A long name breaks after its separators first.
  const parts = visible(value, limit).split(/(?<=[:/@,])/);
  return h("bdi", { class: "name" }, parts.flatMap((part, at) => (at ? [document.createElement("wbr"), part] : [part])));
}

function clear(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
}

function byId(id) {
  return document.getElementById(id);
}

const PRIORITIES = ["Emergency", "Alert", "Critical", "Error", "Warning", "Notice", "Informational", "Debug"];

function priority(name) {
  const rank = PRIORITIES.indexOf(name);
  return h("span", { class: "priority p" + rank }, rank < 0 ? visible(name, 20) : name);
}

/** `2026-11-23 03:46:30Z` */
function when(time) {
  const date = new Date(time);
  if (!time || Number.isNaN(date.getTime())) return "unknown";
  return date.toISOString().replace("T", " ").replace(/\.\d+Z$/, "Z");
}

function timeElement(time) {
  const date = new Date(time);
  const isKnown = time && !Number.isNaN(date.getTime());
  return h("time", { datetime: isKnown ? date.toISOString() : null }, when(time));
}

function count(number, one, many) {
  return number.toLocaleString("en-US") + " " + (number === 1 ? one : many);
}

function textList(values, limit = 8) {
  const items = values.slice(0, limit).map((value) => h("li", null, val(value, 300)));
  if (values.length > limit) items.push(h("li", { class: "dim" }, "and " + (values.length - limit) + " more"));
  return values.length ? h("ul", null, items) : null;
}

/** A table whose cells name their column where the page is narrow. */
function table(caption, heads, rows) {
  const isNumber = (head) => head.endsWith("#");
  const title = (head) => head.replace(/#$/, "");
  return h("table", null,
    h("caption", { class: "hidden" }, caption),
    h("thead", null, h("tr", null, heads.map((head) => h("th", { scope: "col", class: isNumber(head) ? "number" : null }, title(head))))),
    h("tbody", null, rows.map((row) => h("tr", null, row.map((cell, at) => {
      const isEmpty = cell === null || cell === undefined || cell === "";
      const classes = (isNumber(heads[at]) ? "number " : "") + (isEmpty || cell === 0 ? "empty" : "");
      return h("td", { class: classes.trim() || null, "data-head": title(heads[at]) }, typeof cell === "number" ? cell.toLocaleString("en-US") : h("div", null, cell));
    })))));
}

function announce(text) {
  byId("live").textContent = text;
}
