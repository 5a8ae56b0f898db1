// What the keys do, and what a SQL condition can name.

import { el } from "./dom.js";

const KEYS = [
  ["/", "to the search"],
  ["← →", "the image before, the next; on the pages of a search likewise"],
  ["↑ ↓", "from statement to statement"],
  ["g b u", "mark the statement good, bad, or take the mark back"],
  ["c", "compare two sources"],
  ["Esc", "back to the search"],
];

const COLUMNS = [
  ["kind, granularity, text, score", "what is said, and how sure its source is"],
  ["source, round", "who said it"],
  ["annotation_id, image_id, parent_id", "the statement, its image, what it hangs on"],
  ["box, quad, span, mask", "where: box_area(box), box_iou(box, [x0, y0, x1, y1]), box[3] - box[1]"],
  ["kept, dropped_by, value", "the verdict, the filter, what it measured"],
  ["width, height, keys, format, uri, metadata", "of the image"],
];

const EXAMPLES = [
  "kind = 'region' AND box_area(box) > 0.5 * width * height",
  "granularity = 'brief' AND length(text) > 200",
  "annotation_id IN (SELECT parent_id FROM scores WHERE score < 0.2)",
];

export function fillHelp(dialog) {
  const list = (pairs, tag) => el("dl", {}, pairs.map(([name, means]) => [el("dt", {}, el(tag, {}, name)), el("dd", {}, means)]));
  dialog.replaceChildren(
    el("h2", { id: "help-title" }, "Keys"),
    list(KEYS, "kbd"),
    el("h2", {}, "Columns of a SQL condition"),
    list(COLUMNS, "code"),
    el("p", {}, "It may ask the data set's views too (texts, regions, triplets, scores, ...):"),
    ...EXAMPLES.map((example) => el("p", {}, el("code", {}, example))),
    el("form", { method: "dialog" }, el("button", { class: "strong" }, "Close")),
  );
}
