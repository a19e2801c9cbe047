/** A finished image with its actions, as all views show it. */

import { imageUrl } from "./api.js";
import { confirmedButton, confirmOn, copyText, element, notice, announce } from "./dom.js";
import { settingsOf } from "./settings.js";
import { ApiError, day, messageOf } from "./messages.js";

/**
 * Functions of the page for the actions of images.
 * @typedef {{api: () => import("./api.js").Api, prefix: () => string, use: (settings: any) => void, view: (shown: Shown[]) => void, choice: import("./viewer.js").Choice}} Context
 * @typedef {{url: string, id: string, settings: any, isWithheld: boolean, type: string, generator: string, expiresAt: number}} Shown An image with its settings and the model that generated it.
 */

/** The stored images of a job. The file of a withheld image is black. */
export function shownOf(job) {
  return (job.result?.images ?? [])
    .map((image, index) => ({
      url: image.url && imageUrl(image.url), id: image.id, type: image.content_type, settings: settingsOf(job, index), isWithheld: job.result.has_nsfw_concepts[index],
      generator: job.result.meta.model, expiresAt: image.expires_at,
    }))
    .filter((shown) => shown.url);
}

/** @param {Shown} shown @param {Context} context @returns {HTMLElement} */
export function imageFigure(shown, context, { withPrompt = true } = {}) {
  const { settings } = shown;
  const image = element("img", {
    src: shown.url, alt: shown.isWithheld ? "Withheld by the safety checker" : settings.prompt, width: settings.width, height: settings.height, loading: "lazy", crossorigin: "anonymous",
  });
  const figure = element("figure", { class: "image" },
    element("button", { type: "button", class: "frame", "aria-label": `Zoom: ${settings.prompt}`, onclick: () => context.view([shown]) }, image),
    element("figcaption", {},
      withPrompt ? element("p", {}, settings.prompt) : null,
      shown.isWithheld ? element("p", { class: "what" }, "Withheld by the safety checker.") : null,
      element("p", { class: "what" }, `seed ${settings.seed} · ${settings.steps} steps · ${settings.width} × ${settings.height} · ${modelOf(shown)} · kept until ${day(shown.expiresAt)}`),
      actions(shown, context)));
  context.choice.mark(figure, shown);
  return figure;
}

/** The model that generated an image, and the one that was asked for if it is another. */
function modelOf({ generator, settings }) {
  return generator === settings.model ? generator : `${generator} (for ${settings.model})`;
}

function actions(shown, context) {
  const ending = shown.type.replace("image/", "");
  const name = `${shown.settings.prompt.slice(0, 40).replace(/[^\p{L}\p{N}]+/gu, "-") || "image"}-${shown.settings.seed}.${ending}`;
  const remove = confirmedButton("Delete", "Really delete?", async () => {
    try {
      await context.api().remove(`/v1/images/${shown.id}`);
      context.choice.forget(shown.id);
      const figures = document.querySelectorAll(`[data-image="${shown.id}"]`);
      const next = figures[0]?.nextElementSibling?.querySelector("button") ?? document.getElementById("main");
      for (const figure of figures) figure.remove();
      next.focus();
      announce("Deleted.");
    } catch (error) {
      notice(messageOf(error));
    }
  });
  return element("div", { class: "acts" },
    element("button", { type: "button", onclick: () => context.use(shown.settings) }, "Use these settings"),
    element("button", { type: "button", class: "choose", "aria-pressed": "false", onclick: () => context.choice.toggle(shown) }, "Compare"),
    element("button", { type: "button", onclick: () => download(shown, name) }, "Download"),
    element("button", { type: "button", onclick: (event) => copyImage(shown, event.currentTarget) }, "Copy image"),
    element("button", { type: "button", onclick: (event) => copyLink(shown, event.currentTarget) }, "Copy link"),
    remove);
}

async function copyLink(shown, button) {
  confirmOn(button, (await copyText(shown.url)) ? "Link copied" : "Not allowed");
}

/** Download an image. A plain link to another origin would leave the page. */
async function download(shown, name) {
  try {
    save(await fileOf(shown), name);
  } catch (error) {
    notice(messageOf(error));
  }
}

/** Save a file as a browser download. */
export function save(file, name) {
  const link = element("a", { href: URL.createObjectURL(file), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function fileOf(shown) {
  const response = await fetch(shown.url);
  if (!response.ok) throw new ApiError(response.status, "image_not_found", "");
  return response.blob();
}

async function copyImage(shown, button) {
  try {
    // The clipboard item takes a promise, because some browsers allow the write only during the click.
    const png = shown.type === "image/png" ? fileOf(shown) : asPng(shown.url);
    await navigator.clipboard.write([new ClipboardItem({ "image/png": png })]);
    confirmOn(button, "Image copied");
  } catch {
    // Browsers copy images only on pages with https or on localhost, and may ask for permission.
    confirmOn(button, "Not allowed");
  }
}

async function asPng(url) {
  const image = await loadedImage(url);
  const canvas = element("canvas", { width: image.naturalWidth, height: image.naturalHeight });
  canvas.getContext("2d").drawImage(image, 0, 0);
  return new Promise((done) => { canvas.toBlob(done, "image/png"); });
}

/** Load an image whose pixels a canvas may read. */
export async function loadedImage(url) {
  const image = new Image();
  image.crossOrigin = "anonymous";
  image.src = url;
  await image.decode();
  return image;
}
