/** The session: keeps the key until the tab is closed or, if the user asks for it, in this browser's storage. */

import { Api } from "./api.js";
import { ApiError } from "./messages.js";

const STORED = "allaprima.key";

export class Session {
  /** @type {Api | null} */
  api = null;
  /** Whether the key is a management key, which manages keys and generates no images. */
  isManaging = false;
  /** Whether the session needs no key, and so has no end. */
  isKeyless = false;
  /** The response of `GET /v1/key` for an ordinary key; null for a management key. */
  about = null;

  /** The key of this tab or in this browser's storage, or null. */
  static remembered() {
    return sessionStorage.getItem(STORED) ?? localStorage.getItem(STORED);
  }

  /** Whether the key outlives this tab. */
  static isRemembered() {
    return localStorage.getItem(STORED) !== null;
  }

  /** Take the key from the address, where a link such as `/#key=ap_…` has it, and remove it there; null if it has none. */
  static fromAddress() {
    const found = /^#key=([!-~]+)$/.exec(location.hash);
    if (found) history.replaceState(null, "", location.pathname + location.search);
    return found ? decodeURIComponent(found[1]) : null;
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
        if (error instanceof ApiError && error.status === 401) Session.forget();
        throw error;
      }
      this.isManaging = true;
      this.about = null;
    }
    this.api = api;
    sessionStorage.setItem(STORED, key.trim());
    if (isRemembered) localStorage.setItem(STORED, key.trim());
    else localStorage.removeItem(STORED);
  }

  /** Remove the key from this browser; the caller must reload the page. */
  static forget() {
    localStorage.removeItem(STORED);
    sessionStorage.clear();
  }
}
