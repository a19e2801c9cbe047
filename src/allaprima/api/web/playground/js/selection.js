/** The images that the user has selected, and the bar with the actions on all of them. */

import { byId, announce } from "./dom.js";
import { save } from "./image.js";
import { compare } from "./viewer.js";

export class Selection {
  #context;
  /** @type {import("./image.js").Shown[]} */
  #chosen = [];

  /** @param {import("./image.js").Context} context */
  constructor(context) {
    this.#context = context;
    byId("compare").addEventListener("click", () => compare(this.#chosen));
    byId("download-chosen").addEventListener("click", () => this.#download());
    byId("star-chosen").addEventListener("click", () => context.library.star(this.#chosen));
    byId("delete-chosen").addEventListener("click", () => this.remove());
    byId("forget").addEventListener("click", () => this.clear());
  }

  /** The selected images. */
  get images() { return this.#chosen; }

  /** Register a figure, which then shows whether its image is selected. */
  mark(figure, shown) {
    figure.dataset.image = shown.id;
    this.#showChoice(figure);
  }

  /** Select or deselect an image. */
  toggle(shown) {
    const isChosen = this.#chosen.some((one) => one.id === shown.id);
    this.set(isChosen ? this.#chosen.filter((one) => one.id !== shown.id) : [...this.#chosen, shown]);
  }

  /** Add images. */
  add(images) {
    this.set([...this.#chosen, ...images.filter((one) => !this.#chosen.some((other) => other.id === one.id))]);
  }

  /** Select no image. */
  clear() { this.set([]); }

  /** Delete the selected images. */
  remove() {
    const images = this.#chosen;
    this.clear();
    return this.#context.library.remove(images);
  }

  /** Select these images alone. */
  set(images) {
    this.#chosen = images;
    byId("chosen").hidden = images.length === 0;
    byId("compare").hidden = images.length !== 2;
    const text = images.length === 1 ? "1 image selected" : `${images.length} images selected`;
    byId("chosen-text").textContent = text;
    if (images.length) announce(text);
    for (const figure of document.querySelectorAll("figure[data-image]")) this.#showChoice(figure);
  }

  async #download() {
    try {
      save(await this.#context.api().file("/v1/images/archive", { ids: this.#chosen.map((one) => one.id) }), "allaprima-images.zip");
    } catch (error) {
      this.#context.report(error, () => this.#download());
    }
  }

  #showChoice(figure) {
    const isChosen = this.#chosen.some((one) => one.id === figure.dataset.image);
    figure.classList.toggle("chosen", isChosen);
    figure.querySelector(".choose")?.setAttribute("aria-pressed", String(isChosen));
  }
}
