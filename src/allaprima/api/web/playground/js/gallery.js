/** The tab Gallery: thumbnails of the stored images of this key, or of its account, newest first, by days. */

import { byId, element, notice } from "./dom.js";
import { altOf, imageOfList, modelOf, starButton } from "./image.js";

const PAGE = 60;
/** Milliseconds without typing before a search. */
const SEARCH_DELAY = 250;

export class Gallery {
  #context; #cursor = null; #opened = 0; #timer = 0; #isLoading = false;
  /** The loaded images. @type {import("./image.js").Shown[]} */
  #images = [];
  /** The image from which Shift selects a range. */
  #anchor = null;

  /** @param {import("./image.js").Context} context */
  constructor(context) {
    this.#context = context;
    byId("more").addEventListener("click", () => this.#load());
    for (const id of ["of-account", "only-starred"]) byId(id).addEventListener("change", () => this.open());
    byId("search").addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.open(), SEARCH_DELAY);
    });
    byId("images").addEventListener("focusin", ({ target }) => { if (target.matches(".tile .frame")) this.#setStop(target); });
    new IntersectionObserver(([seen]) => { if (seen.isIntersecting && !byId("more").hidden) this.#load(); }, { rootMargin: "600px" }).observe(byId("more"));
  }

  /** Reload the newest images. The old ones stay until the new ones have come. */
  async open() {
    this.#opened += 1;
    this.#isLoading = false;
    await this.#load(true);
  }

  /** The image of the tile that has the focus. */
  get image() {
    const id = document.activeElement?.closest("#images .tile")?.dataset.image;
    return this.#images.find((one) => one.id === id) ?? null;
  }

  /** Select all loaded images. */
  selectAll() {
    this.#context.selection.set(this.#visible);
  }

  /** Move the focus by one tile: "ArrowLeft", "ArrowRight", "ArrowUp" or "ArrowDown". */
  move(key) {
    const tiles = [...document.querySelectorAll("#images .tile:not([hidden]) .frame")];
    const from = tiles.indexOf(document.activeElement);
    if (from < 0) return tiles[0]?.focus();
    if (key === "ArrowLeft" || key === "ArrowRight") return tiles[from + (key === "ArrowLeft" ? -1 : 1)]?.focus();
    return nearestInNextRow(tiles, from, key === "ArrowUp" ? -1 : 1)?.focus();
  }

  get #visible() {
    return this.#images.filter((one) => !this.#context.library.isHidden(one.id));
  }

  /** Append the next page, or with `isNew` replace all, unless the gallery was reopened meanwhile. */
  async #load(isNew = false) {
    if (this.#isLoading) return;
    this.#isLoading = true;
    const opened = this.#opened;
    try {
      const page = await this.#context.api().get(this.#address(isNew ? null : this.#cursor));
      if (opened !== this.#opened) return;
      notice("");
      if (isNew) { this.#images = []; byId("images").replaceChildren(); }
      this.#cursor = page.next_cursor;
      this.#append(page.data.map(imageOfList));
      byId("more").hidden = !this.#cursor;
    } catch (error) {
      if (opened === this.#opened) this.#context.report(error, () => this.#load(isNew));
    }
    if (opened === this.#opened) this.#isLoading = false;
  }

  #address(cursor) {
    const search = byId("search").value.trim();
    const parameters = new URLSearchParams({
      limit: PAGE,
      ...(search ? { q: search } : {}),
      ...(byId("only-starred").checked ? { starred: true } : {}),
      ...(byId("of-account").checked ? {} : { key_prefix: this.#context.prefix() }),
      ...(cursor ? { cursor } : {}),
    });
    return `/v1/images?${parameters}`;
  }

  #append(images) {
    this.#images.push(...images);
    for (const image of images) this.#listOf(image).append(this.#tile(image));
    if (!this.#images.length) byId("images").append(element("p", { class: "note" }, this.#emptyText()));
    if (!document.querySelector('#images .frame[tabindex="0"]')) document.querySelector("#images .frame")?.setAttribute("tabindex", "0");
  }

  #emptyText() {
    if (byId("search").value.trim() || byId("only-starred").checked) return "No image matches.";
    return byId("of-account").checked ? "No stored images." : "No stored images of this key; “Other keys too” shows those of the account.";
  }

  /** The list of the day of an image. */
  #listOf(image) {
    const day = new Date(image.createdAt * 1000).toLocaleDateString(undefined, { weekday: "long", day: "numeric", month: "long", year: "numeric" });
    const last = byId("images").lastElementChild;
    if (last?.dataset.day === day) return last.lastElementChild;
    const list = element("div", { class: "tiles" });
    byId("images").append(element("section", { "data-day": day, "aria-label": day }, element("h3", {}, day), list));
    return list;
  }

  #tile(image) {
    const { settings } = image;
    const frame = element("button", { type: "button", class: "frame", tabindex: "-1", onclick: (event) => this.#clicked(event, image) },
      element("img", { src: image.thumbnail, alt: `${altOf(image)}, seed ${settings.seed}`, loading: "lazy", decoding: "async", width: settings.width, height: settings.height }));
    const star = starButton(image, this.#context);
    const choose = element("button", { type: "button", class: "choose", tabindex: "-1", "aria-pressed": "false", "aria-label": "Select", onclick: (event) => this.#choose(event, image) }, "✓");
    star.tabIndex = -1;
    const figure = element("figure", { class: "tile", title: `${settings.prompt}\n${settings.width} × ${settings.height}, seed ${settings.seed}, ${modelOf(image)}` }, frame, star, choose);
    this.#context.selection.mark(figure, image);
    return figure;
  }

  #clicked(event, image) {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return this.#choose(event, image);
    const images = this.#visible;
    return this.#context.view(images, images.indexOf(image));
  }

  /** Select an image, or with Shift all from the last selected one to this. */
  #choose(event, image) {
    const images = this.#visible;
    const from = images.indexOf(this.#anchor), to = images.indexOf(image);
    this.#anchor = image;
    if (event.shiftKey && from >= 0) return this.#context.selection.add(images.slice(Math.min(from, to), Math.max(from, to) + 1));
    return this.#context.selection.toggle(image);
  }

  /** Make a tile the one that the Tab key reaches. */
  #setStop(frame) {
    document.querySelector('#images .frame[tabindex="0"]')?.setAttribute("tabindex", "-1");
    frame.tabIndex = 0;
  }
}

/** The tile in the next row, or for -1 in the previous one, that is nearest to the column of a tile. */
function nearestInNextRow(tiles, from, by) {
  const boxes = tiles.map((tile) => tile.getBoundingClientRect());
  const here = boxes[from];
  const beyond = boxes.filter((box) => (by > 0 ? box.top >= here.bottom : box.bottom <= here.top)).map((box) => box.top);
  if (!beyond.length) return null;
  const row = by > 0 ? Math.min(...beyond) : Math.max(...beyond);
  const inRow = tiles.filter((_, i) => Math.abs(boxes[i].top - row) < 2);
  const distance = (tile) => Math.abs(tile.getBoundingClientRect().left - here.left);
  return inRow.reduce((best, tile) => (distance(tile) < distance(best) ? tile : best));
}
