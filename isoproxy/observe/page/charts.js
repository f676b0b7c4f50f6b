// Charts of the last hour: lines in an SVG, the newest sample at the right.

const WIDTH = 240;
const HEIGHT = 56;
const SVG = "http://www.w3.org/2000/svg";

// A gap where a sample has no value: each run of values is a line of its own.
const runs = (values) => {
  const found = [];
  values.forEach((value, index) => {
    if (value === null) return;
    if (index === 0 || values[index - 1] === null) found.push([]);
    found.at(-1).push([index, value]);
  });
  return found;
};

// `lines` is a list of [class, values]; `samples` is how many fill the width.
export const draw = (svg, lines, samples) => {
  const values = lines.flatMap(([, list]) => list.filter((value) => value !== null));
  const highest = Math.max(1, ...values);
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  const shapes = lines.flatMap(([kind, list]) =>
    runs(list).map((run) => {
      const shape = document.createElementNS(SVG, "polyline");
      const first = samples - list.length;
      const at = ([index, value]) =>
        `${(((first + index) * WIDTH) / (samples - 1)).toFixed(1)},${(HEIGHT - 1 - (value / highest) * (HEIGHT - 2)).toFixed(1)}`;
      const points = run.map(at);
      if (run.length === 1) points.push(points[0].replace(/^[^,]+/, (x) => Number(x) + 1));
      shape.setAttribute("points", points.join(" "));
      shape.setAttribute("class", kind);
      return shape;
    }),
  );
  svg.replaceChildren(...shapes);
};

export const newest = (values) => values.findLast((value) => value !== null) ?? null;
export const largest = (values) => Math.max(0, ...values.filter((value) => value !== null));
