/** The tab Code: shows the settings of the tab Generate as four programs that read the key from the environment. */

import { local, writeJson } from "./api.js";
import { byId, confirmOn, copyText, element } from "./dom.js";

const PATH = "/v1/images/generations";

/** @param {import("./settings.js").Settings} settings */
export function showCode(settings) {
  const body = settings.body();
  if (!body.prompt.trim()) body.prompt = "a red apple, blue background";
  byId("snippets").replaceChildren(...Object.entries(snippets(local("").replace(/\/$/, ""), body)).map(([name, text]) => {
    const copy = element("button", { type: "button", onclick: async () => confirmOn(copy, (await copyText(text)) ? "Copied" : "Not allowed") }, "Copy");
    copy.setAttribute("aria-label", `Copy the code for ${name}`);
    return element("article", { class: "snippet card" },
      element("header", {}, element("h3", {}, name), copy),
      element("pre", { tabindex: "0", role: "region", "aria-label": `Code for ${name}` }, element("code", {}, text)));
  }));
}

/** @returns {Record<string, string>} The programs by name. */
function snippets(origin, body) {
  return {
    "curl": curl(origin, body),
    "Python, requests": pythonRequests(origin, body),
    "Python, OpenAI's SDK": openai(origin, body),
    "JavaScript": javascript(origin, body),
  };
}

/** Quote a text for a POSIX shell. */
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

function curl(origin, body) {
  return [
    `curl -sS ${origin}${PATH} \\`,
    '  -H "Authorization: Bearer $ALLAPRIMA_KEY" \\',
    '  -H "Content-Type: application/json" \\',
    `  -d ${quoted(writeJson(body, 2))}`,
    "",
  ].join("\n");
}

/** Write a value as a Python literal: as JSON, except for its three constants and seeds of many digits. */
function python(value, depth = 1) {
  const pad = "    ".repeat(depth);
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null) return "None";
  if (typeof value !== "object") return JSON.stringify(value);
  const members = Object.entries(value).map(([name, member]) => `${pad}${JSON.stringify(name)}: ${name === "seed" ? member : python(member, depth + 1)},`);
  return `{\n${members.join("\n")}\n${"    ".repeat(depth - 1)}}`;
}

function pythonRequests(origin, body) {
  return [
    "import os",
    "",
    "import requests",
    "",
    "response = requests.post(",
    `    ${JSON.stringify(origin + PATH)},`,
    '    headers={"Authorization": f"Bearer {os.environ[\'ALLAPRIMA_KEY\']}"},',
    `    json=${python(body, 2)},`,
    ")",
    "response.raise_for_status()",
    'for image in response.json()["images"]:',
    '    print(image["url"])',
    "",
  ].join("\n");
}

function openai(origin, body) {
  const { model, prompt, image_size: size, num_images: count, ...others } = body;
  return [
    "import os",
    "",
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${JSON.stringify(`${origin}/v1`)}, api_key=os.environ["ALLAPRIMA_KEY"])`,
    "response = client.images.generate(",
    `    model=${JSON.stringify(model)},`,
    `    prompt=${JSON.stringify(prompt)},`,
    `    size="${size.width}x${size.height}",`,
    ...(count ? [`    n=${count},`] : []),
    `    extra_body=${python(others, 2)},`,
    ")",
    "for image in response.data:",
    "    print(image.url)",
    "",
  ].join("\n");
}

function javascript(origin, body) {
  // A body with a seed that JavaScript's numbers can't represent is written as a string.
  const sent = typeof body.seed === "string" ? JSON.stringify(writeJson(body)) : `JSON.stringify(${writeJson(body, 2).replaceAll("\n", "\n  ")})`;
  return [
    `fetch(${JSON.stringify(origin + PATH)}, {`,
    '  method: "POST",',
    "  headers: {",
    "    Authorization: `Bearer ${process.env.ALLAPRIMA_KEY}`,",
    '    "Content-Type": "application/json",',
    "  },",
    `  body: ${sent},`,
    "})",
    "  .then(async (response) => {",
    "    if (!response.ok) throw new Error(await response.text());",
    "    return response.json();",
    "  })",
    "  .then(({ images }) => images.forEach((image) => console.log(image.url)));",
    "",
  ].join("\n");
}
