/** The dialog that shows one image large, or two side by side, and the choice of two to compare. */

import { byId, element, say } from "./dom.js";

/** Settings that two images may differ in, with their labels. */
const ASPECTS = [["prompt", "prompt"], ["seed", "seed"], ["steps", "steps"], ["model", "model"], ["width", "width"], ["height", "height"]];

/** Show images large: a click switches between fitting the window and real size. */
export function view(images) {
  const differing = ASPECTS.filter(([name]) => new Set(images.map((one) => String(one.settings[name]))).size > 1);
  byId("viewer-title").textContent = images.length > 1
    ? `Compared: ${differing.length ? `they differ in ${differing.map(([, word]) => word).join(", ")}` : "all settings are the same"}`
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
  const image = element("img", { src: shown.url, alt: shown.isWithheld ? "Withheld by the safety check" : settings.prompt });
  const button = element("button", { type: "button", class: "frame", "aria-pressed": "false", "aria-label": "Real size" }, image);
  const frame = element("div", { class: "pane", tabindex: "0", role: "region", "aria-label": `Image with seed ${settings.seed}, ${settings.steps} steps` }, button);
  const captioned = ASPECTS.filter(([name]) => name !== "prompt" || differing.some(([other]) => other === name));
  const caption = element("figcaption", {}, ...captioned.flatMap(([name, word], i) => {
    const isDiffering = differing.some(([other]) => other === name);
    const text = `${word} ${settings[name]}`;
    return [i ? " · " : "", isDiffering ? element("mark", {}, text) : text];
  }));
  return { figure: element("figure", {}, frame, caption), frame, button };
}

/** Up to two images that are chosen to be compared. */
export class Choice {
  /** @type {import("./image.js").Shown[]} */
  #chosen = [];

  constructor() {
    byId("compare").addEventListener("click", () => view(this.#chosen));
    byId("forget").addEventListener("click", () => { this.#chosen = []; this.#show(); });
    byId("close-viewer").addEventListener("click", () => byId("viewer").close());
  }

  /** Register a figure, so that it always shows whether its image is chosen. */
  mark(figure, shown) {
    figure.dataset.image = shown.id;
    this.#showChoice(figure);
  }

  /** Remove a deleted image. */
  forget(id) {
    this.#chosen = this.#chosen.filter((one) => one.id !== id);
    this.#show();
  }

  /** Choose an image, or remove it from the choice; a third replaces the first. */
  toggle(shown) {
    const isChosen = this.#chosen.some((one) => one.id === shown.id);
    this.#chosen = isChosen ? this.#chosen.filter((one) => one.id !== shown.id) : [...this.#chosen.slice(-1), shown];
    this.#show();
  }

  #show() {
    byId("chosen").hidden = this.#chosen.length === 0;
    byId("compare").disabled = this.#chosen.length < 2;
    const text = this.#chosen.length < 2 ? "One image chosen: choose another to compare it with" : "Two images chosen";
    byId("chosen-text").textContent = text;
    if (this.#chosen.length) say(text);
    for (const figure of document.querySelectorAll("figure[data-image]")) this.#showChoice(figure);
  }

  #showChoice(figure) {
    const isChosen = this.#chosen.some((one) => one.id === figure.dataset.image);
    figure.classList.toggle("chosen", isChosen);
    figure.querySelector(".choose")?.setAttribute("aria-pressed", String(isChosen));
  }
}
