// The cursor of the charts: what every line shows at the step under the pointer.
"use strict";
const tip = document.getElementById("tip");
for (const chart of document.querySelectorAll(".chart")) {
  const svg = chart.querySelector("svg"), cursor = chart.querySelector(".cursor");
  const data = JSON.parse(chart.querySelector("script").textContent);
  const hide = () => { tip.style.display = "none"; cursor.style.opacity = 0; };
  const move = (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const nearest = data.lines.map((line) => line.points.reduce(
      (best, p) => Math.abs(p[0] - x) < Math.abs(best[0] - x) ? p : best));
    const at = nearest.reduce((best, p) => Math.abs(p[0] - x) < Math.abs(best[0] - x) ? p : best,
      nearest[0]);
    if (!at) return hide();
    tip.replaceChildren();
    const head = document.createElement("div");
    head.textContent = data.x + " " + at[1];
    tip.append(head);
    nearest.forEach((point, i) => {
      if (Math.abs(point[0] - at[0]) > 12) return;
      const row = document.createElement("div"), value = document.createElement("b");
      value.textContent = point[2];
      row.append(data.lines.length > 1 ? data.lines[i].name + " " : "", value);
      tip.append(row);
    });
    cursor.setAttribute("x1", at[0]);
    cursor.setAttribute("x2", at[0]);
    cursor.style.opacity = 0.8;
    tip.style.display = "block";
    const left = event.clientX + 14, room = document.documentElement.clientWidth - tip.offsetWidth - 6;
    tip.style.left = Math.max(6, Math.min(left, room)) + window.scrollX + "px";
    tip.style.top = box.top + window.scrollY - tip.offsetHeight + 4 + "px";
  };
  svg.addEventListener("pointermove", move);
  svg.addEventListener("pointerdown", move);
  svg.addEventListener("pointerleave", hide);
}
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details:not([open])")) {
    part.open = true;
    part.dataset.opened = "";
  }
});
addEventListener("afterprint", () => {
  for (const part of document.querySelectorAll("details[data-opened]")) part.open = false;
});
