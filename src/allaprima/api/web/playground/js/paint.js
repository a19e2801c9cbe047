/** Paint: a prompt to pictures, with its place in the queue, its steps and previews as they come, and a cancel that works at once. */

import { byId, element, notice, say } from "./dom.js";
import { pictureFigure, shownOf } from "./picture.js";
import { ApiError, adviceOn, dollars, inWords, inWordsOfWaiting, seconds } from "./words.js";

/** Milliseconds of quiet before a prompt's tokens are counted. */
const QUIET = 350;
const UNFINISHED = "allaprima.unfinished";

const EXAMPLES = ["a red apple, blue background", "a t-rex on a beach wearing sunglasses", "a rocket at night"];

export class Paint {
  #place; #settings; #timer = 0; #turn = 0; #wasLong = false;

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
    const left = unfinished(this.#place.prefix());
    for (const id of left) this.#follow(new Run(this.#place, ""), id);
    try {
      const { data } = await this.#place.api().get("/v1/jobs?limit=1");
      if (data.length === 0 && left.length === 0) this.#greet();
    } catch (error) {
      notice(inWords(error));
    }
  }

  /** Count the prompt's tokens and foresee time and cost, once typing pauses. */
  settle() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#quote(), QUIET);
  }

  /** Submit what the form says. */
  async submit() {
    notice("");
    const body = this.#settings.body();
    const run = new Run(this.#place, body.prompt);
    byId("runs").querySelector(".greeting")?.remove();
    byId("runs").prepend(run.node);
    run.node.scrollIntoView({ block: "nearest" });
    run.tell("Submitting …");
    try {
      const job = await this.#place.api().submit(body, (error) => run.tell(inWordsOfWaiting(error)), run.signal);
      this.#settings.afterPainting(body, job.request.seed);
      await this.#follow(run, job.id);
    } catch (error) {
      if (run.signal.aborted) run.end("Cancelled.");
      else run.fail(inWords(error));
    }
  }

  async #follow(run, id) {
    if (!run.node.isConnected) byId("runs").prepend(run.node);
    const prefix = this.#place.prefix();
    remember(prefix, id, true);
    try {
      await run.follow(id);
    } catch (error) {
      run.fail(inWords(error));
    }
    remember(prefix, id, false);
  }

  async #quote() {
    this.#turn += 1;
    const turn = this.#turn;
    const body = this.#settings.body();
    const api = this.#place.api();
    if (!api || !body.prompt.trim() || !body.model || !this.#settings.isLegal) {
      byId("tokens").textContent = byId("cost").textContent = "";
      return;
    }
    try {
      const quote = await api.post("/v1/jobs", { ...body, dry_run: true });
      if (turn === this.#turn) this.#foresee(quote, api);
    } catch (error) {
      if (turn !== this.#turn || !(error instanceof ApiError)) return;
      // A counter is no reason for an alarm: too many questions are asked again, and what is wrong is said when it is submitted.
      if (error.status === 429) this.#timer = setTimeout(() => this.#quote(), error.retryAfterMs || QUIET);
      else byId("tokens").textContent = error.status === 400 ? inWords(error) : "";
    }
  }

  #foresee(quote, api) {
    const isLong = quote.tokens > quote.max_tokens;
    byId("tokens").classList.toggle("warn", isLong);
    byId("tokens").textContent = `${quote.tokens} of ${quote.max_tokens} tokens${isLong ? ": the rest is not read" : ""}`;
    if (isLong && !this.#wasLong) say(byId("tokens").textContent);
    this.#wasLong = isLong;
    const cost = quote.usage.usd_spent ? `, ${dollars(quote.usage.usd_spent)}` : "";
    byId("cost").textContent = `About ${seconds(api.until(quote.predicted_finish))}${cost}`;
  }

  #greet() {
    const paint = (prompt) => () => { this.#settings.load({ prompt }); this.submit(); byId("prompt").focus({ preventScroll: true }); };
    byId("runs").replaceChildren(element("div", { class: "greeting card" },
      element("h3", {}, "Nothing was painted here yet"),
      element("p", {}, "Write a prompt, or take one of these:"),
      ...EXAMPLES.map((prompt) => element("button", { type: "button", onclick: paint(prompt) }, prompt))));
  }
}

/** One request on the stage, from its submission to its pictures. */
class Run {
  #place; #api; #state; #progress; #pictures; #cancel; #id = null; #abort = new AbortController(); #told = "";

  constructor(place, prompt) {
    this.#place = place;
    this.#api = place.api();
    this.#state = element("p", { class: "state", role: "status" });
    this.#progress = element("progress", { max: 1, value: 0, "aria-label": "Progress" });
    this.#pictures = element("div", { class: "pictures" });
    this.#cancel = element("button", { type: "button", onclick: () => this.#stop() }, "Cancel");
    this.title = element("h3", {}, prompt || "…");
    this.node = element("article", { class: "run card", "aria-busy": "true", tabindex: "-1" },
      element("header", {}, this.title, this.#cancel), this.#progress, this.#state, this.#pictures);
  }

  /** Aborted when the person cancelled before there was a job. */
  get signal() { return this.#abort.signal; }

  tell(text) {
    this.#told = text;
    this.#state.textContent = text;
  }

  /** Watch a job to its end. */
  async follow(id) {
    this.#id = id;
    if (this.signal.aborted) await this.#stop();
    else if (this.title.textContent === "…") this.title.textContent = (await this.#api.get(`/v1/jobs/${id}`)).request.prompt;
    this.#finish(await this.#api.watch(id, (type, data) => this.#happened(type, data)));
  }

  /** It is over, without pictures. */
  end(text) {
    const hadFocus = this.node.contains(document.activeElement);
    this.node.setAttribute("aria-busy", "false");
    this.#progress.hidden = true;
    this.#cancel.remove();
    if (hadFocus) this.node.focus();
    this.tell(text);
  }

  fail(text) {
    this.#state.classList.add("bad");
    this.end(text);
  }

  #happened(type, data) {
    if (type === "queued") {
      const ahead = data.queue_position > 1 ? `${data.queue_position - 1} before it` : "next";
      this.tell(`Waiting, ${ahead}; done in about ${seconds(this.#api.until(data.predicted_finish))}`);
    } else if (type === "running") {
      this.tell("Painting …");
    } else if (type === "step") {
      this.#progress.value = data.step / data.steps;
      this.tell(`Painting, step ${data.step} of ${data.steps}`);
    } else if (type === "preview") {
      this.#preview(data.images);
    } else if (type === "lost") {
      this.#state.textContent = "The connection was lost; the job goes on. Trying again …";
    } else if (type === "found") {
      this.#state.textContent = this.#told;
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
    this.title.textContent = job.request.prompt;
    const shown = shownOf(job);
    this.#pictures.classList.toggle("one", shown.length === 1);
    this.#pictures.replaceChildren(...shown.map((one) => pictureFigure(one, this.#place, { withPrompt: false })));
    if (job.status === "cancelled") return this.end("Cancelled.");
    if (job.status === "failed") return this.fail(`${job.error?.message ?? "Failed."} ${adviceOn(job.error?.code)}`.trim());
    if (!job.result) return this.end("Painted, but its pictures were deleted or their time was over.");
    const { meta, timings } = job.result;
    this.end(`Painted by ${meta.model} in ${seconds(timings.inference)}${meta.usage.usd_spent ? `, ${dollars(meta.usage.usd_spent)}` : ""}`);
    if (meta.warnings.length) this.#state.after(element("ul", { class: "warnings" }, ...meta.warnings.map((warning) => element("li", {}, warning))));
    return say("The picture is finished.");
  }

  async #stop() {
    this.#cancel.disabled = true;
    this.tell("Cancelling …");
    if (this.#id === null) return this.#abort.abort();
    try {
      await this.#api.post(`/v1/jobs/${this.#id}/cancel`);
    } catch (error) {
      // One that has just ended tells so itself.
      if (error.code !== "job_finished") { this.#cancel.disabled = false; this.tell(inWords(error)); }
    }
    return undefined;
  }
}

/** Ids of a key's jobs that this tab watches, so that a reload goes on with them. */
function unfinished(prefix) {
  return JSON.parse(sessionStorage.getItem(`${UNFINISHED}.${prefix}`) ?? "[]");
}

function remember(prefix, id, isUnfinished) {
  const others = unfinished(prefix).filter((one) => one !== id);
  sessionStorage.setItem(`${UNFINISHED}.${prefix}`, JSON.stringify(isUnfinished ? [...others, id] : others));
}
