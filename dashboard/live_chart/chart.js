// A plotly chart that lives through data updates. Called again with each update; everything that must outlive a call
// is kept on the mount point (the chart) or on the window (zoom, shared by the charts of a group).

const zooms = (window.bottleneckZooms ??= new Map());

function whenPlotly(run) {
  if (window.Plotly) run();
  else window.addEventListener("bottleneck:plotly", run, { once: true });
}

// The ranges that a relayout event sets: {xaxis: [a, b]} or {xaxis: null} for "all of it".
function rangesOf(event) {
  const ranges = {};
  for (const axis of ["xaxis", "yaxis"]) {
    if (event[`${axis}.range[0]`] !== undefined) {
      ranges[axis] = [event[`${axis}.range[0]`], event[`${axis}.range[1]`]];
    } else if (event[`${axis}.range`]) ranges[axis] = [...event[`${axis}.range`]];
    else if (event[`${axis}.autorange`]) ranges[axis] = null;
  }
  return ranges;
}

// The theme that the page has now, which Python learns of with the next rerun only.
function themeOf(element) {
  const probe = document.createElement("span");
  probe.style.color = getComputedStyle(element).getPropertyValue("--st-background-color");
  element.appendChild(probe);
  const channels = getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
  probe.remove();
  return channels.reduce((sum, channel) => sum + channel) < 3 * 128 ? "dark" : "light";
}

class Chart {
  constructor(mount) {
    this.div = document.createElement("div");
    this.div.className = "bottleneck-chart";
    mount.appendChild(this.div);
    this.onGroupZoom = ({ detail }) => detail.group === this.frame?.group && detail.from !== this && this.draw();
    window.addEventListener("bottleneck:zoom", this.onGroupZoom);
    this.resizing = new ResizeObserver(() => this.div.data && this.div.clientWidth && Plotly.Plots.resize(this.div));
    this.resizing.observe(this.div);
    this.asked = 0;
    // Drawing anew while the mouse drags would end the drag: updates wait until it is released.
    this.onPress = ({ target }) => (this.held = this.div.contains(target));
    this.onRelease = () => {
      this.held = false;
      if (this.waiting) setTimeout(() => this.draw());
    };
    window.addEventListener("pointerdown", this.onPress, true);
    window.addEventListener("pointerup", this.onRelease, true);
    window.addEventListener("pointercancel", this.onRelease, true);
  }

  update(text, send) {
    const frame = JSON.parse(text);
    this.text = text;
    this.frame = frame;
    this.send = send;
    this.div.style.height = `${frame.figure.layout.height}px`;
    this.checkTheme();
    whenPlotly(() => this.draw());
  }

  // A figure of the page's other theme is asked for anew, and again: a rerun that was under way when the theme changed
  // answers with the old one, and an answer that brings nothing new does not come here.
  checkTheme() {
    clearTimeout(this.asking);
    const theme = themeOf(this.div.parentElement);
    if (theme === this.frame.theme) {
      this.asked = 0;
    } else if (this.asked < 5) {
      this.send.theme(`${theme} ${++this.asked}`);
      this.asking = setTimeout(() => this.checkTheme(), 1000);
    }
  }

  // The x-range belongs to the group, the y-range to this chart alone.
  keys() {
    return { xaxis: `${this.frame.group}/x`, yaxis: `${this.frame.group}/${this.frame.name}/y` };
  }

  // Plotly's uirevision forgets a zoom as soon as the figure itself asks for another range, as a growing curve does;
  // so the zoom is laid over each new layout here.
  layout() {
    const layout = { ...this.frame.figure.layout };
    for (const [axis, key] of Object.entries(this.keys())) {
      const range = zooms.get(key);
      if (range) layout[axis] = { ...layout[axis], range, autorange: false };
    }
    return layout;
  }

  async draw() {
    if (!this.frame || this.gone) return;
    this.waiting = this.held;
    if (this.held) return;
    const resetButton = {
      name: "Reset zoom",
      icon: Plotly.Icons.home,
      click: () => this.reset(),
    };
    this.drawing = Plotly.react(this.div, this.frame.figure.data, this.layout(), {
      displaylogo: false,
      doubleClick: false,
      modeBarButtons: [["zoom2d", "pan2d", resetButton], downloads(() => this.text)],
    });
    await this.drawing;
    if (this.listening || this.gone) return;
    this.listening = true;
    this.div.on("plotly_relayout", (event) => this.onRelayout(event));
    this.div.on("plotly_doubleclick", () => this.reset());
    this.div.on("plotly_click", ({ points: [point] }) =>
      this.send.click({ x: point.x, y: point.y, trace: point.curveNumber, customdata: point.customdata ?? null }));
  }

  onRelayout(event) {
    const keys = this.keys();
    const ranges = rangesOf(event);
    for (const [axis, range] of Object.entries(ranges)) {
      if (range) zooms.set(keys[axis], range);
      else zooms.delete(keys[axis]);
    }
    if ("xaxis" in ranges) this.shareZoom();
  }

  reset() {
    Object.values(this.keys()).forEach((key) => zooms.delete(key));
    this.draw();
    this.shareZoom();
  }

  // Neighbours follow at once; the server is told once the mouse rests, and answers with finer points.
  shareZoom() {
    const group = this.frame.group;
    window.dispatchEvent(new CustomEvent("bottleneck:zoom", { detail: { group, from: this } }));
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.send.zoom({ group, range: zooms.get(this.keys().xaxis) ?? null }), 200);
  }

  remove() {
    this.gone = true;
    clearTimeout(this.timer);
    clearTimeout(this.asking);
    this.resizing.disconnect();
    window.removeEventListener("bottleneck:zoom", this.onGroupZoom);
    window.removeEventListener("pointerdown", this.onPress, true);
    window.removeEventListener("pointerup", this.onRelease, true);
    window.removeEventListener("pointercancel", this.onRelease, true);
    this.div.remove();
    // A drawing under way ends by looking at what purge takes away.
    const purge = () => window.Plotly && Plotly.purge(this.div);
    Promise.resolve(this.drawing).then(purge, purge);
  }
}

export default function ({ data, parentElement, setStateValue, setTriggerValue }) {
  const chart = (parentElement.bottleneckChart ??= new Chart(parentElement));
  chart.update(new TextDecoder().decode(data), {
    zoom: (value) => setStateValue("zoom", value),
    click: (value) => setTriggerValue("click", value),
    theme: (value) => setStateValue("theme", value),
  });
  return () => {
    chart.remove();
    delete parentElement.bottleneckChart;
  };
}
