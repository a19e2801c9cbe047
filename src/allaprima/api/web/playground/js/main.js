/** The playground: holds the session and the views, and opens the view of the current URL. */

import { byId, element, notice, announce } from "./dom.js";
import { showCode } from "./code.js";
import { Explore } from "./explore.js";
import { Gallery } from "./gallery.js";
import { Generate } from "./generate.js";
import { Keys } from "./keys.js";
import { Library } from "./library.js";
import { ApiError, problemOf } from "./messages.js";
import { readSettings } from "./metadata.js";
import { SAMPLES } from "./samples.js";
import { Selection } from "./selection.js";
import { Session } from "./session.js";
import { Settings } from "./settings.js";
import { listen, showShortcuts } from "./shortcuts.js";
import { keep, load } from "./storage.js";
import { showUsage } from "./usage.js";
import { Viewer } from "./viewer.js";

const THEMES = ["", "light", "dark"];
const THEME = "theme";

/** @type {Generate | null} */
let generate = null;
const session = new Session();
const settings = new Settings(() => generate?.scheduleEstimate());

/** @type {import("./image.js").Context} */
const context = {
  api: () => session.api,
  prefix: () => session.about.prefix,
  use: (taken) => {
    const warning = settings.load(taken);
    byId("viewer").close();
    if (location.hash !== "#generate") location.hash = "#generate";
    notice(warning);
    byId("generate-form").scrollIntoView({ block: "nearest" });
    flash(byId("generate-form"));
    announce("The settings were restored.");
  },
  vary: (shown) => {
    byId("viewer").close();
    if (location.hash !== "#generate") location.hash = "#generate";
    generate.vary(shown);
  },
  view: (images, index) => viewer.open(images, index),
  remove: (shown) => (viewer.image === shown ? viewer.remove() : library.remove([shown])),
  report: (error, retry) => {
    if (!error) return notice("");
    const { text, remedy } = problemOf(error);
    return notice(text, context.remedy(remedy, retry));
  },
  remedy: (name, retry) => {
    const button = (text, onclick) => element("button", { type: "button", onclick }, text);
    if (name === "sign-in") return button("Sign in", signOut);
    if (name === "edit") return button("Edit the prompt", () => { location.hash = "#generate"; byId("prompt").focus(); });
    return name === "retry" && retry ? button("Try again", () => { notice(""); retry(); }) : null;
  },
};
const library = context.library = new Library(context);
const selection = context.selection = new Selection(context);
const viewer = new Viewer(context);
generate = new Generate(context, settings);
const gallery = new Gallery(context);
const explore = new Explore(context, settings);
const keys = new Keys(context, session, settings);

/** The action that opens each view. */
const VIEWS = {
  generate: () => byId("prompt").focus({ preventScroll: true }),
  gallery: () => gallery.open(),
  explore: () => explore.open(),
  code: () => showCode(settings),
  usage: () => showUsage(context, session, settings),
  keys: () => keys.open(),
};
/** The views of an ordinary key and of a management key. */
const ORDINARY_VIEWS = ["generate", "gallery", "explore", "code", "usage"], MANAGEMENT_VIEWS = ["usage", "keys"];

const views = () => (session.isManaging ? MANAGEMENT_VIEWS : ORDINARY_VIEWS);
const isOpen = (view) => session.api !== null && !byId(view).hidden;

function open() {
  const isSignedIn = session.api !== null;
  const asked = location.hash.slice(1);
  const shown = isSignedIn ? (views().includes(asked) ? asked : views().at(session.isManaging ? -1 : 0)) : "sign-in";
  notice("");
  selection.clear();
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== shown;
  for (const link of document.querySelectorAll("#views a[href^='#']")) {
    const name = link.hash.slice(1);
    link.hidden = !isSignedIn || !views().includes(name);
    if (name === shown) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${shown === "sign-in" ? "Sign in" : document.querySelector(`#views a[href="#${shown}"]`).textContent} · allaprima`;
  if (isSignedIn) VIEWS[shown]();
  else byId("key").focus();
}

/** Sign in. key: null on a server that requires none. */
async function signIn(key, isRemembered) {
  const button = byId("sign-in-form").querySelector("button");
  button.disabled = true;
  try {
    await (key === null ? session.signInWithoutKey() : session.signIn(key, isRemembered));
    settings.setModels((await session.api.get("/v1/models")).data);
  } catch (error) {
    session.api = null;
    open();
    // The form is on the screen, so that an invalid key needs no button.
    if (error instanceof ApiError && error.status === 401) notice(problemOf(error).text);
    else context.report(error, () => signIn(key, isRemembered));
    return;
  } finally {
    button.disabled = false;
  }
  byId("user").textContent = session.isManaging ? "management key" : session.about.name ?? session.about.prefix;
  byId("user").hidden = byId("help").hidden = false;
  byId("sign-out").hidden = session.isKeyless;
  byId("key").value = "";
  open();
  if (!session.isManaging) await generate.begin();
}

/** Forget the key, and reload the page, because everything on it belongs to that key. */
function signOut() {
  session.end();
  location.reload();
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  keep(THEME, theme);
  byId("theme").textContent = { "": "◐", light: "☀", dark: "☾" }[theme];
  byId("theme").setAttribute("aria-label", `Theme: ${theme || "system"}`);
}

/** Draw attention to an element that has changed. */
function flash(node) {
  node.classList.remove("flash");
  requestAnimationFrame(() => node.classList.add("flash"));
}

/** Restore the settings of a PNG file by allaprima that the user drops on the page. */
function watchDrops() {
  const isFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  addEventListener("dragover", (event) => {
    if (!isFile(event)) return;
    event.preventDefault();
    byId("drop").hidden = false;
  });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) byId("drop").hidden = true; });
  addEventListener("drop", async (event) => {
    if (!isFile(event)) return;
    event.preventDefault();
    byId("drop").hidden = true;
    if (session.api === null || session.isManaging) return notice("Sign in with a key that can generate images first.");
    // Reading a folder fails.
    const data = await event.dataTransfer.files[0]?.arrayBuffer().catch(() => null);
    const found = data ? readSettings(data) : null;
    if (!found) return notice("This file contains no settings; only unmodified PNG files generated by allaprima do.");
    return context.use(found);
  });
}

/** The image that a shortcut acts on: that of the viewer, of the gallery's focus, or of the stage. */
function currentImage() {
  if (byId("viewer").open) return viewer.image;
  return isOpen("gallery") ? gallery.image : isOpen("generate") ? generate.image : null;
}

/** The images that a shortcut acts on. */
function currentImages() {
  if (!byId("viewer").open && selection.images.length) return selection.images;
  const image = currentImage();
  return image ? [image] : [];
}

function removeCurrent() {
  if (byId("viewer").open) return viewer.remove();
  return selection.images.length ? selection.remove() : library.remove(currentImages());
}

/** Step through images: in the viewer, in the gallery, or in the history. */
function step({ key }) {
  const by = key === "ArrowLeft" || key === "ArrowUp" ? -1 : 1;
  if (viewer.image) return viewer.step(by);
  if (isOpen("gallery")) return gallery.move(key);
  return generate.step(by);
}

function watchKeys() {
  const hasDialog = () => document.querySelector("dialog[open]") !== null;
  const isGenerating = () => isOpen("generate") && !hasDialog();
  const hasImage = () => currentImage() !== null;
  const useOf = (pick) => () => context.use(pick(currentImage().settings));
  listen([
    { keys: "Ctrl+Enter", text: "Generate", isForText: true, when: isGenerating, act: () => byId("generate-form").requestSubmit() },
    { keys: "Shift+X", text: "Cancel the request", when: isGenerating, act: () => generate.cancel() },
    { keys: "/", text: "Go to the prompt, or to the gallery's search", when: () => (isOpen("generate") || isOpen("gallery")) && !hasDialog(), act: () => byId(isOpen("gallery") ? "search" : "prompt").focus() },
    { keys: "Alt+ArrowUp", text: "Earlier prompt", isForText: true, when: isGenerating, act: () => generate.recall(1) },
    { keys: "Alt+ArrowDown", text: "Later prompt", isForText: true, when: isGenerating, act: () => generate.recall(-1) },
    { keys: "ArrowLeft ArrowRight", text: "Previous and next image", when: () => viewer.image !== null || ((isOpen("gallery") || isOpen("generate")) && !hasDialog() && !isRadio()), act: step },
    { keys: "ArrowUp ArrowDown", text: "Rows of the gallery", when: () => isOpen("gallery") && !hasDialog() && gallery.image !== null, act: step },
    { keys: "Delete Backspace", text: "Delete the image, or the selection", when: () => currentImages().length > 0, act: removeCurrent },
    { keys: "Ctrl+Z", text: "Undo a deletion", act: () => library.undo() },
    { keys: ".", text: "Keep the image, or release it", when: () => currentImages().length > 0, act: () => library.star(currentImages()) },
    { keys: "A", text: "Use all settings of the image", when: hasImage, act: useOf((all) => all) },
    { keys: "P", text: "Use its prompt", when: hasImage, act: useOf(({ prompt }) => ({ prompt })) },
    { keys: "S", text: "Use its seed", when: hasImage, act: useOf(({ seed }) => ({ seed })) },
    { keys: "R", text: "Use all but its seed", when: hasImage, act: useOf(({ seed: _, ...others }) => others) },
    { keys: "V", text: "Generate with a new seed", when: hasImage, act: () => context.vary(currentImage()) },
    { keys: "X", text: "Select the image", when: () => isOpen("gallery") && gallery.image !== null && !hasDialog(), act: () => selection.toggle(gallery.image) },
    { keys: "Ctrl+A", text: "Select all images", when: () => isOpen("gallery") && !hasDialog(), act: () => gallery.selectAll() },
    { keys: "Escape", text: "Clear the selection", when: () => selection.images.length > 0 && !hasDialog(), act: () => selection.clear() },
    ...ORDINARY_VIEWS.map((name, i) => ({ keys: String(i + 1), text: byId(name).querySelector("h2").textContent, when: () => session.api !== null && !session.isManaging && !hasDialog(), act: () => { location.hash = `#${name}`; } })),
    { keys: "?", text: "This list", when: () => session.api !== null, act: showShortcuts },
  ]);
}

const isRadio = () => document.activeElement?.matches("input[type='radio'], input[type='range']") ?? false;

byId("sign-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  signIn(byId("key").value, byId("remember").checked);
});
byId("sign-out").addEventListener("click", signOut);
byId("help").addEventListener("click", showShortcuts);
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); byId("main").focus(); });
byId("theme").addEventListener("click", () => setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? "") + 1) % THEMES.length]));
byId("samples").append(...SAMPLES.map(({ prompt, source }) => element("img", { src: source, alt: prompt, title: prompt, width: 256, height: 256 })));
// A link that signs in may be opened in this tab.
addEventListener("hashchange", () => (/^#(key|token)=/.test(location.hash) ? location.reload() : open()));
setTheme(load(THEME, ""));
watchDrops();
watchKeys();

/** Sign in with what the address or this browser has, with the key of another tab, or without a key if the server requires none; else ask for a key. */
async function start() {
  const given = Session.fromAddress(), token = Session.tokenFromAddress(), remembered = Session.remembered();
  try {
    if (given) return await signIn(given, false);
    if (token) {
      const key = await Session.keyFor(token);
      return await signIn(key, key === remembered && Session.isRemembered());
    }
    if (remembered) return await signIn(remembered, Session.isRemembered());
    open();
    if (!await Session.isKeyRequired()) return await signIn(null, false);
    const key = await Session.fromOtherTab();
    return key && session.api === null ? await signIn(key, false) : undefined;
  } catch (error) {
    open();
    return notice(problemOf(error).text);
  }
}

start();
