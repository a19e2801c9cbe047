/** Explore: a sheet of prompts by seeds, or of one seed by steps, as jobs of one group with one cancel. */

import { randomName } from "./api.js";
import { byId, element, notice, say } from "./dom.js";
import { loadedImage, shownOf } from "./picture.js";
import { inWords } from "./words.js";

const MOST_PROMPTS = 8, MOST_STEPS = 8;
/** Milliseconds between two looks at the group. */
const LOOK = 400;
/** Pixels of a picture, of a label's line and of a gap on the sheet that is downloaded. */
const PICTURE = 320, LINE = 22, GAP = 10, LABEL = 220;

export class Explore {
  #place; #settings; #group = null; #isStopped = false;

  /** @param {import("./picture.js").Place} place @param {import("./settings.js").Settings} settings */
  constructor(place, settings) {
    this.#place = place;
    this.#settings = settings;
    byId("explore-form").addEventListener("submit", (event) => { event.preventDefault(); this.#paint(); });
    byId("explore-form").addEventListener("input", () => this.#note());
  }

  /** Begin with the prompt of Paint where there is none yet. */
  open() {
    if (!byId("prompts").value) byId("prompts").value = this.#settings.body().prompt;
    this.#note();
  }

  #axis() {
    return byId("explore-form").elements.axis.value;
  }

  /** Rows and columns of what the form asks for. */
  #plan() {
    const prompts = byId("prompts").value.split("\n").map((line) => line.trim()).filter(Boolean).slice(0, MOST_PROMPTS);
    const first = Number(byId("first-seed").value);
    const isSteps = this.#axis() === "steps";
    const count = isSteps ? MOST_STEPS : Number(byId("seeds").value);
    const columns = Array.from({ length: count }, (_, i) => (isSteps
      ? { label: i ? `${i + 1} steps` : "1 step", seed: first, steps: i + 1 }
      : { label: `seed ${first + i}`, seed: first + i, steps: this.#settings.body().num_inference_steps }));
    return { prompts, columns };
  }

  #note() {
    byId("seeds-field").hidden = this.#axis() === "steps";
    const { prompts, columns } = this.#plan();
    const { image_size: size, model } = this.#settings.body();
    const lines = byId("prompts").value.split("\n").filter((line) => line.trim()).length;
    const cut = lines > MOST_PROMPTS ? ` Only the first ${MOST_PROMPTS} of ${lines} prompts are taken.` : "";
    byId("explore-note").textContent = `${prompts.length * columns.length} pictures of ${size.width} × ${size.height} by ${model}, as set in Paint.${cut}`;
  }

  async #paint() {
    notice("");
    if (this.#group) await this.#cancel();
    const { prompts, columns } = this.#plan();
    const table = new Sheet(prompts, columns, this.#settings.body().image_size, this.#place);
    const group = `sheet-${randomName()}`;
    this.#group = group;
    this.#isStopped = false;
    const bar = element("p", { role: "status" });
    const cancel = element("button", { type: "button", onclick: () => this.#cancel() }, "Cancel all");
    const download = element("button", { type: "button", disabled: true, onclick: () => table.download() }, "Download as one PNG");
    byId("sheet").hidden = false;
    byId("sheet").replaceChildren(element("div", { class: "joined" }, bar, cancel, download), table.node);
    const base = { ...this.#settings.body(), num_images: 1, group_id: group };
    try {
      const submitted = this.#submitAll(base, prompts, columns, table);
      await Promise.all([submitted, this.#watch(group, table, bar, submitted)]);
    } catch (error) {
      notice(inWords(error));
    }
    if (this.#group !== group) return;
    this.#group = null;
    cancel.hidden = true;
    download.disabled = table.finished === 0;
    say("The sheet is finished.");
  }

  async #submitAll(base, prompts, columns, table) {
    for (const [row, prompt] of prompts.entries()) {
      for (const [column, { seed, steps }] of columns.entries()) {
        if (this.#isStopped) { table.end(row, column, "cancelled"); continue; }
        const job = await this.#place.api().submit({ ...base, prompt, seed, num_inference_steps: steps }, () => undefined);
        table.expect(job.id, row, column);
        // Accepted while the group was being cancelled.
        if (this.#isStopped) await this.#place.api().post(`/v1/groups/${base.group_id}/cancel`);
      }
    }
  }

  /** Look at the group until all of it has ended: one connection for all jobs, where browsers open six at most. */
  async #watch(group, table, bar, submitted) {
    let isSubmitted = false;
    submitted.finally(() => { isSubmitted = true; }).catch(() => undefined);
    for (;;) {
      const wasSubmitted = isSubmitted;
      try {
        const { data } = await this.#place.api().get(`/v1/jobs?limit=100&group_id=${group}`);
        for (const job of data) table.show(job);
      } catch (error) {
        if (error.code !== "offline") throw error;
      }
      bar.textContent = `${table.finished} of ${table.size} painted`;
      if (wasSubmitted && table.ended >= table.expected) return;
      await new Promise((done) => { setTimeout(done, LOOK); });
    }
  }

  async #cancel() {
    this.#isStopped = true;
    try {
      if (this.#group) await this.#place.api().post(`/v1/groups/${this.#group}/cancel`);
    } catch (error) {
      notice(inWords(error));
    }
  }
}

/** The labelled table of a sheet. */
class Sheet {
  #cells = new Map(); #frames; #prompts; #columns; #place; #pictures = new Map();

  constructor(prompts, columns, size, place) {
    this.#prompts = prompts;
    this.#columns = columns;
    this.#place = place;
    this.size = prompts.length * columns.length;
    this.ended = 0;
    this.finished = 0;
    this.#frames = prompts.map(() => columns.map(() => {
      const frame = element("div", {}, "…");
      frame.style.aspectRatio = `${size.width} / ${size.height}`;
      return frame;
    }));
    this.node = element("table", { class: "sheet" },
      element("thead", {}, element("tr", {}, element("td"), ...columns.map(({ label }) => element("th", { scope: "col" }, label)))),
      element("tbody", {}, ...prompts.map((prompt, row) => element("tr", {},
        element("th", { scope: "row" }, prompt), ...this.#frames[row].map((frame) => element("td", {}, frame))))));
  }

  /** How many jobs there are to wait for. */
  get expected() { return this.#cells.size; }

  expect(id, row, column) {
    this.#cells.set(id, { row, column, isOver: false });
  }

  /** Take in a job as it stands. */
  show(job) {
    const cell = this.#cells.get(job.id);
    if (!cell || cell.isOver) return;
    if (job.status === "running") this.#frames[cell.row][cell.column].textContent = "painting …";
    if (!["succeeded", "failed", "cancelled"].includes(job.status)) return;
    cell.isOver = true;
    this.ended += 1;
    const [shown] = shownOf(job);
    if (!shown) { this.end(cell.row, cell.column, job.status); return; }
    this.finished += 1;
    this.#pictures.set(`${cell.row}/${cell.column}`, shown.url);
    const image = element("img", { src: shown.url, alt: `${shown.settings.prompt}, ${this.#columns[cell.column].label}`, crossorigin: "anonymous" });
    this.#frames[cell.row][cell.column].replaceChildren(
      element("button", { type: "button", class: "frame", "aria-label": `Zoom: ${image.alt}`, onclick: () => this.#place.view([shown]) }, image));
  }

  end(row, column, text) {
    this.#frames[row][column].textContent = text;
  }

  /** Draw the sheet with its labels and save it as one PNG. */
  async download() {
    const [frame] = this.#frames[0];
    const [across, down] = frame.style.aspectRatio.split("/").map(Number);
    const height = Math.round((PICTURE * down) / across);
    const canvas = element("canvas", {
      width: LABEL + this.#columns.length * (PICTURE + GAP) + GAP,
      height: LINE + 2 * GAP + this.#prompts.length * (height + GAP),
    });
    const pen = canvas.getContext("2d");
    pen.fillStyle = "#ffffff";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.fillStyle = "#1f1d1a";
    pen.font = "16px system-ui, sans-serif";
    this.#columns.forEach(({ label }, column) => pen.fillText(label, LABEL + column * (PICTURE + GAP), LINE));
    for (const [row, prompt] of this.#prompts.entries()) {
      const top = LINE + 2 * GAP + row * (height + GAP);
      linesOf(pen, prompt, LABEL - 2 * GAP).forEach((line, i) => pen.fillText(line, GAP, top + LINE * (i + 1)));
      for (const column of this.#columns.keys()) {
        const url = this.#pictures.get(`${row}/${column}`);
        if (url) pen.drawImage(await loadedImage(url), LABEL + column * (PICTURE + GAP), top, PICTURE, height);
      }
    }
    const file = await new Promise((done) => { canvas.toBlob(done, "image/png"); });
    const link = element("a", { href: URL.createObjectURL(file), download: "allaprima-sheet.png" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }
}

/** A text in lines no wider than `width` pixels. */
function linesOf(pen, text, width) {
  const lines = [""];
  for (const word of text.split(/\s+/)) {
    const longer = `${lines.at(-1)} ${word}`.trim();
    if (lines.at(-1) && pen.measureText(longer).width > width) lines.push(word);
    else lines[lines.length - 1] = longer;
  }
  return lines;
}
