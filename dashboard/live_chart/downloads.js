// What a chart can be taken along as: picture, page, rows. Everything is made in the browser from what is drawn.

function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// A file name of the chart's title: words and digits only.
function fileName(div) {
  return (div._fullLayout.title?.text ?? "").replace(/<[^>]*>/g, "").replace(/[^\p{L}\p{N}]+/gu, "_").replace(/^_+|_+$/g, "") || "chart";
}

// Names and labels are written for plotly, which reads markup in them.
function plainText(text) {
  return /[&<]/.test(text) ? new DOMParser().parseFromString(text, "text/html").body.textContent : text;
}

function csvCell(value) {
  const missing = value === null || value === undefined || Number.isNaN(value);
  const text = missing ? "" : typeof value === "string" ? plainText(value) : String(value);
  // A leading sign of a formula in text would run in a spreadsheet.
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

// One row a point: trace, x, y and, where there is one, z. Points of a map are its cells.
function rows(div) {
  const list = [["trace", "x", "y", "z"]];
  for (const trace of div._fullData) {
    if (trace.visible !== true || trace.type === "parcoords") continue;
    const name = trace.name ?? "";
    if (trace.z && trace.z[0]?.length !== undefined) {
      for (let i = 0; i < trace.z.length; i++) {
        for (let j = 0; j < trace.z[i].length; j++) list.push([name, trace.x?.[j] ?? j, trace.y?.[i] ?? i, trace.z[i][j]]);
      }
    } else {
      const length = Math.max(trace.x?.length ?? 0, trace.y?.length ?? 0);
      for (let i = 0; i < length; i++) list.push([name, trace.x?.[i] ?? i, trace.y?.[i] ?? i, ""]);
    }
  }
  return list;
}

// A page that needs nothing else: plotly.js itself goes into it. "<" is written so that no text ends the script.
async function page(div, frame) {
  const library = await (await fetch(window.bottleneckPlotlyAt)).text();
  const { data, layout } = JSON.parse(frame).figure;
  const figure = JSON.stringify({ data, layout }).replaceAll("<", "\\u003c");
  return `<!doctype html><html><head><meta charset="utf-8"><title>${fileName(div)}</title></head><body>
<div id="chart"></div><script type="module">${library}</script>
<script type="module">const figure = ${figure};
Plotly.newPlot("chart", figure.data, figure.layout, {responsive: true, displaylogo: false});</script></body></html>`;
}

// Three letters in the place of an icon: four pictures of arrows would not say which is which.
function letters(text) {
  return {
    svg: `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 44 20" style="width:2.1em;height:0.95em"><path d="M0 0"/><text x="22" y="15" text-anchor="middle"
      font-family="sans-serif" font-size="14" font-weight="600" fill="#8a8680">${text}</text></svg>`,
  };
}

// `frame` gives the text that the chart was last drawn from.
function downloads(frame) {
  const image = (div, format) =>
    Plotly.downloadImage(div, { format, filename: fileName(div), scale: format === "png" ? 2 : 1 });
  return [
    { name: "png", title: "Download as PNG", icon: letters("PNG"), click: (div) => image(div, "png") },
    { name: "svg", title: "Download as SVG", icon: letters("SVG"), click: (div) => image(div, "svg") },
    {
      name: "html",
      title: "Download as a page of its own",
      icon: letters("HTML"),
      click: async (div) => save(`${fileName(div)}.html`, "text/html", await page(div, frame())),
    },
    {
      name: "csv",
      title: "Download the points that are drawn",
      icon: letters("CSV"),
      click: (div) => save(`${fileName(div)}.csv`, "text/csv", rows(div).map((row) => row.map(csvCell).join(",")).join("\n") + "\n"),
    },
  ];
}

