/** Creates elements through the DOM and never from markup, so that no text can become markup. */

/** @param {string} id @returns {any} The element of index.html with this id. */
export const byId = (id) => document.getElementById(id);

/**
 * Create an HTML element.
 * @param {string} tag
 * @param {Record<string, any>} [attributes] Names with `on…` add listeners; attributes that are false, null or undefined are omitted.
 * @param {...(Node | string | null | undefined)} children
 * @returns {any}
 */
export function element(tag, attributes = {}, ...children) {
  return build(document.createElement(tag), attributes, children);
}

/** Create an SVG element; the parameters are those of `element`. */
export function svgElement(tag, attributes = {}, ...children) {
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
export function announce(text) {
  byId("said").textContent = text;
}

/** Move a message into the open dialog, because the rest of the page is inert then. The dialog gives it back when it closes. */
export function bringUp(node) {
  const dialog = document.querySelector("dialog[open]");
  if (!dialog || dialog.contains(node)) return;
  const place = document.createComment("");
  node.replaceWith(place);
  dialog.append(node);
  dialog.addEventListener("close", () => place.replaceWith(node), { once: true });
}

/**
 * Show an error above the view, or hide it with an empty text.
 * @param {string} text
 * @param {HTMLButtonElement | null} [button] What the user can do about it.
 */
export function notice(text, button = null) {
  const line = byId("notice");
  line.replaceChildren(element("span", {}, text), ...(button ? [button] : []));
  line.hidden = text === "";
  if (text) bringUp(line);
}

/** Whether the user is typing into an element, so that letters are text and no shortcuts. */
export function isTextField(node) {
  return node instanceof Element && node.matches("textarea, select, input:not([type='checkbox'], [type='radio'], [type='range'])");
}

/** Copy text to the clipboard; return whether that worked. Pages without https, except on localhost, only have `execCommand`. */
export async function copyText(text) {
  if (navigator.clipboard?.writeText) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // The user denied the permission; `execCommand` may work without it.
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

/** Show a text on a button for 1.5 s, to confirm its action. */
export function confirmOn(button, text) {
  button.dataset.text ??= button.textContent;
  button.textContent = text;
  announce(text);
  clearTimeout(Number(button.dataset.timer));
  button.dataset.timer = setTimeout(() => { button.textContent = button.dataset.text; }, 1500);
}

/**
 * A button for an action that can't be undone: the first click asks, a second one within 4 s acts. A double click counts as one click.
 * @param {string} [what] The object of the action, for screen readers.
 */
export function confirmedButton(text, question, act, what = "") {
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
    announce(question);
    setTimeout(() => { isAsking = false; show(text); }, 4000);
    return undefined;
  });
  return button;
}
