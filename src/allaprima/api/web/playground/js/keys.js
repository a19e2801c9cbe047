/** The tab Keys: creates, limits, disables and deletes the account's keys with a management key. */

import { byId, confirmedButton, confirmOn, copyText, element, notice } from "./dom.js";
import { table } from "./usage.js";
import { dollars, messageOf, moment } from "./messages.js";

export class Keys {
  #session;

  /** @param {import("./session.js").Session} session */
  constructor(session) {
    this.#session = session;
    byId("new-key").addEventListener("submit", (event) => { event.preventDefault(); this.#create(); });
  }

  /** Show the account's keys. */
  async open() {
    await this.#do(async (api) => {
      const { data } = await api.get("/v1/keys");
      byId("key-list").replaceChildren(table(["Name", "Prefix", "State", "Limit", "Spent this month", "Created", ""], data.map((key) => this.#row(key)), [4]));
    });
  }

  async #create() {
    await this.#do(async (api) => {
      const limit = limitOf(byId("key-limit").value, byId("key-period").value);
      const { data } = await api.post("/v1/keys", { name: byId("key-name").value || null, limit });
      const copy = element("button", { type: "button", onclick: async () => confirmOn(copy, (await copyText(data.key)) ? "Copied" : "Not allowed") }, "Copy");
      byId("made-key").replaceChildren("The new key, shown only once: ", element("code", {}, data.key), " ", copy);
      byId("made-key").hidden = false;
      byId("new-key").reset();
      await this.open();
    });
  }

  #row(key) {
    const limit = element("input", { type: "number", min: 0, step: 0.01, placeholder: "none", "aria-label": `Limit of ${key.prefix} in US dollars`, value: key.limit?.threshold ?? "" });
    const retention = key.limit?.retention ?? "month";
    const button = (text, onclick) => element("button", { type: "button", "aria-label": `${text} ${key.prefix}`, onclick }, text);
    const change = (values) => this.#do(async (api) => { await api.patch(`/v1/keys/${key.prefix}`, values); await this.open(); });
    const acts = key.management ? [] : [
      button("Set limit", () => { if (limit.value !== "" && limit.reportValidity()) change({ limit: limitOf(limit.value, retention) }); }),
      ...(key.limit ? [button("Remove limit", () => change({ limit: null }))] : []),
      button(key.disabled ? "Enable" : "Disable", () => change({ disabled: !key.disabled })),
      confirmedButton("Delete", "Really delete?", () => this.#do(async (api) => { await api.remove(`/v1/keys/${key.prefix}`); await this.open(); }), key.prefix),
    ];
    return element("tr", {},
      element("td", {}, key.name ?? ""), element("td", {}, element("code", {}, key.prefix)),
      element("td", { class: key.disabled ? "bad" : "good" }, key.management ? "management" : key.disabled ? "disabled" : "valid"),
      element("td", {}, key.management ? "" : element("span", { class: "joined" }, limit, key.limit ? `per ${retention.replace("no_reset", "lifetime")}` : "")),
      element("td", { class: "number" }, dollars(key.monthly_usage)), element("td", {}, moment(key.created_at)),
      element("td", {}, element("span", { class: "joined" }, ...acts)));
  }

  async #do(act) {
    notice("");
    try {
      await act(this.#session.api);
    } catch (error) {
      notice(messageOf(error));
    }
  }
}

const limitOf = (text, retention) => (text === "" ? null : { retention, threshold: Number(text) });
