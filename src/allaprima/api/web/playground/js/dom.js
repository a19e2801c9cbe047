/** Elements by name and by hand: no markup is ever made of text, so no text can become markup. */

/** @param {string} id @returns {any} The element of that id, which index.html has. */
export const byId = (id) => document.getElementById(id);

/**
 * Make an element.
 * @param {string} tag
 * @param {Record<string, any>} [attributes] `on…` are listeners, `class` and all else attributes; false, null and undefined are left out.
 * @param {...(Node | string | null | undefined)} children
 * @returns {any}
 */
export function element(tag, attributes = {}, ...children) {
  return dress(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function drawn(tag, attributes = {}, ...children) {
  return dress(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function dress(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Tell a screen reader, without moving anything on the page. */
export function say(text) {
  byId("said").textContent = text;
}

/** Show an error above everything, or take it away with an empty text. */
export function notice(text) {
  const place = byId("notice");
  place.textContent = text;
  place.hidden = text === "";
}

/** Put text on the clipboard; true if it is there. Pages that are not from https or this machine have only the old way. */
export async function copyText(text) {
  if (navigator.clipboard?.writeText) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Not allowed without the person's leave: the old way may be.
    }
  }
  const field = element("textarea", { class: "unseen", "aria-hidden": "true" });
  const focused = document.activeElement;
  field.value = text;
  document.body.append(field);
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  focused?.focus();
  return isCopied;
}

/** Say on a button that what it does is done, for a while. */
export function confirmOn(button, text) {
  button.dataset.text ??= button.textContent;
  button.textContent = text;
  say(text);
  clearTimeout(Number(button.dataset.timer));
  button.dataset.timer = setTimeout(() => { button.textContent = button.dataset.text; }, 1500);
}

/**
 * A button for what can't be undone: it asks once, and acts on the second click, which the second of a double click is not.
 * @param {string} [what] What it acts on, for a screen reader.
 */
export function carefulButton(text, question, act, what = "") {
  let isAsking = false;
  const button = element("button", { type: "button" });
  const show = (words) => {
    button.textContent = words;
    if (what) button.setAttribute("aria-label", `${words} ${what}`);
  };
  show(text);
  button.addEventListener("click", (event) => {
    if (event.detail > 1) return undefined;
    if (isAsking) return act();
    isAsking = true;
    show(question);
    say(question);
    setTimeout(() => { isAsking = false; show(text); }, 4000);
    return undefined;
  });
  return button;
}
