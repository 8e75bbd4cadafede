// The page: `shown` is what is on it, and every change goes through `redraw`, which asks the model
// and renders the page anew. Text that a user wrote is set as text.

import { html, render, useLayoutEffect, useRef } from "./htm-preact.js";
import { Model, Refusal, paint } from "./model.js";
import { absMax, onWhite, within, wordStyle } from "./pixels.js";

const KEPT_SCENES = 4; // each takes 8 MB
const LEAD_SHADE = 0.75; // of the colour scale: a lead in the bar
const BAR_AXIS = 1.45; // its length in units of the largest similarity of the other captions
const STOPS = [
  ["A caption that is true: the map lies on the dog.", { scene: 0, caption: "a dog" }],
  [
    "A caption that is false has a map, too. Compare its bar with the tick.",
    { scene: 0, caption: "a piano" },
  ],
  ["Two things in one caption share one map.", { scene: 0, caption: "a dog and an umbrella" }],
  [
    "Without “umbrella” the bar falls. This word has a map of its own.",
    { scene: 0, caption: "a dog and an umbrella", word: 4 },
  ],
  [
    "Now your own: press a word, or type another caption.",
    { scene: 2, caption: "a shirt and a candle" },
  ],
];

const root = document.querySelector("main");
// and numbers, for tests; `compared` with "nothing" or with the "others"
export const shown = { scene: 0, caption: "", word: null, compared: "nothing" };
const page = {
  status: "",
  refusal: "",
  unknown: [], // words of the last caption
  answer: "",
  view: null,
  stop: 0, // of the tour
  isSigned: false, // whether a word's map shows relevance against, too
  areScenesShown: false,
};
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

// A scene with the model's trace of it, and one scale for the maps and the words of its captions.
const openScene = async (scene) => {
  const [seen, image] = await Promise.all([pixelsOf(scene.seen), pixelsOf(scene.image)]);
  const trace = await model.look(seen);
  let scale = 0;
  let wordScale = 0;
  for (const caption of scene.captions) {
    const reading = await read(caption);
    scale = Math.max(scale, ...(await model.mapOf(trace, reading.embedding)));
    wordScale = Math.max(wordScale, absMax(model.scores(trace, reading)));
  }
  return { image, trace, scale, wordScale };
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

const mostOf = (map) => (page.isSigned ? absMax([...map]) : Math.max(...map, 0));

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
    page.unknown = error.cause ?? [];
    draw();
    return;
  }

  newest += 1;
  const mine = newest;
  const scene = await sceneAt(next.scene);
  const isCaption = next.word === null;
  const target = next.compared === "others" ? model.leadOf(reading) : reading.embedding;
  const direction = isCaption ? target : model.directionOf(reading, next.word);
  const map = await model.mapOf(scene.trace, direction);
  if (mine !== newest) return;

  const others = model.others(scene.trace);
  const similarity = model.similarity(scene.trace, reading);
  const below = others.filter((other) => other < similarity).length;
  if (next.scene !== shown.scene || next.caption !== shown.caption) page.answer = "";
  const scores = model.scores(scene.trace, reading);
  Object.assign(shown, next, {
    map,
    most: isCaption ? Math.max(scene.scale, ...map) : mostOf(map),
    similarity,
    percentile: (100 * below) / others.length,
    scores,
    wordScale: Math.max(scene.wordScale, absMax(scores)),
  });
  page.refusal = "";
  page.unknown = reading.unknown;
  page.view = { ...shown, image: scene.image, words: reading.words, others };
  draw();

  const state = { scene: shown.scene + 1, caption: shown.caption };
  if (!isCaption) state.word = shown.word + 1;
  if (shown.compared === "others") state.compared = "others";
  history.replaceState(null, "", `#${new URLSearchParams(state)}`);
  return { ...shown };
};

// Show a stop of the tour.
const go = (stop) => {
  page.stop = stop;
  return redraw({ compared: "nothing", ...STOPS[stop][1] });
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
  const compared = state.get("compared") === "others" ? "others" : "nothing";
  if (!(await redraw({ scene, compared }))) return;
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

// Words that the model does not know, each with known ones that look alike.
const Unknown = ({ unknown, typed }) => {
  const retype = (word, near) => redraw({ caption: typed.replace(word, near) });
  const item = (word) =>
    html`<span
      ><s>${word}</s>${" "}
      ${model
        .near(word)
        .map((near) => html`<${Button} onClick=${() => retype(word, near)}>${near}<//>`)}
    </span>`;
  return html`<p id="unknown" class="row" role="status" hidden=${!unknown.length}>
    ${unknown.length > 0 && html`<span>The model does not know:</span>`} ${unknown.map(item)}
  </p>`;
};

const KnownWords = ({ caption }) => {
  const add = (word) => redraw({ caption: `${caption} ${word}` });
  const group = ([kind, words]) =>
    html`<h3>${kind}</h3>
      <div class="row">
        ${words.map((word) => html`<${Button} onClick=${() => add(word)}>${word}<//>`)}
      </div>`;
  return html`<details id="known">
    <summary>${model.about.words} known words</summary>
    ${model.about.known.map(group)}
  </details>`;
};

const Tour = ({ stop }) =>
  html`<section id="tour" class="row" aria-label="Tour">
    <p aria-live="polite"><b>${stop + 1} of ${STOPS.length}</b> · ${STOPS[stop][0]}</p>
    <${Button} disabled=${stop === 0} onClick=${() => go(stop - 1)}>Back<//>
    <${Button} id="next" onClick=${() => go((stop + 1) % STOPS.length)}
      >${stop + 1 < STOPS.length ? "Next" : "Begin again"}<//
    >
  </section>`;

const Words = ({ words, scores, word, wordScale }) => {
  const part = (text, i) => {
    const direction = scores[i] < 0 ? "higher" : "lower";
    const title = `without it the similarity is ${number(Math.abs(scores[i]), 3)} ${direction}`;
    const isSmall = model.about.small.includes(text.toLowerCase());
    return html`<${Button}
      title=${title}
      aria-label=${`${text}: ${title}`}
      aria-pressed=${word === i}
      class=${`${isSmall ? "small" : ""}${word === i ? " struck" : ""}`}
      style=${wordStyle(model.about.colormap, scores[i] / wordScale)}
      onClick=${() => redraw({ word: word === i ? null : i })}
      >${text}<//
    >`;
  };
  return html`<figcaption
    id="words"
    class="row"
    role="group"
    aria-label="Words of the caption: press one to leave it out and to see its map"
  >
    ${words.map(part)}
  </figcaption>`;
};

// What stands at the bar: the similarity or the lead, and what it is without a pressed word.
const barLabel = ({ similarity, percentile, others, word, words, scores, compared }, mean) => {
  const isLead = compared === "others";
  const start = isLead ? mean : 0;
  const whole = number(similarity - start);
  if (word !== null) {
    const rest = number(similarity - scores[word] - start);
    return `without “${words[word]}”: ${isLead ? "lead " : ""}${rest}, not ${whole}`;
  }
  if (isLead) return `lead ${whole} over ${others.length} other captions`;
  return `similarity ${whole}, above ${share(percentile)} of ${others.length} other captions`;
};

// The similarity as a bar, whose part from the tick on is coloured if it is a lead. The other
// captions set its axis, so no caption changes it. Without a word that is pressed, the bar falls.
const Bar = (view) => {
  const { similarity, others, word, scores, compared } = view;
  const sorted = [...others].sort((a, b) => a - b);
  const mean = others.reduce((total, value) => total + value, 0) / others.length;
  const isLead = compared === "others";
  const tick = isLead ? mean : sorted[Math.floor(sorted.length / 2)];
  const longest = BAR_AXIS * Math.max(absMax([sorted.at(-1)]), 0.01);
  const place = (value) => `${100 * within(value / longest, 0, 1)}%`;

  const end = similarity - (scores[word] ?? 0);
  const [low, high] = [Math.min(end, tick), Math.max(end, tick)];
  const shade = onWhite(model.about.colormap, end < tick ? -LEAD_SHADE : LEAD_SHADE);
  const lead = `left: ${place(low)}; right: calc(100% - ${place(high)}); background: rgb(${shade})`;
  const label = barLabel(view, mean);
  return html`<div>
    <div id="meter" aria-hidden="true">
      <div
        id="filled"
        class=${isLead ? "pale" : ""}
        style=${`width: ${place(isLead ? low : end)}`}
      />
      ${isLead && html`<div id="lead" style=${lead} />`}
      <div id="tick" style=${`left: ${place(tick)}`} />
    </div>
    <p id="similarity" aria-live="polite">${label}</p>
  </div>`;
};

const Panels = ({ view, about }) => {
  const { image, map, most, word, words, caption } = view;
  const { colormap } = model.about;
  const subject = word === null ? caption : `“${words[word]}” in “${caption}”`;
  const painted = paint(image, map, { colormap, signed: word !== null && page.isSigned, most });
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
  html`<details>
    <summary id="question-title">Which caption is false?</summary>
    <div id="question" class="row" role="group" aria-labelledby="question-title">
      ${[...captions]
        .sort()
        .map((text) => html`<${Button} onClick=${() => answer(text)}>${text}<//>`)}
    </div>
    <p id="answer" aria-live="polite">${page.answer}</p>
  </details>`;

const Compared = ({ compared }) =>
  html`<label id="compared">
    compared with
    <select onChange=${({ target }) => redraw({ compared: target.value })} value=${compared}>
      <option value="nothing">nothing</option>
      <option value="others">other captions</option>
    </select>
  </label>`;

const Signed = ({ word }) => {
  const onChange = ({ target }) => {
    page.isSigned = target.checked;
    redraw();
  };
  return html`<label id="signed" hidden=${word === null}>
    <input type="checkbox" checked=${page.isSigned} onChange=${onChange} /> show what is against the
    word, too
  </label>`;
};

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
  const isLead = view.compared === "others";
  const others = `${view.others.length} other captions`;
  const note =
    `Map: red is relevance for ${isLead ? "the lead of the caption" : "the caption"}. ` +
    "Words: red where the similarity falls without the word, blue where it rises. " +
    (isLead
      ? `The tick marks the mean similarity of ${others}, and the lead begins there.`
      : `The tick marks the similarity that half of ${others} reach.`);
  return html`<div id="explorer">
    <${Captions} captions=${scene.captions} caption=${view.caption} />
    <${CaptionForm} caption=${view.caption} refusal=${page.refusal} />
    <${Unknown} unknown=${page.unknown} typed=${document.querySelector("#caption")?.value ?? ""} />
    <${KnownWords} caption=${view.caption} />
    <div id="stage">
      <${Tour} stop=${page.stop} />
      <${Panels} view=${view} about=${scene.about} />
    </div>
    <div class="row"><${Compared} ...${view} /><${Signed} word=${view.word} /></div>
    <p class="note">${note}</p>
    <${Question} captions=${scene.captions} />
    <${Scenes} scene=${view.scene} />
    <p class="note" id="provenance">${model.about.provenance}</p>
  </div>`;
};

const Page = ({ status, view }) =>
  html`<p id="status" role="status" hidden=${!status}>${status}</p>
    ${view && html`<${Explorer} view=${view} />`}`;

const draw = () => render(html`<${Page} ...${page} />`, root);

const say = (status) => {
  page.status = status;
  draw();
};

const start = async () => {
  root.replaceChildren();
  say("The model is loading, 28 megabytes …");
  const loaded = (count) => say(`The model is loading, 28 megabytes: ${count} of 3 parts …`);
  const [answer, whole] = await Promise.all([
    fetch(new URL("scenes.json", import.meta.url)),
    Model.load(loaded),
  ]);
  model = whole;
  scenes = await answer.json();
  window.onhashchange = follow;
  await follow();
  page.areScenesShown = true; // after the first map, whose image would wait for theirs
  say("");
};

start().catch((error) => {
  say(`The page could not start: ${error.message}`);
  throw error;
});
