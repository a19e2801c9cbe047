/** What the browser keeps between visits. Names contain the page's path, because servers below other paths of a host share its storage. */

const SCOPE = `allaprima:${new URL(".", document.baseURI).pathname}:`;
/** What stays when the user signs out. */
const LASTING = ["theme"];

/** The name of a value in `localStorage`, in `sessionStorage` and of a `BroadcastChannel`. */
export const scoped = (name) => SCOPE + name;

/** Read a value, or return the fallback if there is none. */
export function load(name, fallback) {
  const text = localStorage.getItem(scoped(name));
  return text === null ? fallback : JSON.parse(text);
}

/** Keep a value; null and "" remove it. A full storage keeps the previous value. */
export function keep(name, value) {
  if (value === null || value === "") return localStorage.removeItem(scoped(name));
  try {
    return localStorage.setItem(scoped(name), JSON.stringify(value));
  } catch (error) {
    console.warn(error);
    return undefined;
  }
}

/** Remove everything that belongs to a key. */
export function clear() {
  for (const name of Object.keys(localStorage)) if (name.startsWith(SCOPE) && !LASTING.map(scoped).includes(name)) localStorage.removeItem(name);
  sessionStorage.clear();
}
