// Generate an image and save it, then submit a job and follow its server-sent events. Node 18 or newer, no packages.

import { writeFile } from "node:fs/promises";

const url = process.env.ALLAPRIMA_URL ?? "http://127.0.0.1:8000";
const headers = {
  Authorization: `Bearer ${process.env.ALLAPRIMA_KEY}`,
  "Content-Type": "application/json",
};
const body = { model: "flux/schnell", prompt: "a red apple, blue background", image_size: "512x512" };

async function call(path, options) {
  const response = await fetch(`${url}${path}`, { ...options, headers });
  if (!response.ok) {
    const { message } = await response.json();
    throw new Error(`${response.status}: ${message}`);
  }
  return response;
}

async function post(path, json) {
  const response = await call(path, { method: "POST", body: JSON.stringify(json) });
  return response.json();
}

// The links of images need no key.
async function save(image, path) {
  const response = await fetch(image.url);
  await writeFile(path, new Uint8Array(await response.arrayBuffer()));
  console.log(`saved ${path}, ${image.width}x${image.height}, seed ${image.seed}`);
}

// Yield the events of a job. The last one is `succeeded`, `failed` or `cancelled`, and its data is the job.
async function* events(id) {
  const response = await call(`/v1/jobs/${id}/events`);
  let unread = "";
  for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
    const blocks = (unread + text).split("\n\n");
    unread = blocks.pop();
    for (const block of blocks) {
      const event = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/)));
      // Comments, which keep the connection open, have no data.
      if (event.data) yield { type: event.event, data: JSON.parse(event.data) };
    }
  }
}

const answer = await post("/v1/images/generations", body);
await save(answer.images[0], "generated.png");

const job = await post("/v1/jobs", { ...body, seed: 7 });
for await (const { type, data } of events(job.id)) {
  console.log(type === "step" ? `step ${data.step} of ${data.steps}` : type);
  if (type === "succeeded") await save(data.result.images[0], "job.png");
}
