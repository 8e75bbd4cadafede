// The model and its explanation: three ONNX graphs (see export.py) and the code that joins them.
// Nothing here knows a page. A map is linear in its direction: a caption's embedding, or the
// direction in which a word pushes the embedding.

import * as ort from "./ort.wasm.bundle.min.mjs";
import { mix, spread, within } from "./pixels.js";

const here = (name) => new URL(name, import.meta.url).href;
// Several threads would need a page that is isolated from others, which plain servers cannot give.
ort.env.wasm.numThreads = 1;
// The loader of this file is in the bundle.
ort.env.wasm.wasmPaths = { wasm: here("ort-wasm-simd-threaded.wasm") };
ort.env.logLevel = "error";

// Optimising a graph takes a second each and makes no run shorter.
const OPTIONS = { executionProviders: ["wasm"], graphOptimizationLevel: "disabled" };
const GRAPHS = ["scene", "map", "caption"];
const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
const sum = (rows) => rows[0].map((_, i) => rows.reduce((total, row) => total + row[i], 0));

const fetched = async (name) => {
  const answer = await fetch(here(name));
  if (!answer.ok) throw new Error(`${name} is missing (${answer.status}): build the folder again`);
  return answer;
};

// How many letters must be added, dropped or changed to make one word of another.
const edits = (first, second) => {
  let row = Array.from({ length: second.length + 1 }, (_, i) => i);
  for (const [i, letter] of [...first].entries()) {
    const next = [i + 1];
    for (const [j, other] of [...second].entries()) {
      const changed = row[j] + (letter === other ? 0 : 1);
      next.push(Math.min(changed, row[j + 1] + 1, next[j] + 1));
    }
    row = next;
  }
  return row.at(-1);
};

export class Refusal extends Error {} // what is wrong with a caption, in one sentence

export class Model {
  // `loaded(n)` is told how many of the graphs are there.
  static async load(loaded) {
    const model = new Model();
    const names = ["about.json", "nulls.bin", ...GRAPHS.map((name) => `${name}.onnx`)];
    const [about, nulls, ...graphs] = await Promise.all(names.map(fetched));
    model.about = await about.json();
    for (const [i, name] of GRAPHS.entries()) {
      const bytes = new Uint8Array(await graphs[i].arrayBuffer());
      model[name] = await ort.InferenceSession.create(bytes, OPTIONS);
      loaded(i + 1);
    }
    model.encoded = new Map();
    model.nulls = new Float32Array(await nulls.arrayBuffer());
    model.meanOfOthers = sum(model.embeddingsOfOthers()).map((value) => value / model.about.nulls);
    return model;
  }

  // The trace of an image, RGBA of the model's size: { image_embedding, and what maps need }.
  async look(rgba) {
    const side = this.about.side;
    return this.scene.run({ rgba: new ort.Tensor("uint8", new Uint8Array(rgba), [side, side, 4]) });
  }

  // A caption as the model reads it: { words, unknown, embedding, directions, shorter }, or a
  // Refusal. `words` are those that it knows, and `shorter` are the embeddings without each of them.
  async read(caption) {
    // as CLIP's tokenizer cuts it: runs of letters or of punctuation, single digits
    const typed = caption.match(/\p{L}+|\p{N}|[^\s\p{L}\p{N}]+/gu);
    if (!typed)
      throw new Refusal("The caption is empty. Type what to look for, for example: a dog");
    const isKnown = (word) => Object.hasOwn(this.about.tokens, word.toLowerCase());
    const words = typed.filter(isKnown);
    const unknown = [...new Set(typed.filter((word) => !isKnown(word)))];
    if (!words.length) {
      const quoted = unknown.slice(0, 8).map((word) => `“${word}”`);
      const list = quoted.join(", ") + (unknown.length > 8 ? ", …" : ".");
      const message = `The model knows ${this.about.words} words and was never shown ${list}`;
      throw new Refusal(message, { cause: unknown });
    }
    const shorter = [];
    for (const [i] of words.entries()) {
      const { embedding } = await this.encode(words.toSpliced(i, 1));
      shorter.push(embedding);
    }
    return { words, unknown, shorter, ...(await this.encode(words)) };
  }

  // Words as { embedding, directions }. What was encoded once is kept.
  async encode(words) {
    const lowered = words.map((word) => word.toLowerCase());
    const key = lowered.join(" ");
    if (!this.encoded.has(key)) this.encoded.set(key, await this.run(lowered));
    return this.encoded.get(key);
  }

  async run(words) {
    const { tokens, context } = this.about;
    const ids = [...tokens["<start>"]];
    const places = words.map((word) => tokens[word].map((id) => ids.push(id) - 1));
    if (ids.push(...tokens["<end>"]) > context) {
      const rule = `the model reads ${context - 2} tokens, and these are ${ids.length - 2}`;
      throw new Refusal(`The caption is too long: ${rule}.`);
    }
    const padded = BigInt64Array.from({ length: context }, (_, i) => BigInt(ids[i] ?? 0));
    const encoded = await this.caption.run({ ids: new ort.Tensor("int64", padded, [context]) });
    const width = encoded.text_embedding.size;
    const row = (i) => encoded.directions.data.subarray(i * width, (i + 1) * width);
    const directions = places.map((tokensOfWord) => sum(tokensOfWord.map(row)));
    return { embedding: encoded.text_embedding.data, directions };
  }

  // The direction of a word; of a noun beside others, less what all nouns share.
  directionOf({ words, directions }, word) {
    const isNoun = (text) => this.about.nouns.includes(text.toLowerCase());
    const nouns = directions.filter((_, i) => isNoun(words[i]));
    if (nouns.length < 2 || !isNoun(words[word])) return directions[word];
    const total = sum(nouns);
    return directions[word].map((value, i) => value - total[i] / nouns.length);
  }

  // Known words that differ from another by one edit in four letters.
  near(word) {
    const typed = word.toLowerCase();
    const isNear = (known) => edits(typed, known) <= Math.floor(typed.length / 4);
    return Object.keys(this.about.tokens).filter(isNear).slice(0, 3);
  }

  similarity = (scene, reading) => dot(scene.image_embedding.data, reading.embedding);
  // What the similarity loses without each word.
  scores = (scene, reading) =>
    reading.shorter.map(
      (embedding) => this.similarity(scene, reading) - dot(scene.image_embedding.data, embedding),
    );

  embeddingsOfOthers() {
    const width = this.nulls.length / this.about.nulls;
    const caption = (_, i) => this.nulls.subarray(i * width, (i + 1) * width);
    return Array.from({ length: this.about.nulls }, caption);
  }

  // The similarities of a scene with the other captions.
  others(scene) {
    const image = scene.image_embedding.data;
    return this.embeddingsOfOthers().map((caption) => dot(image, caption));
  }

  // The direction of a caption's lead over the mean of the other captions.
  leadOf({ embedding }) {
    return embedding.map((value, i) => value - this.meanOfOthers[i]);
  }

  // The signed map (h * w) of a scene for a direction.
  async mapOf(scene, direction) {
    const { image_embedding, ...inputs } = scene;
    const values = Float32Array.from(direction);
    inputs.direction = new ort.Tensor("float32", values, [values.length]);
    const { map } = await this.map.run(inputs);
    return map.data;
  }
}

// A map laid over its image (RGBA), which turns light grey, as `paint` of the package does it.
export const paint = (rgba, map, { colormap, signed, most }) => {
  const side = Math.sqrt(rgba.length / 4);
  const cells = Math.sqrt(map.length);
  const values = signed ? map : map.map((value) => Math.max(value, 0));
  const out = new Uint8ClampedArray(rgba.length).fill(255);
  spread(values, [cells, cells], [0, 0, 1, 1], side, side).forEach((heat, i) => {
    const [red, green, blue] = rgba.subarray(4 * i, 4 * i + 3);
    const luminance = Math.round(0.2126 * red + 0.7152 * green + 0.0722 * blue);
    const grey = 0.62 + (0.38 * luminance) / 255;
    const value = within(heat / (most || 1), -1, 1);
    const [r, g, b, alpha] = colormap[Math.round((value + 1) * 256)];
    const mixed = [r, g, b].map((part) => Math.round(255 * mix(grey, part, alpha)));
    out.set(mixed, 4 * i);
  });
  return out;
};
