// Where the page is: everything stands in its address, so that a link, Back and a reload all work.

export const SEARCH = [
  "text", "label", "source", "kind", "granularity", "minimum", "maximum",
  "kept", "dropped_by", "round", "mark", "image", "condition",
];

// show: SHARD/IMAGE_ID, the image whose story is told; at: its row. left, right: what is compared.
const OTHER = ["after", "before", "show", "at", "left", "right"];

export function here() {
  const given = new URLSearchParams(location.search);
  return Object.fromEntries([...SEARCH, ...OTHER].map((name) => [name, given.get(name) || ""]));
}

export function searchOf(place) {
  return Object.fromEntries(SEARCH.map((name) => [name, place[name] || ""]));
}

export function address(place) {
  const given = [...SEARCH, ...OTHER].filter((name) => place[name]).map((name) => [name, place[name]]);
  const query = new URLSearchParams(given).toString();
  return query ? `/?${query}` : "/";
}

export function go(place, replace = false) {
  history[replace ? "replaceState" : "pushState"](null, "", address(place));
  dispatchEvent(new Event("place"));
}

// A click that opens elsewhere (a new tab) is the browser's own.
export function followed(event, place) {
  if (event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(place);
}
