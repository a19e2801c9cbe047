/** An SVG bar chart: one bar per day, stacked by model. */

import { svgElement, element } from "./dom.js";

const WIDTH = 900, HEIGHT = 220, LEFT = 52, BOTTOM = 24, TOP = 12;
/** Number of colours, which style.css defines as `.c1` to `.c5`; further models share the last one. */
const COLOURS = 5;

/**
 * @param {string[]} days Every day, oldest first.
 * @param {{day: string, model: string, value: number}[]} values
 * @param {(value: number) => string} written Formats a value.
 * @param {string} title Description of the values.
 */
export function chart(days, values, written, title) {
  const models = [...new Set(values.map(({ model }) => model))];
  const totals = days.map((day) => values.filter((one) => one.day === day).reduce((sum, one) => sum + one.value, 0));
  const most = Math.max(...totals, 0);
  const step = (WIDTH - LEFT) / days.length;
  const height = (value) => ((HEIGHT - TOP - BOTTOM) * value) / (most || 1);
  const bars = days.flatMap((day, i) => {
    let top = HEIGHT - BOTTOM;
    return values.filter((one) => one.day === day && one.value > 0).map((one) => {
      top -= height(one.value);
      return svgElement("rect", {
        x: LEFT + i * step + 1, y: top, width: Math.max(1, step - 2), height: height(one.value), class: colour(models, one.model),
      }, svgElement("title", {}, `${day}, ${one.model}: ${written(one.value)}`));
    });
  });
  const labels = days.flatMap((day, i) => (i % 7 === days.length % 7 ? [svgElement("text", { x: LEFT + i * step, y: HEIGHT - 7 }, day.slice(5))] : []));
  const svg = svgElement("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}; largest value of a day: ${written(most)}` },
    svgElement("line", { x1: LEFT, y1: HEIGHT - BOTTOM, x2: WIDTH, y2: HEIGHT - BOTTOM, class: "axis" }),
    svgElement("text", { x: 4, y: TOP + 10 }, written(most)),
    svgElement("text", { x: 4, y: HEIGHT - BOTTOM }, written(0)), ...bars, ...labels);
  const legend = element("ul", { class: "legend" }, ...models.map((model) => element("li", {},
    svgElement("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" }, svgElement("rect", { width: 10, height: 10, class: colour(models, model) })), model)));
  return [svg, legend];
}

function colour(models, model) {
  return `c${Math.min(COLOURS, models.indexOf(model) + 1)}`;
}
