// Two sources, or two rounds, side by side: what both say, and what only one does.

import { captionWords, phraseGroups } from "./caption.js";
import { count, el, Hues } from "./dom.js";
import { agreeing, dropped, textName, texts, voice } from "./model.js";
import { go } from "./place.js";
import { Stage } from "./stage.js";
import { fate } from "./statement.js";

const KEPT = " (kept)";

// A side is a voice, as it spoke or only what the last verdicts keep of it.
function chosen(statements, side) {
  const kept = side.endsWith(KEPT);
  const by = kept ? side.slice(0, -KEPT.length) : side;
  return statements.filter((s) => voice(s) === by && !(kept && dropped(s)));
}

export function showComparison(body, story, sides, place, context) {
  const judged = new Set(story.statements.filter((s) => s.verdicts.length).map(voice));
  const options = sides.flatMap((side) => (judged.has(side) ? [side, side + KEPT] : [side]));
  const hues = new Hues();
  const both = [place.left, place.right].map((side) => chosen(story.statements, side));
  const regions = both.map((all) => all.filter((s) => s.role === "region" && s.box));
  const same = agreeing(...regions);
  const stages = [];
  const light = (ids) => {
    // A pair stands out on both sides.
    const spoken = new Set(ids.map((id) => context.byId.get(id)?.text?.toLowerCase()).filter(Boolean));
    stages.forEach(({ stage, shown }) => {
      const own = shown.filter((s) => ids.includes(s.id) || spoken.has(s.text?.toLowerCase())).map((s) => s.id);
      stage.light(own);
    });
  };
  const columns = [place.left, place.right].map((side, i) => {
    const name = ["left", "right"][i];
    const choice = el(
      "select",
      { "aria-label": i ? "Right side" : "Left side", name, onchange: (event) => go({ ...place, [name]: event.target.value }) },
      options.map((option) => el("option", { value: option, selected: option === side }, option)),
    );
    const stage = new Stage(story.image, `what ${side} says`, light);
    const phrases = both[i].filter((s) => s.role === "phrase" && s.box);
    for (const s of regions[i]) s.hue = hues.get((s.text || "").toLowerCase());
    for (const text of texts(both[i])) {
      for (const [, group] of phraseGroups(text)) for (const p of group) p.hue = hues.get((p.text || "").toLowerCase());
    }
    const shown = regions[i].length ? regions[i] : phrases;
    stages.push({ stage, shown });
    stage.draw(shown, (s) => s.hue || "hue-0");
    for (const s of regions[i]) {
      if (!same.has(s)) stage.svg.querySelector(`[data-of="${CSS.escape(s.id)}"]`)?.classList.add("alone");
    }
    const alone = regions[i].filter((s) => !same.has(s));
    return el(
      "section",
      { class: "side", "aria-label": side },
      choice,
      stage.node,
      el(
        "ul",
        { class: "statements" },
        alone.map((s) =>
          el(
            "li",
            { class: "statement", onpointerenter: () => light([s.id]), onpointerleave: () => light([]) },
            el("div", { class: "row" }, el("span", { class: `dot ${s.hue}` }), el("span", { class: "said" }, s.text || "(no text)"), el("span", { class: "by" }, "only here"), fate(s)),
          ),
        ),
      ),
      texts(both[i]).map((text) =>
        el("article", { class: "caption" }, el("header", {}, el("h3", {}, textName(text.granularity)), fate(text)), captionWords(text, (p) => p.hue || "hue-0", light)),
      ),
    );
  });
  const pairs = same.size / 2;
  const summary = regions.some((list) => list.length)
    ? `${count(pairs, "region")} in both (same text, IoU at least 0.5), ${regions[0].length - pairs} only on the left, ${regions[1].length - pairs} only on the right`
    : "Neither side has regions.";
  body.replaceChildren(el("p", { class: "status", id: "agreement" }, summary), el("div", { class: "sides" }, columns));
}
