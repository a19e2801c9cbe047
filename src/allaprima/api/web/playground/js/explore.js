/** The tab Explore: generates a contact sheet of prompts by seeds, or by numbers of steps, as one group of jobs. */

import { randomName } from "./api.js";
import { byId, element, notice, announce } from "./dom.js";
import { imagesOfJob, loadedImage, save } from "./image.js";
import { ApiError, messageOf, waitingMessageOf } from "./messages.js";
import { numberOf, RATIOS, sizeOfRatio } from "./settings.js";
import { keep, load } from "./storage.js";

const MOST_PROMPTS = 8, MOST_STEPS = 8;
/** Milliseconds between two polls of the group. */
const POLL_EVERY = 400;
/** Layout of the downloaded sheet in pixels: image width, line height, gap, and width of the row labels. */
const IMAGE = 320, LINE = 22, GAP = 10, LABEL = 220;
const ENDS = ["succeeded", "failed", "cancelled"];

export class Explore {
  #context; #settings;
  /** @type {Sheet | null} The sheet in progress. */
  #sheet = null;

  /** @param {import("./image.js").Context} context @param {import("./settings.js").Settings} settings */
  constructor(context, settings) {
    this.#context = context;
    this.#settings = settings;
    byId("explore-form").addEventListener("submit", (event) => { event.preventDefault(); this.#generate(); });
    byId("explore-form").addEventListener("input", () => this.#note());
    byId("sheet-size").append(element("option", { value: "" }, "As in Generate"), ...RATIOS.map(([ratio, name]) => {
      const [width, height] = sizeOfRatio(ratio);
      return element("option", { value: ratio }, `${name}, ${width} × ${height}`);
    }));
  }

  /** Show the last sheet again, and copy the prompt and the seed from the tab Generate if the form has no prompt yet. */
  open() {
    const kept = load(this.#kept, null);
    if (kept && !this.#sheet && byId("sheet").hidden) this.#resume(kept);
    const { prompt, seed } = this.#settings.body();
    if (!byId("prompts").value) {
      byId("prompts").value = prompt.replace(/\s*\n\s*/g, " ");
      byId("first-seed").value = seed ?? 0;
    }
    this.#note();
  }

  get #kept() { return `sheet.${this.#context.prefix()}`; }

  /** The body of a request, with the size of the sheet. */
  #body() {
    const body = this.#settings.body();
    const ratio = byId("sheet-size").value;
    if (!ratio) return body;
    const [width, height] = sizeOfRatio(ratio);
    return { ...body, image_size: { width, height } };
  }

  #axis() {
    return byId("explore-form").elements.axis.value;
  }

  /** The rows and columns of the requested sheet. */
  #plan() {
    const prompts = byId("prompts").value.split("\n").map((line) => line.trim()).filter(Boolean).slice(0, MOST_PROMPTS);
    const first = BigInt(/^\d+$/.test(byId("first-seed").value) ? byId("first-seed").value : 0);
    const isSteps = this.#axis() === "steps";
    const count = isSteps ? MOST_STEPS : Number(byId("seeds").value);
    const columns = Array.from({ length: count }, (_, i) => {
      const seed = numberOf(String(isSteps ? first : first + BigInt(i)));
      if (isSteps) return { label: i ? `${i + 1} steps` : "1 step", seed, steps: i + 1 };
      return { label: `seed ${seed}`, seed, steps: this.#settings.body().num_inference_steps };
    });
    return { prompts, columns };
  }

  #note() {
    byId("seeds-field").hidden = this.#axis() === "steps";
    const { prompts, columns } = this.#plan();
    const { image_size: size, model } = this.#body();
    const lines = byId("prompts").value.split("\n").filter((line) => line.trim()).length;
    const cut = lines > MOST_PROMPTS ? ` Only the first ${MOST_PROMPTS} of ${lines} prompts are used.` : "";
    byId("explore-note").textContent = `${prompts.length * columns.length} images of ${size.width} × ${size.height} by ${model}.${cut}`;
  }

  async #generate() {
    notice("");
    const button = byId("explore-form").querySelector("button");
    button.disabled = true;
    await this.#sheet?.cancel();
    button.disabled = false;
    const { prompts, columns } = this.#plan();
    const plan = { group: `sheet-${randomName()}`, prompts, columns, body: this.#body() };
    keep(this.#kept, plan);
    const sheet = new Sheet(plan, this.#context);
    this.#show(sheet);
    byId("sheet").scrollIntoView({ block: "start" });
    await sheet.generate();
    if (this.#sheet === sheet) this.#sheet = null;
  }

  /** Show a sheet of an earlier visit; its unfinished images follow. */
  async #resume(plan) {
    byId("prompts").value = plan.prompts.join("\n");
    const sheet = new Sheet(plan, this.#context);
    this.#show(sheet);
    await sheet.resume();
    if (this.#sheet === sheet) this.#sheet = null;
  }

  #show(sheet) {
    this.#sheet = sheet;
    byId("sheet").hidden = false;
    byId("sheet").replaceChildren(sheet.node);
  }
}

/** One sheet: its jobs, and the table that shows their images. */
class Sheet {
  #prompts; #columns; #body; #context; #api; #group; #abort = new AbortController();
  #frames; #bar; #cancel; #download; #jobs = new Map(); #images = new Map(); #isSubmitted = false; #ended = 0;

  /** @param {{group: string, prompts: string[], columns: any[], body: any}} plan @param {import("./image.js").Context} context */
  constructor({ group, prompts, columns, body }, context) {
    this.#group = group;
    this.#prompts = prompts;
    this.#columns = columns;
    this.#body = { ...body, num_images: 1, group_id: group };
    this.#context = context;
    this.#api = context.api();
    this.#bar = element("p", { role: "status" });
    this.#cancel = element("button", { type: "button", onclick: () => this.cancel() }, "Cancel all");
    this.#download = element("button", { type: "button", disabled: true, onclick: () => this.#save() }, "Download as one PNG");
    this.#frames = prompts.map(() => columns.map(() => {
      const frame = element("div", {}, "…");
      frame.style.aspectRatio = `${body.image_size.width} / ${body.image_size.height}`;
      return frame;
    }));
    const rows = prompts.map((prompt, row) => element("tr", {},
      element("th", { scope: "row" }, prompt), ...this.#frames[row].map((frame) => element("td", {}, frame))));
    this.node = element("div", {},
      element("div", { class: "joined" }, this.#bar, this.#cancel, this.#download),
      element("table", { class: "sheet" },
        element("thead", {}, element("tr", {}, element("td"), ...columns.map(({ label }) => element("th", { scope: "col" }, label)))),
        element("tbody", {}, ...rows)));
  }

  /** Submit all jobs, and show their images until all jobs have ended. */
  async generate() {
    this.#setState("Submitting …");
    await this.#follow(Promise.all([this.#submitAll(), this.#watch()]));
  }

  /** Show the images of the jobs that were submitted at an earlier visit, which may be fewer than planned. */
  async resume() {
    await this.#follow((async () => {
      const { data } = await this.#api.get(`/v1/jobs?limit=100&group_id=${this.#group}`);
      for (const job of data) {
        const row = this.#prompts.indexOf(job.request.prompt);
        const column = this.#columns.findIndex(({ seed, steps }) => String(seed) === String(job.request.seed) && steps === job.request.num_inference_steps);
        if (row >= 0 && column >= 0) this.#jobs.set(job.id, { row, column, isOver: false });
      }
      const known = new Set([...this.#jobs.values()].map(({ row, column }) => `${row}/${column}`));
      this.#frames.forEach((frames, row) => frames.forEach((frame, column) => { if (!known.has(`${row}/${column}`)) frame.textContent = "not generated"; }));
      this.#isSubmitted = true;
      await this.#watch();
    })());
  }

  async #follow(work) {
    try {
      await work;
    } catch (error) {
      this.#context.report(error);
    }
    this.#cancel.hidden = true;
    this.#download.disabled = this.#images.size === 0;
    announce("The sheet is finished.");
  }

  /** Cancel the unfinished jobs, and submit no more. */
  async cancel() {
    this.#abort.abort();
    try {
      await this.#api.post(`/v1/groups/${this.#group}/cancel`);
    } catch (error) {
      this.#context.report(error, () => this.cancel());
    }
  }

  /** Submit the jobs one by one. The first refusal ends this, because the other jobs would be refused too. */
  async #submitAll() {
    let refused = "";
    for (const [row, prompt] of this.#prompts.entries()) {
      for (const [column, { seed, steps }] of this.#columns.entries()) {
        if (refused || this.#abort.signal.aborted) {
          this.#frames[row][column].textContent = refused ? "not submitted" : "cancelled";
          continue;
        }
        try {
          await this.#submit({ ...this.#body, prompt, seed, num_inference_steps: steps }, row, column);
        } catch (error) {
          this.#frames[row][column].textContent = this.#abort.signal.aborted ? "cancelled" : "refused";
          if (!this.#abort.signal.aborted) refused = messageOf(error);
        }
      }
    }
    this.#isSubmitted = true;
    if (refused) notice(refused);
  }

  async #submit(body, row, column) {
    const job = await this.#api.submit(body, (error) => this.#setState(waitingMessageOf(error)), this.#abort.signal);
    this.#jobs.set(job.id, { row, column, isOver: false });
    // The server may have accepted this job after it cancelled the group.
    if (this.#abort.signal.aborted) await this.cancel();
  }

  /** Poll the group until all its jobs have ended. One connection serves all jobs, because browsers open six at most. */
  async #watch() {
    for (;;) {
      const wasSubmitted = this.#isSubmitted;
      try {
        const { data } = await this.#api.get(`/v1/jobs?limit=100&group_id=${this.#group}`);
        for (const job of data) this.#show(job);
        this.#setState(`${this.#images.size} of ${this.#prompts.length * this.#columns.length} generated`);
      } catch (error) {
        if (!(error instanceof ApiError) || (error.status >= 400 && error.status < 500 && error.status !== 429)) throw error;
        this.#setState(waitingMessageOf(error));
      }
      if (wasSubmitted && this.#ended >= this.#jobs.size) return;
      await new Promise((done) => { setTimeout(done, POLL_EVERY); });
    }
  }

  #setState(text) {
    if (this.#bar.textContent !== text) this.#bar.textContent = text;
  }

  /** Show the current state of a job. */
  #show(job) {
    const cell = this.#jobs.get(job.id);
    if (!cell || cell.isOver) return;
    const frame = this.#frames[cell.row][cell.column];
    if (job.status === "running") frame.textContent = "generating …";
    if (!ENDS.includes(job.status)) return;
    cell.isOver = true;
    this.#ended += 1;
    const [shown] = imagesOfJob(job);
    if (!shown || shown.isWithheld) {
      frame.textContent = shown ? "withheld" : job.error ? messageOf(new ApiError(0, job.error.code, job.error.message ?? "")) : job.status;
      return;
    }
    this.#images.set(`${cell.row}/${cell.column}`, shown);
    const image = element("img", { src: shown.url, alt: `${shown.settings.prompt}, ${this.#columns[cell.column].label}`, crossorigin: "anonymous" });
    frame.replaceChildren(element("button", { type: "button", class: "frame", "data-image": shown.id, "aria-label": `Enlarge: ${image.alt}`, onclick: () => this.#view(shown) }, image));
  }

  /** Open the viewer, which steps through the sheet row by row. */
  #view(shown) {
    const images = this.#prompts.flatMap((_, row) => this.#columns.map((__, column) => this.#images.get(`${row}/${column}`))).filter(Boolean);
    this.#context.view(images, images.indexOf(shown));
  }

  async #save() {
    try {
      save(await this.#toPng(), "allaprima-sheet.png");
    } catch {
      notice("The sheet can't be downloaded, because one of its images was deleted or has expired.");
    }
  }

  /** Draw the sheet with its labels; return a PNG file. */
  async #toPng() {
    const { width, height } = this.#body.image_size;
    const high = Math.max(Math.round((IMAGE * height) / width), 4 * LINE);
    const canvas = element("canvas", {
      width: LABEL + this.#columns.length * (IMAGE + GAP) + GAP,
      height: LINE + 2 * GAP + this.#prompts.length * (high + GAP),
    });
    const pen = canvas.getContext("2d");
    pen.fillStyle = "#ffffff";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.fillStyle = "#1f1d1a";
    pen.font = "16px system-ui, sans-serif";
    this.#columns.forEach(({ label }, column) => pen.fillText(label, LABEL + column * (IMAGE + GAP), LINE, IMAGE));
    for (const [row, prompt] of this.#prompts.entries()) {
      const top = LINE + 2 * GAP + row * (high + GAP);
      linesOf(pen, prompt, LABEL - 2 * GAP).slice(0, Math.floor(high / LINE)).forEach((line, i) => pen.fillText(line, GAP, top + LINE * (i + 1), LABEL - 2 * GAP));
      for (const column of this.#columns.keys()) {
        const shown = this.#images.get(`${row}/${column}`);
        if (shown) pen.drawImage(await loadedImage(shown.url), LABEL + column * (IMAGE + GAP), top, IMAGE, Math.round((IMAGE * height) / width));
      }
    }
    return new Promise((done, fail) => { canvas.toBlob((file) => (file ? done(file) : fail(new Error("too large"))), "image/png"); });
  }
}

/** Break a text into lines of at most `width` pixels. */
function linesOf(pen, text, width) {
  const lines = [""];
  for (const word of text.split(/\s+/)) {
    const longer = `${lines.at(-1)} ${word}`.trim();
    if (lines.at(-1) && pen.measureText(longer).width > width) lines.push(word);
    else lines[lines.length - 1] = longer;
  }
  return lines;
}
