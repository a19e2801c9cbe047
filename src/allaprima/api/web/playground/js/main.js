/** The playground: the session, the view that is shown, and the context that the views share. */

import { byId, notice, say } from "./dom.js";
import { showCode } from "./code.js";
import { Explore } from "./explore.js";
import { Gallery } from "./gallery.js";
import { Keys } from "./keys.js";
import { readSettings } from "./metadata.js";
import { Generate } from "./generate.js";
import { Session } from "./session.js";
import { Settings } from "./settings.js";
import { showUsage } from "./usage.js";
import { Choice, view } from "./viewer.js";
import { messageOf } from "./messages.js";

const THEMES = ["", "light", "dark"];
const THEME = "allaprima.theme";

/** @type {Generate | null} */
let generate = null;
const session = new Session();
const settings = new Settings(() => generate?.scheduleQuote());
const context = {
  api: () => session.api,
  prefix: () => session.about.prefix,
  use: (taken) => {
    const missed = settings.load(taken);
    byId("viewer").close();
    if (location.hash !== "#generate") location.hash = "#generate";
    notice(missed);
    say("The settings were taken over.");
  },
  view,
  choice: new Choice(),
};
generate = new Generate(context, settings);
const gallery = new Gallery(context);
const explore = new Explore(context, settings);
const keys = new Keys(session);

/** What each view does when it is opened; a management key sees the second list alone. */
const VIEWS = {
  generate: () => byId("prompt").focus({ preventScroll: true }),
  gallery: () => gallery.open(),
  explore: () => explore.open(),
  code: () => showCode(settings),
  usage: () => showUsage(session),
  keys: () => keys.open(),
};
const OF_A_KEY = ["generate", "gallery", "explore", "code", "usage"], OF_A_MANAGER = ["usage", "keys"];

function open() {
  const isSignedIn = session.api !== null;
  const views = session.isManaging ? OF_A_MANAGER : OF_A_KEY;
  const asked = location.hash.slice(1);
  const shown = isSignedIn ? (views.includes(asked) ? asked : views.at(session.isManaging ? -1 : 0)) : "sign-in";
  notice("");
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== shown;
  for (const link of document.querySelectorAll("#views a[href^='#']")) {
    const name = link.hash.slice(1);
    link.hidden = !isSignedIn || !views.includes(name);
    if (name === shown) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${shown === "sign-in" ? "Sign in" : document.querySelector(`#views a[href="#${shown}"]`).textContent} · allaprima`;
  if (isSignedIn) VIEWS[shown]();
  else byId("key").focus();
}

async function signIn(key, isRemembered) {
  const button = byId("sign-in-form").querySelector("button");
  button.disabled = true;
  try {
    await session.signIn(key, isRemembered);
    settings.setModels((await session.api.get("/v1/models")).data);
  } catch (error) {
    session.api = null;
    open();
    notice(messageOf(error));
    return;
  } finally {
    button.disabled = false;
  }
  byId("user").textContent = session.isManaging ? "management key" : session.about.name ?? session.about.prefix;
  byId("user").hidden = byId("sign-out").hidden = false;
  byId("key").value = "";
  open();
  if (!session.isManaging) await generate.begin();
}

/** Reload the page as well: all that it shows and follows belongs to the old key. */
function signOut() {
  Session.forget();
  location.reload();
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  if (theme) localStorage.setItem(THEME, theme);
  else localStorage.removeItem(THEME);
  byId("theme").textContent = { "": "◐", light: "☀", dark: "☾" }[theme];
  byId("theme").setAttribute("aria-label", `Theme: ${theme || "as the system"}`);
}

/** A PNG by allaprima that is dropped anywhere gives its settings back. */
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
    if (session.api === null || session.isManaging) return notice("Sign in first, with a key that can generate images.");
    // A folder can't be read.
    const data = await event.dataTransfer.files[0]?.arrayBuffer().catch(() => null);
    const found = data ? readSettings(data) : null;
    if (!found) return notice("This file holds no settings: only unchanged PNG files by allaprima do.");
    return context.use(found);
  });
}

byId("sign-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  signIn(byId("key").value, byId("remember").checked);
});
byId("sign-out").addEventListener("click", signOut);
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); byId("main").focus(); });
byId("theme").addEventListener("click", () => setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? "") + 1) % THEMES.length]));
addEventListener("hashchange", open);
setTheme(localStorage.getItem(THEME) ?? "");
watchDrops();

const remembered = Session.remembered();
if (remembered) signIn(remembered, true);
else open();
