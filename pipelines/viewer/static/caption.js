// A text with its phrases: each in the colour of its boxes, which stand out while it is pointed at.

import { el } from "./dom.js";

const SHORT = 600;

// The phrases of a text by their span; one phrase may have several boxes, and several sources.
export function phraseGroups(text) {
  const groups = new Map();
  for (const phrase of text.phrases) {
    const key = phrase.span ? phrase.span.join("-") : phrase.text;
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(phrase);
  }
  return groups;
}

// `light(ids, pinned)` lets the boxes of a phrase stand out.
export function captionWords(text, hueOf, light) {
  // Spans count code points, as Python does; JavaScript's strings count otherwise.
  const letters = Array.from(text.text || "");
  const spans = [...phraseGroups(text).values()]
    .filter(([p]) => p.span && p.span[1] <= letters.length && p.span[0] < p.span[1])
    .sort(([a], [b]) => a.span[0] - b.span[0] || b.span[1] - a.span[1]);
  const body = el("p", { class: "words" });

  const phrase = (group, inside) => {
    const ids = group.map((p) => p.id);
    const on = () => light(ids);
    const off = () => light([]);
    const pin = (event) => {
      event.stopPropagation();
      light(ids, true);
    };
    return el(
      "span",
      {
        class: `phrase ${hueOf(group[0])}${group.every((p) => p.last?.kept === false) ? " dropped" : ""}`,
        tabindex: "0",
        role: "button",
        "data-phrase": ids.join(" "),
        title: `${ids.length === 1 ? "1 box" : `${ids.length} boxes`}`,
        onpointerenter: on,
        onpointerleave: off,
        onfocus: on,
        onblur: off,
        onclick: pin,
        onkeydown: (event) => {
          if (event.key === "Enter" || event.key === " ") {
            event.preventDefault();
            pin(event);
          }
        },
      },
      inside,
    );
  };

  // Spans that lie in another nest in it; one that crosses a border is cut there.
  const write = (from, to, within) => {
    const out = [];
    let at = from;
    for (let i = 0; i < within.length; i += 1) {
      const [first] = within[i];
      if (first.span[0] < at) continue;
      const end = Math.min(first.span[1], to);
      const nested = within.slice(i + 1).filter(([p]) => p.span[0] >= first.span[0] && p.span[1] <= end);
      out.push(letters.slice(at, first.span[0]).join(""), phrase(within[i], write(first.span[0], end, nested)));
      at = end;
    }
    out.push(letters.slice(at, to).join(""));
    return out;
  };

  const fill = (to) => {
    body.replaceChildren(...write(0, to, spans.filter(([p]) => p.span[0] < to)));
    const left = text.length - to;
    if (left <= 0) return;
    if (to < letters.length) {
      body.append("… ", el("button", { type: "button", class: "quiet", onclick: () => fill(letters.length) }, "Show all"));
    } else {
      body.append(el("em", {}, ` … ${text.length.toLocaleString("en")} characters, of which the first ${to.toLocaleString("en")} are shown`));
    }
  };
  fill(letters.length > SHORT * 1.5 ? SHORT : letters.length);
  return body;
}
