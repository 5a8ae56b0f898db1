// A picture with what is said of it drawn over it: masks below, boxes and quads above.

import { imageUrl, maskUrl } from "./api.js";
import { el, svg } from "./dom.js";
import { showGone } from "./gone.js";

const points = (quad) => [0, 2, 4, 6].map((i) => `${quad[i]},${quad[i + 1]}`).join(" ");

export class Stage {
  // `point(ids)` is called with the statements below the pointer, [] when it leaves.
  constructor(image, alt, point = () => {}) {
    this.image = image;
    this.shapes = new Map();
    const picture = el("img", { src: imageUrl(image.shard, image.image_id, "full"), alt });
    picture.style.aspectRatio = `${image.width} / ${image.height}`;
    this.masks = el("div", { class: "masks", "aria-hidden": "true" });
    this.svg = svg("svg", { viewBox: `0 0 ${image.width} ${image.height}`, class: "boxes", "aria-hidden": "true" });
    this.tag = el("div", { class: "tag", hidden: true });
    this.node = el("div", { class: "stage" }, picture, this.masks, this.svg, this.tag);
    // As large as its column, but no higher than the window; small pictures grow.
    this.node.style.setProperty("--ratio", String(image.width / image.height));
    picture.addEventListener("error", () => {
      showGone(this.node, picture.src);
      this.node.classList.add("empty");
    });
    this.svg.addEventListener("pointerover", (event) => point(this.#below(event)));
    this.svg.addEventListener("pointerleave", () => point([]));
  }

  #below(event) {
    const id = event.target.dataset?.id;
    return id ? [id] : [];
  }

  // Draw statements, each with its colour's class. `lit` are the ids to stand out; the others fade.
  draw(statements, hueOf) {
    this.shapes.clear();
    this.svg.replaceChildren();
    this.masks.replaceChildren();
    // Large boxes first, so that small ones can be pointed at.
    const area = ({ box }) => (box ? (box[2] - box[0]) * (box[3] - box[1]) : 0);
    for (const s of [...statements].sort((a, b) => area(b) - area(a))) this.#add(s, hueOf(s));
  }

  #add(s, hue) {
    if (!s.box && !s.quad) return;
    const parts = [];
    const out = s.last?.kept === false ? " dropped" : "";
    for (const halo of [true, false]) {
      const shape = s.quad
        ? svg("polygon", { points: points(s.quad) })
        : svg("rect", { x: s.box[0], y: s.box[1], width: s.box[2] - s.box[0], height: s.box[3] - s.box[1] });
      shape.setAttribute("class", halo ? "halo" : `shape ${hue}${out}`);
      if (!halo) shape.dataset.id = s.id;
      parts.push(shape);
    }
    const group = svg("g", { "data-of": s.id }, parts);
    this.svg.append(group);
    const layers = s.masks.map((mask) => {
      const layer = el("div", { class: `mask ${hue}` });
      const url = `url("${maskUrl(this.image.shard, mask.id)}")`;
      layer.style.maskImage = url;
      layer.style.webkitMaskImage = url;
      this.masks.append(layer);
      return layer;
    });
    this.shapes.set(s.id, { s, nodes: [group, ...layers] });
  }

  // Let some statements stand out, or all look alike again.
  light(ids) {
    this.node.classList.toggle("lighting", ids.length > 0);
    for (const [id, { nodes }] of this.shapes) {
      for (const node of nodes) node.classList.toggle("lit", ids.includes(id));
    }
    const first = ids.map((id) => this.shapes.get(id)?.s).find((s) => s && (s.text || s.granularity));
    this.tag.hidden = !first?.box;
    if (first?.box) {
      this.tag.textContent = (first.text || first.granularity).slice(0, 80);
      const [x0, y0, , y1] = first.box;
      const above = y0 / this.image.height > 0.08;
      this.tag.style.left = `${Math.min((x0 / this.image.width) * 100, 75)}%`;
      this.tag.style.top = `${((above ? y0 : y1) / this.image.height) * 100}%`;
      this.tag.classList.toggle("below", !above);
    }
  }
}
