// The page: finds out where it is, and lets the search or one image's story fill it.

import { get } from "./api.js";
import { count, el } from "./dom.js";
import { fillForm, makeForm, suggest } from "./form.js";
import { fillHelp } from "./help.js";
import { address, go, here } from "./place.js";
import { showResults } from "./results.js";
import { showStory } from "./story.js";

const byId = (id) => document.getElementById(id);

let overview = null;
let running = null;
let shown = null;

function notices(lines, bad = false) {
  const box = byId("notices");
  box.replaceChildren(...lines.map((line) => el("p", {}, line)));
  box.classList.toggle("bad", bad);
  box.hidden = lines.length === 0;
}

async function render() {
  running?.abort();
  running = new AbortController();
  const place = here();
  fillForm(byId("side"), place);
  document.body.classList.toggle("telling", Boolean(place.show));
  try {
    shown = await (place.show ? showStory : showResults)(byId("main"), place, overview, running.signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    const hint = error.hint ? el("p", { class: "hint" }, error.hint) : null;
    byId("main").replaceChildren(el("div", { class: "refusal", role: "alert" }, el("p", {}, error.message), hint));
  }
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  const typing = event.target.closest("input, textarea, select");
  if (event.key === "Escape" && typing) typing.blur();
  else if (typing) return;
  else if (event.key === "/") {
    event.preventDefault();
    byId("side").querySelector("details").open = true;
    byId("side").querySelector("[name=text]").focus();
  } else if (event.key === "?") byId("help").showModal();
  else if (event.key === "Escape" && here().show) go({ ...here(), show: "", at: "", left: "", right: "" });
  else shown?.key?.(event);
}

async function start() {
  const given = new URLSearchParams(location.search);
  if (given.has("token")) {
    // The cookie stands for it from here on; an address with a token should not be passed on.
    history.replaceState(null, "", address(here()));
  }
  addEventListener("popstate", render);
  addEventListener("place", render);
  addEventListener("keydown", keys);
  try {
    overview = await get("/api/overview");
  } catch (error) {
    notices([error.message, error.hint || ""].filter(Boolean), true);
    return;
  }
  const name = overview.dataset.replace(/\/+$/, "").split("/").pop();
  document.title = `${name} - fde view`;
  byId("home").textContent = name;
  byId("home").title = overview.dataset;
  byId("home").addEventListener("click", (event) => {
    event.preventDefault();
    go({});
  });
  const facts = [count(overview.images, "image"), count(overview.shards, "shard")];
  if (overview.read_only) facts.push("read-only");
  byId("facts").textContent = facts.join(" · ");
  notices(overview.missing);
  fillHelp(byId("help"));
  byId("help-open").addEventListener("click", () => byId("help").showModal());
  makeForm(byId("side"), overview, (search) => go(search));
  await render();
  try {
    suggest(byId("side"), await get("/api/suggestions"), overview, here());
  } catch (error) {
    notices([...overview.missing, `no suggestions: ${error.message}`]);
  }
}

start();
