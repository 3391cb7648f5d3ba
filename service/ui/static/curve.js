// Draws the finetune's loss. The server puts the points beside the chart; htmx replaces the points and
// keeps the chart.
"use strict";
{
  let plot = null;

  const resolved = (name) => {
    const probe = document.createElement("span");
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    const value = getComputedStyle(probe).color;
    probe.remove();
    return value;
  };

  function draw() {
    const card = document.getElementById("curve");
    const chart = document.getElementById("chart");
    if (!card) return;
    const points = JSON.parse(card.dataset.points);
    card.hidden = points[0].length === 0;
    if (card.hidden) return;
    if (plot && plot.root.isConnected) {
      plot.setData(points);
      return;
    }
    const axis = { stroke: resolved("--quiet"), grid: { stroke: resolved("--line"), width: 1 } };
    const size = () => ({ width: chart.clientWidth, height: 240 });
    plot = new uPlot(
      {
        ...size(),
        scales: { x: { time: false } },
        series: [
          { label: "tokens" },
          {
            label: "loss (nats per token)",
            stroke: resolved("--accent"),
            width: 2,
            value: (_, y) => (y == null ? "–" : y.toFixed(3)),
          },
        ],
        axes: [axis, { ...axis, size: 60 }],
      },
      points,
      chart,
    );
    new ResizeObserver(() => plot.setSize(size())).observe(chart);
  }

  document.addEventListener("DOMContentLoaded", draw);
  document.addEventListener("htmx:after:swap", draw);
}
