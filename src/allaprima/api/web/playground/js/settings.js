/** The settings of an image: converts the form of the tab Generate to a request body and back. */

import { byId, element } from "./dom.js";

const SIDE_STEP = 32, MIN_SIDE = 64, MAX_SIDE = 1536, MAX_SEED = 2n ** 63n - 1n;
/** Approximate number of pixels of a size that is chosen by its ratio, which is that of the default size. */
const RATIO_PIXELS = 1024 * 768;

const PRESETS = [
  ["Square, small", 512, 512], ["Square", 1024, 1024], ["Landscape 4:3", 1024, 768], ["Landscape 16:9", 1024, 576],
  ["Portrait 3:4", 768, 1024], ["Portrait 9:16", 576, 1024], ["Panorama", 1440, 512],
];
const RATIOS = ["1:1", "5:4", "4:3", "3:2", "16:9", "2:1", "21:9", "4:5", "3:4", "2:3", "9:16", "1:2"];

/** The nearest valid side, in pixels. */
function nearestSide(px) {
  return Math.round(Math.min(MAX_SIDE, Math.max(MIN_SIDE, px)) / SIDE_STEP) * SIDE_STEP;
}

/** Width and height of about `RATIO_PIXELS` for a ratio such as "16:9". */
function sizeOfRatio(ratio) {
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

  /** @param {() => void} onChange Called after every change of a setting. */
  constructor(onChange) {
    this.#onChange = onChange;
    byId("preset").append(element("option", { value: "" }, "Custom"), ...PRESETS.map(([name, w, h]) => element("option", { value: `${w}x${h}` }, `${name}, ${w} × ${h}`)));
    byId("ratio").append(element("option", { value: "" }, "Custom"), ...RATIOS.map((ratio) => element("option", { value: ratio }, ratio)));
    byId("preset").addEventListener("change", (event) => event.target.value && this.#setSize(...event.target.value.split("x").map(Number)));
    byId("ratio").addEventListener("change", (event) => event.target.value && this.#setSize(...sizeOfRatio(event.target.value)));
    for (const side of ["width", "height"]) byId(side).addEventListener("change", () => this.#snap());
    byId("shuffle").addEventListener("click", () => { byId("seed").value = randomSeed(); this.#changed(); });
    for (const id of ["prompt", "steps", "count", "seed", "model", "safety", "lock"]) byId(id).addEventListener("input", () => this.#changed());
    byId("steps").value = 4;
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

  /** The body of a request with the current settings. A seed that JavaScript's numbers can't represent is a string of digits. */
  body() {
    const seed = byId("seed").value.trim();
    const count = Number(byId("count").value);
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
    if (count !== undefined) byId("count").value = count;
    if (safety !== undefined) byId("safety").checked = safety;
    const isServed = model === undefined || this.#models.some((one) => one.id === model);
    if (model !== undefined && isServed) byId("model").value = model;
    if (width !== undefined) this.#setSize(width, height);
    if (seed !== undefined) {
      byId("seed").value = seed;
      byId("lock").checked = true;
    }
    this.#changed();
    return isServed ? "" : `This server does not serve ${model}; the selected model is unchanged.`;
  }

  /** Set the seed of the next request: a locked seed stays, else the server draws one. Does nothing if the user changed it since `body` was sent. */
  afterSubmit(body, seed) {
    const field = byId("seed");
    if (!this.isValid || String(numberOf(field.value.trim())) !== String(body.seed ?? "")) return;
    field.value = byId("lock").checked ? seed : "";
    this.#changed();
  }

  /** Whether the seed is valid. */
  get isValid() { return byId("seed").validity.valid; }

  #setSize(width, height) {
    byId("width").value = width;
    byId("height").value = height;
    byId("size-note").textContent = "";
    this.#changed();
  }

  /** Round typed sides to the nearest valid ones, and show a note. */
  #snap() {
    const notes = [];
    for (const side of ["width", "height"]) {
      const given = byId(side).value;
      const snapped = nearestSide(Number(given) || MIN_SIDE);
      if (String(snapped) !== given) notes.push(`${given || "empty"} was rounded to ${snapped}`);
      byId(side).value = snapped;
    }
    byId("size-note").textContent = notes.length ? `${notes.join(", ")}; sides must be multiples of ${SIDE_STEP} from ${MIN_SIDE} to ${MAX_SIDE}.` : "";
    this.#changed();
  }

  #changed() {
    const width = Number(byId("width").value), height = Number(byId("height").value);
    byId("preset").value = PRESETS.some(([, w, h]) => w === width && h === height) ? `${width}x${height}` : "";
    byId("ratio").value = RATIOS.find((ratio) => String(sizeOfRatio(ratio)) === String([width, height])) ?? "";
    byId("steps-shown").textContent = byId("steps").value;
    const seed = byId("seed");
    const isSeed = /^\s*\d*\s*$/.test(seed.value) && BigInt(seed.value.trim() || 0) <= MAX_SEED;
    seed.setCustomValidity(isSeed ? "" : `A seed is a whole number from 0 to ${MAX_SEED}, or empty.`);
    const model = this.#models.find((one) => one.id === byId("model").value);
    byId("model-note").textContent = model ? noteOn(model) : "";
    this.#onChange();
  }
}

/** Convert digits to a number, or to a string of digits if JavaScript's numbers can't represent the value. */
export function numberOf(digits) {
  if (digits === "") return "";
  const number = BigInt(digits);
  return number <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(number) : number.toString();
}

/** A note that names the model that generates the images. */
function noteOn(model) {
  const precision = model.precision ? `, in ${model.precision}` : "";
  const about = model.info.description.replace(/[^.!]$/, "$&.");
  if (model.served_by === model.id) return `${about} Loaded${precision}.`.trim();
  return `The weights of ${model.id} are not loaded. The fallback ${model.served_by}, a small built-in model, generates the images.`;
}

/** The settings of a job's image, as a parameter of `Settings.load`. `index` is the image's position in the job. */
export function settingsOf(job, index = 0) {
  const asked = job.request;
  return {
    prompt: asked.prompt,
    seed: job.result?.images[index]?.seed ?? asked.seed,
    steps: asked.num_inference_steps,
    width: asked.image_size.width,
    height: asked.image_size.height,
    model: asked.model,
    count: 1,
    safety: asked.enable_safety_checker,
  };
}
