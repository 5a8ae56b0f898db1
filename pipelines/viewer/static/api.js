// What the page asks of its server. A refusal is an Error whose message can be shown.

export class Refusal extends Error {
  constructor(answer, status) {
    super(answer.error || `the server answered ${status}`);
    this.hint = answer.hint || "";
    this.reason = answer.reason || "";
  }
}

async function answered(response) {
  if (response.ok) return response.json();
  let answer = {};
  try {
    answer = await response.json();
  } catch {
    // Its status says enough.
  }
  throw new Refusal(answer, response.status);
}

export async function get(path, parameters = {}, signal = undefined) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = new URLSearchParams(given).toString();
  return answered(await fetch(query ? `${path}?${query}` : path, { signal }));
}

export async function mark(shard, annotationId, as) {
  return answered(
    await fetch("/api/marks", {
      method: "POST",
      headers: { "content-type": "application/json", "x-fde-viewer": "1" },
      body: JSON.stringify({ shard, annotation_id: annotationId, mark: as }),
    }),
  );
}

export function imageUrl(shard, imageId, size) {
  return `/images/${encodeURIComponent(shard)}/${encodeURIComponent(imageId)}.jpg?size=${size}`;
}

export function maskUrl(shard, annotationId) {
  return `/masks/${encodeURIComponent(shard)}/${encodeURIComponent(annotationId)}.png`;
}
