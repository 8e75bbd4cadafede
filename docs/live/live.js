// The page: what is chosen is in `state`, what was found in `shown`; every change goes through `redraw`. User text is
// only ever set as text. What model.js computes is kept, so that nothing is computed twice for a scene and a caption.

import { Model, Refusal, centred, located, paint } from "./model.js";

const byId = Object.fromEntries([...document.querySelectorAll("[id]")].map((node) => [node.id, node]));
const state = { scene: 0, caption: "", word: null, patch: null, apart: false };
export const shown = { redraws: 0 }; // what is on the page now, for those who want more digits (and for tests)
let model, scenes;

const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

// ------------------------------------------------------------------------------------------------ numbers and colours

const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

// Enough digits for the scale at hand, and no minus in front of nothing.
const number = (value, most) => {
  if (!most) return "0";
  const digits = Math.max(0, Math.min(6, 2 - Math.floor(Math.log10(most))));
  const text = value.toFixed(digits);
  return Number(text) === 0 ? "0" : text.replace("-", "−");
};

const percent = (fraction) => `${Math.round(100 * fraction)} %`;
const css = (colour) => `rgb(${colour.map((part) => Math.round(255 * part)).join(" ")})`;
const colourOf = (value, signed, most) => {
  const level = signed ? (value / (most || 1) + 1) / 2 : Math.max(value, 0) / (most || 1);
  return model.about.colours[signed ? "signed" : "unsigned"][Math.round(255 * Math.min(Math.max(level, 0), 1))];
};

// Black or white, whichever has more contrast with a colour (WCAG's relative luminance).
const letters = (colour) => {
  const [r, g, b] = colour.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
};

const rangeInWords = (signed, most) => {
  if (!most) return signed ? "relevance: zero everywhere" : "relevance: nowhere above zero";
  const top = number(most, most);
  const ends = signed ? `purple −${top} (against) to orange +${top} (for)` : `pale 0 to dark ${top}`;
  return `relevance: ${ends}, the largest in this map`;
};

// ------------------------------------------------------------------------------------------------------------ finding

const pixelsOf = async (name) => {
  const blob = await (await fetch(new URL(name, import.meta.url))).blob();
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height).data;
};

const find = async (scene) => {
  const [seen, image, masks] = await Promise.all(["seen", "image", "masks"].map((kind) => pixelsOf(scene[kind])));
  return { image, masks: masks.filter((_, i) => i % 4 === 0), trace: await model.look(seen), maps: new Map() };
};

// A scene with what the model makes of it. Of masks, a pixel's red is the number of the thing, 0 where there is none.
// Only the last few are kept: each takes 8 MB.
const kept = new Map();
const opened = (index) => {
  const found = kept.get(index) ?? find(scenes[index]);
  kept.delete(index);
  kept.set(index, found);
  if (kept.size > 4) kept.delete(kept.keys().next().value);
  return found;
};

const readings = new Map();
const read = (caption) => {
  if (!readings.has(caption)) readings.set(caption, model.read(caption));
  return readings.get(caption);
};

// The words that name a thing of the world, each with its noun, and which of the scene's things it is about.
const nounsOf = (words) => words.map((word) => model.about.nouns[word.toLowerCase()]);
const thingsOf = (noun, scene) => scene.things.flatMap((thing, i) => (noun && thing === noun ? [i] : []));

const mapOf = (found, reading, word, apart) => {
  const key = JSON.stringify([reading.words, word, apart]);
  if (!found.maps.has(key)) found.maps.set(key, model.mapOf(found.trace, directionOf(reading, word, apart)));
  return found.maps.get(key);
};
const directionOf = (reading, word, apart) => {
  if (word === null) return reading.embedding;
  return (apart ? centred(reading.directions, namedIn(reading)) : reading.directions)[word];
};
const namedIn = (reading) => nounsOf(reading.words).flatMap((noun, i) => (noun ? [i] : []));

// ------------------------------------------------------------------------------------------------------------ drawing

const drawWords = (reading, values, signed, of) => {
  const most = largest(values);
  while (byId.words.children.length > reading.words.length) byId.words.lastChild.remove();
  while (byId.words.children.length < reading.words.length) {
    const index = byId.words.children.length;
    const button = make("button", { type: "button" }, make("span"), make("small"));
    button.onclick = () => redraw({ word: state.word === index ? null : index });
    byId.words.append(button);
  }
  reading.words.forEach((text, i) => {
    const button = byId.words.children[i];
    const colour = colourOf(values[i], signed, most);
    button.children[0].textContent = text;
    button.children[1].textContent = number(values[i], most);
    button.setAttribute("aria-label", `${text}: ${number(values[i], most)}, ${of}`);
    button.setAttribute("aria-pressed", state.word === i);
    button.style.background = css(colour);
    button.style.color = letters(colour);
  });
  byId["words-note"].textContent = `${of}; press a word for its own map`;
};

const drawMap = (scene, found, map, signed) => {
  const most = signed ? largest(map) : Math.max(0, ...map);
  const table = model.about.colours[signed ? "signed" : "unsigned"];
  const side = Math.sqrt(found.image.length / 4);
  const pixels = paint(found.image, map, { table, signed, vmax: most, opacity: Number(byId.opacity.value) });
  byId.map.width = byId.map.height = side;
  byId.map.getContext("2d").putImageData(new ImageData(pixels, side), 0, 0);
  const at = map.indexOf(Math.max(...map));
  const place = `largest value ${number(map[at], most)} in row ${Math.floor(at / grid()) + 1}, column ${(at % grid()) + 1}`;
  byId.map.setAttribute("aria-label", `${scene.about}, under the map of ${byId.subject.textContent}; ${place}`);
  byId.frame.setAttribute("aria-label", `Patches of the map of ${byId.subject.textContent}`);
  byId.bar.style.background = `linear-gradient(90deg, ${table.filter((_, i) => i % 15 === 0).map(css).join(", ")})`;
  const ticks = signed ? [-most, 0, most] : [0, most / 2, most];
  byId.ticks.replaceChildren(...ticks.map((value) => make("span", {}, most ? number(value, most) : "")));
  byId.range.textContent = rangeInWords(signed, most);
  const rows = Array.from({ length: grid() }, (_, row) => {
    const cells = [...map.subarray(row * grid(), (row + 1) * grid())].map((value) => make("td", {}, number(value, most)));
    return make("tr", {}, make("th", { scope: "row" }, `${row + 1}`), ...cells);
  });
  const head = Array.from({ length: grid() }, (_, i) => make("th", { scope: "col" }, `${i + 1}`));
  byId.numbers.tBodies[0]?.remove();
  byId.numbers.append(make("tbody", {}, make("tr", {}, make("td"), ...head), ...rows));
  Object.assign(shown, { most, cells: [...map].map((value) => number(value, most)) });
};

// What a map has on the things that its words name, beside the fraction of the image that they cover.
const verdict = (scene, found, map, reading) => {
  const nouns = state.word === null ? nounsOf(reading.words) : [nounsOf(reading.words)[state.word]];
  const own = [...new Set(nouns.flatMap((noun) => thingsOf(noun, scene)))];
  const subject = state.word === null ? "The caption" : `“${reading.words[state.word]}”`;
  if (!own.length) return nouns.some(Boolean) ? `What ${subject.replace("The", "the")} names is not in this scene.` : "";
  const on = located(map, found.masks, scene.things.length);
  const cover = scene.things.map((_, i) => found.masks.filter((thing) => thing === i + 1).length / found.masks.length);
  const total = (values, indices) => indices.reduce((sum, i) => sum + values[i], 0);
  const others = scene.things.map((_, i) => i).filter((i) => !own.includes(i));
  shown.onThings = total(on, own);
  const name = [...new Set(own.map((i) => scene.things[i]))].join(", ");
  const besides = others.length ? `${percent(total(on, others))} lies on other things, ` : "";
  const nothing = Math.max(0, 1 - total(on, scene.things.map((_, i) => i)));
  return (
    `${subject} puts ${percent(shown.onThings)} of its positive relevance on what it names (${name}), which covers ` +
    `${percent(total(cover, own))} of the image; ${besides}${percent(nothing)} where nothing is.`
  );
};

const put = (marker, patch) => {
  marker.hidden = patch === null;
  if (patch === null) return;
  marker.style.left = `${(100 * (patch % grid())) / grid()}%`;
  marker.style.top = `${(100 * Math.floor(patch / grid())) / grid()}%`;
};
const grid = () => model.about.grid;

let newest = 0;
// Take a change into the state and show it; the newest one wins. A caption that cannot be read changes nothing.
export const redraw = async (change = {}) => {
  const began = performance.now();
  if ("scene" in change || "caption" in change) change = { word: null, patch: null, ...change };
  const next = { ...state, ...change };
  let reading;
  try {
    reading = await read(next.caption);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    byId.refusal.textContent = error.message;
    return;
  }
  const mine = ++newest;
  const scene = scenes[next.scene];
  const found = await opened(next.scene);
  const apart = next.apart && namedIn(reading).length > 1;
  const map = await mapOf(found, reading, next.word, apart);
  const patches = next.patch === null ? null : await Promise.all(
    reading.words.map(async (_, i) => (await mapOf(found, reading, i, apart))[next.patch]),
  );
  if (mine !== newest) return;
  Object.assign(state, next);
  byId.refusal.textContent = "";
  const signed = state.word !== null;
  byId.subject.textContent = signed ? `“${reading.words[state.word]}” in “${state.caption}”` : `“${state.caption}”`;
  const similarity = model.similarity(found.trace, reading);
  byId.similarity.textContent = `similarity ${similarity.toFixed(3).replace("-", "−")}`;
  const scores = model.scores(found.trace, reading);
  const where = () => `row ${Math.floor(state.patch / grid()) + 1}, column ${(state.patch % grid()) + 1}`;
  drawWords(reading, patches ?? scores, patches !== null, patches ? `interaction with the patch in ${where()}` : "relevance of each word");
  byId["apart-row"].hidden = namedIn(reading).length < 2;
  delete shown.onThings;
  drawMap(scene, found, map, signed);
  byId.verdict.textContent = verdict(scene, found, map, reading);
  put(byId.chosen, state.patch);
  [...byId.scenes.children].forEach((button, i) => button.setAttribute("aria-pressed", i === state.scene));
  byId.caption.value = state.caption;
  const took = performance.now() - began;
  byId.took.textContent = `computed here in ${Math.round(took)} ms`;
  Object.assign(shown, { ...state, map, similarity, scores, patches, took, redraws: shown.redraws + 1 });
  history.replaceState(null, "", `#${new URLSearchParams({ scene: state.scene + 1, caption: state.caption })}`);
  prepare(mine, found, reading, apart);
};

// While nobody asks for anything, the maps of the words, one after the other.
const prepare = async (mine, found, reading, apart) => {
  for (const i of reading.words.keys()) {
    await new Promise((resolve) => setTimeout(resolve, 60));
    if (mine !== newest) return;
    await mapOf(found, reading, i, apart);
  }
};

// ------------------------------------------------------------------------------------------------------------ the page

const listenToPatches = () => {
  let at = null; // the patch under the pointer or the keyboard's cursor
  const look = (patch) => {
    at = patch;
    put(byId.cursor, patch);
    const text = () => `row ${Math.floor(patch / grid()) + 1}, column ${(patch % grid()) + 1}: ${shown.cells[patch]}`;
    byId.reading.textContent = patch === null ? "" : text();
  };
  const pick = (patch) => redraw({ patch: patch === state.patch ? null : patch });
  const under = (event) => {
    const box = byId.map.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    return x >= 0 && x < 1 && y >= 0 && y < 1 ? Math.floor(y * grid()) * grid() + Math.floor(x * grid()) : null;
  };
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const inside = (value) => Math.min(Math.max(value, 0), grid() - 1);
  byId.frame.onpointermove = (event) => look(under(event));
  byId.frame.onpointerleave = byId.frame.onblur = () => look(null);
  byId.frame.onclick = (event) => under(event) !== null && pick(under(event));
  byId.frame.onkeydown = (event) => {
    const from = at ?? state.patch ?? Math.floor(grid() / 2) * (grid() + 1);
    if (event.key in steps) {
      const [down, right] = steps[event.key];
      look(inside(Math.floor(from / grid()) + down) * grid() + inside((from % grid()) + right));
    } else if (event.key === "Enter" || event.key === " ") pick(from);
    else if (event.key === "Escape") redraw({ patch: null });
    else return;
    event.preventDefault();
  };
};

const start = async () => {
  const say = (text) => (byId.status.textContent = text);
  say("The model is loading …");
  [scenes, model] = await Promise.all([
    fetch(new URL("scenes.json", import.meta.url)).then((answer) => answer.json()),
    Model.load((count) => say(`The model is loading: ${count} of 3 graphs are there …`)),
  ]);
  byId.scenes.append(
    ...scenes.map((scene, i) => {
      const image = make("img", { src: scene.seen, alt: "", width: 60, height: 60 });
      const button = make("button", { type: "button", "aria-label": `scene ${i + 1}: ${scene.about}` }, image);
      button.onclick = () => redraw({ scene: i, caption: scene.caption });
      return button;
    }),
  );
  byId.ask.onsubmit = (event) => {
    event.preventDefault();
    redraw({ caption: byId.caption.value.trim().replace(/\s+/g, " ") });
  };
  byId.own.onclick = () => redraw({ caption: scenes[state.scene].caption });
  byId.apart.onchange = () => redraw({ apart: byId.apart.checked });
  byId.opacity.oninput = () => redraw();
  listenToPatches();
  byId.provenance.textContent = model.about.provenance;
  const asked = new URLSearchParams(location.hash.slice(1));
  const scene = Math.min(Math.max(Number(asked.get("scene")) || 1, 1), scenes.length) - 1;
  byId.explorer.hidden = false;
  await redraw({ scene, caption: scenes[scene].caption });
  if (asked.get("caption")) await redraw({ caption: asked.get("caption") });
  say(`Ready: ${scenes.length} scenes and a model that knows ${model.about.words} words.`);
};

start().catch((error) => {
  byId.status.textContent = `The explorer could not start: ${error.message}`;
  throw error;
});
