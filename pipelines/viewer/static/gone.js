// What stands in place of a picture that cannot be shown, with the reason.

import { el } from "./dom.js";

const WHY = {
  missing: "The picture is gone",
  changed: "The file has changed since it was ingested",
  unreadable: "The picture cannot be read",
};

export async function showGone(frame, url) {
  const why = el("span", { class: "why" }, "The picture cannot be shown");
  const told = el("div", { class: "gone", role: "img", "aria-label": "The picture cannot be shown" }, why);
  frame.querySelector("img")?.replaceWith(told);
  try {
    const response = await fetch(url);
    if (response.ok) return;
    const answer = await response.json();
    why.textContent = WHY[answer.reason] || "The picture cannot be shown";
    told.setAttribute("aria-label", why.textContent);
    told.append(el("span", { class: "because" }, answer.error || ""));
  } catch {
    // It stays as it is: there is no more to say.
  }
}
