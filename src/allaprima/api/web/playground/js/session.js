/** The session: keeps the key in memory or, if the user asks for it, in this browser's storage, but never in a URL. */

import { Api } from "./api.js";
import { ApiError } from "./messages.js";

const STORED = "allaprima.key";

export class Session {
  /** @type {Api | null} */
  api = null;
  /** Whether the key is a management key, which manages keys and generates no images. */
  isManaging = false;
  /** The response of `GET /v1/key` for an ordinary key; null for a management key. */
  about = null;

  /** The key in this browser's storage, or null. */
  static remembered() {
    return localStorage.getItem(STORED);
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
        if (error instanceof ApiError && error.status === 401) localStorage.removeItem(STORED);
        throw error;
      }
      this.isManaging = true;
      this.about = null;
    }
    this.api = api;
    if (isRemembered) localStorage.setItem(STORED, key.trim());
    else localStorage.removeItem(STORED);
  }

  /** Remove the key from this browser; the caller must reload the page. */
  static forget() {
    localStorage.removeItem(STORED);
    sessionStorage.clear();
  }
}
