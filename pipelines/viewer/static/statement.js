// One statement as a row: what it says, its fate, its mark; and, opened, everything that is known of it.

import { mark } from "./api.js";
import { count, el, score } from "./dom.js";
import { voice } from "./model.js";
import { address, followed } from "./place.js";

export function fate(s) {
  if (!s.last) return null;
  if (s.last.kept) return el("span", { class: "fate kept" }, "kept");
  const value = s.last.value === null ? "" : ` (${score(s.last.value)})`;
  return el("span", { class: "fate out", title: "the filter that dropped it, and what it measured" }, `dropped: ${s.last.dropped_by}${value}`);
}

// Two buttons; pressing the pressed one takes the mark back.
export function markButtons(s, context) {
  if (context.readOnly) return s.mark ? el("span", { class: `marked ${s.mark}` }, s.mark) : null;
  const what = (s.text || s.granularity || s.kind).slice(0, 60);
  const buttons = ["good", "bad"].map((as) =>
    el(
      "button",
      {
        type: "button",
        class: `mark ${as}`,
        "aria-pressed": String(s.mark === as),
        "aria-label": `${as}: ${what}`,
        onclick: (event) => {
          event.stopPropagation();
          give(s.mark === as ? null : as);
        },
      },
      as === "good" ? "✓" : "✗",
    ),
  );
  const give = async (as) => {
    const before = s.mark;
    const shown = (value) => {
      s.mark = value;
      buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(value === ["good", "bad"][i])));
    };
    shown(as);
    try {
      await mark(context.shard, s.id, as);
      context.say(as ? `marked ${as}: ${what}` : `mark taken back: ${what}`);
    } catch (error) {
      shown(before);
      context.say(`not marked: ${error.message}`, true);
    }
  };
  s.give = give;
  return el("span", { class: "marks", role: "group", "aria-label": "Mark" }, buttons);
}

export function statementRow(s, hue, context) {
  const more = el("div", { class: "more", hidden: true });
  const open = el(
    "button",
    {
      type: "button",
      class: "open",
      "aria-expanded": "false",
      onclick: () => {
        more.hidden = !more.hidden;
        open.setAttribute("aria-expanded", String(!more.hidden));
        if (!more.hidden && !more.childElementCount) more.append(facts(s, context));
      },
      onfocus: () => context.light([s.id]),
      onblur: () => context.light([]),
      onkeydown: (event) => {
        const as = { g: "good", b: "bad", u: null }[event.key];
        if (as === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
        event.stopPropagation();
        s.give?.(as);
      },
    },
    hue ? el("span", { class: `dot ${hue}` }) : null,
    el("span", { class: "said" }, s.text || `(${s.granularity || s.kind})`),
    el("span", { class: "by" }, [s.text && s.granularity !== "phrase" ? s.granularity : "", score(s.score)].filter(Boolean).join(" · ")),
    ...s.scores.slice(0, 3).map((given) => el("span", { class: "by" }, `${given.source}${given.granularity ? ` ${given.granularity}` : ""} ${score(given.score)}`)),
    fate(s),
  );
  return el(
    "li",
    { class: "statement", "data-id": s.id, onpointerenter: () => context.light([s.id]), onpointerleave: () => context.light([]) },
    el("div", { class: "row" }, open, markButtons(s, context)),
    more,
  );
}

function facts(s, context) {
  const numbers = (list) => list.map((v) => Math.round(v * 10) / 10).join(", ");
  const parent = context.byId.get(s.parent);
  const jump = (to) =>
    el("button", { type: "button", class: "quiet", onclick: () => context.jump(to) }, `${to.kind} by ${voice(to)}: ${(to.text || to.granularity || "").slice(0, 60)}`);
  const pairs = [
    ["id", s.id],
    ["kind", [s.kind, s.granularity].filter(Boolean).join(", ")],
    ["source", voice(s)],
    ["score", s.score === null ? "none" : s.score.toPrecision(4)],
    ["box", s.box && numbers(s.box)],
    ["quad", s.quad && numbers(s.quad)],
    ["span", s.span && s.span.join(" to ")],
    ["hangs on", parent ? jump(parent) : s.parent ? `${s.parent}, which is not there` : null],
    ["masks", s.masks.length ? s.masks.map((m) => `${m.source} ${score(m.score)}`).join(", ") : null],
    ["scored by", s.scores.length ? s.scores.map((g) => `${g.source}${g.granularity ? ` (${g.granularity})` : ""}: ${g.score.toPrecision(3)}`).join(", ") : null],
    ["made from", s.members.length ? s.members.map((m) => context.byId.get(m.text)).map((m) => (m ? jump(m) : "a row that is not there")) : null],
    ["phrases", s.phrases.length ? count(s.phrases.length, "box", "boxes") : null],
    ...s.verdicts.map((v) => [
      `round ${v.round}`,
      v.kept ? "kept" : `dropped by ${v.dropped_by}${v.value === null ? "" : `, which measured ${v.value.toPrecision(3)}`}`,
    ]),
    ["mark", s.mark],
  ];
  const list = el("dl", {}, pairs.filter(([, value]) => value).map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  if (!s.text || s.text.length > 60) return list;
  const alike = { label: s.kind === "region" ? s.text : "", text: s.kind === "region" ? "" : `"${s.text}"` };
  return el("div", {}, list, el("a", { href: address(alike), onclick: (event) => followed(event, alike) }, "Search for the same"));
}
