// Tokens as coloured text. Everything that comes from a model is set as text, never as HTML.

// Upper ends of the colour steps; the last one has none.
const STEPS = [0.01, 0.05, 0.2, 0.5, 0.8];
const LABELS = ["below 1 %", "1 to 5 %", "5 to 20 %", "20 to 50 %", "50 to 80 %", "80 % and more"];

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

const step = (probability) => STEPS.filter((end) => probability >= end).length;

function percent(probability) {
  const value = 100 * probability;
  return value > 0 && value < 0.01 ? "< 0.01 %" : `${value.toFixed(value < 1 ? 2 : 1)} %`;
}

// Control characters as their pictures; line ends and tabs stay, and get a sign in front of them.
const pictured = (text) =>
  text.replace(/[\x00-\x08\x0b-\x1f\x7f]/g, (c) => (c === "\x7f" ? "␡" : String.fromCharCode(0x2400 + c.charCodeAt(0))));

function fill(span, text) {
  for (const part of pictured(text).split(/([\n\t])/)) {
    if (part === "\n" || part === "\t") span.appendChild(element("span", part === "\n" ? "line" : "tab", part));
    else if (part) span.appendChild(document.createTextNode(part));
  }
}

// For a single line, in quotes.
const quoted = (text) => `“${pictured(text).replace(/\n/g, "↵").replace(/\t/g, "⇥")}”`;

class TokenText {
  constructor(root) {
    this.root = root;
    this.box = element("div", "text");
    this.box.tabIndex = 0;
    this.box.setAttribute("role", "group");
    this.box.setAttribute("aria-label", "Generated text; the arrow keys go from token to token");
    this.prompt = element("span", "prompt");
    this.body = element("span");
    this.rest = element("span");
    this.cursor = element("span", "cursor");
    this.tip = element("div", "tip");
    this.tip.setAttribute("role", "tooltip");
    this.tip.setAttribute("aria-live", "polite");
    this.tip.hidden = true;
    this.box.append(this.prompt, this.body, this.rest);
    root.append(this.box, this.tip);
    this.tokens = [];
    this.box.onmouseover = ({ target }) => {
      const token = target.closest?.(".token");
      if (token) this.show(Number(token.dataset.index));
      else this.hide();
    };
    this.box.onmouseleave = () => this.hide();
    this.box.onblur = () => this.hide();
    this.box.onkeydown = (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.key === "Escape") this.hide();
      if (!move || !this.tokens.length) return;
      event.preventDefault();
      const from = this.current ?? (move > 0 ? -1 : this.tokens.length);
      this.show(Math.min(Math.max(from + move, 0), this.tokens.length - 1));
    };
  }

  update(data) {
    const same = (a, b) => a && b && a[0] === b[0] && a[1] === b[1];
    const known = this.tokens.length;
    const grown =
      this.text === data.prompt && data.tokens.length >= known &&
      (known === 0 || (same(this.tokens[0], data.tokens[0]) && same(this.tokens[known - 1], data.tokens[known - 1])));
    if (!grown) {
      this.hide();
      this.body.replaceChildren();
    }
    if (this.text !== data.prompt) {
      this.prompt.replaceChildren();
      fill(this.prompt, data.prompt);
    }
    this.text = data.prompt;
    this.tokens = data.tokens;
    const fresh = document.createDocumentFragment();
    for (let index = grown ? known : 0; index < data.tokens.length; index++) {
      const [text, probability] = data.tokens[index];
      const span = element("span", `token p${step(probability)}`);
      span.dataset.index = index;
      if (text) fill(span, text);
      else span.classList.add("part");
      fresh.appendChild(span);
    }
    this.body.appendChild(fresh);
    this.body.querySelector(".differs")?.classList.remove("differs");
    if (data.differs !== null) this.body.children[data.differs]?.classList.add("differs");
    this.differs = data.differs;
    this.rest.textContent = data.rest;
    if (data.running) this.box.appendChild(this.cursor);
    else this.cursor.remove();
  }

  show(index) {
    const span = this.body.children[index];
    if (!span) return;
    this.hide();
    this.current = index;
    span.classList.add("current");
    this.tip.replaceChildren(...this.described(index));
    this.tip.hidden = false;
    // Below the token, above it where the window ends.
    const at = span.getClientRects()[0] ?? span.getBoundingClientRect();
    const size = this.tip.getBoundingClientRect();
    const below = at.bottom + 6;
    const top = below + size.height > window.innerHeight ? at.top - size.height - 6 : below;
    this.tip.style.top = `${Math.max(top, 4)}px`;
    this.tip.style.left = `${Math.max(Math.min(at.left, window.innerWidth - size.width - 8), 4)}px`;
  }

  hide() {
    if (this.current !== undefined) this.body.children[this.current]?.classList.remove("current");
    this.current = undefined;
    this.tip.hidden = true;
  }

  described(index) {
    const [text, probability, rank, top, delta, kl] = this.tokens[index];
    const head = element("div");
    head.append(element("b", "", text ? quoted(text) : "part of a character"), ` ${percent(probability)}`);
    if (rank) head.append(`, rank ${rank.toLocaleString("en")}`);
    const parts = [head];
    if (top?.length) {
      const table = element("table");
      for (let at = 0; at < top.length; at += 2) {
        const row = element("tr", rank === at / 2 + 1 ? "drawn" : "");
        row.append(element("td", "", quoted(top[at])), element("td", "", percent(top[at + 1])));
        table.appendChild(row);
      }
      parts.push(table);
    }
    if (delta !== null && delta !== undefined) {
      const sign = delta > 0 ? "+" : delta < 0 ? "−" : "±";
      parts.push(element("div", "note", `to the fp16 cache: ln p ${sign}${Math.abs(delta).toFixed(4)}, KL ${kl} nats`));
    }
    if (this.differs === index) parts.push(element("div", "note", "the first token that is not the first column's"));
    return parts;
  }
}

function legend(root, difference) {
  const row = element("div", "legend");
  row.append(element("span", "note", "probability of each token"));
  LABELS.forEach((label, at) => row.append(element("span", `step p${at}`, label)));
  if (difference) {
    row.append(element("span", "gap"), element("span", "mark", "token"), element("span", "note", "first difference"));
  }
  root.replaceChildren(row);
}

export default function ({ data, parentElement }) {
  if (data.legend) {
    legend((parentElement.bottleneckLegend ??= parentElement.appendChild(element("div"))), data.difference);
    return;
  }
  (parentElement.bottleneckTokens ??= new TokenText(parentElement)).update(data);
}
