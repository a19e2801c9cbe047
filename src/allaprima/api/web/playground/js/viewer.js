/** The dialog that shows one image large, and steps through a list, or shows two side by side. */

import { byId, element } from "./dom.js";
import { actions, altOf, caption } from "./image.js";

/** Settings in which two images may differ, with their labels. */
const ASPECTS = [["prompt", "prompt"], ["seed", "seed"], ["steps", "steps"], ["model", "model"], ["width", "width"], ["height", "height"]];

export class Viewer {
  #context;
  /** @type {import("./image.js").Shown[]} */
  #images = [];
  #index = 0;

  /** @param {import("./image.js").Context} context */
  constructor(context) {
    this.#context = context;
    byId("previous").addEventListener("click", () => this.step(-1));
    byId("next").addEventListener("click", () => this.step(1));
    for (const name of ["viewer", "shortcuts"]) {
      byId(`close-${name}`).addEventListener("click", () => byId(name).close());
      // A click on the backdrop has the dialog itself as its target.
      byId(name).addEventListener("click", (event) => { if (event.target === byId(name)) byId(name).close(); });
    }
  }

  /** The image that the open dialog shows; null if it is closed or shows two. */
  get image() {
    return byId("viewer").open && byId("viewed").children.length === 1 ? this.#images[this.#index] : null;
  }

  /** Show an image of a list. @param {import("./image.js").Shown[]} images @param {number} index */
  open(images, index) {
    this.#images = images;
    this.#show(index);
  }

  /** Show the next image of the list, or for -1 the previous one; deleted images are left out. */
  step(by) {
    for (let index = this.#index + by; index >= 0 && index < this.#images.length; index += by) {
      if (!this.#context.library.isHidden(this.#images[index].id)) return this.#show(index);
    }
    return undefined;
  }

  /** Delete the image, and show the next one. */
  async remove() {
    const image = this.#images[this.#index];
    await this.#context.library.remove([image]);
    this.#images = this.#images.filter((one) => one !== image);
    if (this.#images.length) this.#show(Math.min(this.#index, this.#images.length - 1));
    else byId("viewer").close();
  }

  #show(index) {
    this.#index = index;
    const image = this.#images[index];
    byId("viewer-title").textContent = image.settings.prompt;
    byId("previous").hidden = byId("next").hidden = this.#images.length < 2;
    byId("previous").disabled = index === 0;
    byId("next").disabled = index === this.#images.length - 1;
    const made = pane(image);
    made.figure.append(element("figcaption", {}, caption(image), actions(image, this.#context)));
    showPanes([made]);
  }
}

/** Show images side by side, with the settings in which they differ. */
export function compare(images) {
  const differing = ASPECTS.filter(([name]) => new Set(images.map((one) => String(one.settings[name]))).size > 1);
  byId("viewer-title").textContent = `Comparison: ${differing.length ? `the images differ in ${differing.map(([, word]) => word).join(", ")}` : "all settings are equal"}`;
  byId("previous").hidden = byId("next").hidden = true;
  showPanes(images.map((image) => {
    const made = pane(image);
    made.figure.append(comparedCaption(image, differing));
    return made;
  }));
}

/** Show panes in the dialog. A click on an image switches all of them between the window's size and the full size, and they scroll together. */
function showPanes(panes) {
  byId("viewed").replaceChildren(...panes.map((made) => made.figure));
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
  if (!byId("viewer").open) byId("viewer").showModal();
}

function pane(shown) {
  const { settings } = shown;
  const image = element("img", { src: shown.url, alt: altOf(shown), width: settings.width, height: settings.height });
  const button = element("button", { type: "button", class: "frame", "aria-pressed": "false", "aria-label": "Full size" }, image);
  const frame = element("div", { class: "pane", tabindex: "0", role: "region", "aria-label": `Image with seed ${settings.seed}, ${settings.steps} steps` }, button);
  return { figure: element("figure", {}, frame), frame, button };
}

function comparedCaption(shown, differing) {
  const isDiffering = (name) => differing.some(([other]) => other === name);
  const captioned = ASPECTS.filter(([name]) => name !== "prompt" || isDiffering(name));
  return element("figcaption", {}, ...captioned.flatMap(([name, word], i) => {
    const text = `${word} ${shown.settings[name]}`;
    return [i ? " · " : "", isDiffering(name) ? element("mark", {}, text) : text];
  }));
}
