// The images that match, a page at a time.

import { get, imageUrl } from "./api.js";
import { count, el, Hues, score, svg } from "./dom.js";
import { showGone } from "./gone.js";
import { address, followed, go, searchOf } from "./place.js";

const SIZE = 48;
const COUNT_SECONDS = 4;

export async function showResults(main, place, overview, signal) {
  const search = searchOf(place);
  const asked = Object.entries(search).some(([name, value]) => value && name !== "round");
  const status = el("p", { class: "status", role: "status" }, "Searching…");
  const total = el("span", { class: "total" });
  const grid = el("ol", { class: "grid", "aria-label": "Images" });
  const pager = el("nav", { class: "pager", "aria-label": "Pages" });
  main.replaceChildren(el("div", { class: "over" }, status, total), grid, pager);
  if (!place.after && !place.before) scrollTo(0, 0);

  const found = [];
  const hues = new Hues();
  let cursor = place.before || place.after;
  let stopped = false;
  let answer;
  do {
    answer = await get("/api/search", { ...search, [place.before ? "before" : "after"]: cursor, size: SIZE - found.length }, signal);
    const cards = answer.images.map((image) => card(image, place, asked, hues));
    if (place.before) {
      found.unshift(...answer.images);
      grid.prepend(...cards);
    } else {
      found.push(...answer.images);
      grid.append(...cards);
    }
    cursor = answer.next;
    if (cursor && found.length < SIZE && !stopped) {
      const far = Number(cursor.split(".")[0]);
      const searched = place.before ? answer.shards - far : far;
      const stop = el("button", { type: "button", class: "quiet", onclick: () => (stopped = true) }, "Stop");
      status.replaceChildren(`${count(found.length, "image")} so far, in ${searched.toLocaleString("en")} of ${count(answer.shards, "shard")} `, stop);
    }
  } while (cursor && found.length < SIZE && !stopped);

  const back = place.before ? cursor : place.after ? `${placeOf(found[0]) || place.after}` : null;
  const on = place.before ? placeOf(found.at(-1)) || place.before : cursor;
  const turn = (name, to, labelled, rel) =>
    to
      ? el("a", { class: "button", rel, href: address({ ...search, [name]: to }), onclick: (event) => followed(event, { ...search, [name]: to }) }, labelled)
      : el("span", { class: "button off", "aria-disabled": "true" }, labelled);
  pager.replaceChildren(turn("before", back, "← Before", "prev"), turn("after", on, "Next →", "next"));
  pager.hidden = !back && !on;
  if (stopped && cursor) status.lastElementChild?.replaceWith("when stopped");
  else if (found.length) status.textContent = `${count(found.length, "image")} on this page`;
  else status.textContent = asked ? "No image matches." : "There are no images.";
  if (found.length || stopped) countAll(total, search, overview, asked, signal);
  return {
    key(event) {
      if (event.key === "ArrowRight" && on && !onCard(event)) go({ ...search, after: on });
      else if (event.key === "ArrowLeft" && back && !onCard(event)) go({ ...search, before: back });
      else if (event.key.startsWith("Arrow") && onCard(event)) step(event, grid);
    },
  };
}

const placeOf = (image) => (image ? `${Number(image.shard)}.${image.row}` : "");
const onCard = (event) => event.target.closest?.(".card");

function step(event, grid) {
  const cards = [...grid.querySelectorAll(".card")];
  const across = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across }[event.key];
  const to = cards[cards.indexOf(onCard(event)) + by];
  if (to) {
    event.preventDefault();
    to.focus();
  }
}

function card(image, place, asked, hues) {
  const to = { ...place, show: `${image.shard}/${image.image_id}`, at: String(image.row) };
  const said = image.statements.find((s) => s.text);
  const picture = el("img", { src: imageUrl(image.shard, image.image_id, "thumb"), alt: said ? said.text : image.key, loading: "lazy", decoding: "async" });
  const frame = el("div", { class: "frame" }, picture);
  picture.addEventListener("error", () => showGone(frame, picture.src));
  const boxed = asked ? image.statements.filter((s) => s.box) : [];
  if (boxed.length) {
    const rects = boxed.map(({ box: [x0, y0, x1, y1], text, kept }) =>
      svg("rect", { x: x0, y: y0, width: x1 - x0, height: y1 - y0, class: `${hues.get(text)}${kept === false ? " dropped" : ""}` }),
    );
    frame.append(svg("svg", { viewBox: `0 0 ${image.width} ${image.height}`, class: "boxes", "aria-hidden": "true" }, rects));
  }
  const lines = (asked ? gathered(image.statements) : said ? [[said]] : []).map(([s, ...same]) =>
    el(
      "p",
      { class: "line" },
      s.box && asked ? el("span", { class: `dot ${hues.get(s.text)}` }) : null,
      el("span", { class: "said" }, s.text || s.granularity || s.kind),
      same.length ? el("span", { class: "by" }, `× ${same.length + 1}`) : null,
      asked ? el("span", { class: "by" }, [s.source, score(s.score), s.kept === false ? `dropped: ${s.dropped_by}` : ""].filter(Boolean).join(" · ")) : null,
    ),
  );
  const told = asked ? gathered(image.statements).flat().length : 0;
  const more = image.matches - told;
  return el(
    "li",
    {},
    el(
      "a",
      { class: "card", href: address(to), onclick: (event) => followed(event, to) },
      frame,
      el("div", { class: "words" }, lines, el("p", { class: "key" }, el("span", {}, image.key), asked && more > 0 ? ` and ${count(more, "match", "matches")} more` : "")),
    ),
  );
}

// Statements of the same words by the same source, as one line; the first three lines.
function gathered(statements) {
  const lines = new Map();
  for (const s of statements) {
    const key = JSON.stringify([s.text || s.granularity || s.kind, s.source, s.kept, s.dropped_by, s.text ? null : s.score]);
    if (!lines.has(key)) lines.set(key, []);
    lines.get(key).push(s);
  }
  return [...lines.values()].slice(0, 3);
}

// Counting goes on behind the page, shard by shard; what is not counted yet is guessed from what is.
async function countAll(total, search, overview, asked, signal) {
  let [statements, images, shard] = [0, 0, 0];
  const started = performance.now();
  let patience = COUNT_SECONDS;
  for (;;) {
    let answer;
    try {
      answer = await get("/api/count", { ...search, shard }, signal);
    } catch {
      total.textContent = "";
      return;
    }
    statements += answer.statements;
    images += answer.images;
    if (answer.next === null) break;
    shard = answer.next;
    const share = shard / answer.shards;
    total.textContent = `about ${count(rounded(statements / share), "statement")} on ${count(rounded(images / share), "image")}, after ${shard.toLocaleString("en")} of ${count(answer.shards, "shard")}`;
    if ((performance.now() - started) / 1000 > patience) {
      const wanted = await new Promise((resolve) => {
        total.append(" ", el("button", { type: "button", class: "quiet", onclick: () => resolve(true) }, "Count all"));
        signal.addEventListener("abort", () => resolve(false));
      });
      if (!wanted) return;
      patience = Infinity;
    }
  }
  total.textContent = asked
    ? `${count(statements, "statement")} on ${count(images, "image")} in all`
    : `${count(statements, "statement")} on ${count(overview.images, "image")}`;
}

function rounded(n) {
  const place = 10 ** Math.max(0, Math.floor(Math.log10(n || 1)) - 1);
  return Math.round(n / place) * place;
}
