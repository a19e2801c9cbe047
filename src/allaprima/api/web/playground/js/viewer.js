/** The dialog that shows one picture large, or two side by side, and the choice of two to compare. */

import { byId, element, say } from "./dom.js";

/** Settings that two pictures may differ in, with their words. */
const ASPECTS = [["prompt", "prompt"], ["seed", "seed"], ["steps", "steps"], ["model", "model"], ["width", "width"], ["height", "height"]];

/** Show pictures large: a click on one switches between the whole of it and its real size. */
export function view(pictures) {
  const differing = ASPECTS.filter(([name]) => new Set(pictures.map((one) => String(one.settings[name]))).size > 1);
  byId("viewer-title").textContent = pictures.length > 1
    ? `Compared: ${differing.length ? `they differ in ${differing.map(([, word]) => word).join(", ")}` : "all settings are the same"}`
    : pictures[0].settings.prompt;
  const panes = pictures.map((one) => pane(one, differing));
  byId("viewed").replaceChildren(...panes.map((made) => made.figure));
  // Two pictures are looked at in the same spot.
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
  const frame = element("div", { class: "pane", tabindex: "0", role: "region", "aria-label": `Picture with seed ${settings.seed}, ${settings.steps} steps` }, button);
  const told = ASPECTS.filter(([name]) => name !== "prompt" || differing.some(([other]) => other === name));
  const caption = element("figcaption", {}, ...told.flatMap(([name, word], i) => {
    const isDiffering = differing.some(([other]) => other === name);
    const text = `${word} ${settings[name]}`;
    return [i ? " · " : "", isDiffering ? element("mark", {}, text) : text];
  }));
  return { figure: element("figure", {}, frame, caption), frame, button };
}

/** Up to two pictures that are chosen to be compared. */
export class Choice {
  /** @type {import("./picture.js").Shown[]} */
  #chosen = [];

  constructor() {
    byId("compare").addEventListener("click", () => view(this.#chosen));
    byId("forget").addEventListener("click", () => { this.#chosen = []; this.#show(); });
    byId("close-viewer").addEventListener("click", () => byId("viewer").close());
  }

  /** Keep a figure's look in step with the choice. */
  mark(figure, shown) {
    figure.dataset.image = shown.id;
    this.#dress(figure);
  }

  /** Take a picture out that is no more. */
  forget(id) {
    this.#chosen = this.#chosen.filter((one) => one.id !== id);
    this.#show();
  }

  /** Choose a picture, or take it out; a third takes the first one's place. */
  toggle(shown) {
    const isChosen = this.#chosen.some((one) => one.id === shown.id);
    this.#chosen = isChosen ? this.#chosen.filter((one) => one.id !== shown.id) : [...this.#chosen.slice(-1), shown];
    this.#show();
  }

  #show() {
    byId("chosen").hidden = this.#chosen.length === 0;
    byId("compare").disabled = this.#chosen.length < 2;
    const text = this.#chosen.length < 2 ? "One picture chosen: choose another to compare it with" : "Two pictures chosen";
    byId("chosen-text").textContent = text;
    if (this.#chosen.length) say(text);
    for (const figure of document.querySelectorAll("figure[data-image]")) this.#dress(figure);
  }

  #dress(figure) {
    const isChosen = this.#chosen.some((one) => one.id === figure.dataset.image);
    figure.classList.toggle("chosen", isChosen);
    figure.querySelector(".choose")?.setAttribute("aria-pressed", String(isChosen));
  }
}
