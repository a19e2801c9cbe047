/** The tab Generate: submits prompts, and shows queue positions, steps, previews and images. */

import { byId, element, notice, announce } from "./dom.js";
import { imageFigure, shownOf } from "./image.js";
import { ApiError, adviceOn, dollars, messageOf, waitingMessageOf, seconds } from "./messages.js";

/** Milliseconds without typing before the page requests an estimate. */
const ESTIMATE_DELAY = 350;
const UNFINISHED = "allaprima.unfinished";
/** Milliseconds within which a second equal submission is a double click. */
const DOUBLE_CLICK = 500;

const EXAMPLES = ["a red apple, blue background", "a t-rex on a beach wearing sunglasses", "a rocket at night"];

export class Generate {
  #context; #settings; #timer = 0; #estimates = 0; #wasLong = false; #lastBody = ""; #lastSubmit = 0;

  /** @param {import("./image.js").Context} context @param {import("./settings.js").Settings} settings */
  constructor(context, settings) {
    this.#context = context;
    this.#settings = settings;
    byId("generate-form").addEventListener("submit", (event) => { event.preventDefault(); this.submit(); });
    byId("generate-form").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); byId("generate-form").requestSubmit(); }
    });
  }

  /** Follow the jobs that were unfinished before a reload; show example prompts if the account has no jobs. */
  async begin() {
    const left = unfinished(this.#context.prefix());
    for (const id of left) this.#follow(new Run(this.#context, ""), id);
    try {
      const { data } = await this.#context.api().get("/v1/jobs?limit=1");
      if (data.length === 0 && left.length === 0) this.#showExamples();
    } catch (error) {
      notice(messageOf(error));
    }
  }

  /** Request an estimate of tokens, time and cost once typing pauses. */
  scheduleEstimate() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#estimate(), ESTIMATE_DELAY);
  }

  /** Submit the form. */
  async submit() {
    const body = this.#settings.body();
    const text = JSON.stringify(body), now = Date.now();
    // A double click submits once.
    if (text === this.#lastBody && now - this.#lastSubmit < DOUBLE_CLICK) return;
    [this.#lastBody, this.#lastSubmit] = [text, now];
    notice("");
    const run = new Run(this.#context, body.prompt);
    byId("runs").querySelector(".greeting")?.remove();
    byId("runs").prepend(run.node);
    run.node.scrollIntoView({ block: "nearest" });
    run.setState("Submitting …");
    try {
      const job = await this.#context.api().submit(body, (error) => run.setState(waitingMessageOf(error)), run.signal);
      this.#settings.afterSubmit(body, job.request.seed);
      await this.#follow(run, job.id);
    } catch (error) {
      if (run.signal.aborted) run.end("Cancelled.");
      else run.fail(messageOf(error));
    }
  }

  async #follow(run, id) {
    if (!run.node.isConnected) byId("runs").prepend(run.node);
    const prefix = this.#context.prefix();
    remember(prefix, id, true);
    try {
      await run.follow(id);
    } catch (error) {
      run.fail(messageOf(error));
    }
    remember(prefix, id, false);
  }

  async #estimate() {
    this.#estimates += 1;
    const turn = this.#estimates;
    const body = this.#settings.body();
    const api = this.#context.api();
    if (!api || !body.prompt.trim() || !body.model || !this.#settings.isValid) {
      byId("tokens").textContent = byId("cost").textContent = "";
      return;
    }
    try {
      const estimate = await api.post("/v1/jobs", { ...body, dry_run: true });
      if (turn === this.#estimates) this.#showEstimate(estimate, api);
    } catch (error) {
      if (turn !== this.#estimates || !(error instanceof ApiError)) return;
      // A rate-limited estimate is retried. Of the other errors only invalid fields are shown; a submission reports the rest.
      if (error.status === 429) this.#timer = setTimeout(() => this.#estimate(), error.retryAfterMs || ESTIMATE_DELAY);
      else byId("tokens").textContent = error.status === 400 ? messageOf(error) : "";
    }
  }

  #showEstimate(estimate, api) {
    const isLong = estimate.tokens > estimate.max_tokens;
    byId("tokens").classList.toggle("warn", isLong);
    byId("tokens").textContent = `${estimate.tokens} of ${estimate.max_tokens} tokens${isLong ? "; the model ignores the rest" : ""}`;
    if (isLong && !this.#wasLong) announce(byId("tokens").textContent);
    this.#wasLong = isLong;
    const cost = estimate.usage.usd_spent ? `, ${dollars(estimate.usage.usd_spent)}` : "";
    byId("cost").textContent = `About ${seconds(api.until(estimate.predicted_finish))}${cost}`;
  }

  #showExamples() {
    const generate = (prompt) => () => { this.#settings.load({ prompt }); this.submit(); byId("prompt").focus({ preventScroll: true }); };
    byId("runs").replaceChildren(element("div", { class: "greeting card" },
      element("h3", {}, "No images yet"),
      element("p", {}, "Write a prompt, or try one of these:"),
      ...EXAMPLES.map((prompt) => element("button", { type: "button", onclick: generate(prompt) }, prompt))));
  }
}

/** One request, from its submission to its images. */
class Run {
  #context; #api; #state; #progress; #images; #cancel; #id = null; #abort = new AbortController(); #text = ""; #firstStep = null;

  constructor(context, prompt) {
    this.#context = context;
    this.#api = context.api();
    this.#state = element("p", { class: "state", role: "status" });
    this.#progress = element("progress", { max: 1, value: 0, "aria-label": "Progress" });
    this.#images = element("div", { class: "images" });
    this.#cancel = element("button", { type: "button", onclick: () => this.#stop() }, "Cancel");
    this.title = element("h3", { title: prompt }, prompt || "…");
    this.node = element("article", { class: "run card", "aria-busy": "true", tabindex: "-1" },
      element("header", {}, this.title, this.#cancel), this.#progress, this.#state, this.#images);
  }

  /** Aborted when the user cancels before the server has accepted the job. */
  get signal() { return this.#abort.signal; }

  setState(text) {
    this.#text = text;
    this.#state.textContent = text;
  }

  /** Follow a job to its end. */
  async follow(id) {
    this.#id = id;
    if (this.signal.aborted) await this.#stop();
    else if (this.title.textContent === "…") this.title.textContent = (await this.#api.get(`/v1/jobs/${id}`)).request.prompt;
    this.#finish(await this.#api.watch(id, (type, data) => this.#happened(type, data)));
  }

  /** Show that the request has ended. */
  end(text) {
    const hadFocus = this.node.contains(document.activeElement);
    this.node.setAttribute("aria-busy", "false");
    this.#progress.hidden = true;
    this.#cancel.remove();
    if (hadFocus) this.node.focus();
    this.setState(text);
  }

  fail(text) {
    this.#state.classList.add("bad");
    this.end(text);
  }

  #happened(type, data) {
    if (type === "queued") {
      const ahead = data.queue_position > 1 ? `${data.queue_position - 1} ahead` : "next in line";
      this.setState(`Queued, ${ahead}; finished in about ${seconds(this.#api.until(data.predicted_finish))}`);
    } else if (type === "running") {
      this.setState("Generating: reading the prompt …");
      setTitle("Generating");
    } else if (type === "step") {
      this.#progress.value = data.step / data.steps;
      this.setState(data.step < data.steps ? `Generating, step ${data.step} of ${data.steps}${this.#left(data)}` : "Generating: decoding the image …");
      setTitle(`${Math.round((100 * data.step) / data.steps)} %`);
    } else if (type === "preview") {
      this.#preview(data.images);
    } else if (type === "lost") {
      this.#state.textContent = "The connection was lost; the job continues. Reconnecting …";
    } else if (type === "found") {
      this.#state.textContent = this.#text;
    }
  }

  /** The time that the remaining steps take, if at least two steps were seen. */
  #left({ step, steps }) {
    this.#firstStep ??= { step, at: performance.now() };
    const done = step - this.#firstStep.step;
    if (done < 1) return "";
    return `; about ${seconds(((steps - step) * (performance.now() - this.#firstStep.at)) / done / 1000)} left`;
  }

  #preview(images) {
    const frames = this.#images.children;
    if (frames.length !== images.length) {
      this.#images.classList.toggle("one", images.length === 1);
      this.#images.replaceChildren(...images.map(() => element("figure", { class: "image" })));
    }
    images.forEach((image, i) => {
      const shown = image.url ? element("img", { src: image.url, alt: "Preview", class: "soft preview" }) : element("p", { class: "withheld" }, "Withheld by the safety checker.");
      frames[i].replaceChildren(shown);
    });
    this.node.dataset.previews = Number(this.node.dataset.previews ?? 0) + 1;
  }

  #finish(job) {
    this.title.textContent = job.request.prompt;
    const shown = shownOf(job);
    this.#images.classList.toggle("one", shown.length === 1);
    this.#images.classList.toggle("four", shown.length === 4);
    this.#images.replaceChildren(...shown.map((one) => imageFigure(one, this.#context, { withPrompt: false })));
    setTitle(job.status === "succeeded" ? `✓ ${job.request.prompt}` : "");
    if (shown.length) this.#images.scrollIntoView({ block: "nearest" });
    if (job.status === "cancelled") return this.end("Cancelled.");
    if (job.status === "failed") return this.fail(`${job.error?.message ?? "Failed."} ${adviceOn(job.error?.code)}`.trim());
    if (!job.result) return this.end("Generated, but its images were deleted or have expired.");
    const { meta, timings } = job.result;
    this.end(`Generated by ${meta.model} in ${seconds(timings.inference)}${meta.usage.usd_spent ? `, ${dollars(meta.usage.usd_spent)}` : ""}`);
    if (meta.warnings.length) this.#state.after(element("ul", { class: "warnings" }, ...meta.warnings.map((warning) => element("li", {}, warning))));
    return announce("The images are finished.");
  }

  async #stop() {
    this.#cancel.disabled = true;
    this.setState("Cancelling …");
    if (this.#id === null) return this.#abort.abort();
    try {
      await this.#api.post(`/v1/jobs/${this.#id}/cancel`);
    } catch (error) {
      // The stream of events reports the end of a finished job.
      if (error.code !== "job_finished") { this.#cancel.disabled = false; this.setState(messageOf(error)); }
    }
    return undefined;
  }
}

/** Show a state of the newest request in the title of the tab; "" shows the view alone. */
function setTitle(text) {
  document.title = `${text || "Generate"} · allaprima`;
}

/** The ids of a key's unfinished jobs in this browser tab, which a reload follows again. */
function unfinished(prefix) {
  return JSON.parse(sessionStorage.getItem(`${UNFINISHED}.${prefix}`) ?? "[]");
}

function remember(prefix, id, isUnfinished) {
  const others = unfinished(prefix).filter((one) => one !== id);
  sessionStorage.setItem(`${UNFINISHED}.${prefix}`, JSON.stringify(isUnfinished ? [...others, id] : others));
}
