// Node's HTTP client sends a body of zeros and prints the status of the answer. Arguments: URL, key, bytes.
import { request } from "node:http";

const [url, key, size] = process.argv.slice(2);
const headers = { "content-type": "application/json", "content-length": size, authorization: `Bearer ${key}` };
const sent = request(`${url}/v1/images/generations`, { method: "POST", headers }, (answer) => {
  answer.resume();
  answer.on("end", () => console.log(answer.statusCode));
});
sent.end(Buffer.alloc(Number(size)));
