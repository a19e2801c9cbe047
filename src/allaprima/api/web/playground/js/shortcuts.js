/** The keyboard shortcuts, after InvokeAI's, and the dialog that lists them. */

import { byId, element, isTextField } from "./dom.js";

const IS_MAC = /Mac|iPhone|iPad/.test(navigator.platform);

/**
 * @typedef {{keys: string, text: string, act: (event: KeyboardEvent) => void, isForText?: boolean, when?: () => boolean}} Shortcut
 * `keys`: as in "Ctrl+Enter" or "Alt+ArrowUp"; several are separated by spaces. `isForText`: also while the user types.
 */

/** @param {Shortcut[]} shortcuts */
export function listen(shortcuts) {
  byId("shortcut-list").replaceChildren(...shortcuts.map(({ keys, text }) => element("div", {},
    element("dt", {}, ...keys.split(" ").flatMap((one, i) => [i ? " " : "", element("kbd", {}, written(one))])), element("dd", {}, text))));
  for (const node of document.querySelectorAll(".modifier")) node.textContent = IS_MAC ? "⌘" : "Ctrl";
  addEventListener("keydown", (event) => {
    const pressed = nameOf(event);
    const found = shortcuts.find(({ keys, isForText, when }) => keys.split(" ").includes(pressed) && (isForText || !isTextField(event.target)) && (when?.() ?? true));
    if (!found || event.isComposing) return;
    event.preventDefault();
    found.act(event);
  });
}

/** Show the list. */
export function showShortcuts() {
  if (!document.querySelector("dialog[open]")) byId("shortcuts").showModal();
}

/** The name of a pressed combination, such as "Ctrl+Enter"; the Command key of a Mac counts as Ctrl. */
function nameOf(event) {
  const isLetter = /^[a-z]$/i.test(event.key);
  // Shift belongs to the character of "?" and the like.
  const isShifted = event.shiftKey && (isLetter || event.key.length > 1);
  return [event.ctrlKey || event.metaKey ? "Ctrl" : "", event.altKey ? "Alt" : "", isShifted ? "Shift" : "", isLetter ? event.key.toUpperCase() : event.key]
    .filter(Boolean).join("+");
}

/** A combination for readers. */
function written(keys) {
  const names = { ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→", Delete: "Del", Escape: "Esc", Space: "Space", ...(IS_MAC ? { Ctrl: "⌘", Alt: "⌥" } : {}) };
  return keys.split("+").map((key) => names[key] ?? key).join(" ");
}
