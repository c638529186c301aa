// Chips of runs. Names are set as text, never as HTML.

const DASHES = { solid: "", dash: "7 4", dot: "3 3", dashdot: "7 3 2 3", longdash: "11 3" };

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function sample(dash) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  svg.setAttribute("width", 24);
  svg.setAttribute("height", 6);
  svg.setAttribute("aria-hidden", "true");
  for (const [name, value] of [["x1", 0], ["x2", 24], ["y1", 3], ["y2", 3]]) line.setAttribute(name, value);
  line.setAttribute("stroke-dasharray", DASHES[dash] ?? "");
  svg.appendChild(line);
  return svg;
}

// Whether the page is dark now; a change of theme draws the chips anew.
function isDark(list) {
  const probe = element("span");
  probe.style.color = getComputedStyle(list).getPropertyValue("--st-background-color");
  list.appendChild(probe);
  const channels = getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
  probe.remove();
  return channels.reduce((sum, channel) => sum + channel) < 3 * 128;
}

export default function ({ data, parentElement, setTriggerValue }) {
  const chips = data.chips;
  const tokens = chips.map((chip) => chip.token);
  const focused = parentElement.focusedToken;
  const list = element("ul");
  list.setAttribute("aria-label", "Compared runs");
  parentElement.querySelector("ul")?.remove();
  parentElement.appendChild(list);
  list.classList.toggle("dark", isDark(list));

  const send = (order) => setTriggerValue("tokens", order);
  const moved = (from, to) => {
    const order = tokens.filter((_, i) => i !== from);
    order.splice(to, 0, tokens[from]);
    send(order);
  };
  let dragged = null;

  chips.forEach((chip, i) => {
    const item = element("li");
    item.style.setProperty("--light", chip.light);
    item.style.setProperty("--dark", chip.dark);
    item.draggable = true;
    item.tabIndex = 0;
    item.title = `${chip.name}: drag, or the arrow keys, to reorder`;
    item.setAttribute("aria-label", `${chip.name}, ${i + 1} of ${chips.length}; the arrow keys move it`);
    item.appendChild(sample(chip.dash));
    const name = element("button", "name", chip.name);
    name.title = `${chip.name}: open the run`;
    name.onclick = () => setTriggerValue("opened", chip.token);
    item.appendChild(name);
    if (i === 0 && chips.length > 1) item.appendChild(element("span", "first", "reference"));
    const drop = element("button", "drop", "×");
    drop.setAttribute("aria-label", `Remove ${chip.name}`);
    drop.onclick = () => send(tokens.filter((token) => token !== chip.token));
    item.appendChild(drop);

    item.onkeydown = (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const to = i + step;
      if (event.target !== item || !step || to < 0 || to >= chips.length) return;
      event.preventDefault();
      parentElement.focusedToken = chip.token;
      moved(i, to);
    };
    item.onfocus = () => (parentElement.focusedToken = chip.token);
    item.onblur = () => item.isConnected && (parentElement.focusedToken = null);
    item.ondragstart = (event) => {
      dragged = i;
      event.dataTransfer.effectAllowed = "move";
      event.dataTransfer.setData("text/plain", chip.name);
      item.classList.add("dragged");
    };
    item.ondragend = () => {
      dragged = null;
      item.classList.remove("dragged");
    };
    item.ondragover = (event) => {
      if (dragged === null) return;
      event.preventDefault();
      item.classList.toggle("target", dragged !== i);
    };
    item.ondragleave = () => item.classList.remove("target");
    item.ondrop = (event) => {
      event.preventDefault();
      item.classList.remove("target");
      if (dragged !== null && dragged !== i) moved(dragged, i);
    };
    list.appendChild(item);
    if (chip.token === focused) item.focus();
  });
}
