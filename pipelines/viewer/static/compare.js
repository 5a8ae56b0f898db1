// Two sources, or two rounds, side by side: what both say, and what only one does.

import { captionWords, phraseGroups } from "./caption.js";
import { count, el, Hues } from "./dom.js";
import { alike, counterparts, textName, texts, voice } from "./model.js";
import { go, here } from "./place.js";
import { Stage } from "./stage.js";
import { fate } from "./statement.js";

const keptIn = (round) => ` (kept in round ${round})`;

// A side is a voice, as it spoke or only what the verdicts of a round keep of it.
function chosen(statements, side) {
  const [, by, round] = side.match(/^(.*?)(?: \(kept in round (\d+)\))?$/);
  const kept = (s) => s.verdicts.find((v) => v.round === Number(round))?.kept !== false;
  return statements.filter((s) => voice(s) === by && (round === undefined || kept(s)));
}

export function showComparison(body, story, sides, place, context) {
  const judged = new Set(story.statements.flatMap((s) => s.verdicts.map((v) => voice(s) + keptIn(v.round))));
  const options = sides.flatMap((side) => [side, ...story.rounds.map((round) => side + keptIn(round)).filter((one) => judged.has(one))]);
  const hues = new Hues();
  const both = [place.left, place.right].map((side) => chosen(story.statements, side));
  // A further text of a region repeats its box.
  const regions = both.map((all) => all.filter((s) => s.role === "region" && context.byId.get(s.parent)?.kind !== "region"));
  const other = counterparts(...regions);
  const stages = [];
  const light = (ids) => {
    // A pair stands out on both sides.
    const pairs = ids.flatMap((id) => [id, other.get(context.byId.get(id))?.id]);
    stages.forEach((stage) => stage.light(pairs.filter((id) => stage.shapes.has(id))));
  };
  const columns = [place.left, place.right].map((side, i) => {
    const name = ["left", "right"][i];
    const choice = el(
      "select",
      { "aria-label": i ? "Right side" : "Left side", name, onchange: (event) => go({ ...here(), [name]: event.target.value }) },
      options.map((option) => el("option", { value: option, selected: option === side }, option)),
    );
    const stage = new Stage(story.image, `what ${side} says`, light);
    const phrases = both[i].filter((s) => s.role === "phrase" && s.box);
    for (const s of regions[i]) s.hue = hues.get((s.text || "").toLowerCase());
    for (const text of texts(both[i])) {
      for (const [, group] of phraseGroups(text)) for (const p of group) p.hue = hues.get((p.text || "").toLowerCase());
    }
    const shown = regions[i].length ? regions[i] : phrases;
    stages.push(stage);
    stage.draw(shown, (s) => s.hue || "hue-0");
    for (const s of regions[i]) {
      if (!other.has(s)) stage.svg.querySelector(`[data-of="${CSS.escape(s.id)}"]`)?.classList.add("alone");
    }
    // What differs: boxes without a counterpart, and those whose counterpart has another text.
    const differing = regions[i].filter((s) => !other.has(s) || !alike(s, other.get(s)));
    return el(
      "section",
      { class: "side", "aria-label": side },
      choice,
      stage.node,
      el(
        "ul",
        { class: "statements" },
        differing.map((s) =>
          el(
            "li",
            { class: "statement", onpointerenter: () => light([s.id]), onpointerleave: () => light([]) },
            el("div", { class: "row" }, el("span", { class: `dot ${s.hue}` }), el("span", { class: "said" }, s.text || "(no text)"), el("span", { class: "by" }, other.has(s) ? `there: ${other.get(s).text || "(no text)"}` : "only here"), fate(s)),
          ),
        ),
      ),
      texts(both[i]).map((text) =>
        el("article", { class: "caption" }, el("header", {}, el("h3", {}, textName(text.granularity)), fate(text)), captionWords(text, (p) => p.hue || "hue-0", light)),
      ),
    );
  });
  const pairs = regions[0].filter((s) => other.has(s)).length;
  const named = regions[0].filter((s) => other.has(s) && alike(s, other.get(s))).length;
  const summary = regions.some((list) => list.length)
    ? `${count(pairs, "region")} in both (IoU at least 0.5), ${named} of them with the same text; ${regions[0].length - pairs} only on the left, ${regions[1].length - pairs} only on the right`
    : "Neither side has regions.";
  body.replaceChildren(el("p", { class: "status", id: "agreement" }, summary), el("div", { class: "sides" }, columns));
}
