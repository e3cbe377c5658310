"use strict";

// What is under the pointer: a line across the chart, a dot on each curve, the values there in the chart's heading.
for (const svg of document.querySelectorAll(".chart svg")) {
  const curves = JSON.parse(svg.dataset.places); // of each curve its points: [x, y, place, value], as drawn and in words
  const values = svg.parentElement.querySelectorAll(".readout b");
  const last = [...values].map((value) => value.textContent);
  const at = svg.parentElement.querySelector(".at");
  const marks = document.createElementNS(svg.namespaceURI, "g");
  svg.append(marks);

  const mark = (name, attributes) => {
    const made = document.createElementNS(svg.namespaceURI, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    marks.append(made);
  };
  const nearest = (points, x) => points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));

  svg.addEventListener("pointermove", (event) => {
    const x = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse()).x;
    const [place, , text] = nearest(curves.flat(), x);
    marks.replaceChildren();
    mark("path", { class: "cursor", d: `M${place} ${svg.dataset.top}V${svg.dataset.bottom}` });
    at.textContent = `${svg.dataset.along} ${text}`;
    curves.forEach((points, i) => {
      const inside = points[0][0] - 6 <= place && place <= points.at(-1)[0] + 6;
      const [cx, cy, , value] = nearest(points, place);
      if (inside) mark("circle", { class: "mark", cx, cy, r: 3.5 });
      values[i].textContent = inside ? value : "–";
    });
  });
  svg.addEventListener("pointerleave", () => {
    marks.replaceChildren();
    at.textContent = "";
    values.forEach((value, i) => (value.textContent = last[i]));
  });
}

// The pictures of one moment: of each run the newest that it had by then, or its first.
for (const slider of document.querySelectorAll(".pictures input")) {
  const steps = slider.dataset.steps.split(" ").map(Number);
  slider.addEventListener("input", () => {
    for (const figure of slider.closest(".pictures").querySelectorAll("figure")) {
      const images = [...figure.querySelectorAll("img")];
      const shown = images.findLast((image) => Number(image.dataset.step) <= steps[slider.value]) ?? images[0];
      for (const image of images) image.hidden = image !== shown;
      figure.querySelector(".at").textContent = `step ${shown.dataset.step}`;
    }
  });
}
