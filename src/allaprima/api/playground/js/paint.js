/** Paint: a prompt to pictures, with its place in the queue, its steps and previews as they come, and a cancel that works at once. */

import { byId, element, notice, say } from "./dom.js";
import { pictureFigure, shownOf } from "./picture.js";
import { ApiError, adviceOn, inWords, seconds } from "./words.js";

/** Milliseconds of quiet before a prompt's tokens are counted. */
const QUIET = 350;
/** T5 tokens beyond which FLUX reads no more. */
const FLUX_TOKENS = 256;
const UNFINISHED = "allaprima.unfinished";

const EXAMPLES = ["a red apple, blue background", "a t-rex on a beach wearing sunglasses", "a rocket at night"];

export class Paint {
  #place; #settings; #quoted = 0;

  /** @param {import("./picture.js").Place} place @param {import("./settings.js").Settings} settings */
  constructor(place, settings) {
    this.#place = place;
    this.#settings = settings;
    byId("paint-form").addEventListener("submit", (event) => { event.preventDefault(); this.submit(); });
    byId("prompt").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); byId("paint-form").requestSubmit(); }
    });
  }

  /** Greet where nothing was painted yet, and go on watching what was left unfinished. */
  async begin() {
    byId("runs").replaceChildren();
    for (const id of unfinished()) this.#follow(new Run(this.#place, null), id);
    const { data } = await this.#place.api().get("/v1/jobs?limit=1");
    if (data.length === 0 && byId("runs").children.length === 0) this.#greet();
  }

  /** Count the prompt's tokens and foresee time and cost, once typing pauses. */
  settle() {
    clearTimeout(this.#quoted);
    this.#quoted = setTimeout(() => this.#quote(), QUIET);
  }

  /** Submit what the form says. */
  async submit() {
    notice("");
    const body = this.#settings.body();
    const run = new Run(this.#place, body);
    byId("runs").querySelector(".greeting")?.remove();
    byId("runs").prepend(run.node);
    run.tell("Submitting …");
    try {
      const job = await this.#place.api().submit(body, (error) => run.tell(inWords(error)), run.signal);
      this.#settings.afterPainting(job.request.seed);
      await this.#follow(run, job.id);
    } catch (error) {
      run.fail(run.signal.aborted ? "Cancelled." : inWords(error));
    }
  }

  async #follow(run, id) {
    if (!run.node.isConnected) byId("runs").prepend(run.node);
    remember(id, true);
    try {
      await run.follow(id);
    } catch (error) {
      run.fail(inWords(error));
    }
    remember(id, false);
  }

  async #quote() {
    const body = this.#settings.body();
    const place = byId("tokens");
    if (!this.#place.api() || !body.prompt.trim() || !body.model) {
      place.textContent = byId("cost").textContent = "";
      return;
    }
    try {
      const quote = await this.#place.api().post("/v1/jobs", { ...body, dry_run: true });
      if (body.prompt !== byId("prompt").value) return;
      const limit = Math.min(FLUX_TOKENS, quote.max_tokens);
      const isLong = quote.tokens > limit;
      place.classList.toggle("warn", isLong);
      place.textContent = `${quote.tokens} of ${quote.max_tokens} tokens${isLong ? `: what comes after ${limit} is not read` : ""}`;
      const cost = quote.usage.usd_spent ? `, $${quote.usage.usd_spent}` : "";
      byId("cost").textContent = `About ${seconds(quote.predicted_finish - Date.now() / 1000)}${cost}`;
    } catch (error) {
      // A counter is no reason for an alarm; what is wrong is said when it is submitted.
      place.textContent = error instanceof ApiError && error.status === 400 ? inWords(error) : "";
      place.classList.add("warn");
    }
  }

  #greet() {
    const paint = (prompt) => () => { this.#settings.load({ prompt }); this.submit(); };
    byId("runs").replaceChildren(element("div", { class: "greeting card" },
      element("h3", {}, "Nothing was painted here yet"),
      element("p", {}, "Write a prompt, or take one of these:"),
      ...EXAMPLES.map((prompt) => element("button", { type: "button", onclick: paint(prompt) }, prompt))));
  }
}

/** One request on the stage, from its submission to its pictures. */
class Run {
  #place; #state; #progress; #pictures; #cancel; #id = null; #abort = new AbortController();

  constructor(place, body) {
    this.#place = place;
    this.#state = element("p", { class: "state", role: "status" });
    this.#progress = element("progress", { max: 1, value: 0, "aria-label": "Progress" });
    this.#pictures = element("div", { class: "pictures" });
    this.#cancel = element("button", { type: "button", onclick: () => this.#stop() }, "Cancel");
    this.title = element("h3", {}, body?.prompt ?? "…");
    this.node = element("article", { class: "run card", "aria-busy": "true" },
      element("header", {}, this.title, this.#cancel), this.#progress, this.#state, this.#pictures);
  }

  /** Aborted when the person cancelled before there was a job. */
  get signal() { return this.#abort.signal; }

  tell(text) { this.#state.textContent = text; }

  /** Watch a job to its end. */
  async follow(id) {
    this.#id = id;
    if (this.signal.aborted) await this.#stop();
    const job = await this.#place.api().watch(id, (type, data) => this.#happened(type, data));
    if (job) this.#finish(job);
  }

  fail(text) {
    this.#over();
    this.#state.classList.add("bad");
    this.tell(text);
  }

  #happened(type, data) {
    if (type === "queued") {
      const ahead = data.queue_position > 1 ? `${data.queue_position - 1} before it` : "next";
      this.tell(`Waiting, ${ahead}; done in about ${seconds(data.predicted_finish - Date.now() / 1000)}`);
    } else if (type === "running") {
      this.tell("Painting …");
    } else if (type === "step") {
      this.#progress.value = data.step / data.steps;
      this.tell(`Painting, step ${data.step} of ${data.steps}`);
    } else if (type === "preview") {
      this.#preview(data.images);
    } else if (type === "lost") {
      this.tell("The connection was lost; the job goes on. Trying again …");
    }
  }

  #preview(images) {
    const frames = this.#pictures.children;
    if (frames.length !== images.length) {
      this.#pictures.classList.toggle("one", images.length === 1);
      this.#pictures.replaceChildren(...images.map(() => element("figure", { class: "picture" })));
    }
    images.forEach((image, i) => {
      const shown = image.url ? element("img", { src: image.url, alt: "Preview", class: "soft preview" }) : element("p", { class: "withheld" }, "Withheld by the safety check.");
      frames[i].replaceChildren(shown);
    });
    this.node.dataset.previews = Number(this.node.dataset.previews ?? 0) + 1;
  }

  #finish(job) {
    this.#over();
    this.title.textContent = job.request.prompt;
    if (job.status === "succeeded") {
      const shown = shownOf(job);
      this.#pictures.classList.toggle("one", shown.length === 1);
      this.#pictures.replaceChildren(...shown.map((one) => pictureFigure(one, this.#place, { withPrompt: false })));
      const { meta, timings } = job.result;
      this.tell(`Painted by ${meta.model} in ${seconds(timings.inference)}${meta.usage.usd_spent ? `, $${meta.usage.usd_spent}` : ""}`);
      if (meta.warnings.length) this.#state.after(element("ul", { class: "warnings" }, ...meta.warnings.map((warning) => element("li", {}, warning))));
      say("The picture is finished.");
      return;
    }
    this.#pictures.replaceChildren();
    if (job.status === "cancelled") this.tell("Cancelled.");
    else this.fail(`${job.error?.message ?? "Failed."} ${adviceOn(job.error?.code)}`.trim());
  }

  #over() {
    this.node.setAttribute("aria-busy", "false");
    this.#progress.hidden = true;
    this.#cancel.remove();
  }

  async #stop() {
    this.#cancel.disabled = true;
    this.tell("Cancelling …");
    if (this.#id === null) return this.#abort.abort();
    try {
      await this.#place.api().post(`/v1/jobs/${this.#id}/cancel`);
    } catch (error) {
      // One that has just ended tells so itself.
      if (error.code !== "job_finished") { this.#cancel.disabled = false; this.tell(inWords(error)); }
    }
    return undefined;
  }
}

/** Ids of jobs that this tab watches, so that a reload goes on with them. */
function unfinished() {
  return JSON.parse(sessionStorage.getItem(UNFINISHED) ?? "[]");
}

function remember(id, isUnfinished) {
  const others = unfinished().filter((one) => one !== id);
  sessionStorage.setItem(UNFINISHED, JSON.stringify(isUnfinished ? [...others, id] : others));
}
