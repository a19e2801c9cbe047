/** Gallery: what this key, or its account, has painted, from the server, newest first. */

import { byId, element, notice } from "./dom.js";
import { pictureFigure, shownOf } from "./picture.js";
import { inWords } from "./words.js";

const PAGE = 24;

export class Gallery {
  #place; #cursor = null; #opened = 0;

  /** @param {import("./picture.js").Place} place */
  constructor(place) {
    this.#place = place;
    byId("more").addEventListener("click", () => this.#load());
    byId("of-account").addEventListener("change", () => this.open());
  }

  /** Show the newest pictures anew. */
  async open() {
    this.#cursor = null;
    this.#opened += 1;
    byId("pictures").replaceChildren();
    await this.#load();
  }

  /** Add the next page that has pictures, unless the gallery was opened anew meanwhile. */
  async #load() {
    const opened = this.#opened;
    byId("more").disabled = true;
    try {
      let figures = [];
      do {
        const page = await this.#page();
        if (opened !== this.#opened) return;
        figures = page.data.flatMap(shownOf).map((shown) => pictureFigure(shown, this.#place));
        this.#cursor = page.next_cursor;
      } while (!figures.length && this.#cursor);
      byId("pictures").append(...figures);
      byId("more").hidden = !this.#cursor;
      if (!byId("pictures").children.length) byId("pictures").append(element("p", { class: "note" }, "Nothing was painted yet, or nothing is kept any more."));
      if (document.activeElement === document.body) figures[0]?.querySelector("button").focus();
    } catch (error) {
      notice(inWords(error));
    }
    byId("more").disabled = false;
  }

  #page() {
    const cursor = this.#cursor ? `&cursor=${encodeURIComponent(this.#cursor)}` : "";
    const own = byId("of-account").checked ? "" : `&key_prefix=${this.#place.prefix()}`;
    return this.#place.api().get(`/v1/jobs?status=succeeded&limit=${PAGE}${own}${cursor}`);
  }
}
