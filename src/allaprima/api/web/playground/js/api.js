/** Client of the server's API: sends and receives JSON, throws `ApiError`, and watches jobs across lost connections. */

import { ApiError } from "./messages.js";

/** Milliseconds until the first retry after a lost connection, and the longest delay between retries. */
const FIRST_WAIT = 300, LONGEST_WAIT = 5000;
/** Largest number of open event streams, because browsers open six connections per host. Other jobs are polled at this interval (ms). */
const STREAMS = 2, POLL_EVERY = 1500;
/** Milliseconds without data after which a stream counts as lost; the server sends a comment every 15 s. */
const SILENCE = 40_000;
/** Final states of a job. */
const ENDS = ["succeeded", "failed", "cancelled"];

/** Wait for some milliseconds, or until the signal aborts. */
const wait = (ms, signal) => new Promise((done) => {
  setTimeout(done, ms);
  signal?.addEventListener("abort", done, { once: true });
});

/** Parse JSON. Seeds of 16 or more digits become strings, because JavaScript's numbers can't represent all of them. */
function readJson(text) {
  // Quotes inside JSON strings are escaped, so the pattern matches no part of a string.
  return JSON.parse(text.replace(/"seed": ?(\d{16,})/g, '"seed":"$1"'));
}

/** The URL of a path of the API on this page's own server, which a proxy may serve below a path. */
export const local = (path) => new URL(path.replace(/^\//, ""), document.baseURI).href;

/**
 * The URL of a stored file on this page's own server: the page may be behind a proxy, whose address the server doesn't know.
 * A link is `<base URL>/files/<token>/<name>` or `<base URL>/thumbnails/<token>/<name>`.
 */
export function fileUrl(link) {
  return local(new URL(link, document.baseURI).pathname.split("/").slice(-3).join("/"));
}

/** Write JSON. A seed that is a string of digits is written as a number. */
export function writeJson(value, indent) {
  return JSON.stringify(value, null, indent).replace(/"seed":( ?)"(\d+)"/g, '"seed":$1$2');
}

export class Api {
  #key; #streams = 0;
  /** Milliseconds by which the server's clock is ahead of this browser's. */
  #ahead = 0;

  /** @param {string | null} key Null for a server that requires none. */
  constructor(key) {
    this.#key = key;
  }

  /** Seconds from now until a time in unix seconds of the server's clock. */
  until(moment) { return moment - (Date.now() + this.#ahead) / 1000; }

  get(path) { return this.#call("GET", path); }

  post(path, body) { return this.#call("POST", path, body); }

  patch(path, body) { return this.#call("PATCH", path, body); }

  remove(path) { return this.#call("DELETE", path); }

  /** Delete in a request that outlives the page. */
  removeOnLeaving(path) { return this.#fetch("DELETE", path, undefined, {}, { keepalive: true }); }

  /** The file that a request for a program's body returns. */
  async file(path, body) { return (await this.#fetch("POST", path, body, {})).blob(); }

  /**
   * Submit a job, and retry while the queue is full or the server can't be reached. `onWait` receives the error of each attempt. The signal
   * ends the retries but aborts no request in flight. A request without a response is retried even then, since the server may have accepted it.
   */
  async submit(body, onWait, signal) {
    const headers = { "Idempotency-Key": randomName(), "X-Origin": "playground" };
    for (let pause = FIRST_WAIT; ; pause = Math.min(2 * pause, LONGEST_WAIT)) {
      try {
        return await this.#call("POST", "/v1/jobs", body, headers);
      } catch (error) {
        const isTemporary = error instanceof ApiError && ([429, 503].includes(error.status) || ["offline", "idempotency_key_in_flight"].includes(error.code));
        if (!isTemporary || signal?.aborted) throw error;
        onWait(error);
        await wait(error.retryAfterMs || pause, signal);
        if (signal?.aborted && error.code !== "offline") throw error;
      }
    }
  }

  /**
   * Report the events of a job until it ends, reconnecting when the connection is lost; return the finished job.
   * @param {string} id
   * @param {(type: string, data: any) => void} onEvent Also `lost` when the connection is lost, and `found` when it is restored.
   */
  async watch(id, onEvent) {
    const seen = { last: null };
    for (let pause = FIRST_WAIT; ; pause = Math.min(2 * pause, LONGEST_WAIT)) {
      try {
        const job = this.#streams < STREAMS ? await this.#stream(id, seen, onEvent) : await this.#poll(id, onEvent);
        if (job) return job;
        // A server that stops closes its streams; the job continues after its next start.
        pause = FIRST_WAIT;
      } catch (error) {
        if (!(error instanceof ApiError) || (error.status !== 0 && error.status < 500)) throw error;
        onEvent("lost", null);
      }
      await wait(pause);
    }
  }

  /** Stream a job's events; return the job if it ended. `seen.last` is the id of the last received event. */
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

  /** Poll a job once, when all streams are in use; return the job if it has ended. */
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

  async #fetch(method, path, body, headers, options = {}) {
    const sent = { ...(this.#key && { Authorization: `Bearer ${this.#key}` }), ...headers };
    if (body !== undefined) sent["Content-Type"] = "application/json";
    const response = await fetch(local(path), { method, headers: sent, body: body === undefined ? undefined : writeJson(body), cache: "no-store", ...options }).catch(offline);
    this.#ahead = (Date.parse(response.headers.get("date")) || Date.now()) - Date.now();
    if (response.ok) return response;
    const failure = await response.json().catch(() => ({}));
    const after = Number(response.headers.get("retry-after-ms") ?? 0) || 1000 * Number(response.headers.get("retry-after") ?? 0);
    throw new ApiError(response.status, failure.error?.code ?? "", failure.message ?? "", after);
  }
}

function offline(error) {
  throw new ApiError(0, "offline", String(error));
}

/** Parse the Server-Sent Events of a response, since `EventSource` can't send a key. Source: WHATWG HTML, "Interpreting an event stream". */
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    for (;;) {
      let timer = 0;
      const silence = new Promise((_, fail) => { timer = setTimeout(() => fail(new ApiError(0, "offline", "the stream sent no data")), SILENCE); });
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

/** A unique random name. `crypto.randomUUID` is missing on pages without https. */
export function randomName() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
