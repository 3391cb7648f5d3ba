// Draws the curves of a finetune: its loss, and the share of each expert. The server puts the points
// beside each chart; htmx replaces the points and keeps the chart.
import { hueOf } from "/static/hues.js";

const plots = new Map(); // id of the card -> plot

function resolved(color, hue = "") {
  const probe = document.createElement("span");
  probe.className = "tinted";
  probe.style.setProperty("--hue", hue);
  probe.style.color = `var(${color})`;
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

const shown = (y) => (y == null ? "–" : y.toFixed(3));
const share = (y) => (y == null ? "–" : `${Math.round(100 * y)} %`);

function draw(card) {
  const chart = card.querySelector(".chart");
  const points = JSON.parse(card.dataset.points);
  card.hidden = points[0].length === 0;
  if (card.hidden) return;
  const old = plots.get(card.id);
  if (old?.root.isConnected) {
    old.setData(points);
    return;
  }
  const isShares = card.classList.contains("shares");
  const text = isShares ? share : shown;
  const axis = { stroke: resolved("--quiet"), grid: { stroke: resolved("--line"), width: 1 } };
  const values = isShares ? { values: (_, ticks) => ticks.map(share) } : {};
  const size = () => ({ width: chart.clientWidth, height: 240 });
  const series = JSON.parse(card.dataset.series).map((label, number) => ({
    label,
    stroke: isShares ? resolved("--tint", hueOf(number)) : resolved("--accent"),
    width: 2,
    value: (_, y) => text(y),
  }));
  const options = {
    ...size(),
    scales: { x: { time: false }, ...(isShares && { y: { range: [0, 1] } }) },
    series: [{ label: "tokens" }, ...series],
    axes: [axis, { ...axis, size: 60, ...values }],
  };
  const plot = new uPlot(options, points, chart);
  plots.set(card.id, plot);
  new ResizeObserver(() => plot.setSize(size())).observe(chart);
}

const drawAll = () => document.querySelectorAll(".plot").forEach(draw);

drawAll();
document.addEventListener("htmx:after:swap", drawAll);
