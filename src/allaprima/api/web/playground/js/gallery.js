/** The tab Gallery: shows the stored images of this key, or of its account, newest first. */

import { byId, element, notice } from "./dom.js";
import { imageFigure, shownOf } from "./image.js";
import { messageOf } from "./messages.js";

const PAGE = 24;

export class Gallery {
  #context; #cursor = null; #opened = 0;

  /** @param {import("./image.js").Context} context */
  constructor(context) {
    this.#context = context;
    byId("more").addEventListener("click", () => this.#load());
    byId("of-account").addEventListener("change", () => this.open());
  }

  /** Reload the newest images. */
  async open() {
    this.#cursor = null;
    this.#opened += 1;
    byId("images").replaceChildren();
    await this.#load();
  }

  /** Append the next page that has images, unless the gallery was reopened meanwhile. */
  async #load() {
    const opened = this.#opened;
    byId("more").disabled = true;
    try {
      let figures = [];
      do {
        const page = await this.#page();
        if (opened !== this.#opened) return;
        figures = page.data.flatMap(shownOf).map((shown) => imageFigure(shown, this.#context));
        this.#cursor = page.next_cursor;
      } while (!figures.length && this.#cursor);
      byId("images").append(...figures);
      byId("more").hidden = !this.#cursor;
      if (!byId("images").children.length) byId("images").append(element("p", { class: "note" }, "No stored images."));
      if (document.activeElement === document.body) figures[0]?.querySelector("button").focus();
    } catch (error) {
      notice(messageOf(error));
    }
    byId("more").disabled = false;
  }

  #page() {
    const cursor = this.#cursor ? `&cursor=${encodeURIComponent(this.#cursor)}` : "";
    const own = byId("of-account").checked ? "" : `&key_prefix=${this.#context.prefix()}`;
    return this.#context.api().get(`/v1/jobs?status=succeeded&limit=${PAGE}${own}${cursor}`);
  }
}
