/** The server's API as this page uses it: JSON in and out, errors as `ApiError`, jobs watched through lost connections. */

import { ApiError } from "./words.js";

/** Milliseconds before the first try after a lost connection, and at most. */
const FIRST_WAIT = 300, LONGEST_WAIT = 5000;
/** States in which nothing more happens to a job. */
const ENDS = ["succeeded", "failed", "cancelled"];

const wait = (ms) => new Promise((done) => { setTimeout(done, ms); });

/** Seeds go up to 2^63 - 1, which JavaScript's numbers can't hold: such a one is kept as its digits. */
export function readJson(text) {
  return JSON.parse(text, (name, value, context) => {
    const isLarge = name === "seed" && typeof value === "number" && !Number.isSafeInteger(value);
    return isLarge && context?.source ? context.source : value;
  });
}

/** The opposite: a seed of digits is written as a number. */
export function writeJson(value, indent) {
  return JSON.stringify(value, null, indent).replace(/"seed":( ?)"(\d+)"/, '"seed":$1$2');
}

export class Api {
  #key;

  /** @param {string} key */
  constructor(key) {
    this.#key = key;
  }

  get(path) { return this.#call("GET", path); }

  /** Post once: a repetition after a lost connection carries the same Idempotency-Key, and is not done twice. */
  post(path, body, { isOnce = false } = {}) {
    return this.#call("POST", path, body, isOnce ? { "Idempotency-Key": randomName() } : {});
  }

  patch(path, body) { return this.#call("PATCH", path, body); }

  remove(path) { return this.#call("DELETE", path); }

  /**
   * Submit a job, waiting politely while the server is full, or away. `onWait` is told why. The signal ends the waiting; a request that
   * is on its way is not called back, since it may have been accepted.
   */
  async submit(body, onWait, signal) {
    const headers = { "Idempotency-Key": randomName() };
    for (let pause = FIRST_WAIT; ; pause = Math.min(2 * pause, LONGEST_WAIT)) {
      try {
        return await this.#call("POST", "/v1/jobs", body, headers);
      } catch (error) {
        const isPassing = error instanceof ApiError && (error.status === 429 || error.code === "offline" || error.code === "idempotency_key_in_flight");
        if (!isPassing || signal?.aborted) throw error;
        onWait(error);
        await wait(error.retryAfterMs || pause);
        if (signal?.aborted) throw error;
      }
    }
  }

  /**
   * Tell of everything that happens to a job until it ends, through any number of lost connections; return the job as it ended.
   * @param {string} id
   * @param {(type: string, data: any) => void} onEvent Also `lost` with the error, and `found` again.
   * @param {AbortSignal} [signal]
   */
  async watch(id, onEvent, signal) {
    let last = null;
    let pause = FIRST_WAIT;
    while (!signal?.aborted) {
      try {
        const response = await this.#fetch("GET", `/v1/jobs/${id}/events`, undefined, last ? { "Last-Event-ID": last } : {}, signal);
        if (response.status === 204) return await this.get(`/v1/jobs/${id}`);
        onEvent("found", null);
        for await (const event of eventsOf(response)) {
          last = event.id ?? last;
          pause = FIRST_WAIT;
          onEvent(event.type, event.data);
          if (ENDS.includes(event.type)) return event.data.request ? event.data : await this.get(`/v1/jobs/${id}`);
        }
        // A server that stops ends its streams: the job goes on after the next start.
      } catch (error) {
        if (signal?.aborted) break;
        if (error instanceof ApiError && error.status !== 0 && error.status < 500) throw error;
        onEvent("lost", error);
      }
      await wait(pause);
      pause = Math.min(2 * pause, LONGEST_WAIT);
    }
    return null;
  }

  async #call(method, path, body, headers = {}, signal = undefined) {
    const response = await this.#fetch(method, path, body, headers, signal);
    return response.status === 204 ? null : readJson(await response.text());
  }

  async #fetch(method, path, body, headers, signal) {
    const sent = { Authorization: `Bearer ${this.#key}`, ...headers };
    if (body !== undefined) sent["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(path, { method, headers: sent, body: body === undefined ? undefined : writeJson(body), signal, cache: "no-store" });
    } catch (error) {
      throw new ApiError(0, "offline", String(error));
    }
    if (response.ok) return response;
    const told = await response.json().catch(() => ({}));
    const after = Number(response.headers.get("retry-after-ms") ?? 0) || 1000 * Number(response.headers.get("retry-after") ?? 0);
    throw new ApiError(response.status, told.error?.code ?? "", told.message ?? "", after);
  }
}

/** Server-Sent Events of a response: `EventSource` can't send a key. Source: WHATWG HTML, "Interpreting an event stream". */
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
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

/** A name that nobody else has; `crypto.randomUUID` is missing on pages of plain http. */
export function randomName() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
