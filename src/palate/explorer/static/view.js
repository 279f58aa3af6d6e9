// Keys, and pages that change without a reload. Every page works without this file.
"use strict";

const page = () => document.getElementById("page");
const announce = (text) => { document.getElementById("status").textContent = text; };
document.documentElement.classList.add("js");

// -- Pages -------------------------------------------------------------------------------------

let newestVisit = 0;
let changes = Promise.resolve();

// Fetch a page and put it in place of this one; an older answer never replaces a newer one.
async function visit(url, options = {}) {
  const number = ++newestVisit;
  let answer, text;
  try {
    answer = await fetch(url, { method: "GET", ...options.request });
    text = await answer.text();
  } catch {
    showLost();
    return;
  }
  if (number !== newestVisit) return;
  const next = new DOMParser().parseFromString(text, "text/html");
  if (!next.getElementById("page")) return location.assign(url);
  const focused = options.keep && focusedField();
  const filters = options.keep && document.getElementById("filters-shown")?.checked;
  page().replaceWith(next.getElementById("page"));
  for (const part of [".tabs", ".blind", ".who"]) {
    document.querySelector(part)?.replaceWith(next.querySelector(part));
  }
  document.title = next.title;
  if (options.record !== "stay") history.pushState({}, "", answer.url);
  const shown = document.getElementById("filters-shown");
  if (shown) shown.checked = filters;
  if (focused) restoreFocus(focused); else if (!options.keep) scrollTo(0, 0);
  announce(document.querySelector("#page h1")?.textContent.trim() || document.title);
}

// The field that somebody is in, with what they typed while the answer was on its way.
function focusedField() {
  const field = document.activeElement;
  if (!field?.name || !page().contains(field)) return null;
  const { name, value, selectionStart, selectionEnd } = field;
  return { name, value, selectionStart, selectionEnd, text: isTextField(field) && field.type !== "select-one" };
}

function restoreFocus(focused) {
  const matches = [...page().querySelectorAll(`[name="${CSS.escape(focused.name)}"]`)];
  const field = focused.text ? matches[0] : matches.find((field) => field.value === focused.value) || matches[0];
  if (!field) return;
  field.focus({ preventScroll: true });
  if (!focused.text) return;
  field.value = focused.value;
  field.setSelectionRange(focused.selectionStart, focused.selectionEnd);
}

function showLost() {
  if (document.querySelector(".lost")) return;
  const note = document.createElement("p");
  note.className = "lost";
  note.setAttribute("role", "alert");
  note.textContent = "No answer: is palate view still running? Reload when it is.";
  document.body.append(note);
}

const fields = (form, button) => {
  const data = new FormData(form);
  if (button?.name) data.append(button.name, button.value);
  return new URLSearchParams([...data].filter(([, value]) => form.method === "post" || value !== ""));
};

addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  if (event.defaultPrevented || !link || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (link.origin !== location.origin || link.hasAttribute("download") || link.hash) return;
  event.preventDefault();
  visit(link.href);
});

addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method === "dialog" || "whole" in form.dataset) return;
  event.preventDefault();
  if (form.id === "live") return void score(form);
  const sent = fields(form, event.submitter);
  if (form.method === "get") {
    const query = sent.toString();
    visit(form.action + (query && `?${query}`), { keep: true });
  } else {
    const request = { method: "POST", body: sent };
    // One after the other: the last key pressed is the last that counts.
    changes = changes.then(() => visit(form.action, { request, record: "stay", keep: true }));
  }
});

addEventListener("popstate", () => visit(location.href, { record: "stay" }));

// -- What changes by itself --------------------------------------------------------------------

let pause;
const debounce = (milliseconds, what) => { clearTimeout(pause); pause = setTimeout(what, milliseconds); };

addEventListener("change", (event) => {
  const field = event.target;
  if (field.form?.id === "filters" && field.name && field.type !== "search") field.form.requestSubmit();
  if (field.name === "note") field.form.requestSubmit();
  if (field.name === "annotator") field.form.submit();
});

addEventListener("input", (event) => {
  const field = event.target;
  if (field.type === "search") debounce(200, () => field.form.requestSubmit());
  if (field.form?.id === "live") debounce(350, () => score(field.form));
});

let scoring;

// Rewards of what is typed, in their place; the rest of the page keeps its cursor.
async function score(form) {
  if (!form.reportValidity()) return;
  const place = document.getElementById("rewards");
  scoring?.abort();
  scoring = new AbortController();
  place.classList.add("waiting");
  try {
    const answer = await fetch(form.action, { method: "POST", body: fields(form), signal: scoring.signal });
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    place.replaceChildren(...(next.getElementById("rewards") || next.getElementById("main")).childNodes);
    place.classList.remove("waiting");
  } catch (error) {
    if (error.name !== "AbortError") showLost();
  }
}

// -- Keys: an element says in data-key which one presses it ------------------------------------

const isTextField = (element) => element?.matches?.("input:not([type=checkbox]), textarea, select");

addEventListener("keydown", (event) => {
  if (event.key === "Escape" && isTextField(document.activeElement)) return document.activeElement.blur();
  if (event.ctrlKey || event.metaKey || event.altKey || isTextField(document.activeElement)) return;
  if (document.querySelector("dialog[open]")) return;
  const target = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  if (target) {
    event.preventDefault();
    if (isTextField(target)) target.focus(); else target.click();
  } else if (event.key === "j" || event.key === "k") {
    step(event.key === "j" ? 1 : -1);
  }
});

function step(by) {
  const rows = [...document.querySelectorAll("[data-row]")];
  const at = rows.indexOf(document.activeElement);
  const next = rows[at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, at + by))];
  next?.focus();
}

const help = document.querySelector("[data-help]");
help.hidden = false;
help.addEventListener("click", () => document.getElementById("keys").showModal());
