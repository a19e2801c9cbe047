/** Errors in one sentence with one remedy, and texts of durations, times and amounts. */

/**
 * The sentence and the remedy of an error code, which is the `error.code` of a response or of a failed job.
 * Remedies: "sign-in", "retry", "edit" (the prompt or the settings), or "" if the user can do nothing on this page.
 */
const PROBLEMS = {
  invalid_api_key: ["This key is invalid, deleted or disabled.", "sign-in"],
  management_key_required: ["Only a management key can do this.", "sign-in"],
  ordinary_key_required: ["A management key can't generate images.", "sign-in"],
  scope_missing: ["This key may not generate images; a management key can allow it.", "sign-in"],
  out_of_credits: ["The account has no credits left; the operator of the server can add some.", ""],
  key_limit_reached: ["This key has reached its spend limit; a management key can raise it.", ""],
  queue_full: ["The queue is full.", "retry"],
  rate_limit_exceeded: ["This key has sent too many requests in the last minute.", "retry"],
  draining: ["The server is stopping; accepted requests continue after its next start.", "retry"],
  job_not_found: ["This request was deleted, or it belongs to another account.", ""],
  image_not_found: ["The image was deleted or has expired.", ""],
  start_deadline_missed: ["The queue was too long to start this request in time.", "retry"],
  generation_failed: ["The image could not be generated.", "retry"],
  model_not_found: ["The server does not serve this model; choose another one.", "edit"],
  offline: ["The server can't be reached.", "retry"],
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

/** @param {any} error @returns {{text: string, remedy: string}} One sentence, and the remedy. */
export function problemOf(error) {
  if (!(error instanceof ApiError)) return { text: `Unexpected error: ${error?.message ?? error}`, remedy: "retry" };
  const [text, remedy] = PROBLEMS[error.code] ?? ["", error.status === 400 || error.status === 422 ? "edit" : "retry"];
  return { text: text || firstSentence(error.message) || `The server responded with status ${error.status}.`, remedy };
}

/** The sentence of an error. */
export const messageOf = (error) => problemOf(error).text;

/** The first sentence of a message of the server; what follows is for the operator or for a program. */
function firstSentence(message) {
  return message.replace(/^Body validation error! /, "").split(/(?<=\.)\s+(?=[A-Z])/)[0];
}

/** The message of an error after which the page retries by itself. */
export function waitingMessageOf(error) {
  return `${messageOf(error).replace(/\.$/, "")}; retrying …`;
}

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
