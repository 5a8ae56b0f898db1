// The search form. Its fields are named as in the page's address.

import { count, el } from "./dom.js";
import { SEARCH } from "./place.js";

const CONDITION = "score < 0.5 AND box_area(box) > 5000";

function choices(name, labelled, options) {
  const items = [el("option", { value: "" }, "any"), ...options.map(([value, text]) => el("option", { value }, text))];
  return el("label", {}, el("span", {}, labelled), el("select", { name }, items));
}

function field(name, labelled, attributes = {}, list = null) {
  const input = el("input", { name, autocomplete: "off", spellcheck: "false", list, ...attributes });
  const options = list ? el("datalist", { id: list }) : null;
  return el("label", {}, el("span", {}, labelled), input, options);
}

const same = (values) => values.map((value) => [String(value), String(value)]);

export function makeForm(side, overview, submit) {
  const form = el(
    "form",
    {
      role: "search",
      onsubmit: (event) => {
        event.preventDefault();
        const given = new FormData(form);
        submit(Object.fromEntries(SEARCH.map((name) => [name, String(given.get(name) || "").trim()])));
      },
    },
    field("text", "Words in a text", { type: "search", placeholder: 'red cup, or "a red cup"' }),
    field("label", "Label, whole", {}, "labels"),
    choices("source", "Source", same(overview.sources)),
    el("div", { class: "pair" }, choices("kind", "Kind", same(overview.kinds)), choices("granularity", "Granularity", [])),
    el(
      "div",
      { class: "pair" },
      field("minimum", "Score from", { inputmode: "decimal", placeholder: "0" }),
      field("maximum", "to", { inputmode: "decimal", placeholder: "1" }),
    ),
    el(
      "div",
      { class: "pair" },
      choices("kept", "Verdict", [["yes", "kept"], ["no", "dropped"]]),
      choices("mark", "Mark", [["good", "good"], ["bad", "bad"], ["any", "good or bad"]]),
    ),
    field("dropped_by", "Dropped by the filter", {}, "filters"),
    overview.rounds.length > 1 ? choices("round", "Verdicts of round", same(overview.rounds)) : null,
    field("image", "Image id, or part of a key"),
    el("label", {}, el("span", {}, "SQL condition"), el("textarea", { name: "condition", rows: "3", spellcheck: "false", placeholder: CONDITION })),
    el(
      "div",
      { class: "buttons" },
      el("button", { type: "submit", class: "strong" }, "Search"),
      el("button", { type: "button", onclick: () => submit({}) }, "Clear"),
    ),
  );
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.matches("textarea") && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  const details = el("details", {}, el("summary", {}, "Search"), form, el("p", { class: "hint", id: "sampled" }));
  details.open = matchMedia("(min-width: 900px)").matches;
  side.replaceChildren(details);
}

// What can be chosen and typed, as far as a few shards tell; it comes after the first page.
export function suggest(side, found, overview, place) {
  for (const list of ["labels", "filters"]) {
    side.querySelector(`#${list}`).replaceChildren(...found[list].map((value) => el("option", { value })));
  }
  const select = side.querySelector("[name=granularity]");
  const chosen = select.value || place.granularity;
  // Not the whole form: somebody may be typing already.
  select.replaceChildren(el("option", { value: "" }, "any"), ...found.granularities.map((value) => el("option", { value }, value)));
  fill(select, chosen);
  if (found.sampled < overview.shards) side.querySelector("#sampled").textContent = `Suggestions come from ${count(found.sampled, "shard")}.`;
}

export function fillForm(side, place) {
  for (const name of SEARCH) {
    const input = side.querySelector(`[name=${name}]`);
    if (input) fill(input, place[name] || "");
  }
}

function fill(input, value) {
  if (input.tagName === "SELECT" && ![...input.options].some((option) => option.value === value)) {
    input.append(el("option", { value }, value));
  }
  input.value = value;
}
