/** The settings of an image: converts the form of the tab Generate to a request body and back, and keeps it between visits. */

import { byId, element, svgElement } from "./dom.js";
import { keep, load } from "./storage.js";

const SIDE_STEP = 32, MIN_SIDE = 64, MAX_SIDE = 1536, MAX_SEED = 2n ** 63n - 1n;
/** Approximate number of pixels of a size that is chosen by its ratio, which is that of the default size. */
const RATIO_PIXELS = 1024 * 768;
/** Ratios of width to height, with their names. */
export const RATIOS = [["1:1", "Square"], ["4:3", "Landscape"], ["16:9", "Wide"], ["3:4", "Portrait"], ["9:16", "Tall"]];
const MOST_IMAGES = 4;
/** The width below which the settings are closed until the user opens them; also in style.css. */
const NARROW = "(max-width: 56rem)";

/** The nearest valid side, in pixels. */
function nearestSide(px) {
  return Math.round(Math.min(MAX_SIDE, Math.max(MIN_SIDE, px)) / SIDE_STEP) * SIDE_STEP;
}

/** Width and height of about `RATIO_PIXELS` for a ratio such as "16:9". */
export function sizeOfRatio(ratio) {
  const [across, down] = ratio.split(":").map(Number);
  const width = nearestSide(Math.sqrt((RATIO_PIXELS * across) / down));
  return [width, nearestSide((width * down) / across)];
}

/** A random seed from 0 to 2^32 - 1. */
const randomSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

export class Settings {
  #onChange;
  /** The models that `GET /v1/models` lists. */
  #models = [];
  /** The name of the stored form, which contains the prefix of the key; "" before the user has signed in. */
  #name = "";

  /** @param {() => void} onChange Called after every change of a setting. */
  constructor(onChange) {
    this.#onChange = onChange;
    byId("ratios").append(...RATIOS.map(([ratio, name]) => radio("ratio", ratio, name, shapeOf(ratio))));
    byId("counts").append(...Array.from({ length: MOST_IMAGES }, (_, i) => radio("count", String(i + 1), String(i + 1))));
    for (const button of this.#radios("ratio")) button.addEventListener("change", () => { this.#setSize(...sizeOfRatio(button.value)); this.#keep(); });
    for (const side of ["width", "height"]) byId(side).addEventListener("change", () => { this.#snap(); this.#keep(); });
    byId("shuffle").addEventListener("click", () => { byId("seed").value = randomSeed(); this.#changed(); this.#keep(); });
    byId("generate-form").addEventListener("input", () => { this.#changed(); this.#keep(); });
    byId("settings").open = !matchMedia(NARROW).matches;
    matchMedia(NARROW).addEventListener("change", ({ matches }) => { byId("settings").open = !matches; });
    byId("notify").addEventListener("change", () => this.#askToNotify());
    byId("steps").value = 4;
    this.#check("count", "1");
    this.#setSize(1024, 768);
  }

  /** Fill the list of models. */
  setModels(models) {
    this.#models = models;
    const before = byId("model").value;
    byId("model").replaceChildren(...models.map((model) => element("option", { value: model.id }, model.id)));
    if (models.some((model) => model.id === before)) byId("model").value = before;
    this.#changed();
  }

  /** Restore the form that the key with this prefix had at its last visit. */
  restore(prefix) {
    this.#name = `form.${prefix}`;
    const { seed, isLocked, isOpen, ...kept } = load(this.#name, {});
    this.load(kept);
    byId("seed").value = seed ?? "";
    byId("lock").checked = isLocked ?? false;
    byId("more-settings").open = isOpen ?? false;
    this.#changed();
  }

  /** The body of a request with the current settings. A seed that JavaScript's numbers can't represent is a string of digits. */
  body() {
    const seed = byId("seed").value.trim();
    const count = Number(this.#radios("count").find((button) => button.checked)?.value ?? 1);
    return {
      model: byId("model").value,
      prompt: byId("prompt").value,
      image_size: { width: nearestSide(Number(byId("width").value)), height: nearestSide(Number(byId("height").value)) },
      num_inference_steps: Number(byId("steps").value),
      ...(count > 1 ? { num_images: count } : {}),
      ...(seed === "" || !byId("seed").validity.valid ? {} : { seed: numberOf(seed) }),
      ...(byId("safety").checked ? {} : { enable_safety_checker: false }),
    };
  }

  /**
   * Load settings, such as those of a job or of an image file. Omitted settings remain unchanged.
   * @returns {string} A message if the model is unknown, else "".
   */
  load({ prompt, seed, steps, width, height, model, count, safety }) {
    if (prompt !== undefined) byId("prompt").value = prompt;
    if (steps !== undefined) byId("steps").value = steps;
    if (count !== undefined) this.#check("count", String(count));
    if (safety !== undefined) byId("safety").checked = safety;
    const isServed = model === undefined || this.#models.some((one) => one.id === model);
    if (model !== undefined && isServed) byId("model").value = model;
    if (width !== undefined) this.#setSize(width, height);
    if (seed !== undefined) {
      byId("seed").value = seed;
      byId("lock").checked = true;
    }
    this.#changed();
    this.#keep();
    return isServed ? "" : `This server does not serve ${model}; the selected model is unchanged.`;
  }

  /** Set the seed of the next request: a locked seed stays, else the server draws one. Does nothing if the user changed it since `body` was sent. */
  afterSubmit(body, seed) {
    const field = byId("seed");
    if (!this.isValid || String(numberOf(field.value.trim())) !== String(body.seed ?? "")) return;
    field.value = byId("lock").checked ? seed : "";
    this.#changed();
    this.#keep();
  }

  /** Whether the seed is valid. */
  get isValid() { return byId("seed").validity.valid; }

  /** Whether the operator has set a price. */
  get isPriced() { return this.#models.some((model) => model.pricing.units.some((unit) => unit.price > 0)); }

  #radios(name) {
    return [...document.querySelectorAll(`#generate-form input[name="${name}"]`)];
  }

  #check(name, value) {
    for (const button of this.#radios(name)) button.checked = button.value === value;
  }

  #setSize(width, height) {
    byId("width").value = width;
    byId("height").value = height;
    byId("width").dataset.rounded = byId("height").dataset.rounded = byId("size-note").textContent = "";
    this.#changed();
  }

  /** Round typed sides to the nearest valid ones, and show a note of both. */
  #snap() {
    const notes = [];
    for (const side of ["width", "height"]) {
      const given = byId(side).value;
      const snapped = nearestSide(Number(given) || MIN_SIDE);
      byId(side).dataset.rounded = String(snapped) !== given ? `${given || "empty"} was rounded to ${snapped}` : byId(side).dataset.rounded ?? "";
      if (byId(side).dataset.rounded.endsWith(` ${snapped}`)) notes.push(byId(side).dataset.rounded);
      byId(side).value = snapped;
    }
    byId("size-note").textContent = notes.length ? `${notes.join(", ")}; sides must be multiples of ${SIDE_STEP} from ${MIN_SIDE} to ${MAX_SIDE}.` : "";
    this.#changed();
  }

  #changed() {
    const seed = byId("seed");
    const isSeed = /^\s*\d*\s*$/.test(seed.value) && BigInt(seed.value.trim() || 0) <= MAX_SEED;
    seed.setCustomValidity(isSeed ? "" : `A seed is a whole number from 0 to ${MAX_SEED}, or empty.`);
    const { image_size: size, num_images: count = 1 } = this.body();
    this.#check("ratio", RATIOS.map(([ratio]) => ratio).find((ratio) => String(sizeOfRatio(ratio)) === String([size.width, size.height])));
    byId("settings-summary").textContent = `${size.width} × ${size.height}, ${count === 1 ? "1 image" : `${count} images`}`;
    byId("steps-shown").textContent = byId("steps").value;
    const model = this.#models.find((one) => one.id === byId("model").value);
    const isFallback = model !== undefined && model.served_by !== model.id;
    byId("model-note").textContent = model && !isFallback ? noteOn(model) : "";
    byId("demo").hidden = !isFallback;
    byId("demo").textContent = isFallback ? `Demo model: the weights of ${model.id} are not installed, so ${model.served_by} generates the images. The operator installs them with: allaprima pull` : "";
    this.#onChange();
  }

  /** Keep the form for the next visit. */
  #keep() {
    if (!this.#name) return;
    const { image_size: { width, height }, num_inference_steps: steps, num_images: count = 1, model, prompt } = this.body();
    keep(this.#name, {
      prompt, model, width, height, steps, count, safety: byId("safety").checked,
      seed: byId("seed").value, isLocked: byId("lock").checked, isOpen: byId("more-settings").open,
    });
  }

  async #askToNotify() {
    const box = byId("notify");
    if (!box.checked) return;
    box.checked = globalThis.Notification !== undefined && (await Notification.requestPermission()) === "granted";
  }
}

/** A radio button that looks like a button. */
function radio(name, value, label, shape = null) {
  return element("label", { title: shape ? value : null },
    element("input", { type: "radio", name, value, id: `${name}-${value.replace(":", "-")}` }), shape, label);
}

/** A drawing of a ratio. */
function shapeOf(ratio) {
  const [across, down] = ratio.split(":").map(Number);
  const unit = 18 / Math.max(across, down);
  const width = across * unit, height = down * unit;
  return svgElement("svg", { viewBox: "0 0 20 20", "aria-hidden": "true" },
    svgElement("rect", { x: (20 - width) / 2, y: (20 - height) / 2, width, height, rx: 2 }));
}

/** Convert digits to a number, or to a string of digits if JavaScript's numbers can't represent the value. */
export function numberOf(digits) {
  if (digits === "") return "";
  const number = BigInt(digits);
  return number <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(number) : number.toString();
}

/** The description of a model, and the precision of its weights. */
function noteOn(model) {
  return `${model.info.description.replace(/[^.!]$/, "$&.")}${model.precision ? ` Weights in ${model.precision}.` : ""}`.trim();
}

/** The settings of an image, as a parameter of `Settings.load`. `request`: the request of its job. */
export function settingsOf(request, seed = request.seed) {
  return {
    prompt: request.prompt,
    seed,
    steps: request.num_inference_steps,
    width: request.image_size.width,
    height: request.image_size.height,
    model: request.model,
    count: 1,
    safety: request.enable_safety_checker,
  };
}
