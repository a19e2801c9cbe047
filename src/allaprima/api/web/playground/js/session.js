/** The session: a key in memory or, if the user chooses so, in this browser; never in an address. */

import { Api } from "./api.js";
import { ApiError } from "./messages.js";

const STORED = "allaprima.key";

export class Session {
  /** @type {Api | null} */
  api = null;
  /** Whether the key is a management key, which makes keys and generates no images. */
  isManaging = false;
  /** What `GET /v1/key` says of an ordinary key. */
  about = null;

  /** The key that this browser remembers, or null. */
  static remembered() {
    return localStorage.getItem(STORED);
  }

  /** Sign in. Throws `ApiError` for an invalid key, and forgets it. */
  async signIn(key, isRemembered) {
    if (!/^\s*[!-~]+\s*$/.test(key)) throw new ApiError(401, "invalid_api_key", "A key has no spaces and no special characters.");
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

  /** Forget the key in this browser; the caller must reload the page. */
  static forget() {
    localStorage.removeItem(STORED);
    sessionStorage.clear();
  }
}
