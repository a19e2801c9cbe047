/** The tab Keys: creates, limits, disables and deletes the account's keys with a management key. */

import { byId, confirmedButton, confirmOn, copyText, element, notice } from "./dom.js";
import { table } from "./usage.js";
import { dollars, moment } from "./messages.js";

export class Keys {
  #context; #session; #settings;

  /**
   * @param {import("./image.js").Context} context
   * @param {import("./session.js").Session} session
   * @param {import("./settings.js").Settings} settings
   */
  constructor(context, session, settings) {
    this.#context = context;
    this.#session = session;
    this.#settings = settings;
    byId("new-key").addEventListener("submit", (event) => { event.preventDefault(); this.#create(); });
  }

  /** Show the account's keys. Where no price is set, nothing is spent, so that spend limits are left out. */
  async open() {
    const isPriced = this.#settings.isPriced;
    for (const field of document.querySelectorAll("#new-key [data-priced]")) field.hidden = !isPriced;
    await this.#do(async (api) => {
      const { data } = await api.get("/v1/keys");
      const heads = ["Name", "Prefix", "State", "Requests a minute", ...(isPriced ? ["Limit", "Spent this month"] : []), "Created", ""];
      byId("key-list").replaceChildren(table(heads, data.map((key) => this.#row(key, isPriced)), isPriced ? [5] : []));
    });
  }

  async #create() {
    await this.#do(async (api) => {
      const limit = limitOf(byId("key-limit").value, byId("key-period").value);
      const rate = byId("key-rate").value;
      const { data } = await api.post("/v1/keys", { name: byId("key-name").value || null, limit, ...(rate ? { requests_per_minute: Number(rate) } : {}) });
      const copy = element("button", { type: "button", onclick: async () => confirmOn(copy, (await copyText(data.key)) ? "Copied" : "Not allowed") }, "Copy");
      byId("made-key").replaceChildren("The new key, shown only once: ", element("code", {}, data.key), " ", copy);
      byId("made-key").hidden = false;
      byId("new-key").reset();
      await this.open();
    });
  }

  #row(key, isPriced) {
    const field = (text, value, attributes) => element("input", { type: "number", "aria-label": `${text} of ${key.prefix}`, value: value ?? "", ...attributes });
    const limit = field("Limit in US dollars", key.limit?.threshold, { min: 0, step: 0.01, placeholder: "none" });
    const rate = field("Requests a minute", key.requests_per_minute, { min: 1, step: 1, placeholder: "server's" });
    const retention = key.limit?.retention ?? "month";
    const button = (text, onclick) => element("button", { type: "button", "aria-label": `${text} ${key.prefix}`, onclick }, text);
    const change = (values) => this.#do(async (api) => { await api.patch(`/v1/keys/${key.prefix}`, values); await this.open(); });
    const acts = key.management ? [] : [
      button(key.disabled ? "Enable" : "Disable", () => change({ disabled: !key.disabled })),
      confirmedButton("Delete", "Really delete?", () => this.#do(async (api) => { await api.remove(`/v1/keys/${key.prefix}`); await this.open(); }), key.prefix),
    ];
    const limits = [
      limit, key.limit ? `per ${retention.replace("no_reset", "lifetime")}` : "",
      button("Set limit", () => { if (limit.value !== "" && limit.reportValidity()) change({ limit: limitOf(limit.value, retention) }); }),
      ...(key.limit ? [button("Remove limit", () => change({ limit: null }))] : []),
    ];
    const rates = [rate, button("Set rate", () => { if (rate.reportValidity()) change({ requests_per_minute: rate.value === "" ? null : Number(rate.value) }); })];
    const joined = (nodes) => element("td", {}, element("span", { class: "joined" }, ...(key.management ? [] : nodes)));
    return element("tr", {},
      element("td", {}, key.name ?? ""), element("td", {}, element("code", {}, key.prefix)),
      element("td", { class: key.disabled ? "bad" : "good" }, key.management ? "management" : key.disabled ? "disabled" : "valid"),
      joined(rates), ...(isPriced ? [joined(limits), element("td", { class: "number" }, dollars(key.monthly_usage))] : []),
      element("td", {}, moment(key.created_at)), joined(acts));
  }

  async #do(act) {
    notice("");
    try {
      await act(this.#session.api);
    } catch (error) {
      this.#context.report(error, () => this.#do(act));
    }
  }
}

const limitOf = (text, retention) => (text === "" ? null : { retention, threshold: Number(text) });
