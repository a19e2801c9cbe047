/** Elements are created through the DOM and never from markup, so no text can become markup. */

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
  return build(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function drawn(tag, attributes = {}, ...children) {
  return build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Announce a text to screen readers, without a visible change. */
export function say(text) {
  byId("said").textContent = text;
}

/** Show an error above the view, or hide it with an empty text. */
export function notice(text) {
  const line = byId("notice");
  line.textContent = text;
  line.hidden = text === "";
}

/** Put text on the clipboard; true if it is there. Pages that are not from https or this machine have `execCommand` alone. */
export async function copyText(text) {
  if (navigator.clipboard?.writeText) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Not allowed without the user's permission: `execCommand` may be.
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

/** Show on a button, for 1.5 s, that its action is done. */
export function confirmOn(button, text) {
  button.dataset.text ??= button.textContent;
  button.textContent = text;
  say(text);
  clearTimeout(Number(button.dataset.timer));
  button.dataset.timer = setTimeout(() => { button.textContent = button.dataset.text; }, 1500);
}

/**
 * A button for an action that can't be undone: the first click asks, the second acts. The second click of a double click does not count.
 * @param {string} [what] What it acts on, for a screen reader.
 */
export function carefulButton(text, question, act, what = "") {
  let isAsking = false;
  const button = element("button", { type: "button" });
  const show = (label) => {
    button.textContent = label;
    if (what) button.setAttribute("aria-label", `${label} ${what}`);
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
