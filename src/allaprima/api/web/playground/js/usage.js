/** The tab Usage: balance, limits, spending by day and model, and recent requests, of an ordinary key or of a management key's account. */

import { chart } from "./chart.js";
import { byId, element } from "./dom.js";
import { ApiError, dollars, messageOf, moment, seconds } from "./messages.js";

const DAYS = 30;

/**
 * @param {import("./image.js").Context} context
 * @param {import("./session.js").Session} session
 * @param {import("./settings.js").Settings} settings
 */
export async function showUsage(context, session, settings) {
  const { api } = session;
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  const own = session.isManaging ? "" : `&key_prefix=${session.about.prefix}`;
  const { isPriced } = settings;
  try {
    const [billing, detail, byKey, key, jobs] = await Promise.all([
      api.get("/v2/billing"),
      api.get(`/v2/usage/detail?${span()}&group_by=${encodeURIComponent("day,model")}&tz=${encodeURIComponent(zone)}${own}`),
      isPriced ? null : api.get(`/v2/usage/by-key?${span()}${own}`),
      session.isManaging ? null : api.get("/v1/key"),
      api.get(`/v1/jobs?limit=25${own}`),
    ]);
    showFacts(billing, detail, key?.data, isPriced);
    showDays(detail, isPriced);
    showKeys(byKey);
    byId("recent").replaceChildren(recentTable(jobs.data, isPriced));
  } catch (error) {
    context.report(error, () => showUsage(context, session, settings));
  }
}

/** Show the sums. Where no price is set, there is no money to show. */
function showFacts(billing, detail, key, isPriced) {
  const facts = [[`Requests in ${DAYS} days`, String((detail.groups ?? []).reduce((sum, group) => sum + group.requests.total, 0))]];
  if (isPriced) facts.push(["Balance of the account", dollars(billing.current_balance)], [`Spent in ${DAYS} days`, dollars(detail.spend)]);
  if (isPriced && key) {
    facts.push(["Spent by this key this month", dollars(key.monthly_usage)]);
    facts.push(["Limit of this key", key.limit ? `${dollars(key.limit.threshold)} per ${key.limit.retention.replace("no_reset", "lifetime")}` : "none"]);
  }
  if (key?.requests_per_minute) facts.push(["Requests per minute", String(key.requests_per_minute)]);
  byId("account").replaceChildren(...facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

/** Show the spending per day, or the number of requests if all were free. */
function showDays(detail, isPriced) {
  const groups = detail.groups ?? [];
  const isFree = groups.every((group) => group.spend === 0);
  const written = isFree ? (value) => String(Math.round(value)) : dollars;
  const values = groups.map((group) => ({ day: group.day, model: group.model, value: isFree ? group.requests.total : group.spend }));
  byId("chart-title").textContent = isFree ? `Requests in the last ${DAYS} days` : `Spent in the last ${DAYS} days`;
  byId("chart").replaceChildren(...chart(lastDays(), values, written, byId("chart-title").textContent));
  const rows = groups.map((group) => element("tr", {},
    element("td", {}, group.day), element("td", {}, group.model), element("td", { class: "number" }, String(group.requests.total)),
    element("td", { class: "number" }, String(group.requests.failed)), isPriced ? element("td", { class: "number" }, dollars(group.spend)) : null));
  byId("days").querySelector("table")?.remove();
  byId("days").append(table(["Day", "Model", "Requests", "Failed", ...(isPriced ? ["Spent"] : [])], rows, [2, 3, 4]));
}

/** Show what each key has generated on each day, where no price is set; else hide it. */
function showKeys(byKey) {
  byId("by-key").hidden = byId("by-key-title").hidden = byKey === null;
  if (byKey === null) return;
  const number = (text) => element("td", { class: "number" }, text);
  const rows = byKey.data.map((one) => element("tr", {},
    element("td", {}, one.day), element("td", {}, one.key_name ?? "", " ", element("code", {}, one.key_prefix)),
    number(String(one.requests)), number(String(one.images)), number(seconds(one.compute_s))));
  byId("by-key").replaceChildren(table(["Day (UTC)", "Key", "Requests", "Images", "Compute time"], rows, [2, 3, 4]));
}

/** The local midnight at the start of the day `days` days ago. */
function dayAgo(days) {
  const now = new Date();
  return new Date(now.getFullYear(), now.getMonth(), now.getDate() - days);
}

/** Start and end of the last `DAYS` days as query parameters. */
function span() {
  return `start=${dayAgo(DAYS - 1).toISOString()}&end=${new Date(Date.now() + 60_000).toISOString()}`;
}

/** The last `DAYS` days, oldest first, in the server's format. */
function lastDays() {
  return Array.from({ length: DAYS }, (_, i) => {
    const day = dayAgo(DAYS - 1 - i);
    return `${day.getFullYear()}-${String(day.getMonth() + 1).padStart(2, "0")}-${String(day.getDate()).padStart(2, "0")}`;
  });
}

function recentTable(jobs, isPriced) {
  const rows = jobs.map((job) => {
    const waited = job.started_at ? seconds(job.started_at - job.created_at) : "";
    const generated = job.result ? seconds(job.result.timings.inference) : job.started_at && job.finished_at ? seconds(job.finished_at - job.started_at) : "";
    const isBad = job.status === "failed";
    const outcome = job.error ? messageOf(new ApiError(0, job.error.code, job.error.message ?? job.error.code)) : "";
    return element("tr", {},
      element("td", {}, moment(job.created_at)), element("td", { class: isBad ? "bad" : job.status === "succeeded" ? "good" : "" }, job.status),
      element("td", {}, job.request.model), element("td", {}, job.request.prompt.slice(0, 80)),
      element("td", { class: "number" }, waited), element("td", { class: "number" }, generated),
      isPriced ? element("td", { class: "number" }, job.result ? dollars(job.result.meta.usage.usd_spent) : "") : null, element("td", {}, outcome));
  });
  return table(["When", "Status", "Model", "Prompt", "Waited", "Generated in", ...(isPriced ? ["Cost"] : []), "Error"], rows, isPriced ? [4, 5, 6] : [4, 5]);
}

/** Create a table with a header row. `numbers`: indices of the columns with numbers. */
export function table(heads, rows, numbers = []) {
  return element("table", { class: "list" },
    element("thead", {}, element("tr", {}, ...heads.map((head, i) => element("th", { scope: "col", class: numbers.includes(i) ? "number" : null }, head)))),
    element("tbody", {}, ...rows));
}
