/** Error messages with advice, and texts of durations, times and amounts. */

/** Advice by error code, which is the `error.code` of a response or of a failed job. */
const ADVICE = {
  invalid_api_key: "The key is invalid, deleted or disabled. Sign in with another one.",
  management_key_required: "Sign in with a management key, or ask the operator of the server for one.",
  ordinary_key_required: "A management key manages keys and can't generate images. Sign in with one of the keys that it created.",
  scope_missing: "This key can't generate images. Use a management key to add the scope model:image to it.",
  out_of_credits: "The operator of the server can add credits with: allaprima accounts credit.",
  key_limit_reached: "The limit can be raised with a management key.",
  queue_full: "Try again later.",
  rate_limit_exceeded: "Try again in a minute.",
  draining: "Accepted jobs continue after the server's next start.",
  job_not_found: "It was deleted, or it belongs to another account.",
  image_not_found: "The image was deleted or has expired.",
  start_deadline_missed: "Try again when the queue is shorter.",
  generation_failed: "Try again; if it fails again, try another size or model.",
  model_not_found: "Choose another model.",
  offline: "The server can't be reached. Check that it runs and that this device is online.",
};

/** An error response, or no response at all (`code` "offline", `status` 0). */
export class ApiError extends Error {
  constructor(status, code, message, retryAfterMs = 0) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfterMs = retryAfterMs;
  }
}

/** @param {any} error @returns {string} The message of the error, with advice if there is any. */
export function messageOf(error) {
  if (!(error instanceof ApiError)) return `Unexpected error: ${error?.message ?? error}`;
  const message = error.message.replace(/^Body validation error! /, "");
  const advice = ADVICE[error.code];
  if (!advice) return message || `The server responded with status ${error.status}.`;
  return error.code === "offline" || message === "" ? advice : `${message.replace(/\.?$/, ".")} ${advice}`;
}

/** The message of an error after which the page retries by itself. */
export function waitingMessageOf(error) {
  const why = { queue_full: "The queue is full", draining: "The server is stopping", rate_limit_exceeded: "The rate limit is reached", offline: "The server can't be reached" };
  return `${why[error.code] ?? messageOf(error)}; retrying …`;
}

/** The advice on a failed job's error, or "". */
export const adviceOn = (code) => ADVICE[code] ?? "";

/** Format a duration in seconds. */
export function seconds(number) {
  if (number < 0.95) return `${Math.max(0.1, number).toFixed(1)} s`;
  if (number < 90) return `${Math.round(number)} s`;
  return `${Math.round(number / 60)} min`;
}

/** Format US dollars, with more digits for small amounts. */
export function dollars(number) {
  const digits = number !== 0 && Math.abs(number) < 0.1 ? 5 : 2;
  return new Intl.NumberFormat(undefined, { style: "currency", currency: "USD", maximumFractionDigits: digits }).format(number);
}

/** Format the day of a time, given in unix seconds. */
export function day(value) {
  return new Date(value * 1000).toLocaleDateString(undefined, { day: "numeric", month: "short" });
}

/** Format a time, given in unix seconds or ISO 8601. */
export function moment(value) {
  const date = new Date(typeof value === "number" ? value * 1000 : value);
  return date.toLocaleString(undefined, { dateStyle: "short", timeStyle: "medium" });
}
