// A drawing in a page of HTML, by the description of `plots/drawing.py`: an image, and a panel a
// prompt with its shaded words, its map and its bar. Point at a word to see its map, at a patch to
// see its words. It loads nothing, and text that a user wrote is set as text, never as HTML.
//
//     description, what is pointed at -> View

import { html, render, useLayoutEffect, useMemo, useRef, useState } from "./htm-preact.js";
import { absMax, onWhite, paintMap, within, wordStyle } from "./pixels.js";

const LEAD_SHADE = 0.75; // of the colour scale: a lead in a bar
const SIGN = /^[,.;:!?]+$/; // stands close to the word before it
const KEYS = "Arrow keys move over the patches, Enter keeps one, Escape lets go.";
const NAMED_WORDS = 3; // of a patch, if their numbers are not nearly zero:
const LEAST = 5e-5;
const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toPrecision(2);
const minus = (text) => text.replace(/^-/, "−").replace(/^−(0\.0+)$/, "$1");
const percent = (part) => `${100 * part}%`;
const same = (first, second) => String(first) === String(second);
const placed = (box) => {
  const [left, top, width, height] = box.map(percent);
  return `left: ${left}; top: ${top}; width: ${width}; height: ${height}`;
};

// The words of a panel's title that are pointed at or picked: their first and last, or nothing.
const phraseOn = (panel, { phrase, panel: index }) =>
  phrase && (index || 0) === panel.index ? phrase : null;

// The words of a panel's title from first to last.
const phraseText = (panel, [first, last]) => {
  const cells = panel.cells.slice(first, last + 1);
  const text = cells.map(([word]) => word.text).join(" ");
  return text.replace(/ (?=[,.;:!?])/g, "");
};

// The map of a panel and the value of its darkest colour: of the whole prompt, or of the words from
// first to last. Relevance against words is shown on request.
const mapOf = ({ map, regions, scale }, phrase, isSigned) => {
  if (!phrase || !regions) return { values: map, top: scale };
  const words = regions.slice(phrase[0], phrase[1] + 1);
  const sum = map.map((_, i) => words.reduce((total, word) => total + word[i], 0));
  const values = isSigned ? sum : sum.map((value) => Math.max(value, 0));
  return { values, top: absMax(values) };
};

// The similarity without the words from first to last, where it is known.
const similarityWithout = (data, panel, [first, last]) => {
  if (panel.index === 0 && data.without != null && same([first, last], data.phrase)) {
    return data.without;
  }
  const score = panel.cells[first]?.[0].score;
  return data.strikes && first === last && score != null ? panel.value - score : null;
};

// The relevance of each word for one patch.
const patchScores = ({ regions, shape }, [row, column]) =>
  regions.map((region) => region[row * shape[1] + column]);

// The words that match a patch most, in words: "dog +0.012, and −0.003".
const patchText = (panel, patch) => {
  const scores = patchScores(panel, patch);
  const words = panel.cells.map(([word], i) => ({ text: word.text, score: scores[i] }));
  words.sort((first, second) => Math.abs(second.score) - Math.abs(first.score));
  const strongest = words
    .filter(({ score }) => Math.abs(score) >= LEAST)
    .slice(0, NAMED_WORDS)
    .map(({ text, score }) => `${text} ${signed(score)}`);
  return `this patch: ${strongest.join(", ") || "nearly nothing for any word"}`;
};

// ------------------------------------------------------------------------------ what is pointed at

// A word or a patch that the mouse is over or that has the focus (`pointed`), or that was pressed
// (`picked`). New data have a choice of their own.
const usePointing = (data, onPick) => {
  const { phrase, patch, with_against: isSigned } = data;
  const start = { data, pointed: null, picked: { phrase, patch }, isSigned };
  const [state, setState] = useState(start);
  const current = state.data === data ? state : start;
  const { pointed, picked } = current;

  const point = (place) => setState({ ...current, pointed: place });
  const pick = (place) => {
    const isPicked =
      same(place.phrase, picked.phrase) &&
      same(place.patch, picked.patch) &&
      (place.panel || 0) === (picked.panel || 0);
    const next = isPicked ? {} : place;
    setState({ ...current, pointed: null, picked: next });
    onPick?.({ phrase: next.phrase || null, patch: next.patch || null });
  };
  const showAgainst = (isShown) => {
    setState({ ...current, isSigned: isShown });
    onPick?.({ signed: isShown });
  };
  return { ...current, active: pointed || picked, point, pick, showAgainst };
};

// What the mouse and the keys do on a map: a patch is pointed at or picked.
const patchHandlers = (data, [rows, columns], { active, pointed, point, pick }) => {
  const patchUnder = ({ offsetX, offsetY, currentTarget }) => {
    const [left, top, width, height] = data.box;
    const x = (offsetX / currentTarget.clientWidth - left) / width;
    const y = (offsetY / currentTarget.clientHeight - top) / height;
    if (x < 0 || x >= 1 || y < 0 || y >= 1) return null;
    return [Math.floor(y * rows), Math.floor(x * columns)];
  };
  const over = (patch) => {
    if (!same(patch, pointed?.patch || null)) point(patch && { patch });
  };
  const onKeyDown = (event) => {
    const { patch } = active;
    if (event.key in STEPS) {
      const [row, column] = patch || [rows >> 1, columns >> 1];
      const [down, right] = STEPS[event.key];
      over([within(row + down, 0, rows - 1), within(column + right, 0, columns - 1)]);
    } else if (event.key === "Enter" || event.key === " ") {
      if (patch) pick({ patch });
    } else {
      return;
    }
    event.preventDefault();
  };
  return {
    tabIndex: 0,
    role: "group",
    onPointerMove: (event) => over(patchUnder(event)),
    onPointerLeave: () => over(null),
    onBlur: () => over(null),
    onClick: (event) => {
      const patch = patchUnder(event);
      if (patch) pick({ patch });
    },
    onKeyDown,
  };
};

// ------------------------------------------------------------------------------------------ parts

// A word of a title, shaded by its score. One that has a map can be pointed at and picked.
const Word = ({ data, panel, word, index, pointing }) => {
  const { patch } = pointing.active;
  const phrase = phraseOn(panel, pointing.picked);
  const canBePressed = panel.regions?.[index] || (data.strikes && word.score != null);
  let score = word.score;
  let top = data.word_scale;
  if (patch && panel.regions) {
    const scores = patchScores(panel, patch);
    score = scores[index];
    top = absMax(scores);
  }

  const isShaded = score != null && top && (patch || !word.plain);
  const isPicked = Boolean(phrase) && phrase[0] <= index && index <= phrase[1];
  const number = score === word.score && word.sentence ? word.sentence : signed(score || 0);
  const label = score == null ? word.text : `${word.text}: ${number}`;
  const classes = ["gradeclip-word", word.small && "gradeclip-small"];
  if (score == null) classes.push("gradeclip-name");
  if (SIGN.test(word.text)) classes.push("gradeclip-sign");
  if (word.struck || (isPicked && data.strikes)) classes.push("gradeclip-struck");
  const look = {
    class: classes.filter(Boolean).join(" "),
    title: label,
    style: isShaded ? wordStyle(data.colormap, score / top) : "",
  };
  if (!canBePressed) return html`<span ...${look}>${word.text}</span>`;

  const [first, last] = phrase || [index, index];
  const pick = ({ shiftKey }) => {
    const longer = [Math.min(first, index), Math.max(last, index)];
    const canBeLonger = shiftKey && panel.regions;
    pointing.pick({ phrase: canBeLonger ? longer : [index, index], panel: panel.index });
  };
  const onKeyDown = (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // the click that it would make does not know of Shift
    pick(event);
  };
  const point = () => pointing.point({ phrase: [index, index], panel: panel.index });
  const leave = () => pointing.point(null);
  return html`<button
    type="button"
    ...${look}
    aria-label=${label}
    aria-pressed=${isPicked}
    onClick=${pick}
    onKeyDown=${onKeyDown}
    onFocus=${point}
    onBlur=${leave}
    onPointerEnter=${point}
    onPointerLeave=${leave}
  >
    ${word.text}
  </button>`;
};

const Title = ({ data, panel, pointing }) => {
  const cell = ([upper, lower, isBoxed], index) => {
    const parts = { data, panel, pointing };
    if (!lower) return html`<${Word} ...${parts} word=${upper} index=${index} />`;
    return html`<div class=${`gradeclip-pair${isBoxed ? " gradeclip-boxed" : ""}`}>
      <${Word} ...${parts} word=${upper} /><${Word} ...${parts} word=${lower} />
    </div>`;
  };
  return html`<div class="gradeclip-title">${panel.cells.map(cell)}</div>`;
};

// A map alone, `size` pixels wide or high.
export const MapCanvas = ({ data, panel, phrase, isSigned, size = 288 }) => {
  const canvas = useRef();
  useLayoutEffect(() => {
    const { values, top } = mapOf(panel, phrase, isSigned);
    const scaled = values.map((value) => value / (top || 1));
    paintMap(canvas.current, scaled, panel.shape, data, size);
  }, [data, panel, String(phrase), isSigned]);
  return html`<canvas ref=${canvas} aria-hidden="true" />`;
};

// The image in colour, or light grey below the map of a panel.
const Frame = ({ data, image, panel, pointing }) => {
  const crop = data.framed && html`<div class="gradeclip-crop" style=${placed(data.box)} />`;
  if (!panel) {
    return html`<div class="gradeclip-frame">
      <img alt=${data.alt} src=${image} draggable=${false} />${crop}
    </div>`;
  }

  const { patch } = pointing.active;
  const phrase = phraseOn(panel, pointing.active);
  const [left, top, width, height] = data.box;
  const [rows, columns] = panel.shape;
  const cell = patch && [
    left + (width * patch[1]) / columns,
    top + (height * patch[0]) / rows,
    width / columns,
    height / rows,
  ];
  // Beside another view the picked words' map is the panel's own, on the scale of both.
  const isOwnMap = data.panels[1] && same(phrase, data.phrase);
  const text = phrase && panel.regions ? phraseText(panel, phrase) : panel.name;
  const alt = `${data.alt}, with the map of “${text}”`;
  const handlers = panel.regions
    ? { ...patchHandlers(data, panel.shape, pointing), "aria-label": `${alt}. ${KEYS}` }
    : {};
  return html`<div class="gradeclip-frame gradeclip-map" ...${handlers}>
    <img alt=${alt} src=${image} draggable=${false} />
    ${
      panel.map
        ? html`<${MapCanvas}
            data=${data}
            panel=${panel}
            phrase=${isOwnMap ? null : phrase}
            isSigned=${pointing.isSigned}
          />`
        : html`<span class="gradeclip-none">no map: words alone</span>`
    }
    ${crop} ${panel.regions && cell && html`<div class="gradeclip-cursor" style=${placed(cell)} />`}
  </div>`;
};

// A part of a bar, from one place on its axis to another: fractions, in any order.
const Part = ({ start, end, name, style = "" }) => {
  const place = `left: ${percent(Math.min(start, end))}; width: ${percent(Math.abs(end - start))}`;
  return html`<i class=${name} style=${`${place}; ${style}`} />`;
};

// The similarity or the lead as a bar, and a tick where half of the other captions lie below. A lead
// over other captions is coloured, from their mean on. Without the words that are pointed at, the
// bar falls.
const Bar = ({ data, panel, pointing }) => {
  const { tick, start, lead_over: others } = panel;
  const { patch } = pointing.active;
  const phrase = phraseOn(panel, pointing.active);
  const without = phrase && similarityWithout(data, panel, phrase);
  const value = without ?? panel.value;
  const [low, high] = data.bars;
  const place = (number) => (within(number, low, high) - low) / (high - low);

  const labels = [];
  if (without != null) {
    const [before, after] = [panel.value, without].map((end) => minus((end - start).toFixed(2)));
    const lead = others ? "lead " : "";
    labels.push(`without “${phraseText(panel, phrase)}”: ${lead}${after}, not ${before}`);
  }
  if (phrase && panel.regions && panel.cells[phrase[0]]) {
    const beside = data.centred ? ", beside the other words" : "";
    labels.push(`map: “${phraseText(panel, phrase)}”${beside}`);
  } else if (patch && panel.regions) {
    labels.push(patchText(panel, patch));
  }
  if (!labels.length) labels.push(panel.labels[0] || "");
  const canBePointedAt = panel.regions || data.strikes;

  const shade = onWhite(data.colormap, value < start ? -LEAD_SHADE : LEAD_SHADE);
  const bar = html`<div class="gradeclip-bar" aria-hidden="true">
    <${Part}
      start=${place(0)}
      end=${place(others ? Math.min(value, start) : value)}
      name=${panel.best && !others ? "gradeclip-best" : ""}
    />
    ${
      others &&
      html`<${Part}
        start=${place(start)}
        end=${place(value)}
        style=${`background: rgb(${shade})`}
      />`
    }
    ${low < 0 && html`<b class="gradeclip-zero" style=${`left: ${percent(place(0))}`} />`}
    ${tick != null && html`<b style=${`left: ${percent(place(tick))}`} />`}
  </div>`;
  return html`<div class="gradeclip-match">
    ${value != null && bar}
    <div class=${canBePointedAt ? "gradeclip-two-lines" : ""}>
      ${labels.map((label) => html`<small>${label}</small>`)}
    </div>
  </div>`;
};

// The strip of colours and its scale: of the maps, or of the words that are pointed at.
const Legend = ({ data, pointing }) => {
  const [panel] = data.panels;
  const phrase = panel && phraseOn(panel, pointing.active);
  const hasWordMap = Boolean(phrase && panel.regions && data.panels.length === 1);
  let lines = data.legend;
  if (hasWordMap) {
    const { top } = mapOf(panel, phrase, pointing.isSigned);
    const scale = `relevance: darkest ${top.toPrecision(2)}`;
    lines = [scale, ...lines.filter((line) => !line.startsWith("relevance"))];
  }
  const isTwoSided = data.both || (hasWordMap && pointing.isSigned);
  const against = html`<label
    class="gradeclip-control"
    title="Show what is against the words, too."
  >
    <input
      type="checkbox"
      checked=${pointing.isSigned}
      onChange=${({ target }) => pointing.showAgainst(target.checked)}
    />
    <span>against, too</span>
  </label>`;
  const steps = Array.from({ length: 17 }, (_, i) => (isTwoSided ? i / 8 - 1 : i / 16));
  const strip = steps.map((value) => `rgb(${onWhite(data.colormap, value)})`).join(", ");
  return html`<div class="gradeclip-legend">
    <span>${isTwoSided ? "against" : ""}</span>
    <i style=${`background: linear-gradient(90deg, ${strip})`} />
    <span>for</span>
    ${hasWordMap && against} ${lines.map((line) => html`<small>${line}</small>`)}
  </div>`;
};

// Where the relevance of the prompt, or of a word, lies.
const Verdict = ({ data, pointing }) => {
  const { phrase } = pointing.active;
  const { all, words, phrase: picked } = data.sentences || {};
  let text = all;
  if (phrase && same(phrase, data.phrase)) text = picked || all;
  else if (phrase && phrase[0] === phrase[1]) text = words?.[phrase[0]] || all;
  return html`<p class="gradeclip-verdict" aria-live="polite" hidden=${!text}>${text || ""}</p>`;
};

const Panel = ({ data, image, panel, pointing }) => {
  const parts = { data, panel, pointing };
  return html`<div class="gradeclip-side">
    <${Title} ...${parts} />
    <${Frame} ...${parts} image=${image} />
    <${Bar} ...${parts} />
  </div>`;
};

// `children` are what an explorer has above and below the view.
export const View = ({ data: drawing, image, onPick, onUndo, children }) => {
  const data = useMemo(() => {
    const panels = drawing.panels.map((panel, index) => ({ ...panel, index }));
    return { ...drawing, panels };
  }, [drawing]);
  const pointing = usePointing(data, onPick);
  const [above, below] = children || [];
  const columns = Math.min(data.panels.length, 3) + 1;
  const onKey = (event) => {
    event.stopPropagation(); // a notebook would take the focus
    const isTyping = /^(INPUT|SELECT|PRE)$/.test(event.target.tagName);
    if (event.type !== "keydown") return;
    if (event.key === "Escape" && !isTyping) pointing.pick({});
    const isUndo = event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey);
    if (isUndo && !event.shiftKey && onUndo?.(event.target)) event.preventDefault();
  };
  const panels = data.panels.map(
    (panel) => html`<${Panel} data=${data} image=${image} panel=${panel} pointing=${pointing} />`,
  );
  return html`<div
    class="gradeclip-explorer"
    data-lm-suppress-shortcuts="true"
    onKeyDown=${onKey}
    onKeyUp=${onKey}
    onKeyPress=${onKey}
  >
    ${above}
    <div class="gradeclip-body" style=${`--ratio: ${data.ratio}; --columns: ${columns}`}>
      <div class="gradeclip-side">
        <div class="gradeclip-title" />
        <${Frame} data=${data} image=${image} />
        <${Legend} data=${data} pointing=${pointing} />
      </div>
      ${panels}
    </div>
    <${Verdict} data=${data} pointing=${pointing} />
    <small class="gradeclip-origin">${data.origin}</small>
    ${below}
  </div>`;
};

// Show a view in a page of HTML, from the data that stand in an element.
export const open = (element) => {
  const { data, image } = JSON.parse(element.querySelector("script").textContent);
  element.replaceChildren();
  render(html`<${View} data=${data} image=${image} />`, element);
};
