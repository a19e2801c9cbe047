/** The server's API as this page uses it: JSON in and out, errors as `ApiError`, jobs watched through lost connections. */

import { ApiError } from "./messages.js";

/** Milliseconds before the first try after a lost connection, and at most. */
const FIRST_WAIT = 300, LONGEST_WAIT = 5000;
/** Event streams at a time, since browsers open six connections to a host. Other jobs are polled. */
const STREAMS = 2, POLL_EVERY = 1500;
/** Milliseconds without a byte after which a stream is dead: the server sends a comment every 15 s. */
const SILENCE = 40_000;
/** States in which nothing more happens to a job. */
const ENDS = ["succeeded", "failed", "cancelled"];

/** Wait for a time, or until the signal aborts. */
const wait = (ms, signal) => new Promise((done) => {
  setTimeout(done, ms);
  signal?.addEventListener("abort", done, { once: true });
});

/** Seeds go up to 2^63 - 1, which JavaScript's numbers can't hold: large seeds are kept as strings of digits. */
function readJson(text) {
  // A quote inside a JSON string is escaped, so the pattern matches no part of one.
  return JSON.parse(text.replace(/"seed": ?(\d{16,})/g, '"seed":"$1"'));
}

/** The inverse: a seed that is a string of digits is written as a number. */
export function writeJson(value, indent) {
  return JSON.stringify(value, null, indent).replace(/"seed":( ?)"(\d+)"/g, '"seed":$1$2');
}

export class Api {
  #key; #streams = 0;
  /** By how many milliseconds the server's clock is ahead of this one. */
  #ahead = 0;

  /** @param {string} key */
  constructor(key) {
    this.#key = key;
  }

  /** Seconds from now until a time of the server's clock, in unix seconds. */
  until(moment) { return moment - (Date.now() + this.#ahead) / 1000; }

  get(path) { return this.#call("GET", path); }

  post(path, body) { return this.#call("POST", path, body); }

  patch(path, body) { return this.#call("PATCH", path, body); }

  remove(path) { return this.#call("DELETE", path); }

  /**
   * Submit a job, retrying while the server is full or cannot be reached. `onWait` receives the error of each attempt. The signal ends the
   * retries; it does not abort a request in flight, and a request whose response was lost is retried, since it may have been accepted.
   */
  async submit(body, onWait, signal) {
    const headers = { "Idempotency-Key": randomName(), "X-Origin": "playground" };
    for (let pause = FIRST_WAIT; ; pause = Math.min(2 * pause, LONGEST_WAIT)) {
      try {
        return await this.#call("POST", "/v1/jobs", body, headers);
      } catch (error) {
        const isPassing = error instanceof ApiError && ([429, 503].includes(error.status) || ["offline", "idempotency_key_in_flight"].includes(error.code));
        if (!isPassing || signal?.aborted) throw error;
        onWait(error);
        await wait(error.retryAfterMs || pause, signal);
        if (signal?.aborted && error.code !== "offline") throw error;
      }
    }
  }

  /**
   * Report the events of a job until it ends, through any number of lost connections; return the finished job.
   * @param {string} id
   * @param {(type: string, data: any) => void} onEvent Also `lost` when the connection is lost, and `found` when it is restored.
   */
  async watch(id, onEvent) {
    const seen = { last: null };
    for (let pause = FIRST_WAIT; ; pause = Math.min(2 * pause, LONGEST_WAIT)) {
      try {
        const job = this.#streams < STREAMS ? await this.#stream(id, seen, onEvent) : await this.#poll(id, onEvent);
        if (job) return job;
        // A server that stops ends its streams: the job goes on after the next start.
        pause = FIRST_WAIT;
      } catch (error) {
        if (!(error instanceof ApiError) || (error.status !== 0 && error.status < 500)) throw error;
        onEvent("lost", null);
      }
      await wait(pause);
    }
  }

  /** Listen to a job's events; return it if it ended. `seen.last` is the id of the last event heard. */
  async #stream(id, seen, onEvent) {
    this.#streams += 1;
    try {
      const headers = seen.last ? { "Last-Event-ID": seen.last } : {};
      const response = await this.#fetch("GET", `/v1/jobs/${id}/events`, undefined, headers);
      if (response.status === 204) return await this.get(`/v1/jobs/${id}`);
      onEvent("found", null);
      for await (const event of eventsOf(response)) {
        seen.last = event.id ?? seen.last;
        onEvent(event.type, event.data);
        if (ENDS.includes(event.type)) return event.data.request ? event.data : await this.get(`/v1/jobs/${id}`);
      }
      return null;
    } finally {
      this.#streams -= 1;
    }
  }

  /** Poll a job once, where all streams are in use; return it if it ended. */
  async #poll(id, onEvent) {
    const job = await this.get(`/v1/jobs/${id}`);
    if (ENDS.includes(job.status)) return job;
    onEvent("found", null);
    onEvent(job.status, job);
    await wait(POLL_EVERY);
    return null;
  }

  async #call(method, path, body, headers = {}) {
    const response = await this.#fetch(method, path, body, headers);
    return readJson(await response.text().catch(offline));
  }

  async #fetch(method, path, body, headers) {
    const sent = { Authorization: `Bearer ${this.#key}`, ...headers };
    if (body !== undefined) sent["Content-Type"] = "application/json";
    const response = await fetch(path, { method, headers: sent, body: body === undefined ? undefined : writeJson(body), cache: "no-store" }).catch(offline);
    this.#ahead = (Date.parse(response.headers.get("date")) || Date.now()) - Date.now();
    if (response.ok) return response;
    const answer = await response.json().catch(() => ({}));
    const after = Number(response.headers.get("retry-after-ms") ?? 0) || 1000 * Number(response.headers.get("retry-after") ?? 0);
    throw new ApiError(response.status, answer.error?.code ?? "", answer.message ?? "", after);
  }
}

function offline(error) {
  throw new ApiError(0, "offline", String(error));
}

/** Server-Sent Events of a response: `EventSource` can't send a key. Source: WHATWG HTML, "Interpreting an event stream". */
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    for (;;) {
      let timer = 0;
      const silence = new Promise((_, fail) => { timer = setTimeout(() => fail(new ApiError(0, "offline", "no data for a while")), SILENCE); });
      const { done, value } = await Promise.race([reader.read().catch(offline), silence]).finally(() => clearTimeout(timer));
      if (done) return;
      buffer += value.replaceAll("\r", "");
      for (let end = buffer.indexOf("\n\n"); end >= 0; end = buffer.indexOf("\n\n")) {
        const event = readEvent(buffer.slice(0, end));
        buffer = buffer.slice(end + 2);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
}

function readEvent(block) {
  const event = { type: "message", id: null, data: "" };
  for (const line of block.split("\n")) {
    const [, name, value] = /^([^:]*):? ?(.*)$/.exec(line) ?? [];
    if (name === "event") event.type = value;
    else if (name === "id") event.id = value;
    else if (name === "data") event.data += value;
  }
  return event.data === "" ? null : { ...event, data: readJson(event.data) };
}

/** A unique random name; `crypto.randomUUID` is missing on pages of plain http. */
export function randomName() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
