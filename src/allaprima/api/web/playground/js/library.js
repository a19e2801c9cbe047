/** The stored images in all views: keeps them, and deletes them with a time to undo. Figures of an image have its id as `data-image`. */

import { bringUp, byId, element, announce } from "./dom.js";

/** Milliseconds in which a deletion can be undone. */
const UNDO_TIME = 8000;

export class Library {
  #context;
  /** The deletion that can be undone. @type {{images: import("./image.js").Shown[], timer: number} | null} */
  #pending = null;

  /** @param {import("./image.js").Context} context */
  constructor(context) {
    this.#context = context;
    // A page that is closed can't wait for the time to undo.
    addEventListener("pagehide", () => {
      for (const { id } of this.#take()) this.#context.api()?.removeOnLeaving(`/v1/images/${id}`);
    });
  }

  /** Whether an image is deleted unless the user undoes it. */
  isHidden(id) {
    return this.#pending?.images.some((one) => one.id === id) ?? false;
  }

  /** Keep images until they are released, or release them if all are kept. */
  async star(images) {
    const isStarred = !images.every((one) => one.isStarred);
    try {
      for (const image of images) {
        const { starred, expires_at: expiresAt } = await this.#context.api().patch(`/v1/images/${image.id}`, { starred: isStarred });
        Object.assign(image, { isStarred: starred, expiresAt });
        for (const figure of figuresOf(image.id)) figure.dispatchEvent(new CustomEvent("starred", { detail: image }));
      }
      announce(isStarred ? "Kept." : "No longer kept.");
    } catch (error) {
      this.#context.report(error, () => this.star(images));
    }
  }

  /** Hide images at once, and delete them when the time to undo is over. */
  async remove(images) {
    if (!images.length) return;
    await this.#delete(this.#take());
    const focused = document.activeElement?.closest("[data-image]");
    const next = focused ? neighbourOf(focused, images) : null;
    for (const { id } of images) for (const figure of figuresOf(id)) figure.hidden = true;
    if (focused) (next?.querySelector(".frame") ?? byId("main")).focus();
    const text = images.length === 1 ? "Image deleted" : `${images.length} images deleted`;
    byId("toast").replaceChildren(text, element("button", { type: "button", onclick: () => this.undo() }, "Undo"));
    bringUp(byId("toast"));
    this.#pending = { images, timer: setTimeout(() => this.#delete(this.#take()), UNDO_TIME) };
  }

  /** Show the images of the last deletion again, if its time to undo is not over. */
  undo() {
    this.#show(this.#take());
  }

  /** End the time to undo; return the images that were to be deleted. */
  #take() {
    const images = this.#pending?.images ?? [];
    clearTimeout(this.#pending?.timer);
    this.#pending = null;
    byId("toast").replaceChildren();
    return images;
  }

  #show(images) {
    for (const { id } of images) for (const figure of figuresOf(id)) figure.hidden = false;
    if (images.length) announce("Restored.");
  }

  async #delete(images) {
    for (const [index, { id }] of images.entries()) {
      try {
        await this.#context.api().remove(`/v1/images/${id}`);
        for (const figure of figuresOf(id)) figure.remove();
      } catch (error) {
        const left = images.slice(index);
        this.#show(left);
        this.#context.report(error, () => this.remove(left));
        return;
      }
    }
  }
}

/** The elements of all views that show an image. */
function figuresOf(id) {
  return document.querySelectorAll(`[data-image="${id}"]`);
}

/** The nearest visible figure of a list that is not one of the given images. */
function neighbourOf(figure, images) {
  const isLeft = (node) => node.matches("[data-image]:not([hidden])") && !images.some((one) => one.id === node.dataset.image);
  for (const step of ["nextElementSibling", "previousElementSibling"]) {
    for (let node = figure[step]; node; node = node[step]) if (isLeft(node)) return node;
  }
  return null;
}
