// An image, its maps, and words that carry their maps: point at a word and its map fades in, at a patch and the words
// follow. One script for the explorer (whose kernel sends `data` and hears messages) and for a page of HTML, where
// nobody does. It loads nothing, and sets what a user wrote as text only, never as HTML.

const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value != null) node.setAttribute(name, value);
  node.append(...children);
  return node;
};
const set = (node, text) => node.textContent !== text && (node.textContent = text);
const tell = (node, text) => node.setAttribute("aria-label", (node.title = text));
const lay = (node, box) => ["left", "top", "width", "height"].forEach((name, i) => (node.style[name] = `${100 * box[i]}%`));
const row = (...children) => make("div", { class: "gradeclip-row" }, ...children);
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(4);
// As many children as there are items, made once, so that none loses the keyboard's focus.
const fit = (box, items, create, update) => {
  while (box.children.length > items.length) box.lastChild.remove();
  items.forEach((item, i) => {
    if (!box.children[i]) box.append(create(i));
    update(box.children[i], item, i);
  });
};
const FADE = 150; // milliseconds
const LONGEST = 1024; // pixels of an image that is sent to the kernel
const FINE = 288; // pixels on the longest side of what is laid over the image

// ------------------------------------------------------------------------------------------------------------ numbers

// What is shown of a side, in -1 to 1: of everything that was asked, or of the words from first to last.
const layer = (side, phrase) => {
  if (!phrase || !side.regions) {
    const top = side.scale || 1;
    return side.map.map((value) => Math.min(Math.max(value / top, side.signed ? -1 : 0), 1));
  }
  const sum = side.map.map((_, i) => side.regions.slice(phrase[0], phrase[1] + 1).reduce((all, map) => all + map[i], 0));
  const top = Math.max(side.region_scale, phrase[0] === phrase[1] && side.region_scale ? 0 : Math.max(...sum.map(Math.abs))) || 1;
  return sum.map((value) => value / top);
};

// For each pixel: the two cells that it lies between, and how far it is from the first to the second; -1 outside.
const between = (pixels, start, length, cells) =>
  Array.from({ length: pixels }, (_, i) => {
    const at = ((i + 0.5) / pixels - start) / length;
    const place = Math.min(Math.max(at * cells - 0.5, 0), cells - 1);
    const first = Math.min(Math.floor(place), Math.max(cells - 2, 0));
    return at < 0 || at > 1 ? null : [first, Math.min(first + 1, cells - 1), place - first];
  });

const stretch = (values, [rows, columns], [left, top, width, height], across, down) => {
  const xs = between(across, left, width, columns), ys = between(down, top, height, rows);
  const fine = new Float32Array(across * down);
  ys.forEach((y, j) => y && xs.forEach((x, i) => {
    if (!x) return;
    const above = values[y[0] * columns + x[0]] * (1 - x[2]) + values[y[0] * columns + x[1]] * x[2];
    const below = values[y[1] * columns + x[0]] * (1 - x[2]) + values[y[1] * columns + x[1]] * x[2];
    fine[j * across + i] = above * (1 - y[2]) + below * y[2];
  }));
  return fine;
};

// Red, green, blue, alpha of one value over the image; `plots.colours.paint` has the same arithmetic.
const shade = (value, { colours, opacity, threshold }, palettes, both) => {
  const strength = Math.abs(value) < threshold ? 0 : Math.min(Math.abs(value), 1);
  if (colours !== "image") {
    const table = palettes[both ? "signed" : colours];
    const place = both ? 0.5 + Math.sign(value) * strength * 0.5 : strength;
    const hex = strength || !threshold ? table[Math.round(place * (table.length - 1))] : "#ffffff";
    return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)).concat(255 * opacity);
  }
  const { veil, against, contrary } = palettes.own;
  const hidden = opacity * (value < 0 ? 1 : 1 - strength);
  const purple = value < 0 && opacity > 0 ? contrary * strength : 0;
  const alpha = 1 - (1 - hidden) * (1 - purple);
  const mixed = veil.map((part, i) => (alpha ? (part * hidden * (1 - purple) + against[i] * purple) / alpha : 0));
  return [...mixed, 255 * alpha];
};

const paint = (canvas, values, side, data, look) => {
  const across = Math.round(FINE * Math.min(1, data.ratio)), down = Math.round(FINE * Math.min(1, 1 / data.ratio));
  if (canvas.width !== across || canvas.height !== down) [canvas.width, canvas.height] = [across, down];
  const fine = stretch(values, side.shape, data.box, across, down), context = canvas.getContext("2d");
  const pixels = context.createImageData(across, down), colours = new Uint32Array(pixels.data.buffer), table = [];
  const both = side.signed || values.some((value) => value < 0);
  const packed = (parts) => parts.map(Math.round).reduce((all, part, i) => all + part * 256 ** i, 0);
  for (let step = -256; step <= 256; step++) table.push(packed(shade(step / 256, look, data.palettes, both)));
  for (let i = 0; i < fine.length; i++) colours[i] = table[Math.round(256 * Math.min(Math.max(fine[i], -1), 1)) + 256];
  if (look.contour) {
    const beyond = (i) => (fine[i] >= 0.5) - (fine[i] <= -0.5);
    for (let i = 0; i < fine.length - across; i++) {
      const here = beyond(i), edge = here - beyond(i + 1) || here - beyond(i + across);
      if (!edge || (i + 1) % across === 0) continue;
      const against = here < 0 || beyond(i + 1) < 0 || beyond(i + across) < 0;
      if (!against || (i + Math.floor(i / across)) % 6 < 4) colours[i] = packed(against ? [94, 60, 153, 255] : [179, 88, 6, 255]);
    }
  }
  context.putImageData(pixels, 0, 0);
};

// --------------------------------------------------------------------------------------------------------------- parts

// An image with a map over it. The image has its address at once, wherever its cell is: nothing waits for a decoder.
const frame = (app, index) => {
  const image = make("img", { alt: "", draggable: "false" }), canvas = make("canvas", { "aria-hidden": "true" });
  const crop = make("div", { class: "gradeclip-crop" }), cursor = make("div", { class: "gradeclip-cursor" });
  const marker = make("div", { class: "gradeclip-cursor gradeclip-marker" });
  const box = make("div", { class: "gradeclip-frame", tabindex: "0", role: "group" }, image, canvas, crop, marker, cursor);
  const title = make("div", { class: "gradeclip-title" }), origin = make("small", { class: "gradeclip-origin" });
  const node = make("figure", { class: `gradeclip-side gradeclip-side-${index}` }, title, box, origin);
  let shown = [], running = 0;
  const side = () => app.data.sides[Math.max(index - 1, 0)];
  const put = (node, patch) => {
    node.hidden = !patch;
    if (!patch) return;
    const [left, top, width, height] = app.data.box, [rows, columns] = side().shape;
    lay(node, [left + (width * patch[1]) / columns, top + (height * patch[0]) / rows, width / columns, height / rows]);
  };
  const under = ({ offsetX, offsetY }) => {
    const [left, top, width, height] = app.data.box, [rows, columns] = side().shape;
    const x = (offsetX / box.clientWidth - left) / width, y = (offsetY / box.clientHeight - top) / height;
    return x >= 0 && x < 1 && y >= 0 && y < 1 ? [Math.floor(y * rows), Math.floor(x * columns)] : null;
  };
  const over = (patch) => {
    if (String(patch) !== String((app.pointed && app.pointed.patch) || null)) app.point(patch && { patch });
  };
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  box.onpointermove = (event) => over(under(event));
  box.onpointerleave = box.onblur = () => over(null);
  box.onclick = (event) => under(event) && app.pick({ patch: under(event) });
  box.onkeydown = (event) => {
    const [rows, columns] = side().shape, inside = (value, count) => Math.min(Math.max(value, 0), count - 1);
    if (event.key in steps) {
      const [row, column] = app.active().patch || [rows >> 1, columns >> 1], [down, right] = steps[event.key];
      over([inside(row + down, rows), inside(column + right, columns)]);
    } else if (event.key === "Enter" || event.key === " ") app.active().patch && app.pick({ patch: app.active().patch });
    else if (event.key === "Escape") app.pick({});
    else return;
    event.preventDefault();
  };
  const fade = (target) => {
    const own = ++running, from = shown, start = performance.now();
    const still = from.length !== target.length || from.every((value, i) => value === target[i]) || document.hidden || matchMedia("(prefers-reduced-motion: reduce)").matches;
    const step = (now) => {
      if (own !== running) return;
      const done = still ? 1 : Math.min(Math.max((now - start) / FADE, 0), 1);
      shown = done === 1 ? target : target.map((value, i) => from[i] + done * (value - from[i]));
      paint(canvas, shown, side(), app.data, app.look);
      if (done < 1) requestAnimationFrame(step);
    };
    if (still) return step(start);
    requestAnimationFrame(step);
    setTimeout(() => own === running && step(start + FADE), 2 * FADE); // frames may not come off the screen
  };
  const draw = () => {
    const { data, look } = app, [left, top, width, height] = data.box, active = app.active(), phrase = active.phrase;
    node.hidden = index > data.sides.length;
    if (node.hidden) return void running++; // a map that still fades in has gone with its side
    if (image.src !== app.image) image.src = app.image;
    box.style.setProperty("--ratio", data.ratio);
    crop.hidden = Math.min(left, top) > -0.002 && left < 0.002 && top < 0.002 && width > 0.996 && height > 0.996;
    lay(crop, data.box);
    put(marker, app.picked.patch);
    put(cursor, app.pointed && app.pointed.patch);
    const { title: of, origin: from, regions, shape } = side();
    const text = phrase && data.words.slice(phrase[0], phrase[1] + 1).map((word) => word.text).join(" ");
    const name = !index ? "image" : text && regions ? `map of “${text}”` : `map: ${of}`;
    set(title, name);
    title.title = index ? `${name}. ${from}` : "The image as it was given.";
    set(origin, index ? from : `${shape[0]} × ${shape[1]} patches` + (crop.hidden ? "" : "; the model sees what is inside the dashes"));
    origin.title = index ? from : "The map has one value for each patch; between their middles it is drawn smoothly.";
    image.alt = index ? `${data.alt}, with the ${name}` : data.alt;
    box.setAttribute("aria-label", `${image.alt}. Arrow keys move over the patches, Enter keeps one, Escape lets go.`);
    node.classList.toggle("gradeclip-heat", index > 0 && look.colours !== "image");
    image.style.setProperty("--opacity", look.opacity);
    if (index) fade(layer(side(), phrase));
  };
  return { node, draw };
};

// A word with its signed bar around zero.
const bar = (app, index) => {
  const name = make("span", { class: "gradeclip-name" }), fill = make("i"), value = make("output");
  const kind = index == null ? ["div", { class: "gradeclip-word" }] : ["button", { class: "gradeclip-word", type: "button" }];
  const node = make(...kind, name, make("span", { class: "gradeclip-axis" }, fill), value);
  if (index != null) {
    node.onpointerenter = node.onfocus = () => app.point({ phrase: [index, index] });
    node.onpointerleave = node.onblur = () => app.point(null);
    const keep = (event) => {
      const from = app.picked.phrase;
      app.pick({ phrase: event.shiftKey && from ? [Math.min(from[0], index), Math.max(from[1], index)] : [index, index] });
    };
    node.onclick = keep;
    node.onkeydown = (event) => {
      if (event.key === "Escape") app.pick({});
      if (event.key !== "Enter") return;
      event.preventDefault(); // the click that it would make does not know of Shift
      keep(event);
    };
  }
  node.draw = (word, score, top, axis, chosen) => {
    set(name, word.text);
    set(value, signed(score));
    const length = top ? 50 * Math.min(Math.abs(score) / top, 1) : 0;
    fill.style.width = `${length}%`;
    fill.style.left = `${score < 0 ? 50 - length : 50}%`;
    fill.className = score < 0 ? "gradeclip-against" : "gradeclip-for";
    node.classList.toggle("gradeclip-muted", word.muted);
    tell(node, `${word.text}: ${signed(score)}, ${axis[score < 0 ? 0 : 1]}`);
    if (index != null) node.setAttribute("aria-pressed", Boolean(chosen));
  };
  return node;
};

const wordsPart = (app) => {
  const match = make("div", { class: "gradeclip-match" }), head = make("div", { class: "gradeclip-title" });
  const list = make("div", { class: "gradeclip-list", role: "group" }), other = make("div", { class: "gradeclip-list" });
  const between = make("small"), axis = make("div", { class: "gradeclip-ends" });
  const node = make("div", { class: "gradeclip-words" }, match, head, list, between, other, axis);
  const draw = () => {
    const { words, others: rest, match: numbers, axis: ends, words_of: of, sides } = app.data, active = app.active();
    fit(match, numbers, () => make("div", {}, make("span"), make("b"), make("meter", { min: 0, max: 1 })), (node, { name, value }) => {
      set(node.children[0], name);
      set(node.children[1], value.toFixed(3));
      node.children[2].value = value;
      node.children[2].setAttribute("aria-label", name);
      node.title = `${name}: ${value.toFixed(4)}`;
    });
    const columns = sides[0].columns, [, width] = sides[0].shape, patch = columns && active.patch;
    const scores = words.map((word, i) => (patch ? columns[i][patch[0] * width + patch[1]] : word.score));
    const top = patch ? Math.max(...columns.flat().map(Math.abs)) : Math.max(...[...words, ...rest].map((word) => Math.abs(word.score)), 0);
    set(head, patch ? `words at the patch in row ${patch[0] + 1}, column ${patch[1] + 1}` : of);
    const sentence = patch ? ["against", "for"] : ends;
    const chosen = app.picked.phrase;
    const within = (i) => chosen && chosen[0] <= i && i <= chosen[1];
    fit(list, words, (i) => bar(app, i), (node, word, i) => node.draw(word, scores[i], top, sentence, within(i)));
    fit(other, patch ? [] : rest, () => bar(app), (node, word) => node.draw(word, word.score, top, sentence));
    set(between, other.children.length ? "words of the other caption" : "");
    fit(axis, [`◄ ${sentence[0]}`, "0", `${sentence[1]} ►`], () => make("span"), (node, text) => set(node, (node.title = text)));
    axis.hidden = !words.length;
    list.setAttribute("aria-label", `${of}: press a word to keep its map, Shift and another for a phrase`);
  };
  return { node, draw };
};

// One control of `data.controls`; a refused text, or one in which somebody writes, is left to them.
const control = (app, { name, label, help, kind, min = 0, step = 0.05 }) => {
  const type = { bool: "checkbox", str: "text" }[kind] || "range";
  const input = kind === "choice" ? make("select") : make("input", { type, min, step, spellcheck: "false" });
  const readout = make("output");
  const node = make("label", { class: `gradeclip-control gradeclip-${name}`, title: help }, make("span", {}, label), input, readout);
  const value = () => (kind === "bool" ? input.checked : input.type === "range" ? input.valueAsNumber : input.value);
  const read = () => input.type === "range" && set(readout, input.value);
  let known = "", sent = null;
  const ask = () => value() !== sent && app.change({ [name]: (sent = value()) });
  input.oninput = () => {
    read();
    if (input.type === "range") app.preview({ [name]: value() });
  };
  input.onchange = () => void ask();
  input.onkeydown = (event) => { // a browser asks by itself only if nobody else took the key
    if (event.key === "Enter" && kind === "str") ask();
  };
  const draw = (spec) => {
    sent = null;
    if (kind === "choice" && known !== JSON.stringify(spec.options)) {
      known = JSON.stringify(spec.options);
      input.replaceChildren(...spec.options.map(([text, key]) => make("option", { value: key }, text)));
    }
    input.disabled = spec.disabled;
    input.max = spec.max ?? 1; // another model has other layers
    if (kind === "bool") input.checked = spec.value;
    else if (!spec.refused && !(kind === "str" && input === document.activeElement)) input.value = spec.value;
    input.setAttribute("aria-invalid", spec.refused);
    read();
  };
  return { node, draw, input };
};

const fold = (title, help, ...children) => make("details", { class: "gradeclip-fold" }, make("summary", { title: help }, title), make("div", {}, ...children));
const button = (text, help, press) => {
  const node = make("button", { type: "button", title: help, class: "gradeclip-button" }, text);
  node.onclick = press;
  return node;
};

// A large photograph is made smaller here: a kernel refuses long messages without a word.
const shrunk = async (file) => {
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap || (file.size < 2e6 && Math.max(bitmap.width, bitmap.height) <= LONGEST)) {
    if (!bitmap && file.size > 5e6) throw new Error(`${file.name} is no image that this browser can open.`);
    return { bytes: await file.arrayBuffer(), note: "" };
  }
  const ratio = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
  const canvas = make("canvas", { width: Math.round(bitmap.width * ratio), height: Math.round(bitmap.height * ratio) });
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  return { bytes: await blob.arrayBuffer(), note: `${bitmap.width} × ${bitmap.height} pixels were reduced to ${canvas.width} × ${canvas.height} before they were sent.` };
};

// What a kernel has beyond the view: scenes, controls, surprises, and what is folded away.
const desk = (app, model) => {
  const send = (message, buffers) => model.send(message, undefined, buffers);
  const scenes = make("div", { class: "gradeclip-scenes", role: "group", "aria-label": "scenes to choose from" });
  const file = make("input", { type: "file", accept: "image/*", hidden: "", "aria-label": "an image of your own" });
  file.onchange = async () => {
    const [chosen] = file.files;
    file.value = ""; // so that the same file can be given again
    if (!chosen) return;
    try {
      const { bytes, note } = await shrunk(chosen);
      send({ kind: "image", name: chosen.name, note }, [bytes]);
    } catch (error) {
      app.say({ text: error.message, kind: "wrong" });
    }
  };
  const add = button("+ image", "Choose an image file of this computer. A large one is made smaller before it is sent.", () => file.click());
  const path = make("input", { type: "text", placeholder: "path of an image file, then Enter", spellcheck: "false", title: "A file where the kernel runs.", "aria-label": "path of an image file" });
  path.onchange = () => send({ kind: "path", path: path.value });
  const known = fold("known words", "The words that this model was shown; press one to add it to the caption.");
  const places = { head: row(), caption: row(), ask: row(), look: row(), method: row(), drawing: row(), plain: row() };
  const surprises = make("div", { class: "gradeclip-surprises" });
  const asks = make("span", { role: "radiogroup", class: "gradeclip-asks", "aria-label": "ask" }), group = Math.random().toString(36);
  const name = make("input", { type: "text", value: "explanation", spellcheck: "false", title: "Of the file or folder, in the folder where the kernel runs.", "aria-label": "name" });
  const script = make("pre", { tabindex: "0" }), tables = make("div", { class: "gradeclip-tables" });
  const copy = button("copy as Python", "The lines that compute this map again, in any notebook.", async () => {
    try {
      await navigator.clipboard.writeText(script.textContent);
      set(copy, "copied");
    } catch {
      getSelection().selectAllChildren(script);
      set(copy, "selected: press Ctrl+C");
    }
    setTimeout(() => set(copy, "copy as Python"), 2000);
  });
  const save = (what, text, help) => button(text, help, () => send({ kind: "save", what, name: name.value }));
  const answer = make("output");
  const depends = button("does the map depend on the caption?", "Is it another map when something else is asked? Compared with the maps of other prompts.", () => app.change({ dependence: true }));
  const keep = fold("Save, Python, numbers", "Take what you found with you.",
    row(make("label", {}, "name ", name), save("image", "save image (PNG)", "The figure, with its titles."), save("explanation", "save explanation", "The raw numbers, which Explanation.load reads."), copy),
    row(depends, answer), script, tables);
  const folds = make("div", { class: "gradeclip-folds" }, fold("Method and layers", "Which method, and how it is set.", places.method), fold("Drawing", "How numbers become colours.", places.drawing), keep);
  const head = make("div", { class: "gradeclip-head" }, places.head, places.caption, places.ask, places.plain);
  const message = make("div", { class: "gradeclip-message", role: "status" }), controls = {};
  const bare = button("hold: image", "Hold this button, or the key I, to see the image without its map.");
  bare.classList.add("gradeclip-hold"); // whose :active uncovers the image
  const uncover = (event) => {
    const on = event.type === "keydown" && !/^(INPUT|SELECT|PRE)$/.test(event.target.tagName);
    if (event.key.toLowerCase() === "i") app.root.classList.toggle("gradeclip-bare", on);
  };
  for (const name of ["keydown", "keyup"]) app.root.addEventListener(name, uncover);
  app.say = ({ text, kind, done }) => {
    const bar = make("progress", { "aria-label": text, ...(done == null ? {} : { max: 1, value: done }) });
    message.className = `gradeclip-message gradeclip-${kind || "none"}`;
    message.setAttribute("role", kind === "wrong" ? "alert" : "status");
    message.replaceChildren(...(kind === "busy" ? [bar, text, button("stop", "Keep what is shown.", () => send({ kind: "stop" }))] : [text || ""]));
  };
  const teach = () => {
    const words = model.get("vocabulary");
    known.hidden = !words.length;
    known.lastChild.replaceChildren(...words.map((word) => button(word, `add “${word}” to the caption`, () => {
      const { input } = controls.caption;
      app.change({ caption: (input.value = `${input.value.trim()} ${word}`.trim()) });
    })));
  };
  const scene = (i) => button(make("img", { src: model.get("thumbnails")[i], alt: "" }), "", () => send({ kind: "scene", index: i }));
  for (const spec of app.data.controls) {
    controls[spec.name] = control(app, spec);
    places[spec.place].append(controls[spec.name].node);
  }
  if (controls.model) places.head.prepend(make("span", { title: app.data.rule }, "Scene"), scenes, add, file);
  if (controls.caption) places.caption.append(known);
  if (controls.against) places.ask.prepend(make("span", {}, "Ask"), asks);
  places.ask.append(surprises);
  if (controls.colours) {
    const contour = make("input", { type: "checkbox" });
    contour.checked = app.look.contour;
    contour.onchange = () => app.preview({ contour: contour.checked });
    const title = "A line where relevance is half of the largest value; dashes for what is against.";
    const drawn = make("label", { class: "gradeclip-control", title }, make("span", {}, "contour"), contour);
    places.drawing.append(drawn, row(make("span", {}, "image file"), path));
    places.look.append(bare);
  }
  places.look.hidden = folds.hidden = !controls.colours;
  const draw = () => {
    const { controls: specs, ask, scenes: offers = [], asks: questions = [], surprises: offered = [], script: lines = "" } = app.data;
    fit(scenes, offers, scene, (node, { caption, note, chosen, failure }) => {
      tell(node, `${caption}. ${note}`);
      node.setAttribute("aria-pressed", chosen);
      node.classList.toggle("gradeclip-failure", failure);
    });
    for (const spec of specs) controls[spec.name].draw(spec);
    for (const field of ["against", "beside"]) if (controls[field]) controls[field].node.hidden = ask !== field;
    fit(asks, questions, () => make("label", {}, make("input", { type: "radio", name: group }), make("span")), (node, { key, text, help, fields }) => {
      const [radio, label] = node.children;
      node.title = help;
      set(label, text);
      radio.checked = key === ask;
      radio.onchange = () => app.change(fields);
    });
    fit(surprises, offered, (i) => button("", "", () => send({ kind: "surprise", index: i })), (node, { text, help }) => {
      set(node, text);
      node.title = help;
    });
    set(script, lines);
    set(answer, app.data.dependence);
    if (keep.open) table();
    app.say({ ...app.data.message, ...model.get("busy") });
  };
  const table = () => tables.replaceChildren(...app.data.sides.map((side) => {
    const [, columns] = side.shape, rows = [];
    const line = (head, cells) => make("tr", {}, make("th", {}, head), ...cells.map((cell) => make("td", {}, String(cell))));
    for (let i = 0; i < side.map.length; i += columns) rows.push(line(String(i / columns + 1), side.map.slice(i, i + columns)));
    const words = [...app.data.words, ...app.data.others].map((word) => line(word.text, [signed(word.score)]));
    return make("div", {}, make("b", {}, `${side.title}, ${side.origin}`), make("table", {}, make("caption", {}, app.data.words_of), ...words),
      make("table", {}, make("caption", {}, "relevance of each patch, rows from the top"), ...rows));
  }));
  keep.ontoggle = () => keep.open && table();
  teach();
  model.on("change:vocabulary", teach);
  model.on("change:busy", draw);
  model.on("change:image", () => (path.value = ""));
  return { head, message, look: places.look, folds, draw };
};

// ---------------------------------------------------------------------------------------------------------------- view

// The same in a page of HTML, from the data that stand in it; there is nobody to send messages to.
const open = (el) => {
  const { views, image } = JSON.parse(el.querySelector("script").textContent);
  el.replaceChildren();
  for (const data of views) {
    const values = { data, image };
    render({ model: { get: (name) => values[name], on() {}, send: null }, el: el.appendChild(make("div")) });
  }
};

const render = ({ model, el }) => {
  const root = make("div", { class: "gradeclip-explorer", "data-lm-suppress-shortcuts": "true" }); // our keys, not a notebook's
  const app = { root, pointed: null, look: { contour: true } };
  const take = () => {
    app.data = model.get("data");
    app.image = model.get("image");
    app.picked = { phrase: app.data.phrase, patch: app.data.patch };
    for (const name of ["opacity", "threshold", "colours"]) app.look[name] = app.data[name];
  };
  for (const name of ["keydown", "keypress"]) root.addEventListener(name, (event) => event.stopPropagation()); // a notebook would take the focus
  app.active = () => app.pointed || app.picked;
  app.point = (place) => {
    app.pointed = place;
    draw();
  };
  app.pick = (place) => {
    const key = ({ phrase, patch }) => String([phrase, patch]);
    app.picked = key(place) === key(app.picked) ? {} : place;
    app.pointed = null;
    draw();
    app.change({ phrase: app.picked.phrase || null, patch: app.picked.patch || null });
  };
  app.preview = (fields) => {
    Object.assign(app.look, fields);
    draw();
  };
  app.change = (fields) => model.send && model.send({ kind: "change", fields });
  take();
  const frames = [0, 1, 2].map((index) => frame(app, index)), words = wordsPart(app);
  const verdict = make("p", { class: "gradeclip-verdict", "aria-live": "polite" });
  const legend = make("small", { class: "gradeclip-legend" });
  const full = model.send && desk(app, model);
  const body = make("div", { class: "gradeclip-body" }, ...frames.map((one) => one.node), words.node);
  const foot = make("div", { class: "gradeclip-foot" }, legend, ...(full ? [full.look] : []));
  root.append(...(full ? [full.head, full.message] : []), body, verdict, foot, ...(full ? [full.folds] : []));
  el.append(root);
  const draw = () => {
    const { data } = app, { phrase } = app.active(), one = data.sides[0];
    body.classList.toggle("gradeclip-two", data.sides.length > 1);
    frames.forEach((each) => each.draw());
    words.draw();
    const said = phrase && one.regions ? (phrase[0] === phrase[1] ? data.verdict.words[phrase[0]] : String(phrase) === String(data.phrase) && data.verdict.phrase) : data.verdict.all;
    set(verdict, said || data.verdict.all || "");
    verdict.hidden = !verdict.textContent;
    const top = phrase && one.regions ? one.region_scale : one.scale, both = one.signed || (phrase && one.regions);
    const most = top ? top.toPrecision(3) : "the largest of each map";
    const own = app.look.colours === "image";
    set(legend, (own ? `hidden: 0, clear: ${most}` : `pale or middle: 0, strongest: ${most}`) + (both ? `; purple: against, −${most}` : "") + (one.note && !phrase ? ` (${one.note})` : ""));
    legend.title = "Relevance is linear in what you see; the line runs where it is half of the largest value.";
  };
  const all = () => {
    take();
    if (full) full.draw();
    draw();
  };
  model.on("change:data", all); // with which a new image comes
  all();
};

export default { render, open };
