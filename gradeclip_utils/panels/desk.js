// What a kernel is needed for, around the view of `plots/front/view.js`: scenes, controls, and what
// is folded away. A kernel sends `data` and hears messages.
//
//     what was turned -> message -> kernel -> data -> view

import { html, render, useLayoutEffect, useReducer, useRef, useState } from "./htm-preact.js";
import { MapCanvas, View } from "./view.js";

const SMALL = 110; // pixels of the map of a head
const LONGEST = 1024; // pixels of an image that is sent to the kernel
const PATIENCE = 3000; // milliseconds without an answer
const SILENT =
  "The kernel has not answered for three seconds. It is busy, or it was restarted: then choose " +
  "Run > Run All Above Selected Cell, and run this cell again.";

// The state beside the kernel's: what was turned and not answered yet, and the last notice.
class Desk {
  constructor(model, redraw) {
    this.model = model;
    this.redraw = redraw;
    this.turned = {}; // by control, as it was typed or chosen
    this.sent = {};
    this.notice = null;
    this.isFresh = false; // a new image: the caption takes the focus
    this.image = model.get("image");
  }

  get data() {
    return this.model.get("data");
  }

  send(message, buffers) {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.say(SILENT), PATIENCE);
    try {
      this.model.send(message, undefined, buffers);
    } catch {} // the line to a kernel that was restarted is closed
  }

  change(fields) {
    this.send({ kind: "change", fields });
  }

  say(text) {
    this.notice = { text, kind: "wrong" };
    this.redraw();
  }

  // Take new data. A text that was refused, or that somebody is typing, is left alone.
  take(typing) {
    const image = this.model.get("image");
    const isEmptied = this.data.empty && image !== this.image;
    this.image = image;
    this.isFresh = isEmptied;
    this.sent = {};
    for (const { name, kind, refused } of this.data.controls) {
      const isLeftAlone = kind === "str" && (refused || name === typing);
      if (isEmptied || !isLeftAlone) delete this.turned[name];
    }
    this.redraw();
  }

  // The kernel begins or ends: it is not silent.
  hear() {
    clearTimeout(this.waiting);
    this.notice = null;
    this.redraw();
  }

  get prompt() {
    const control = this.data.controls.find(({ name }) => name === "prompt");
    return this.turned.prompt ?? control.value;
  }

  // Go one change back, unless the browser has typing of its own to undo.
  undo({ name, value }) {
    const control = this.data.controls.find((spec) => spec.name === name);
    if (control?.kind === "str" && value !== control.value) return false;
    if (name === "file") return false;
    if (this.data.undoable) this.send({ kind: "back" });
    return true;
  }

  // Ask for another caption, as if it were typed.
  retype(text) {
    this.turned.prompt = text;
    this.change({ prompt: text });
  }
}

const Button = ({ title, onClick, children, ...more }) =>
  html`<button type="button" class="gradeclip-button" title=${title} onClick=${onClick} ...${more}>
    ${children}
  </button>`;

const Fold = ({ summary, children, ...more }) =>
  html`<details class="gradeclip-fold" ...${more}>
    <summary>${summary}</summary>
    <div>${children}</div>
  </details>`;

// ------------------------------------------------------------------------------- controls

const Control = ({ desk, spec }) => {
  const { name, kind, options, label, help, max, refused } = spec;
  const input = useRef();
  const isSlider = kind === "int";
  const value = desk.turned[name] ?? spec.value;

  const read = ({ target }) => {
    desk.turned[name] = isSlider ? target.valueAsNumber : target.value;
    return desk.turned[name];
  };
  const ask = (value) => {
    desk.sent[name] = value;
    desk.change({ [name]: value });
  };
  const shared = {
    name,
    "aria-invalid": Boolean(refused),
    onChange: (event) => {
      const value = read(event);
      if (value !== desk.sent[name]) ask(value);
    },
  };
  useLayoutEffect(() => {
    if (name !== "prompt" || !desk.isFresh) return;
    desk.isFresh = false;
    input.current.focus();
  });

  const typed = {
    min: 1,
    max,
    spellcheck: false,
    autocomplete: "off",
    placeholder: name === "prompt" ? "type what to look for, then press Enter" : "",
    onInput: (event) => {
      read(event);
      desk.redraw();
    },
    onKeyDown: (event) => {
      if (event.key === "Enter" && kind === "str") ask(desk.turned[name] ?? spec.value);
    },
  };
  const option = ([text, key]) => html`<option value=${key}>${text}</option>`;
  let field;
  if (kind === "choice") {
    field = html`<select ...${shared} value=${value}>
      ${options.map(option)}
    </select>`;
  } else if (isSlider) {
    field = html`<input
      ref=${input}
      type="range"
      ...${typed}
      ...${shared}
      value=${String(value)}
    />`;
  } else {
    field = html`<input ref=${input} ...${typed} ...${shared} value=${String(value)} />`;
  }
  return html`<label class=${`gradeclip-control gradeclip-${name}`} title=${help}>
    <span>${label}</span>${field}<output>${isSlider ? String(value) : ""}</output>
  </label>`;
};

const Controls = ({ desk, place }) =>
  desk.data.controls
    .filter((spec) => spec.place === place && !spec.hidden)
    .map((spec) => html`<${Control} key=${spec.name} desk=${desk} spec=${spec} />`);

// Send a photograph. A large one is made smaller: a kernel refuses long messages without a word.
const upload = async (desk, input) => {
  const [file] = input.files;
  const bitmap = await createImageBitmap(file).catch(() => null);
  input.value = ""; // so that the same file can be given again
  const { name } = file;
  if (!bitmap && file.size > 5e6) {
    desk.say(`${name} is no image that this browser can open: save it as JPEG or PNG.`);
    return;
  }
  const ratio = bitmap ? Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height)) : 1;
  if (!bitmap || (file.size < 2e6 && ratio === 1)) {
    desk.send({ kind: "image", name }, [await file.arrayBuffer()]);
    return;
  }
  const width = Math.max(1, Math.round(bitmap.width * ratio));
  const height = Math.max(1, Math.round(bitmap.height * ratio));
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").drawImage(bitmap, 0, 0, width, height);
  const note = `${bitmap.width} × ${bitmap.height} pixels were reduced to ${width} × ${height}.`;
  const blob = await canvas.convertToBlob();
  desk.send({ kind: "image", name, note }, [await blob.arrayBuffer()]);
};

const Upload = ({ desk }) => {
  const input = useRef();
  const onChange = ({ target }) => {
    if (target.files.length) upload(desk, target).catch(({ message }) => desk.say(message));
  };
  return html`<${Button}
      title="Choose an image file of this computer."
      onClick=${() => input.current.click()}
    >
      + image
    <//>
    <input
      ref=${input}
      type="file"
      accept="image/*"
      hidden
      aria-label="an image of your own"
      onChange=${onChange}
    />`;
};

const Scenes = ({ desk }) => {
  const thumbnails = desk.model.get("thumbnails");
  const scene = ({ text, chosen }, index) =>
    html`<${Button}
      title=${text}
      aria-label=${text}
      aria-pressed=${chosen}
      onClick=${() => desk.send({ kind: "scene", index })}
    >
      <img src=${thumbnails[index]} alt="" />
    <//>`;
  return html`<div class="gradeclip-scenes" role="group" aria-label="images">
    ${desk.data.scenes.map(scene)}
  </div>`;
};

// Words that the model does not know, each with known ones near it.
const Struck = ({ desk }) => {
  const item = ({ text, near }) => {
    const wholeWord = new RegExp(`(?<!\\p{L})${text}(?!\\p{L})`, "iu");
    const suggestion = (word) =>
      html`<${Button}
        title=${`“${word}” instead of “${text}”`}
        onClick=${() => desk.retype(desk.prompt.replace(wholeWord, word))}
        >${word}<//
      >`;
    return html`<span class="gradeclip-control">
      ${near ? html`<s>${text}</s>` : text} ${(near || []).map(suggestion)}
    </span>`;
  };
  return html`<div class="gradeclip-row">
    <span>This model does not know:</span>${desk.data.struck.map(item)}
  </div>`;
};

const KnownWords = ({ desk }) => {
  const groups = desk.model.get("vocabulary");
  const add = (word) => desk.retype(`${desk.prompt.trim()} ${word}`.trim());
  const word = (text) =>
    html`<${Button} name="prompt" title=${`add “${text}” to the caption`} onClick=${() => add(text)}
      >${text}<//
    >`;
  const group = ([name, words]) => [html`<b>${name}</b>`, ...words.map(word)];
  return html`<${Fold}
    summary="known words"
    class="gradeclip-fold gradeclip-known"
    hidden=${!groups.length}
  >
    ${groups.flatMap(group)}
  <//>`;
};

const Message = ({ desk }) => {
  const busy = desk.model.get("busy");
  const message = desk.notice || (busy.text ? busy : desk.data.message);
  return html`<div
    class=${`gradeclip-message gradeclip-${message.kind || "quiet"}`}
    role=${message.kind === "wrong" ? "alert" : "status"}
  >
    ${message.text}
  </div>`;
};

// Above the view: scenes, the caption, what can be changed by a press, and messages.
const Head = ({ desk }) => {
  const change = (name) =>
    html`<${Button}
      title="Does the similarity fall?"
      onClick=${() => desk.send({ kind: "scene", name })}
      >${name}<//
    >`;
  return html`<div class="gradeclip-row">
      <${Controls} desk=${desk} place="head" />
      <${Button}
        title="One change back (Ctrl+Z)."
        disabled=${!desk.data.undoable}
        onClick=${() => desk.send({ kind: "back" })}
        >back<//
      >
      <${Button}
        title="The start, with all settings as they were."
        onClick=${() => desk.send({ kind: "reset" })}
        >reset<//
      >
      <${Scenes} desk=${desk} />
      <${Upload} desk=${desk} />
    </div>
    <div class="gradeclip-row">
      <${Controls} desk=${desk} place="prompt" /><${KnownWords} desk=${desk} />
    </div>
    <div class="gradeclip-row">${desk.data.changes.map(change)}</div>
    ${desk.data.struck.length > 0 && html`<${Struck} desk=${desk} />`}
    <${Message} desk=${desk} />`;
};

// ------------------------------------------------------------------------------- folded away

const Pin = ({ desk }) => {
  const { pinned, script } = desk.data;
  if (pinned) {
    const unpin = () => desk.send({ kind: "unpin" });
    return html`<${Button} title="Show one map again." onClick=${unpin}>unpin<//>`;
  }
  return html`<${Button}
    title="Its caption, model and method stay, with the difference of both maps."
    hidden=${!script}
    onClick=${() => desk.send({ kind: "pin" })}
    >pin this map<//
  >`;
};

const Copy = ({ script }) => {
  const text = useRef();
  const [label, setLabel] = useState("copy as Python");
  const copy = async () => {
    const copied = await navigator.clipboard?.writeText(script).then(
      () => true,
      () => false,
    );
    if (!copied) getSelection().selectAllChildren(text.current);
    setLabel(copied ? "copied" : "selected: press Ctrl+C");
    setTimeout(() => setLabel("copy as Python"), 2000);
  };
  return html`<${Button}
      title="The lines that compute this map again, in any notebook."
      onClick=${copy}
      >${label}<//
    >
    <pre ref=${text} tabindex="0">${script}</pre>`;
};

const Save = ({ desk }) => {
  const name = desk.turned.file ?? "explanation";
  const onInput = ({ target }) => {
    desk.turned.file = target.value;
    desk.redraw();
  };
  return html`<label class="gradeclip-control">
      <span>name</span><input name="file" value=${name} onInput=${onInput} />
    </label>
    <${Button} title="The figure as it is shown." onClick=${() => desk.send({ kind: "save", name })}
      >save image (PNG)<//
    >`;
};

// The parts of the map: a row per layer, a column per head, and the sum over heads.
const HeadGrid = ({ data, image, heads }) => {
  const { maps, sums, shape, scales, explained } = heads;
  const cell = (map, scale) =>
    html`<div class="gradeclip-frame gradeclip-map">
      <img src=${image} alt="" draggable=${false} />
      <${MapCanvas} data=${data} panel=${{ map, shape, scale }} size=${SMALL} />
    </div>`;
  const row = (layer, index) => {
    const isExplained = index >= maps.length - explained;
    const name = `layer ${index + 1}`;
    return html`${isExplained ? html`<b>${name}</b>` : html`<span>${name}</span>`}
    ${layer.map((map) => cell(map, scales[0]))} ${cell(sums[index], scales[1])}`;
  };
  const [darkest, darkestSum] = scales.map((scale) => scale.toPrecision(2));
  const description = `The map of the caption by ${maps.length} layers and ${maps[0].length} heads`;
  const style = `--columns: ${maps[0].length + 1}; --ratio: ${data.ratio}`;
  return html`<small
      >The layers in bold make up the map above: it is the sum of their rows. Red is for the
      caption, blue against it. Heads: darkest ${darkest}; sums: darkest ${darkestSum}.</small
    >
    <div class="gradeclip-heads" style=${style} role="img" aria-label=${description}>
      <span />${maps[0].map((_, head) => html`<span>head ${head + 1}</span>`)}<span>sum</span>
      ${maps.map(row)}
    </div>`;
};

const Heads = ({ desk, image }) => {
  const { heads, script } = desk.data;
  const onToggle = ({ target }) => {
    if (target.open !== Boolean(heads)) desk.send({ kind: "heads", shown: target.open });
  };
  return html`<${Fold}
    summary="All layers and heads"
    class="gradeclip-fold gradeclip-whole"
    hidden=${!script}
    onToggle=${onToggle}
  >
    ${heads?.note && html`<span>${heads.note}</span>`}
    ${heads?.maps && html`<${HeadGrid} data=${desk.data} image=${image} heads=${heads} />`}
  <//>`;
};

const Folds = ({ desk, image }) => {
  const { script } = desk.data;
  return html`<div class="gradeclip-folds">
    <${Fold} summary="Compare"
      ><${Pin} desk=${desk} /><${Controls} desk=${desk} place="compare"
    /><//>
    <${Fold} summary="Method and layers"><${Controls} desk=${desk} place="method" /><//>
    <${Heads} desk=${desk} image=${image} />
    <${Fold} summary="Save, Python" hidden=${!script}>
      <${Save} desk=${desk} /><${Copy} script=${script} />
    <//>
  </div>`;
};

// ------------------------------------------------------------------------------- widget

const Explorer = ({ model, root }) => {
  const [, redraw] = useReducer((count) => count + 1, 0);
  const kept = useRef();
  kept.current ??= new Desk(model, redraw);
  const desk = kept.current;
  useLayoutEffect(() => {
    const take = () => {
      const active = document.activeElement;
      desk.take(root.contains(active) && active.name);
    };
    const hear = () => desk.hear();
    model.on("change:data", take); // a new image and another model's words come with it
    model.on("change:busy", hear);
    return () => {
      model.off?.("change:data", take);
      model.off?.("change:busy", hear);
    };
  }, []);
  const onPick = (place) => desk.change(place);
  const onUndo = (field) => desk.undo(field);
  return html`<${View}
    data=${desk.data}
    image=${model.get("image")}
    onPick=${onPick}
    onUndo=${onUndo}
  >
    <${Head} desk=${desk} />
    <${Folds} desk=${desk} image=${model.get("image")} />
  <//>`;
};

export default {
  render: ({ model, el }) => {
    render(html`<${Explorer} model=${model} root=${el} />`, el);
    return () => render(null, el);
  },
};
