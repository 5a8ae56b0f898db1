// What a reader does: theme, kept or dropped, which list is drawn, and which boxes stand out. All text is in the page already.
"use strict";

const root = document.documentElement;

function chosen(buttons, of, apply) {
  for (const button of buttons) {
    button.addEventListener("click", () => {
      for (const each of buttons) each.setAttribute("aria-pressed", String(each === button));
      apply(button.dataset[of]);
    });
  }
}

for (const group of document.querySelectorAll(".themes, .fates, .draw")) group.hidden = false;
chosen(document.querySelectorAll("[data-theme-is]"), "themeIs", (theme) => {
  if (theme) root.dataset.theme = theme;
  else delete root.dataset.theme;
});
const gallery = document.getElementById("gallery");
chosen(document.querySelectorAll("[data-fate-is]"), "fateIs", (fate) => {
  gallery.dataset.fate = fate;
});

for (const card of document.querySelectorAll(".card")) {
  const shapes = [...card.querySelectorAll("[data-s]")];
  const words = [...card.querySelectorAll("[data-for]")];
  const told = card.querySelector(".told");
  let pinned = "";

  // `numbers` are those of shapes, separated by spaces; none lets what is pinned stand out again.
  const light = (numbers) => {
    const lit = new Set((numbers || pinned).split(" ").filter(Boolean));
    card.classList.toggle("lighting", lit.size > 0);
    let first = null;
    for (const shape of shapes) {
      const on = lit.has(shape.dataset.s);
      shape.classList.toggle("lit", on);
      if (on && !first && shape.dataset.told) first = shape;
    }
    for (const word of words) word.classList.toggle("lit", lit.size > 0 && word.dataset.for.split(" ").some((n) => lit.has(n)));
    told.textContent = first ? first.dataset.told : told.dataset.idle;
  };
  const pin = (numbers) => {
    pinned = pinned === numbers ? "" : numbers;
    for (const word of words) word.setAttribute("aria-pressed", String(pinned !== "" && word.dataset.for === pinned));
    light("");
  };
  const of = (event) => {
    const at = event.target.closest("[data-for], [data-s]");
    return at ? at.dataset.for || at.dataset.s : "";
  };

  card.addEventListener("pointerover", (event) => light(of(event)));
  card.addEventListener("pointerleave", () => light(""));
  card.addEventListener("focusin", (event) => light(of(event)));
  card.addEventListener("focusout", () => light(""));
  card.addEventListener("click", (event) => {
    const numbers = of(event);
    if (numbers) pin(numbers);
    else if (pinned && !event.target.closest("button")) pin(pinned);
  });
  card.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && pinned) pin(pinned);
    const here = event.target.closest("[data-for]");
    if (!here) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      pin(here.dataset.for);
      return;
    }
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    // Tab goes from list to list; arrows go through one.
    const near = [...here.closest(".text, .regions").querySelectorAll("[data-for]")].filter((word) => word.checkVisibility());
    const to = near[near.indexOf(here) + step];
    if (to) {
      event.preventDefault();
      here.tabIndex = -1;
      to.tabIndex = 0;
      to.focus();
    }
  });
  chosen(card.querySelectorAll("[data-layer-is]"), "layerIs", (layer) => {
    for (const shape of shapes) shape.classList.toggle("off", shape.dataset.layer !== layer);
  });
}
