// The page: `shown` is what is on it, and every change goes through `redraw`, which asks the model
// and renders the page anew. Text that a user wrote is set as text.

import { html, render, useLayoutEffect, useRef } from "./htm-preact.js";
import { Model, Refusal, paint } from "./model.js";
import { absMax, within, wordStyle } from "./pixels.js";

const KEPT_SCENES = 4; // each takes 8 MB
const BAR_AXIS = 1.45; // its length in units of the largest similarity of the other captions
const STOPS = [
  ["A caption that is true: the map lies on the dog.", { scene: 0, caption: "a dog" }],
  [
    "A caption that is false has a map, too. Compare its bar with the tick.",
    { scene: 0, caption: "a piano" },
  ],
  ["Two things in one caption share one map.", { scene: 0, caption: "a dog and an umbrella" }],
  [
    "A word of a caption has a map of its own.",
    { scene: 0, caption: "a dog and an umbrella", word: 4 },
  ],
  ["Now your own: choose another scene and type what you see.", { scene: 1 }],
];

const root = document.querySelector("main");
export const shown = { scene: 0, caption: "", word: null }; // and numbers, for tests
const page = { status: "", refusal: "", answer: "", view: null, areScenesShown: false };
let model;
let scenes;

const number = (value, digits = 2) => value.toFixed(digits).replace("-", "−");
const share = (percent) => (percent === 100 ? "all" : `${Math.min(Math.round(percent), 99)} %`);

// ---------------------------------------------------------------------------- scenes and captions

const pixelsOf = async (name) => {
  const answer = await fetch(new URL(name, import.meta.url));
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(await answer.blob(), options);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height).data;
};

const readings = new Map();
const read = (caption) => {
  if (!readings.has(caption)) readings.set(caption, model.read(caption));
  return readings.get(caption);
};

// A scene with the model's trace of it, and one scale for the maps of all its captions.
const openScene = async (scene) => {
  const [seen, image] = await Promise.all([pixelsOf(scene.seen), pixelsOf(scene.image)]);
  const trace = await model.look(seen);
  let scale = 0;
  for (const caption of scene.captions) {
    const { embedding } = await read(caption);
    scale = Math.max(scale, ...(await model.mapOf(trace, embedding)));
  }
  return { image, trace, scale };
};

const openScenes = new Map();
const sceneAt = (index) => {
  const opened = openScenes.get(index) ?? openScene(scenes[index]);
  openScenes.delete(index);
  openScenes.set(index, opened); // the newest is last
  opened.catch(() => openScenes.delete(index)); // a scene that was not fetched is asked for again
  if (openScenes.size > KEPT_SCENES) openScenes.delete(openScenes.keys().next().value);
  return opened;
};

// ---------------------------------------------------------------------------------------- changes

// Change what is shown, and give it. The newest change wins. A caption that the model cannot read
// changes nothing.
let newest = 0;
export const redraw = async (change = {}) => {
  const next = { ...shown, ...change };
  if (("scene" in change || "caption" in change) && !("word" in change)) next.word = null;
  if ("scene" in change && !("caption" in change)) {
    next.caption = scenes[change.scene].captions[0];
  }
  let reading;
  try {
    reading = await read(next.caption);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    page.refusal = error.message;
    draw();
    return;
  }

  newest += 1;
  const mine = newest;
  const scene = await sceneAt(next.scene);
  const isCaption = next.word === null;
  const direction = isCaption ? reading.embedding : reading.directions[next.word];
  const map = await model.mapOf(scene.trace, direction);
  if (mine !== newest) return;

  const others = model.others(scene.trace);
  const similarity = model.similarity(scene.trace, reading);
  const below = others.filter((other) => other < similarity).length;
  if (next.scene !== shown.scene) page.answer = "";
  Object.assign(shown, next, {
    map,
    most: isCaption ? Math.max(scene.scale, ...map) : absMax([...map]),
    similarity,
    percentile: (100 * below) / others.length,
    scores: model.scores(scene.trace, reading),
  });
  page.refusal = "";
  page.view = { ...shown, image: scene.image, words: reading.words, others };
  draw();

  const state = { scene: shown.scene + 1, caption: shown.caption };
  if (!isCaption) state.word = shown.word + 1;
  history.replaceState(null, "", `#${new URLSearchParams(state)}`);
  return { ...shown };
};

// On a long page the view may be off the screen.
const show = async (change) => {
  await redraw(change);
  document.querySelector("#panels").scrollIntoView({ block: "nearest" });
};

const answer = async (caption) => {
  const result = await redraw({ caption });
  if (!result) return; // something else was asked meanwhile
  const { absent } = scenes[result.scene];
  const place = `its similarity stands above ${share(result.percentile)} of the other captions`;
  page.answer =
    caption === absent
      ? `Right. “${caption}” is not in the image. It has a map all the same, and ${place}.`
      : `No, “${caption}” is there: ${place}. Try again.`;
  draw();
};

// Show the state that the address holds.
const follow = async () => {
  const state = new URLSearchParams(location.hash.slice(1));
  const scene = within(Math.trunc(state.get("scene")) || 1, 1, scenes.length) - 1;
  const caption = state.get("caption");
  const word = Math.trunc(state.get("word"));
  if (!(await redraw({ scene }))) return;
  if (caption && !(await redraw({ caption }))) return;
  if (word >= 1 && word <= page.view.words.length) await redraw({ word: word - 1 });
};

// ------------------------------------------------------------------------------------------ parts

const Button = ({ children, ...more }) =>
  html`<button type="button" ...${more}>${children}</button>`;

const Canvas = ({ id, pixels, label }) => {
  const canvas = useRef();
  useLayoutEffect(() => {
    const side = Math.sqrt(pixels.length / 4);
    canvas.current.width = side;
    canvas.current.height = side;
    canvas.current.getContext("2d").putImageData(new ImageData(pixels, side), 0, 0);
  }, [pixels]);
  return html`<canvas id=${id} ref=${canvas} role="img" aria-label=${label} />`;
};

const Captions = ({ captions, caption }) =>
  html`<div id="captions" class="row" role="group" aria-label="Captions to press">
    ${captions.map(
      (text) =>
        html`<${Button} aria-pressed=${text === caption} onClick=${() => redraw({ caption: text })}
          >${text}<//
        >`,
    )}
  </div>`;

const CaptionForm = ({ caption, refusal }) => {
  const input = useRef();
  useLayoutEffect(() => {
    input.current.value = caption;
  }, [caption]);
  const onSubmit = (event) => {
    event.preventDefault();
    redraw({ caption: input.current.value.trim().replace(/\s+/g, " ") });
  };
  return html`<form id="ask" class="row" onSubmit=${onSubmit}>
      <label for="caption">or type your own</label>
      <input
        id="caption"
        ref=${input}
        name="caption"
        autocomplete="off"
        autocapitalize="none"
        spellcheck=${false}
        aria-describedby="refusal"
      />
      <button>Explain</button>
    </form>
    <p id="refusal" role="alert">${refusal}</p>`;
};

const Words = ({ words, scores, word }) => {
  const most = absMax(scores);
  const part = (text, i) => {
    const title = number(scores[i], 3);
    const isSmall = model.about.small.includes(text.toLowerCase());
    return html`<${Button}
      title=${title}
      aria-label=${`${text}: ${title}`}
      aria-pressed=${word === i}
      class=${isSmall ? "small" : ""}
      style=${wordStyle(model.about.colormap, scores[i] / most)}
      onClick=${() => redraw({ word: word === i ? null : i })}
      >${text}<//
    >`;
  };
  return html`<figcaption
    id="words"
    class="row"
    role="group"
    aria-label="Words of the caption: press one for its own map"
  >
    ${words.map(part)}
  </figcaption>`;
};

// The similarity as a bar. The other captions set its axis, so no caption changes it.
const Bar = ({ similarity, percentile, others }) => {
  const sorted = [...others].sort((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)];
  const longest = BAR_AXIS * Math.max(absMax([sorted.at(-1)]), 0.01);
  const place = (value) => `${100 * within(value / longest, 0, 1)}%`;
  return html`<div id="meter" aria-hidden="true">
      <div id="filled" style=${`width: ${place(similarity)}`} />
      <div id="tick" style=${`left: ${place(median)}`} />
    </div>
    <p id="similarity" aria-live="polite">
      similarity ${number(similarity)}, above ${share(percentile)} of ${others.length} other
      captions
    </p>`;
};

const Panels = ({ view, about }) => {
  const { image, map, most, word, words, caption } = view;
  const { colormap } = model.about;
  const subject = word === null ? caption : `“${words[word]}” in “${caption}”`;
  const painted = paint(image, map, { colormap, signed: word !== null, most });
  return html`<div id="panels">
    <figure>
      <figcaption>the image</figcaption>
      <${Canvas} id="image" pixels=${image} label=${about} />
    </figure>
    <figure>
      <${Words} ...${view} />
      <${Canvas} id="map" pixels=${painted} label=${`${about}, map of ${subject}`} />
      <${Bar} ...${view} />
    </figure>
  </div>`;
};

const Question = ({ captions }) =>
  html`<section aria-labelledby="question-title">
    <h2 id="question-title">Which caption is false?</h2>
    <div id="question" class="row" role="group" aria-labelledby="question-title">
      ${[...captions]
        .sort()
        .map((text) => html`<${Button} onClick=${() => answer(text)}>${text}<//>`)}
    </div>
    <p id="answer" aria-live="polite">${page.answer}</p>
  </section>`;

const Stops = () =>
  html`<section aria-labelledby="stops-title">
    <h2 id="stops-title">Five stops</h2>
    <ol id="stops">
      ${STOPS.map(
        ([text, change], i) =>
          html`<li>
            ${text}${" "}
            <${Button} aria-label=${`Show stop ${i + 1}`} onClick=${() => show(change)}>Show<//>
          </li>`,
      )}
    </ol>
  </section>`;

const Scenes = ({ scene }) => {
  const thumbnail = ({ seen, about }, i) =>
    html`<${Button}
      aria-label=${`scene ${i + 1}: ${about}`}
      aria-pressed=${i === scene}
      onClick=${() => show({ scene: i })}
      ><img src=${seen} alt=""
    /><//>`;
  return html`<section aria-labelledby="scenes-title">
    <h2 id="scenes-title">Other scenes</h2>
    <div id="scenes" class="row" role="group" aria-labelledby="scenes-title">
      ${page.areScenesShown && scenes.map(thumbnail)}
    </div>
  </section>`;
};

const Explorer = ({ view }) => {
  const scene = scenes[view.scene];
  return html`<div id="explorer">
    <${Captions} captions=${scene.captions} caption=${view.caption} />
    <${CaptionForm} caption=${view.caption} refusal=${page.refusal} />
    <${Panels} view=${view} about=${scene.about} />
    <p class="note">
      Red: relevance for the caption. Blue: against. The tick marks the similarity that half of
      ${" "}${view.others.length} other captions reach.
    </p>
    <${Question} captions=${scene.captions} />
    <${Stops} />
    <${Scenes} scene=${view.scene} />
    <p class="note" id="provenance">${model.about.provenance}</p>
  </div>`;
};

const Page = ({ status, view }) =>
  html`<p id="status" role="status">${status}</p>
    ${view && html`<${Explorer} view=${view} />`}`;

const draw = () => render(html`<${Page} ...${page} />`, root);

const say = (status) => {
  page.status = status;
  draw();
};

const start = async () => {
  root.replaceChildren();
  say("The model is loading …");
  const loaded = (count) => say(`The model is loading: ${count} of 3 parts are there …`);
  const [answer, whole] = await Promise.all([
    fetch(new URL("scenes.json", import.meta.url)),
    Model.load(loaded),
  ]);
  model = whole;
  scenes = await answer.json();
  window.onhashchange = follow;
  await follow();
  page.areScenesShown = true; // after the first map, whose image would wait for theirs
  say(`Ready: ${scenes.length} scenes, and a model that knows ${model.about.words} words.`);
};

start().catch((error) => {
  say(`The page could not start: ${error.message}`);
  throw error;
});
