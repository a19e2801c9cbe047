/** The dialog that shows one image large or two side by side, and the selection of two images to compare. */

import { byId, element, announce } from "./dom.js";

/** Settings in which two images may differ, with their labels. */
const ASPECTS = [["prompt", "prompt"], ["seed", "seed"], ["steps", "steps"], ["model", "model"], ["width", "width"], ["height", "height"]];

/** Show one image or two. A click switches between the window's size and the image's full size. */
export function view(images) {
  const differing = ASPECTS.filter(([name]) => new Set(images.map((one) => String(one.settings[name]))).size > 1);
  byId("viewer-title").textContent = images.length > 1
    ? `Comparison: ${differing.length ? `the images differ in ${differing.map(([, word]) => word).join(", ")}` : "all settings are equal"}`
    : images[0].settings.prompt;
  const panes = images.map((one) => pane(one, differing));
  byId("viewed").replaceChildren(...panes.map((made) => made.figure));
  // Two images scroll together, so that the same part of both is visible.
  for (const from of panes) {
    from.frame.addEventListener("scroll", () => {
      for (const to of panes) if (to !== from) to.frame.scrollTo(from.frame.scrollLeft, from.frame.scrollTop);
    });
    from.button.addEventListener("click", () => {
      const isFull = !from.frame.classList.contains("full");
      for (const one of panes) {
        one.frame.classList.toggle("full", isFull);
        one.button.setAttribute("aria-pressed", String(isFull));
      }
    });
  }
  byId("viewer").showModal();
}

function pane(shown, differing) {
  const { settings } = shown;
  const image = element("img", { src: shown.url, alt: shown.isWithheld ? "Withheld by the safety checker" : settings.prompt });
  const button = element("button", { type: "button", class: "frame", "aria-pressed": "false", "aria-label": "Full size" }, image);
  const frame = element("div", { class: "pane", tabindex: "0", role: "region", "aria-label": `Image with seed ${settings.seed}, ${settings.steps} steps` }, button);
  const captioned = ASPECTS.filter(([name]) => name !== "prompt" || differing.some(([other]) => other === name));
  const caption = element("figcaption", {}, ...captioned.flatMap(([name, word], i) => {
    const isDiffering = differing.some(([other]) => other === name);
    const text = `${word} ${settings[name]}`;
    return [i ? " · " : "", isDiffering ? element("mark", {}, text) : text];
  }));
  return { figure: element("figure", {}, frame, caption), frame, button };
}

/** The selection of up to two images to compare. */
export class Choice {
  /** @type {import("./image.js").Shown[]} */
  #chosen = [];

  constructor() {
    byId("compare").addEventListener("click", () => view(this.#chosen));
    byId("forget").addEventListener("click", () => { this.#chosen = []; this.#show(); });
    byId("close-viewer").addEventListener("click", () => byId("viewer").close());
    // A click on the backdrop has the dialog itself as its target.
    byId("viewer").addEventListener("click", (event) => { if (event.target === byId("viewer")) byId("viewer").close(); });
  }

  /** Register a figure, which then shows whether its image is selected. */
  mark(figure, shown) {
    figure.dataset.image = shown.id;
    this.#showChoice(figure);
  }

  /** Remove a deleted image from the selection. */
  forget(id) {
    this.#chosen = this.#chosen.filter((one) => one.id !== id);
    this.#show();
  }

  /** Select or deselect an image; a third image replaces the first. */
  toggle(shown) {
    const isChosen = this.#chosen.some((one) => one.id === shown.id);
    this.#chosen = isChosen ? this.#chosen.filter((one) => one.id !== shown.id) : [...this.#chosen.slice(-1), shown];
    this.#show();
  }

  #show() {
    byId("chosen").hidden = this.#chosen.length === 0;
    byId("compare").disabled = this.#chosen.length < 2;
    const text = this.#chosen.length < 2 ? "One image selected; select another to compare" : "Two images selected";
    byId("chosen-text").textContent = text;
    if (this.#chosen.length) announce(text);
    for (const figure of document.querySelectorAll("figure[data-image]")) this.#showChoice(figure);
  }

  #showChoice(figure) {
    const isChosen = this.#chosen.some((one) => one.id === figure.dataset.image);
    figure.classList.toggle("chosen", isChosen);
    figure.querySelector(".choose")?.setAttribute("aria-pressed", String(isChosen));
  }
}
