/** Images that the built-in model generated, next to the key field and as examples. `tools/samples.py` writes the files. */

const SAMPLE_PROMPTS = {
  beach: "a t-rex on a beach wearing sunglasses",
  apple: "a red apple, blue background",
  rocket: "a rocket at night",
  fox: "a fox in the forest",
  boat: "a sailboat on the sea at sunset",
  robot: "a robot in space",
};

export const SAMPLES = Object.entries(SAMPLE_PROMPTS).map(([name, prompt]) => ({ prompt, source: `playground/samples/${name}.webp` }));
