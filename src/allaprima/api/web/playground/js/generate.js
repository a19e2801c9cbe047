/** The tab Generate: submits prompts, shows one request on the stage, and the latest ones in the history. */

import { byId, element, announce } from "./dom.js";
import { imageOfList } from "./image.js";
import { ApiError, dollars, messageOf, seconds } from "./messages.js";
import { Run, warningsOf } from "./run.js";
import { SAMPLES } from "./samples.js";
import { keep, load } from "./storage.js";

/** Milliseconds without typing before the page requests an estimate. */
const ESTIMATE_DELAY = 350;
/** Milliseconds within which a second equal submission is a double click. */
const DOUBLE_CLICK = 500;
/** Largest number of requests in the history, and of prompts that Alt + ↑ returns to. */
const HISTORY = 24, PROMPTS = 50;

export class Generate {
  #context; #settings; #timer = 0; #estimates = 0; #wasLong = false; #lastBody = ""; #lastSubmit = 0;
  /** The requests of the history, newest first. @type {Run[]} */
  #runs = [];
  /** The request on the stage. @type {Run | null} */
  #shown = null;
  /** The position in the list of earlier prompts; -1 is the prompt that the user writes. */
  #recalled = -1;
  #draft = "";

  /** @param {import("./image.js").Context} context @param {import("./settings.js").Settings} settings */
  constructor(context, settings) {
    this.#context = context;
    this.#settings = settings;
    byId("generate-form").addEventListener("submit", (event) => { event.preventDefault(); this.submit(); });
    byId("prompt").addEventListener("input", () => { this.#recalled = -1; });
  }

  /** Restore the form, show the latest images of the key, and follow its unfinished requests. */
  async begin() {
    this.#settings.restore(this.#context.prefix());
    byId("prompt").focus({ preventScroll: true });
    try {
      const { data } = await this.#context.api().get(`/v1/images?limit=${HISTORY}&key_prefix=${this.#context.prefix()}`);
      for (const images of jobsOf(data.map(imageOfList))) this.#add(Run.of(this.#context, images), this.#runs.length);
      for (const id of load(this.#unfinished, [])) await this.#resume(id);
    } catch (error) {
      this.#context.report(error, () => this.begin());
      return;
    }
    if (this.#runs.length) this.#show(this.#runs[0]);
    else this.#showExamples();
  }

  /** Request an estimate of tokens, time and cost once typing pauses. */
  scheduleEstimate() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#estimate(), ESTIMATE_DELAY);
  }

  /** Submit the form. */
  submit() {
    const body = this.#settings.body();
    const text = JSON.stringify(body), now = Date.now();
    // A double click submits once.
    if (text === this.#lastBody && now - this.#lastSubmit < DOUBLE_CLICK) return undefined;
    [this.#lastBody, this.#lastSubmit] = [text, now];
    this.#rememberPrompt(body.prompt);
    return this.#submit(body);
  }

  /** Generate with the settings of an image and a new seed. */
  vary({ settings }) {
    return this.#submit({
      model: settings.model, prompt: settings.prompt, image_size: { width: settings.width, height: settings.height },
      num_inference_steps: settings.steps, ...(settings.safety ? {} : { enable_safety_checker: false }),
    });
  }

  /** The image that the shortcuts act on: the one with the focus, or the first one on the stage. */
  get image() {
    const images = this.#shown?.images.filter((one) => !this.#context.library.isHidden(one.id)) ?? [];
    const focused = document.activeElement?.closest("figure[data-image]")?.dataset.image;
    return images.find((one) => one.id === focused) ?? images[0] ?? null;
  }

  /** Cancel the request on the stage, or else the oldest unfinished one. */
  cancel() {
    const run = this.#shown && !this.#shown.isOver ? this.#shown : this.#runs.findLast((one) => !one.isOver);
    return run?.cancel();
  }

  /** Show the next older request of the history, or for -1 the next newer one. */
  step(by) {
    const run = this.#runs[this.#runs.indexOf(this.#shown) + by];
    if (run) this.#show(run);
  }

  /** Put an earlier prompt into the form: 1 goes back, -1 forward. */
  recall(by) {
    const prompts = load(this.#prompts, []);
    const next = this.#recalled + by;
    if (next < -1 || next >= prompts.length) return;
    if (this.#recalled === -1) this.#draft = byId("prompt").value;
    this.#settings.load({ prompt: next === -1 ? this.#draft : prompts[next] });
    this.#recalled = next;
  }

  get #unfinished() { return `unfinished.${this.#context.prefix()}`; }

  get #prompts() { return `prompts.${this.#context.prefix()}`; }

  async #submit(body) {
    this.#context.report(null);
    const run = this.#newRun(body);
    this.#add(run, 0);
    this.#show(run);
    run.node.scrollIntoView({ block: "nearest" });
    let id = null;
    await run.submit((job) => {
      id = job.id;
      keep(this.#unfinished, [...load(this.#unfinished, []), id]);
      this.#settings.afterSubmit(body, job.request.seed);
    });
    this.#finished(id);
  }

  #newRun(body) {
    const run = new Run(this.#context, body, this.#settings, (text) => { if (this.#shown === run) setTitle(text); });
    return run;
  }

  /** Follow a request that was unfinished at the last visit, or that another tab has submitted. */
  async #resume(id) {
    const job = await this.#context.api().get(`/v1/jobs/${id}`).catch((error) => {
      if (error instanceof ApiError && error.status === 404) return null;
      throw error;
    });
    if (!job || ["succeeded", "failed", "cancelled"].includes(job.status)) return this.#finished(id);
    const run = this.#newRun(job.request);
    this.#add(run, 0);
    run.follow(id).then(() => this.#finished(id));
    return undefined;
  }

  #finished(id) {
    keep(this.#unfinished, load(this.#unfinished, []).filter((one) => one !== id));
  }

  /** Add a request to the history, which forgets the oldest finished one when it is full. */
  #add(run, index) {
    byId("stage").querySelector(".greeting")?.remove();
    this.#runs.splice(index, 0, run);
    run.tile.addEventListener("click", () => { this.#show(run); run.node.scrollIntoView({ block: "nearest" }); });
    const item = element("li", {}, run.tile);
    byId("history").insertBefore(item, byId("history").children[index] ?? null);
    const oldest = this.#runs.findLast((one) => one.isOver && one !== this.#shown);
    if (this.#runs.length > HISTORY && oldest) {
      oldest.tile.parentElement.remove();
      this.#runs.splice(this.#runs.indexOf(oldest), 1);
    }
  }

  /** Show a request on the stage. */
  #show(run) {
    this.#shown?.tile.removeAttribute("aria-current");
    this.#shown = run;
    run.tile.setAttribute("aria-current", "true");
    // `scrollIntoView` would move the page too.
    byId("history").scrollTo(run.tile.offsetLeft - byId("history").clientWidth / 2, run.tile.offsetTop - byId("history").clientHeight / 2);
    byId("stage").replaceChildren(run.node);
  }

  #rememberPrompt(prompt) {
    this.#recalled = -1;
    keep(this.#prompts, [prompt, ...load(this.#prompts, []).filter((one) => one !== prompt)].slice(0, PROMPTS));
  }

  async #estimate() {
    this.#estimates += 1;
    const turn = this.#estimates;
    const body = this.#settings.body();
    const api = this.#context.api();
    if (!api || !body.prompt.trim() || !body.model || !this.#settings.isValid) {
      byId("tokens").textContent = byId("cost").textContent = "";
      byId("reading").replaceChildren();
      return;
    }
    try {
      const estimate = await api.post("/v1/jobs", { ...body, dry_run: true });
      if (turn === this.#estimates) this.#showEstimate(estimate, body.prompt);
    } catch (error) {
      if (turn !== this.#estimates || !(error instanceof ApiError)) return;
      // A rate-limited estimate is retried. Of the other errors only invalid fields are shown; a submission reports the rest.
      if (error.status === 429) this.#timer = setTimeout(() => this.#estimate(), error.retryAfterMs || ESTIMATE_DELAY);
      else byId("tokens").textContent = error.status === 400 ? messageOf(error) : "";
    }
  }

  #showEstimate(estimate, prompt) {
    const isLong = estimate.tokens > estimate.max_tokens;
    const words = prompt.trim().split(/\s+/).length;
    const unread = Math.max(1, Math.round(words * (1 - estimate.max_tokens / estimate.tokens)));
    byId("tokens").textContent = isLong ? `Too long: about the last ${unread === 1 ? "word is" : `${unread} words are`} not read.` : "";
    if (isLong && !this.#wasLong) announce(byId("tokens").textContent);
    this.#wasLong = isLong;
    byId("reading").replaceChildren(...warningsOf(estimate.warnings, estimate.model).children);
    const cost = estimate.usage.usd_spent ? `, ${dollars(estimate.usage.usd_spent)}` : "";
    byId("cost").textContent = `About ${seconds(this.#context.api().until(estimate.predicted_finish))}${cost}`;
  }

  #showExamples() {
    const generate = (prompt) => () => { this.#settings.load({ prompt }); this.submit(); byId("prompt").focus({ preventScroll: true }); };
    byId("stage").replaceChildren(element("div", { class: "greeting" },
      element("p", {}, "Write a prompt, or try one of these:"),
      element("div", { class: "samples" }, ...SAMPLES.map(({ prompt, source }) => element("button", { type: "button", class: "frame", onclick: generate(prompt) },
        element("img", { src: source, alt: "", width: 256, height: 256 }), element("span", {}, prompt))))));
  }
}

/** Group images by their job, in their order in the job; the jobs stay in the order of the list. */
function jobsOf(images) {
  const jobs = new Map();
  for (const image of images) jobs.set(image.jobId, [...(jobs.get(image.jobId) ?? []), image]);
  return [...jobs.values()].map((group) => group.sort((one, other) => one.position - other.position));
}

/** Show a state of the request on the stage in the title of the tab; "" shows the view alone. */
function setTitle(text) {
  document.title = `${text || document.querySelector("#views a[aria-current]")?.textContent || "Generate"} · allaprima`;
}
