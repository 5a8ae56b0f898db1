// One image's statements, tied together: what hangs on what, and which belong side by side.

const TEXTS = ["brief", "detailed", "more_detailed", "class", "ocr"];
const NAMES = { brief: "Brief", detailed: "Detailed", more_detailed: "More detailed", class: "Label", ocr: "Text in the picture" };

export function tie(story) {
  const byId = new Map(story.statements.map((s) => [s.id, s]));
  for (const s of story.statements) Object.assign(s, { children: [], masks: [], scores: [], members: [], phrases: [] });
  for (const s of story.statements) {
    const parent = byId.get(s.parent);
    s.last = s.verdicts.at(-1);
    s.role = role(s, parent);
    if (!parent) continue;
    parent.children.push(s);
    if (s.role === "mask") parent.masks.push(s);
    else if (s.role === "score") parent.scores.push(s);
    else if (s.role === "member") parent.members.push(s);
    else if (s.role === "phrase" && parent.kind === "text") parent.phrases.push(s);
  }
  return byId;
}

function role(s, parent) {
  if (s.mask && s.text === null) return parent ? "mask" : "other";
  if (s.granularity === "member") return parent ? "member" : "other";
  if (s.granularity === "elements" || s.granularity === "change") return "note";
  if (s.kind === "image") return "measure";
  if (s.text === null && !s.box && s.score !== null) return parent ? "score" : "other";
  if (s.kind === "text") return "text";
  if (s.kind === "phrase") return "phrase";
  return s.box ? "region" : "other";
}

export function textName(granularity) {
  return NAMES[granularity] || granularity || "Text";
}

// A voice is one source in one round: what stands side by side to be compared.
export function voice(s) {
  return s.round ? `${s.source} · round ${s.round}` : s.source;
}

export function voices(statements) {
  const found = new Set(statements.filter((s) => ["text", "region", "phrase"].includes(s.role)).map(voice));
  return [...found].sort();
}

export function texts(statements) {
  const order = (s) => (TEXTS.indexOf(s.granularity) + 1 || TEXTS.length + 1);
  return statements.filter((s) => s.role === "text").sort((a, b) => order(a) - order(b) || (voice(a) < voice(b) ? -1 : 1));
}

export function regionsByVoice(statements) {
  const found = new Map();
  for (const s of statements) {
    if (s.role !== "region") continue;
    if (!found.has(voice(s))) found.set(voice(s), []);
    found.get(voice(s)).push(s);
  }
  return found;
}

// What is in no list of its own, with the phrases whose text is not there.
export function others(statements, byId) {
  return statements.filter(
    (s) => ["measure", "other", "note"].includes(s.role) || (s.role === "phrase" && byId.get(s.parent)?.kind !== "text"),
  );
}

export const dropped = (s) => s.last?.kept === false;

function overlap(a, b) {
  const shared =
    Math.max(Math.min(a[2], b[2]) - Math.max(a[0], b[0]), 0) * Math.max(Math.min(a[3], b[3]) - Math.max(a[1], b[1]), 0);
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return shared / (area(a) + area(b) - shared || 1);
}

export const alike = (a, b) => (a.text || "").toLowerCase() === (b.text || "").toLowerCase();

// Each box with its counterpart: IoU of at least 0.5, those of the same text first, then the largest.
export function counterparts(left, right) {
  const pairs = [];
  for (const a of left) {
    for (const b of right) {
      const iou = overlap(a.box, b.box);
      if (iou >= 0.5) pairs.push([iou + (alike(a, b) ? 1 : 0), a, b]);
    }
  }
  pairs.sort((p, q) => q[0] - p[0]);
  const found = new Map();
  for (const [, a, b] of pairs) {
    if (!found.has(a) && !found.has(b)) found.set(a, b).set(b, a);
  }
  return found;
}
