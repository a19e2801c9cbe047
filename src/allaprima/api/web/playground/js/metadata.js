/** Reads the settings that allaprima writes into PNG files. Source: PNG specification, sections 5 and 11.3.3; `engine/image.py`. */

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const KEYWORD = "allaprima";

/**
 * @param {ArrayBuffer} buffer A file.
 * @returns {null | {prompt: string, seed: number | string, steps: number, width: number, height: number, model: string}} The settings; null if the file has none.
 */
export function readSettings(buffer) {
  const bytes = new Uint8Array(buffer);
  if (SIGNATURE.some((byte, i) => bytes[i] !== byte)) return null;
  const view = new DataView(buffer);
  for (let at = 8; at + 12 <= bytes.length;) {
    const length = view.getUint32(at);
    const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const text = textOf(type, bytes.subarray(at + 8, at + 8 + length));
    if (text !== null) return settingsIn(text);
    at += 12 + length;
  }
  return null;
}

/** The text of a chunk with the keyword `allaprima`, else null. */
function textOf(type, data) {
  const end = data.indexOf(0);
  if (end < 0 || new TextDecoder("latin1").decode(data.subarray(0, end)) !== KEYWORD) return null;
  if (type === "tEXt") return new TextDecoder("latin1").decode(data.subarray(end + 1));
  // iTXt: compression flag and method, then language and translated keyword, each with a terminating zero.
  if (type !== "iTXt" || data[end + 1] !== 0) return null;
  const language = data.indexOf(0, end + 3);
  const translated = data.indexOf(0, language + 1);
  return new TextDecoder().decode(data.subarray(translated + 1));
}

function settingsIn(text) {
  try {
    const found = JSON.parse(text.replace(/"seed":(\d{16,})/, '"seed":"$1"'));
    const isWhole = typeof found.prompt === "string" && /^\d+$/.test(String(found.seed)) && typeof found.model === "string"
      && [found.steps, found.width, found.height].every(Number.isInteger);
    return isWhole ? found : null;
  } catch {
    return null;
  }
}
