/** Gallery: what this key, or its account, has painted, from the server, newest first. */

import { byId, element, notice } from "./dom.js";
import { pictureFigure, shownOf } from "./picture.js";
import { inWords } from "./words.js";

const PAGE = 24;

export class Gallery {
  #place; #cursor = null;

  /** @param {import("./picture.js").Place} place */
  constructor(place) {
    this.#place = place;
    byId("more").addEventListener("click", () => this.#load());
    byId("of-account").addEventListener("change", () => this.open());
  }

  /** Show the newest pictures anew. */
  async open() {
    this.#cursor = null;
    byId("pictures").replaceChildren();
    await this.#load();
    if (!byId("pictures").children.length) byId("pictures").append(element("p", { class: "note" }, "Nothing was painted yet, or nothing is kept any more."));
  }

  async #load() {
    byId("more").disabled = true;
    try {
      const cursor = this.#cursor ? `&cursor=${encodeURIComponent(this.#cursor)}` : "";
      const own = byId("of-account").checked ? "" : `&key_prefix=${this.#place.prefix()}`;
      const page = await this.#place.api().get(`/v1/jobs?status=succeeded&limit=${PAGE}${own}${cursor}`);
      byId("pictures").append(...page.data.flatMap(shownOf).map((shown) => pictureFigure(shown, this.#place)));
      this.#cursor = page.next_cursor;
      byId("more").hidden = !page.has_more;
    } catch (error) {
      notice(inWords(error));
    }
    byId("more").disabled = false;
  }
}
