// One image's whole story: the picture, its texts, its regions by source, and everything else.

import { get, imageUrl } from "./api.js";
import { captionWords, phraseGroups } from "./caption.js";
import { showComparison } from "./compare.js";
import { count, el, Hues, score } from "./dom.js";
import { dropped, others, regionsByVoice, textName, texts, tie, voice, voices } from "./model.js";
import { address, followed, go, searchOf } from "./place.js";
import { Stage } from "./stage.js";
import { fate, markButtons, statementRow } from "./statement.js";

const MOST_ROWS = 100;
const SAID_SECONDS = 6;

export async function showStory(main, place, overview, signal) {
  const [shard, imageId] = place.show.split("/");
  const story = await get(`/api/images/${encodeURIComponent(shard)}/${encodeURIComponent(imageId || "")}`, {}, signal);
  const byId = tie(story);
  const sides = voices(story.statements);
  const beside = neighbours(place, story.image, signal);
  const said = el("p", { class: "said-last", role: "status" });
  let silence;
  const context = {
    shard,
    byId,
    readOnly: overview.read_only,
    light: () => {},
    jump: () => {},
    say: (line, bad = false) => {
      said.textContent = line;
      said.classList.toggle("bad", bad);
      clearTimeout(silence);
      silence = setTimeout(() => said.replaceChildren(), SAID_SECONDS * 1000);
    },
  };
  const comparing = Boolean(place.left && place.right);
  const other = comparing ? { ...place, left: "", right: "" } : { ...place, left: sides[0], right: sides[1] || sides[0] };
  const switcher = sides.length
    ? el("a", { class: "button", id: "compare", href: address(other), onclick: (event) => followed(event, other) }, comparing ? "One story" : "Compare")
    : null;
  const body = el("div", {});
  main.replaceChildren(heading(place, story.image, beside, switcher), ...missing(story), body, said);
  scrollTo(0, 0);
  if (comparing) showComparison(body, story, sides, place, context);
  else tell(body, story, context);
  return {
    async key(event) {
      if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
        const to = (await beside)[event.key === "ArrowLeft" ? 0 : 1];
        if (to && !signal.aborted) go(to);
      } else if (event.key === "ArrowDown" || event.key === "ArrowUp") step(event, main);
      else if (event.key === "c" && switcher) go(other);
    },
  };
}

// Where the image before and the next one of the same search are; null at an end.
async function neighbours(place, image, signal) {
  const at = `${Number(image.shard)}.${image.row}`;
  const one = async (side) => {
    let cursor = at;
    try {
      while (cursor) {
        const answer = await get("/api/search", { ...searchOf(place), [side]: cursor, size: 1 }, signal);
        if (answer.images.length) {
          const [to] = answer.images;
          new Image().src = imageUrl(to.shard, to.image_id, "full");
          return { ...place, show: `${to.shard}/${to.image_id}`, at: String(to.row) };
        }
        cursor = answer.next;
      }
    } catch {
      return null;
    }
    return null;
  };
  return [await one("before"), await one("after")];
}

function heading(place, image, beside, switcher) {
  const back = { ...place, show: "", at: "", left: "", right: "" };
  const turns = ["← Before", "Next →"].map((labelled) => el("span", { class: "button off" }, labelled));
  beside.then((found) =>
    found.forEach((to, i) => {
      if (to) turns[i].replaceWith(el("a", { class: "button", rel: i ? "next" : "prev", href: address(to), onclick: (event) => followed(event, to) }, turns[i].textContent));
    }),
  );
  const [key, ...names] = image.keys || [];
  const facts = [`${image.width} × ${image.height}`, image.format, `shard ${image.shard}, row ${image.row}`, image.image_id];
  return el(
    "div",
    { class: "heading" },
    el("div", { class: "turns" }, el("a", { class: "button", href: address(back), onclick: (event) => followed(event, back) }, "All"), turns, switcher),
    el("h1", {}, key || image.image_id),
    el("p", { class: "facts" }, facts.join(" · ")),
    names.length ? el("p", { class: "facts" }, `also ${names.join(", ")}`) : null,
  );
}

function missing(story) {
  const lines = [...story.missing, ...story.failures.map((f) => `${f.stage} could not use it: ${f.reason}, ${f.message}`)];
  return lines.length ? [el("ul", { class: "missing" }, lines.map((line) => el("li", {}, line)))] : [];
}

function tell(body, story, context) {
  const captions = texts(story.statements);
  const regions = regionsByVoice(story.statements);
  const alt = captions.find((s) => s.text)?.text.slice(0, 300) || story.image.keys?.[0] || "";
  const hues = new Hues();
  const list = el("div", { class: "list" });
  let pinned = [];
  let showing = null;
  let withDropped = true;

  const stage = new Stage(story.image, alt, (ids) => light(ids));
  const light = (ids, pin = false) => {
    if (pin) pinned = pinned.join() === ids.join() ? [] : ids;
    const lit = ids.length && !pin ? ids : pinned;
    const hidden = lit.some((id) => !stage.shapes.has(id) && context.byId.get(id)?.box);
    // What stands out is drawn even where its list is not the one that is shown.
    if (hidden) draw(lit.map((id) => context.byId.get(id)));
    else if (!lit.length && drawnExtra) draw([]);
    stage.light(lit.filter((id) => stage.shapes.has(id)));
    for (const node of list.querySelectorAll(".lit")) node.classList.remove("lit");
    for (const id of lit) {
      list.querySelector(`[data-id="${CSS.escape(id)}"]`)?.classList.add("lit");
      list.querySelector(`[data-phrase~="${CSS.escape(id)}"]`)?.classList.add("lit");
    }
  };
  let drawnExtra = false;
  const hueOf = (s) => s.hue;
  const draw = (extra) => {
    const shown = (showing?.statements || []).filter((s) => withDropped || !dropped(s));
    drawnExtra = extra.length > 0;
    stage.draw([...new Set([...shown, ...extra])], hueOf);
  };
  const show = (layer) => {
    showing = showing === layer ? null : layer;
    for (const each of layers) each.button.setAttribute("aria-pressed", String(each === showing));
    draw([]);
  };
  context.light = light;
  context.jump = (to) => {
    const row = list.querySelector(`[data-id="${CSS.escape(to.id)}"] .open, [data-id="${CSS.escape(to.id)}"]`);
    row?.scrollIntoView({ block: "center" });
    row?.focus?.();
  };

  const layers = [];
  const layer = (statements, labelled) => {
    const made = { statements, button: null };
    made.button = el("button", { type: "button", class: "show", "aria-pressed": "false", "aria-label": `Draw ${labelled}`, onclick: () => show(made) }, "draw");
    layers.push(made);
    return made;
  };

  if (captions.length) {
    const cards = captions.map((text) => {
      const own = new Hues();
      for (const [key, group] of phraseGroups(text)) for (const phrase of group) phrase.hue = own.get(key);
      const made = text.phrases.length ? layer(text.phrases, `the phrases of the ${textName(text.granularity)} text by ${voice(text)}`) : null;
      return el(
        "article",
        { class: "caption", "data-id": text.id },
        el(
          "header",
          {},
          el("h3", {}, textName(text.granularity)),
          el("span", { class: "by" }, [voice(text), score(text.score), ...text.scores.map((g) => `${g.source} ${score(g.score)}`)].filter(Boolean).join(" · ")),
          fate(text),
          made?.button,
          markButtons(text, context),
        ),
        captionWords(text, hueOf, light),
        text.phrases.length ? phraseList(text, context) : null,
      );
    });
    list.append(el("section", {}, el("h2", {}, "Texts"), cards));
  }
  for (const [by, rows] of regions) {
    for (const s of rows) s.hue = hues.get((s.text || "").toLowerCase());
    const made = layer(rows, `the regions by ${by}`);
    list.append(
      el("section", {}, el("header", { class: "of" }, el("h2", {}, `Regions by ${by}`), el("span", { class: "by" }, String(rows.length)), made.button), rowList(rows, context)),
    );
  }
  const rest = others(story.statements, context.byId);
  for (const s of rest) s.hue = "hue-0";
  if (rest.length) list.append(el("section", {}, el("h2", {}, "Also said"), rowList(rest, context, (s) => `${voice(s)}: `)));
  if (!story.statements.length) list.append(el("p", { class: "hint" }, "Nothing was said of this image."));

  const options = story.statements.some(dropped)
    ? el(
        "label",
        { class: "option" },
        el("input", {
          type: "checkbox",
          checked: true,
          onchange: (event) => {
            withDropped = event.target.checked;
            draw([]);
          },
        }),
        " draw what filters dropped, dashed",
      )
    : null;
  const left = el("div", { class: "picture" }, stage.node, options, metadata(story.image));
  left.addEventListener("click", () => {
    pinned = [];
    light([]);
  });
  body.replaceChildren(el("div", { class: "telling-columns" }, left, list));
  if (layers.length) show(layers[0]);
}

function rowList(rows, context) {
  const items = (from, to) => rows.slice(from, to).map((s) => statementRow(s, s.box ? s.hue : null, context));
  const list = el("ul", { class: "statements" }, items(0, MOST_ROWS));
  if (rows.length <= MOST_ROWS) return list;
  const all = el("button", { type: "button", onclick: () => all.replaceWith(...items(MOST_ROWS)) }, `Show all ${rows.length.toLocaleString("en")}`);
  list.append(all);
  return list;
}

function phraseList(text, context) {
  const details = el("details", { class: "phrases" }, el("summary", {}, count(text.phrases.length, "phrase with its box", "phrases with their boxes")));
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) details.append(rowList(text.phrases, context));
  });
  return details;
}

function metadata(image) {
  if (!image.metadata && !image.uri) return null;
  const pairs = Object.entries({ file: image.uri || "in the data set", ...(image.metadata && typeof image.metadata === "object" ? image.metadata : {}) });
  const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value)).slice(0, 500);
  return el("details", { class: "metadata" }, el("summary", {}, "From the source"), el("dl", {}, pairs.map(([name, value]) => [el("dt", {}, name), el("dd", {}, shown(value))])));
}

function step(event, main) {
  const rows = [...main.querySelectorAll(".open, .phrase")];
  const at = rows.indexOf(document.activeElement);
  const to = rows[at < 0 ? 0 : at + (event.key === "ArrowDown" ? 1 : -1)];
  if (to) {
    event.preventDefault();
    to.focus();
    to.scrollIntoView({ block: "nearest" });
  }
}
