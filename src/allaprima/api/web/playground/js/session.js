/**
 * The session: keeps the key until the last tab of the page is closed or, if the user asks for it, in this browser's storage.
 * A new tab asks the open ones for the key over a `BroadcastChannel`, which only pages of the same origin can read.
 */

import { Api } from "./api.js";
import { ApiError } from "./messages.js";
import { clear, keep, load, scoped } from "./storage.js";

const KEY = "key";
/** Milliseconds in which another tab answers. */
const ANSWER_TIME = 1000;

export class Session {
  /** @type {Api | null} */
  api = null;
  /** Whether the key is a management key, which manages keys and generates no images. */
  isManaging = false;
  /** Whether the session needs no key, and so has no end. */
  isKeyless = false;
  /** The response of `GET /v1/key` for an ordinary key; null for a management key. */
  about = null;
  /** @type {BroadcastChannel | null} */
  #channel = null;

  /** The key of this tab or in this browser's storage, or null. */
  static remembered() {
    return sessionStorage.getItem(scoped(KEY)) ?? load(KEY, null);
  }

  /** Whether the key outlives this tab. */
  static isRemembered() {
    return load(KEY, null) !== null;
  }

  /** Take the key from the address, where a link such as `/#key=ap_…` has it, and remove it there; null if it has none. */
  static fromAddress() {
    const found = /^#key=([!-~]+)$/.exec(location.hash);
    if (found) history.replaceState(null, "", location.pathname + location.search);
    return found ? decodeURIComponent(found[1]) : null;
  }

  /** Ask the other tabs for their key; return it, or null if none answers. */
  static fromOtherTab() {
    return new Promise((done) => {
      const channel = new BroadcastChannel(scoped(KEY));
      const end = (key) => { channel.close(); done(key); };
      channel.addEventListener("message", ({ data }) => { if (data.key) end(data.key); });
      channel.postMessage({ isWanted: true });
      setTimeout(() => end(null), ANSWER_TIME);
    });
  }

  /** Take the single-use token from the address, where a link such as `/#token=…` has it, and remove it there; null if it has none. */
  static tokenFromAddress() {
    const found = /^#token=([\w-]+)$/.exec(location.hash);
    if (found) history.replaceState(null, "", location.pathname + location.search);
    return found ? found[1] : null;
  }

  /** Exchange a single-use token for a key: the remembered one, if it is of the same account, or else a new one. Throws `ApiError` for a used or expired token. */
  static async keyFor(token) {
    const remembered = Session.remembered();
    return (await new Api(remembered).post("/v1/sign-in", { token })).data.key ?? remembered;
  }

  /** Whether the server requires a key; one that runs with `--no-auth` does not. */
  static async isKeyRequired() {
    return (await new Api(null).get("/v1/sign-in")).data.requires_key;
  }

  /** Sign in without a key, on a server that requires none. */
  async signInWithoutKey() {
    const api = new Api(null);
    this.about = (await api.get("/v1/key")).data;
    this.isKeyless = true;
    this.api = api;
  }

  /** Sign in with a key. Throws `ApiError` for an invalid key, and removes it from the storage. */
  async signIn(key, isRemembered) {
    if (!/^\s*[!-~]+\s*$/.test(key)) throw new ApiError(401, "invalid_api_key", "A key contains no spaces or special characters.");
    const api = new Api(key.trim());
    try {
      this.about = (await api.get("/v1/key")).data;
      this.isManaging = false;
    } catch (error) {
      if (!(error instanceof ApiError && error.code === "ordinary_key_required")) {
        if (error instanceof ApiError && error.status === 401) this.#forgetKey();
        throw error;
      }
      this.isManaging = true;
      this.about = null;
    }
    this.api = api;
    sessionStorage.setItem(scoped(KEY), key.trim());
    keep(KEY, isRemembered ? key.trim() : null);
    this.#share(key.trim());
  }

  /** Remove the key and everything that belongs to it from this browser, in all tabs; the caller must reload the page. */
  end() {
    clear();
    this.#channel?.postMessage({ isOver: true });
  }

  #forgetKey() {
    sessionStorage.removeItem(scoped(KEY));
    keep(KEY, null);
  }

  /** Give the key to new tabs, and follow a tab that signs out. */
  #share(key) {
    this.#channel?.close();
    this.#channel = new BroadcastChannel(scoped(KEY));
    this.#channel.addEventListener("message", ({ data }) => {
      if (data.isWanted) this.#channel.postMessage({ key });
      if (!data.isOver) return;
      sessionStorage.clear();
      location.reload();
    });
  }
}
