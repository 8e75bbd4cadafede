// The page: `shown` is what is on it, and every change goes through `redraw`. Text that a user wrote is only ever set as
// text.

import { Model, Refusal, paint } from "./model.js";
import front from "./view.js";

const byId = Object.fromEntries([...document.querySelectorAll("[id]")].map((node) => [node.id, node]));
export const shown = { scene: 0, caption: "", word: null }; // and numbers, for tests and those who want more digits
let model, scenes;

const button = (text, onclick, more) => front.h("button", { type: "button", onclick, ...more }, text);
const many = (percent) => (percent === 100 ? "all" : `${Math.min(Math.round(percent), 99)} %`);
const number = (value, digits = 2) => value.toFixed(digits).replace("-", "−");

const pixelsOf = async (name) => {
  const blob = await (await fetch(new URL(name, import.meta.url))).blob();
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height).data;
};

// A scene with what the model makes of it; the last few are kept, each takes 8 MB.
const kept = new Map();
const opened = (index) => {
  const open = async () => {
    const [seen, image] = await Promise.all(["seen", "image"].map((kind) => pixelsOf(scenes[index][kind])));
    const trace = await model.look(seen);
    const maps = [];
    for (const caption of scenes[index].captions) maps.push(await model.mapOf(trace, (await read(caption)).embedding));
    return { image, trace, scale: Math.max(...maps.map((map) => Math.max(...map))) }; // one for all captions of a scene
  };
  const found = kept.get(index) ?? open();
  kept.delete(index);
  kept.set(index, found);
  found.catch(() => kept.delete(index)); // what could not be fetched is asked for again
  if (kept.size > 4) kept.delete(kept.keys().next().value);
  return found;
};
const readings = new Map();
const read = (caption) => {
  if (!readings.has(caption)) readings.set(caption, model.read(caption));
  return readings.get(caption);
};

const draw = (canvas, pixels, label) => {
  const side = Math.sqrt(pixels.length / 4);
  canvas.width = canvas.height = side;
  canvas.getContext("2d").putImageData(new ImageData(pixels, side), 0, 0);
  canvas.ariaLabel = label;
};

const drawWords = (reading, scores) => {
  const most = front.strongest(scores);
  front.put(byId.words, reading.words.map((text, i) => {
    const title = number(scores[i], 3);
    return button(text, () => redraw({ word: shown.word === i ? null : i }), {
      title, ariaLabel: `${text}: ${title}`, ariaPressed: shown.word === i,
      className: model.about.small.includes(text.toLowerCase()) ? "small" : "", style: front.onWhite(model.about.colormap, scores[i] / most),
    });
  }));
};

const drawSimilarity = (similarity, others) => {
  const place = (100 * others.filter((other) => other < similarity).length) / others.length;
  const median = [...others].sort((a, b) => a - b)[Math.floor(others.length / 2)];
  const width = (value) => `${100 * front.within(value / 0.6, 0, 1)}%`;
  byId.filled.style.width = width(similarity);
  byId.tick.style.left = width(median);
  byId.similarity.textContent = `similarity ${number(similarity)}, above ${many(place)} of ${others.length} other captions`;
  return place;
};

// Show what differs from what is shown, and give it; the newest change wins. A caption that cannot be read changes nothing.
let newest = 0;
export const redraw = async (change = {}) => {
  if ("scene" in change || "caption" in change) change = { word: null, ...change };
  if ("scene" in change && !("caption" in change)) change.caption = scenes[change.scene].captions[0];
  const next = { ...shown, ...change };
  let reading;
  try {
    reading = await read(next.caption);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    byId.refusal.textContent = error.message;
    return;
  }
  const mine = ++newest;
  const found = await opened(next.scene);
  const map = await model.mapOf(found.trace, next.word === null ? reading.embedding : reading.directions[next.word]);
  if (mine !== newest) return;
  if (next.scene !== shown.scene) byId.answer.textContent = "";
  const { caption, word } = Object.assign(shown, next), scene = scenes[next.scene];
  byId.refusal.textContent = "";
  const subject = word === null ? caption : `“${reading.words[word]}” in “${caption}”`;
  const most = word === null ? Math.max(found.scale, ...map) : front.strongest([...map]);
  draw(byId.image, found.image, scene.about);
  draw(byId.map, paint(found.image, map, { colormap: model.about.colormap, signed: word !== null, most }), `${scene.about}, map of ${subject}`);
  const scores = model.scores(found.trace, reading);
  drawWords(reading, scores);
  const similarity = model.similarity(found.trace, reading);
  const percentile = drawSimilarity(similarity, model.others(found.trace));
  drawCaptions(scene);
  [...byId.scenes.children].forEach((node, i) => (node.ariaPressed = i === shown.scene));
  byId.caption.value = caption;
  Object.assign(shown, { map, most, similarity, percentile, scores });
  const asked = { scene: shown.scene + 1, caption, ...(word === null ? {} : { word: word + 1 }) };
  history.replaceState(null, "", `#${new URLSearchParams(asked)}`);
  return { ...shown };
};

const drawCaptions = (scene) => {
  const pressed = (caption) => button(caption, () => redraw({ caption }), { ariaPressed: caption === shown.caption });
  const answer = async (caption) => {
    const found = await redraw({ caption });
    if (!found) return; // something else was asked meanwhile
    const place = `its similarity stands above ${many(found.percentile)} of the other captions`;
    byId.answer.textContent = caption === scene.absent
      ? `Right. “${caption}” is not in the image. It has a map all the same, and ${place}.`
      : `No, “${caption}” is there: ${place}. Try again.`;
  };
  front.put(byId.captions, scene.captions.map(pressed));
  front.put(byId.question, [...scene.captions].sort().map((caption) => button(caption, () => answer(caption))));
};

const STOPS = [
  ["A caption that is true: the map lies on the dog.", { scene: 0, caption: "a dog" }],
  ["A caption that is false has a map, too. Compare its bar with the tick.", { scene: 0, caption: "a piano" }],
  ["Two things in one caption share one map.", { scene: 0, caption: "a dog and an umbrella" }],
  ["A word of a caption has a map of its own.", { scene: 0, caption: "a dog and an umbrella", word: 4 }],
  ["Now your own: choose another scene and type what you see.", { scene: 1 }],
];

// Show what the address asks for.
const follow = async () => {
  const asked = new URLSearchParams(location.hash.slice(1)), caption = asked.get("caption"), word = Math.trunc(asked.get("word"));
  const scene = front.within(Math.trunc(asked.get("scene")) || 1, 1, scenes.length) - 1;
  if (!(await redraw({ scene }))) return;
  if (caption && !(await redraw({ caption }))) return;
  if (word >= 1 && word <= byId.words.childElementCount) await redraw({ word: word - 1 });
};

// Where the page is long, what was asked for may be off the screen.
const show = async (change) => {
  await redraw(change);
  byId.panels.scrollIntoView({ block: "nearest" });
};

const start = async () => {
  const say = (text) => (byId.status.textContent = text);
  say("The model is loading …");
  [scenes, model] = await Promise.all([
    fetch(new URL("scenes.json", import.meta.url)).then((answer) => answer.json()),
    Model.load((count) => say(`The model is loading: ${count} of 3 parts are there …`)),
  ]);
  front.put(byId.stops, STOPS.map(([text, change]) => front.h("li", {}, `${text} `, button("Show", () => show(change)))));
  byId.ask.onsubmit = (event) => {
    event.preventDefault();
    redraw({ caption: byId.caption.value.trim().replace(/\s+/g, " ") });
  };
  byId.provenance.textContent = model.about.provenance;
  byId.count.textContent = model.about.nulls;
  byId.explorer.hidden = false;
  window.onhashchange = follow;
  await follow();
  const thumbnail = ({ seen, about }, i) => button(front.h("img", { src: seen, alt: "" }), () => show({ scene: i }),
    { ariaLabel: `scene ${i + 1}: ${about}`, ariaPressed: i === shown.scene });
  front.put(byId.scenes, scenes.map(thumbnail)); // after the first map, whose image would wait for theirs
  say(`Ready: ${scenes.length} scenes, and a model that knows ${model.about.words} words.`);
};

start().catch((error) => {
  byId.status.textContent = `The page could not start: ${error.message}`;
  throw error;
});
