/** Messages of errors, with advice, and the texts of times and amounts. */

/** By error code: `error.code` of a response or of a failed job. */
const ADVICE = {
  invalid_api_key: "This key is not valid here, or it was deleted or disabled. Sign in with another one.",
  management_key_required: "This needs a management key. Sign in with one, or ask the operator of the server.",
  ordinary_key_required: "A management key makes keys and generates no images. Sign in with one of the keys it made.",
  scope_missing: "This key may not generate images. A management key can give it the scope model:image.",
  out_of_credits: "The account has no credits left. The operator of the server can add some: allaprima accounts credit.",
  key_limit_reached: "This key has reached its spend limit. Wait for the next period, or raise the limit with a management key.",
  queue_full: "The queue is full. Try again in a while.",
  rate_limit_exceeded: "Too many requests in this minute. Try again in a while.",
  draining: "The server is stopping. Jobs it has accepted are generated after its next start.",
  job_not_found: "This job is gone: it was deleted, or is another account's.",
  image_not_found: "This image is gone: it was deleted or has expired.",
  job_finished: "It has ended already.",
  start_deadline_missed: "It did not start in time. Try again when less is waiting.",
  generation_failed: "Generation failed. Try again; if it fails again, try another size or model.",
  model_not_found: "This server does not serve that model. Choose another one.",
  offline: "The server can't be reached. Check that it runs, and that this machine is connected.",
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

/** @param {any} error @returns {string} What happened and what to do. */
export function messageOf(error) {
  if (!(error instanceof ApiError)) return `Unexpected error: ${error?.message ?? error}`;
  const message = error.message.replace(/^Body validation error! /, "");
  const advice = ADVICE[error.code];
  if (!advice) return message || `The server answered ${error.status}.`;
  return error.code === "offline" || message === "" ? advice : `${message.replace(/\.?$/, ".")} ${advice}`;
}

/** The message of an error after which the page retries by itself. */
export function waitingMessageOf(error) {
  const why = { queue_full: "The queue is full", rate_limit_exceeded: "Too many requests in this minute", offline: "The server can't be reached" };
  return `${why[error.code] ?? messageOf(error)}; retrying …`;
}

/** What to do about a failed job's error, or "". */
export const adviceOn = (code) => ADVICE[code] ?? "";

/** A duration in seconds as text. */
export function seconds(number) {
  if (number < 0.95) return `${Math.max(0.1, number).toFixed(1)} s`;
  if (number < 90) return `${Math.round(number)} s`;
  return `${Math.round(number / 60)} min`;
}

/** US dollars, with more digits for small amounts. */
export function dollars(number) {
  const digits = number !== 0 && Math.abs(number) < 0.1 ? 5 : 2;
  return new Intl.NumberFormat(undefined, { style: "currency", currency: "USD", maximumFractionDigits: digits }).format(number);
}

/** A time, from unix seconds or ISO 8601. */
export function moment(value) {
  const date = new Date(typeof value === "number" ? value * 1000 : value);
  return date.toLocaleString(undefined, { dateStyle: "short", timeStyle: "medium" });
}
