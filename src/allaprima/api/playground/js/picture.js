/** One finished picture with what can be done with it, wherever it is shown. */

import { carefulButton, confirmOn, copyText, element, notice } from "./dom.js";
import { settingsOf } from "./settings.js";
import { inWords } from "./words.js";

/**
 * What a picture needs of the rest of the page.
 * @typedef {{api: () => import("./api.js").Api, prefix: () => string, use: (settings: any) => void, view: (shown: Shown[]) => void, choice: import("./viewer.js").Choice}} Place
 * @typedef {{url: string, id: string, job: any, index: number, settings: any}} Shown A picture, its job and its settings.
 */

/** The pictures of a job that may be shown. */
export function shownOf(job) {
  return (job.result?.images ?? [])
    .map((image, index) => ({ url: image.url, id: image.id, job, index, settings: settingsOf(job, index), isWithheld: job.result.has_nsfw_concepts[index] }))
    .filter((shown) => shown.url);
}

/** @param {Shown} shown @param {Place} place @returns {HTMLElement} */
export function pictureFigure(shown, place, { withPrompt = true } = {}) {
  const { settings } = shown;
  const image = element("img", {
    src: shown.url, alt: settings.prompt, width: settings.width, height: settings.height, loading: "lazy", crossorigin: "anonymous",
  });
  const figure = element("figure", { class: "picture" },
    element("button", { type: "button", class: "frame", "aria-label": `Zoom: ${settings.prompt}`, onclick: () => place.view([shown]) }, image),
    element("figcaption", {},
      withPrompt ? element("p", {}, settings.prompt) : null,
      shown.isWithheld ? element("p", { class: "what" }, "Withheld by the safety check.") : null,
      element("p", { class: "what" }, `seed ${settings.seed} · ${settings.steps} steps · ${settings.width} × ${settings.height} · ${settings.model}`),
      actions(shown, place, () => figure)));
  place.choice.mark(figure, shown);
  return figure;
}

function actions(shown, place, figure) {
  const name = `${shown.settings.prompt.slice(0, 40).replace(/[^\p{L}\p{N}]+/gu, "-") || "picture"}-${shown.settings.seed}.png`;
  const remove = carefulButton("Delete", "Really delete?", async () => {
    try {
      await place.api().remove(`/v1/images/${shown.id}`);
      figure().remove();
    } catch (error) {
      notice(inWords(error));
    }
  });
  return element("div", { class: "acts" },
    element("button", { type: "button", onclick: () => place.use(shown.settings) }, "Use these settings"),
    element("button", { type: "button", class: "choose", "aria-pressed": "false", onclick: () => place.choice.toggle(shown) }, "Compare"),
    element("a", { href: shown.url, download: name }, "Download"),
    element("button", { type: "button", onclick: (event) => copyImage(shown, event.currentTarget) }, "Copy image"),
    element("button", { type: "button", onclick: (event) => copyLink(shown, event.currentTarget) }, "Copy link"),
    remove);
}

async function copyLink(shown, button) {
  confirmOn(button, (await copyText(new URL(shown.url, location.href).href)) ? "Link copied" : "Not allowed");
}

async function copyImage(shown, button) {
  try {
    const file = await (await fetch(shown.url)).blob();
    await navigator.clipboard.write([new ClipboardItem({ "image/png": file.type === "image/png" ? file : await asPng(shown.url) })]);
    confirmOn(button, "Image copied");
  } catch {
    // Browsers copy pictures only on pages of https or of this machine, and some ask first.
    confirmOn(button, "Not allowed here");
  }
}

async function asPng(url) {
  const image = await loadedImage(url);
  const canvas = element("canvas", { width: image.naturalWidth, height: image.naturalHeight });
  canvas.getContext("2d").drawImage(image, 0, 0);
  return new Promise((done) => { canvas.toBlob(done, "image/png"); });
}

/** An image whose pixels may be read. */
export async function loadedImage(url) {
  const image = new Image();
  image.crossOrigin = "anonymous";
  image.src = url;
  await image.decode();
  return image;
}
