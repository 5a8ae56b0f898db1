// Elements from data. Text goes in as text, never as HTML: there is no other way to make an element here.

const SVG = "http://www.w3.org/2000/svg";

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

export function count(n, one, many = `${one}s`) {
  return `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
}

export function score(value) {
  return value === null ? "" : value.toFixed(value > 0 && value < 0.1 ? 3 : 2);
}

// Eight colours, by the order of first appearance.
export class Hues {
  constructor() {
    this.of = new Map();
  }

  get(key) {
    if (!this.of.has(key)) this.of.set(key, this.of.size % 8);
    return `hue-${this.of.get(key)}`;
  }
}
