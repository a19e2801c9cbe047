/** A stored image with its caption and actions, as the stage and the viewer show it. */

import { fileUrl } from "./api.js";
import { confirmOn, copyText, element } from "./dom.js";
import { settingsOf } from "./settings.js";
import { ApiError, day } from "./messages.js";

/**
 * Functions of the page for the actions of images.
 * @typedef {{
 *   api: () => import("./api.js").Api, prefix: () => string, use: (settings: any) => void, vary: (shown: Shown) => void,
 *   view: (shown: Shown[], index: number) => void, remove: (shown: Shown) => void, report: (error: any, retry?: () => void) => void,
 *   remedy: (name: string, retry: () => void) => HTMLButtonElement | null,
 *   selection: import("./selection.js").Selection, library: import("./library.js").Library,
 * }} Context
 * @typedef {{
 *   id: string, jobId: string, position: number, url: string, thumbnail: string, type: string, settings: any, isWithheld: boolean, generator: string,
 *   isStarred: boolean, createdAt: number, expiresAt: number | null,
 * }} Shown An image with its settings and the model that generated it.
 */

/** The stored images of a job. The file of a withheld image is black. @returns {Shown[]} */
export function imagesOfJob(job) {
  return (job.result?.images ?? []).map((image, index) => ({
    id: image.id, jobId: job.id, position: index, url: image.url && fileUrl(image.url), thumbnail: fileUrl(image.thumbnail_url ?? image.url ?? ""), type: image.content_type,
    settings: settingsOf(job.request, image.seed), isWithheld: job.result.has_nsfw_concepts[index], generator: job.result.meta.model,
    isStarred: image.starred ?? false, createdAt: job.created_at, expiresAt: image.expires_at,
  })).filter((shown) => shown.url);
}

/** An image of the list of images. @returns {Shown} */
export function imageOfList(entry) {
  return {
    id: entry.id, jobId: entry.job_id, position: entry.position, url: fileUrl(entry.url), thumbnail: fileUrl(entry.thumbnail_url ?? entry.url), type: entry.content_type,
    settings: settingsOf(entry.request, entry.seed), isWithheld: entry.flagged, generator: entry.served_by,
    isStarred: entry.starred, createdAt: entry.created_at, expiresAt: entry.expires_at,
  };
}

/** The text of an image for those who don't see it. */
export function altOf(shown) {
  return shown.isWithheld ? "Withheld by the safety checker" : shown.settings.prompt;
}

/**
 * A large image: with its caption and actions if it is the only one of its request, else with its star alone.
 * @param {Shown} shown @param {Context} context @param {Shown[]} siblings The images that the viewer steps through.
 */
export function imageFigure(shown, context, siblings) {
  const { settings } = shown;
  const image = element("img", { src: shown.url, alt: altOf(shown), width: settings.width, height: settings.height });
  const isOne = siblings.length === 1;
  const figure = element("figure", { class: "image", "data-image": shown.id },
    element("button", { type: "button", class: "frame", "aria-label": `Enlarge: ${settings.prompt}, seed ${settings.seed}`, onclick: () => context.view(siblings, siblings.indexOf(shown)) }, image),
    isOne ? null : starButton(shown, context),
    isOne ? element("figcaption", {}, shown.isWithheld ? element("p", {}, "Withheld by the safety checker.") : null, caption(shown), actions(shown, context)) : null);
  context.selection.mark(figure, shown);
  return figure;
}

/** The actions on all images of a request. */
export function actionsOnAll(images, context) {
  const button = (text, onclick) => element("button", { type: "button", onclick }, text);
  return element("div", { class: "acts" },
    button("Vary", () => context.vary(images[0])),
    button("Use these settings", () => context.use({ ...images[0].settings, count: images.length })),
    button(`Select all ${images.length}`, () => context.selection.add(images)));
}

/** The settings, the model and the day of expiry of an image; the day changes with the star. */
export function caption(shown) {
  const line = element("p", { class: "what", "data-image": shown.id });
  const show = () => {
    const { settings } = shown;
    const kept = shown.isStarred ? "kept" : `kept until ${day(shown.expiresAt)}`;
    line.textContent = `seed ${settings.seed} · ${settings.steps} steps · ${settings.width} × ${settings.height} · ${modelOf(shown)} · ${kept}`;
  };
  line.addEventListener("starred", ({ detail }) => { Object.assign(shown, { isStarred: detail.isStarred, expiresAt: detail.expiresAt }); show(); });
  show();
  return line;
}

/** The model that generated an image, and the one that was asked for if it is another. */
export function modelOf({ generator, settings }) {
  return generator === settings.model ? generator : `${generator} (for ${settings.model})`;
}

/** The star of an image, which keeps it. */
export function starButton(shown, context, text = "") {
  const button = element("button", { type: "button", class: "star", "data-image": shown.id, onclick: () => context.library.star([shown]) });
  const show = (isStarred) => {
    shown.isStarred = isStarred;
    button.textContent = `${isStarred ? "★" : "☆"}${text && ` ${isStarred ? "Kept" : text}`}`;
    button.setAttribute("aria-pressed", String(isStarred));
    if (!text) button.setAttribute("aria-label", "Keep");
  };
  button.addEventListener("starred", ({ detail }) => show(detail.isStarred));
  show(shown.isStarred);
  return button;
}

/** The actions of an image. */
export function actions(shown, context) {
  const { settings } = shown;
  const button = (text, onclick, attributes = {}) => element("button", { type: "button", onclick, ...attributes }, text);
  const { seed: _, ...others } = settings;
  return element("div", { class: "acts" },
    starButton(shown, context, "Keep"),
    button("Vary", () => context.vary(shown), { title: "Generate with the same settings and a new seed" }),
    button("Use these settings", () => context.use(settings)),
    button("Download", () => download(shown, context)),
    button("Delete", () => context.remove(shown)),
    element("details", {}, element("summary", {}, "More"),
      element("div", { class: "acts" },
        button("Use the prompt", () => context.use({ prompt: settings.prompt })),
        button("Use all but the seed", () => context.use(others)),
        button("Select", () => context.selection.toggle(shown), { class: "choose", "aria-pressed": "false" }),
        button("Copy image", (event) => copyImage(shown, event.currentTarget)),
        button("Copy link", (event) => copyLink(shown, event.currentTarget)))));
}

async function copyLink(shown, button) {
  confirmOn(button, (await copyText(shown.url)) ? "Link copied" : "Not allowed");
}

/** Download an image. A plain link to another origin would leave the page. */
async function download(shown, context) {
  const ending = shown.type.replace("image/", "");
  const name = `${shown.settings.prompt.slice(0, 40).replace(/[^\p{L}\p{N}]+/gu, "-") || "image"}-${shown.settings.seed}.${ending}`;
  try {
    save(await fileOf(shown), name);
  } catch (error) {
    context.report(error, () => download(shown, context));
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
