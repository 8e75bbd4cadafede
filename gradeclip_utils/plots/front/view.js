// An image, its maps, and words that carry their maps: point at a word and its map fades in, at a patch and the words
// follow. One script for the explorer (whose kernel sends `data` and hears messages) and for a page of HTML, where
// nobody does. It loads nothing, and sets what a user wrote as text only, never as HTML.
//
//     what the kernel sent, what is pointed at and turned -> view -> put -> page

const FADE = 150; // milliseconds
const LONGEST = 1024; // pixels of an image that is sent to the kernel
const FINE = 288; // pixels on the longest side of what is laid over the image

// What should stand on the page: a tag, its properties or attributes (`then` is called with the node), what is inside.
// Handlers give nothing back: false would undo what the browser does by itself.
const h = (tag, attributes, ...children) => ({ tag, attributes, children: children.flat().filter((one) => one) });
const box = (name, ...children) => h("div", { className: `gradeclip-${name}` }, ...children);
const button = (text, title, onclick, more) =>
  h("button", { type: "button", className: "gradeclip-button", title, onclick, ...more }, text);
const fold = (text, title, more, ...children) =>
  h("details", { className: "gradeclip-fold", ...more }, h("summary", { title }, text), h("div", {}, ...children));

// Bring what is inside of a node in line. Nodes are made once, so that none loses the keyboard's focus or its scroll.
const put = (parent, wanted) => {
  wanted.forEach((item, i) => {
    const name = item.tag || "#text", there = parent.childNodes[i];
    const node = there?.nodeName.toLowerCase() === name ? there
      : item.tag ? document.createElement(name) : document.createTextNode("");
    if (node !== there) parent.insertBefore(node, there || null);
    if (node.wanted === item) return;
    node.wanted = item;
    if (!item.tag) return void (node.data = item);
    put(node, item.children); // first: a list has options before it has a value
    const { then, ...attributes } = item.attributes;
    for (const [key, value] of Object.entries(attributes)) {
      if (value == null) node.removeAttribute(key);
      else if (!(key in node)) node.setAttribute(key, value);
      else if (node[key] !== value) node[key] = value;
    }
    then?.(node);
  });
  while (parent.childNodes.length > wanted.length) parent.lastChild.remove();
};

const within = (value, least, most) => Math.min(Math.max(value, least), most);

// ------------------------------------------------------------------------------------------------------------ numbers

// What is shown of a side, in -1 to 1: of everything that was asked, or of the words from first to last.
const layer = ({ map, regions, scale, region_scale: most, signed: both }, phrase) => {
  if (!phrase || !regions) return map.map((value) => within(value / (scale || 1), both ? -1 : 0, 1));
  const [first, last] = phrase, words = regions.slice(first, last + 1);
  const sum = map.map((_, i) => words.reduce((all, one) => all + one[i], 0));
  const top = first === last && most ? most : Math.max(most, ...sum.map(Math.abs)) || 1;
  return sum.map((value) => value / top);
};

// Cells (numbers, or rows of them) drawn out over pixels: between the middles of two cells a mixture of both.
const stretch = (cells, start, length, pixels, outside, mix) =>
  Array.from({ length: pixels }, (_, i) => {
    const at = ((i + 0.5) / pixels - start) / length, place = within(at * cells.length - 0.5, 0, cells.length - 1);
    const first = Math.floor(place), second = Math.min(first + 1, cells.length - 1);
    return at < 0 || at > 1 ? outside : mix(cells[first], cells[second], place - first);
  });
const mix = (one, other, part) => one * (1 - part) + other * part;

const spread = (values, [rows, columns], [left, top, width, height], across, down) => {
  const row = (_, i) => stretch(values.slice(i * columns, (i + 1) * columns), left, width, across, 0, mix);
  const both = (one, other, part) => one.map((value, i) => mix(value, other[i], part));
  return stretch(Array.from({ length: rows }, row), top, height, down, Array(across).fill(0), both).flat();
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
  const [across, down] = [data.ratio, 1 / data.ratio].map((ratio) => Math.max(1, Math.round(FINE * Math.min(1, ratio))));
  if (canvas.width !== across || canvas.height !== down) [canvas.width, canvas.height] = [across, down];
  const fine = spread(values, side.shape, data.box, across, down), context = canvas.getContext("2d");
  const pixels = context.createImageData(across, down), colours = new Uint32Array(pixels.data.buffer), table = [];
  const both = side.signed || values.some((value) => value < 0);
  const packed = (parts) => parts.map(Math.round).reduce((all, part, i) => all + part * 256 ** i, 0);
  for (let step = -256; step <= 256; step++) table.push(packed(shade(step / 256, look, data.palettes, both)));
  for (let i = 0; i < fine.length; i++) colours[i] = table[Math.round(256 * within(fine[i], -1, 1)) + 256];
  if (look.contour) {
    const beyond = (i) => (fine[i] >= 0.5) - (fine[i] <= -0.5);
    for (let i = 0; i < fine.length - across; i++) {
      const here = beyond(i), edge = here - beyond(i + 1) || here - beyond(i + across);
      if (!edge || (i + 1) % across === 0) continue;
      const against = here < 0 || beyond(i + 1) < 0 || beyond(i + across) < 0;
      if (against && (i + Math.floor(i / across)) % 6 > 3) continue; // between two dashes
      colours[i] = packed(against ? [94, 60, 153, 255] : [179, 88, 6, 255]);
    }
  }
  context.putImageData(pixels, 0, 0);
};

// --------------------------------------------------------------------------------------------------------------- parts

const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(4);
const lay = (place) => ["left", "top", "width", "height"].map((name, i) => `${name}: ${100 * place[i]}%`).join("; ");

const fade = (canvas, target, side, { data, look }) => {
  const own = (canvas.run = {}), from = canvas.shown || [], start = performance.now();
  const still = from.length !== target.length || from.every((value, i) => value === target[i]) || document.hidden
    || matchMedia("(prefers-reduced-motion: reduce)").matches;
  const step = (now) => {
    if (own !== canvas.run) return;
    const done = still ? 1 : within((now - start) / FADE, 0, 1);
    canvas.shown = done === 1 ? target : target.map((value, i) => mix(from[i], value, done));
    paint(canvas, canvas.shown, side, data, look);
    if (done < 1) requestAnimationFrame(step);
  };
  step(start);
  if (!still) setTimeout(() => step(start + FADE), 2 * FADE); // frames may not come off the screen
};

// What the mouse and the keys do on an image: a patch is pointed at or kept.
const onPatches = (app, [rows, columns]) => {
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const under = ({ offsetX, offsetY, currentTarget: node }) => {
    const [left, top, width, height] = app.data.box;
    const x = (offsetX / node.clientWidth - left) / width, y = (offsetY / node.clientHeight - top) / height;
    return x >= 0 && x < 1 && y >= 0 && y < 1 ? [Math.floor(y * rows), Math.floor(x * columns)] : null;
  };
  const over = (patch) => void (String(patch) !== String(app.pointed?.patch || null) && app.point(patch && { patch }));
  const onkeydown = (event) => {
    const { patch } = app.active();
    if (event.key in steps) {
      const [row, column] = patch || [rows >> 1, columns >> 1], [down, right] = steps[event.key];
      over([within(row + down, 0, rows - 1), within(column + right, 0, columns - 1)]);
    } else if (event.key === "Enter" || event.key === " ") patch && app.pick({ patch });
    else return;
    event.preventDefault();
  };
  const onclick = (event) => void (under(event) && app.pick({ patch: under(event) })), leave = () => over(null);
  return { onpointermove: (event) => over(under(event)), onpointerleave: leave, onblur: leave, onclick, onkeydown };
};

// The image (0), or the image with a map over it. It has its address at once, wherever its cell is.
const frame = (app, index) => {
  const { data, look } = app, side = data.sides[Math.max(index - 1, 0)], heat = index && look.colours !== "image";
  const className = `gradeclip-side gradeclip-side-${index}${heat ? " gradeclip-heat" : ""}`;
  if (!side) return h("figure", { className, hidden: true });
  const [left, top, width, height] = data.box, [rows, columns] = side.shape, { phrase } = app.active();
  const at = ([row, column]) =>
    lay([left + (width * column) / columns, top + (height * row) / rows, width / columns, height / rows]);
  const cursor = (patch, kind) =>
    h("div", { className: `gradeclip-cursor ${kind}`, hidden: !patch, style: patch && at(patch) });
  const text = phrase && data.words.slice(phrase[0], phrase[1] + 1).map((word) => word.text).join(" ");
  const of = !text || !side.regions ? `: ${side.title}` : side.by ? `: ${side.by}“${text}”` : ` of “${text}”`;
  const name = index ? `map${of}` : "image";
  const alt = index ? `${data.alt}, with the ${name}` : data.alt;
  const whole = data.box.every((part, i) => Math.abs(part - (i > 1)) < 0.004);
  const patches = `${rows} × ${columns} patches${whole ? "" : "; the model sees what is inside the dashes"}`;
  const keys = "Arrow keys move over the patches, Enter keeps one, Escape lets go.";
  const smooth = "The map has one value for each patch; between their middles it is drawn smoothly.";
  return h("figure", { className, hidden: false },
    h("div", { className: "gradeclip-title", title: index ? name : "The image as it was given." }, name),
    h("div", {
      className: "gradeclip-frame", tabIndex: 0, role: "group", "aria-label": `${alt}. ${keys}`,
      style: `--opacity: ${look.opacity}`, ...onPatches(app, side.shape),
    },
      h("img", { alt, src: app.image, draggable: false }),
      h("canvas", { "aria-hidden": "true", then: (canvas) => index && fade(canvas, layer(side, phrase), side, app) }),
      h("div", { className: "gradeclip-crop", hidden: whole, style: lay(data.box) }),
      cursor(app.picked.patch, "gradeclip-marker"), cursor(app.pointed?.patch, "")),
    h("small", { className: "gradeclip-origin", title: index ? side.origin : smooth }, index ? side.origin : patches));
};

// A word with its signed bar around zero; one with an index can be pointed at and kept.
const bar = (app, word, score, top, ends, index) => {
  const length = top ? 50 * Math.min(Math.abs(score) / top, 1) : 0, side = score < 0 ? "against" : "for";
  const told = `${word.text}: ${signed(score)}, ${ends[score < 0 ? 0 : 1]}`;
  const className = `gradeclip-word${word.muted ? " gradeclip-muted" : ""}`;
  const style = `width: ${length}%; left: ${score < 0 ? 50 - length : 50}%`;
  const parts = [
    h("span", { className: "gradeclip-name" }, word.text),
    h("span", { className: "gradeclip-axis" }, h("i", { className: `gradeclip-${side}`, style })),
    h("output", {}, signed(score)),
  ];
  if (index == null) return h("div", { className, title: told, "aria-label": told }, ...parts);
  const { phrase } = app.picked, [first, last] = phrase || [index, index];
  const point = () => app.point({ phrase: [index, index] }), leave = () => app.point(null);
  const keep = ({ shiftKey }) =>
    app.pick({ phrase: shiftKey ? [Math.min(first, index), Math.max(last, index)] : [index, index] });
  const onkeydown = (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // the click that it would make does not know of Shift
    keep(event);
  };
  return h("button", {
    type: "button", className, title: told, "aria-label": told, onclick: keep, onkeydown,
    "aria-pressed": Boolean(phrase) && first <= index && index <= last,
    onpointerenter: point, onfocus: point, onpointerleave: leave, onblur: leave,
  }, ...parts);
};

const scored = (app) => {
  const { words, others, match, axis, words_of: of, sides: [{ columns, shape }] } = app.data;
  const patch = columns && app.active().patch, ends = patch ? ["against", "for"] : axis, rest = patch ? [] : others;
  const scores = words.map((word, i) => (patch ? columns[i][patch[0] * shape[1] + patch[1]] : word.score));
  const all = patch ? columns.flat() : [...scores, ...rest.map((word) => word.score)];
  const top = Math.max(...all.map(Math.abs), 0), help = "press a word to keep its map, Shift and another for a phrase";
  return box("words",
    box("match", match.map(({ name, value }) => h("div", { title: `${name}: ${value.toFixed(4)}` },
      h("span", {}, name), h("b", {}, value.toFixed(3)), h("meter", { min: 0, max: 1, value, "aria-label": name })))),
    box("title", patch ? `words at the patch in row ${patch[0] + 1}, column ${patch[1] + 1}` : of),
    h("div", { className: "gradeclip-list", role: "group", "aria-label": `${of}: ${help}` },
      words.map((word, i) => bar(app, word, scores[i], top, ends, i))),
    h("small", {}, rest.length ? "words of the other caption" : ""),
    box("list", rest.map((word) => bar(app, word, word.score, top, ends))),
    h("div", { className: "gradeclip-ends", hidden: !words.length },
      [`◄ ${ends[0]}`, "0", `${ends[1]} ►`].map((title) => h("span", { title }, title))));
};

// ---------------------------------------------------------------------------------------- what a kernel is needed for

// One control. What was turned, and the kernel has not answered yet, stands in `app.turned`.
const control = (app, spec) => {
  const { name, kind, options, min = 0, max = 1, step = 0.05, send = app.change } = spec;
  const value = app.turned[name] ?? spec.value, type = { bool: "checkbox", int: "range", float: "range" }[kind];
  const read = ({ target }) =>
    (app.turned[name] = kind === "bool" ? target.checked : type === "range" ? target.valueAsNumber : target.value);
  const ask = (event, again) => { // again: by now there may be a file
    if (again || read(event) !== app.sent[name]) send?.({ [name]: (app.sent[name] = read(event)) });
  };
  const shared = { name, disabled: spec.disabled, "aria-invalid": spec.refused, onchange: (event) => ask(event) };
  const typed = {
    type, min, max, step, spellcheck: false, oninput: (event) => app.preview({ [name]: read(event) }),
    onkeydown: (event) => void (event.key === "Enter" && kind === "str" && ask(event, true)),
  };
  return h("label", { className: `gradeclip-control gradeclip-${name}`, title: spec.help }, h("span", {}, spec.label),
    kind === "choice"
      ? h("select", { ...shared, value }, options.map(([text, key]) => h("option", { value: key }, text)))
      : h("input", { ...typed, ...shared, checked: value === true, value: String(value) }),
    h("output", {}, type === "range" ? String(value) : ""));
};

// A large photograph is made smaller here: a kernel refuses long messages without a word.
const upload = async (app, input) => {
  const [file] = input.files, { name } = file, bitmap = await createImageBitmap(file).catch(() => null);
  input.value = ""; // so that the same file can be given again
  if (!bitmap && file.size > 5e6) throw new Error(`${name} is no image that this browser can open: save it as JPEG or PNG.`);
  const { width, height } = bitmap || {}, ratio = bitmap ? Math.min(1, LONGEST / Math.max(width, height)) : 1;
  if (!bitmap || (file.size < 2e6 && ratio === 1)) return app.send({ kind: "image", name }, [await file.arrayBuffer()]);
  const canvas = new OffscreenCanvas(...[width, height].map((side) => Math.max(1, Math.round(side * ratio))));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const note = `${width} × ${height} pixels were reduced to ${canvas.width} × ${canvas.height} before they were sent.`;
  app.send({ kind: "image", name, note }, [await (await canvas.convertToBlob()).arrayBuffer()]);
};

// The scenes, the caption and the questions above the view, and what there is to say.
const desk = (app) => {
  const { scenes, rule, asks, ask, surprises } = app.data;
  const scene = ({ caption, note, failure, chosen }, index) => button(
    h("img", { src: app.model.get("thumbnails")[index], alt: "" }), `${caption}. ${note}`,
    () => app.send({ kind: "scene", index }),
    { className: failure ? "gradeclip-failure" : "", "aria-label": `${caption}. ${note}`, "aria-pressed": chosen });
  const question = ({ key, text: asked, help, fields }) => h("label", { title: help },
    h("input", { type: "radio", name: app.group, checked: key === ask, onchange: () => app.change(fields) }),
    h("span", {}, asked));
  const add = [
    button("+ image", "Choose an image file of this computer. A large one is made smaller before it is sent.",
      (event) => event.target.nextSibling.click()),
    h("input", { type: "file", accept: "image/*", hidden: true, "aria-label": "an image of your own",
      onchange: ({ target }) => target.files.length && upload(app, target)
        .catch(({ message: text }) => app.set({ notice: { text, kind: "wrong" } })) }),
  ];
  const group = { className: "gradeclip-scenes", role: "group", "aria-label": "scenes to choose from" };
  const choice = { className: "gradeclip-asks", role: "radiogroup", "aria-label": "ask" };
  const stop = button("stop", "Keep what is shown.", () => app.send({ kind: "stop" }));
  const say = ({ text, kind, done }) => h("div",
    { className: `gradeclip-${kind || "none"}`, role: kind === "wrong" ? "alert" : "status" },
    kind === "busy" ? [h("progress", { "aria-label": text, max: 1, value: done }), text, stop] : text);
  return [
    box("head",
      box("row", scenes && [h("span", { title: rule }, "Scene"), h("div", group, scenes.map(scene)), ...add],
        app.at("head")),
      box("row", app.at("caption"), scenes && app.known),
      box("row", scenes && [h("span", {}, "Ask"), h("span", choice, asks.map(question))], app.at("ask"),
        box("surprises", surprises.map((one, index) =>
          button(one.text, one.help, () => app.send({ kind: "surprise", index }))))),
      box("row", app.at("plain"))),
    box("message", [app.notice || app.data.message, app.model.get("busy")].map(say)), // long work covers nothing
  ];
};

const tables = ({ sides, words, others, words_of: of }) => {
  const line = (head, cells) => h("tr", {}, h("th", {}, head), cells.map((cell) => h("td", {}, String(cell))));
  const scores = [...words, ...others].map((word) => line(word.text, [signed(word.score)]));
  return sides.map(({ title, origin, map, shape: [rows, columns] }) => {
    const row = (_, i) => line(String(i + 1), map.slice(i * columns, (i + 1) * columns));
    const patches = h("caption", {}, "relevance of each patch, rows from the top");
    return h("div", {}, h("b", {}, `${title}, ${origin}`), h("table", {}, h("caption", {}, of), scores),
      h("table", {}, patches, Array.from({ length: rows }, row)));
  });
};

// What is folded away below the view.
const folds = (app) => {
  const own = (name, kind, label, value, send, help) => control(app, { name, kind, label, value, send, help });
  const save = (what, text, help) =>
    button(text, help, () => app.send({ kind: "save", what, name: app.turned.file ?? "explanation" }));
  const copy = async ({ target }) => {
    const script = target.closest("details").querySelector("pre");
    const copied = await navigator.clipboard?.writeText(script.textContent).then(() => true, () => false);
    if (!copied) getSelection().selectAllChildren(script);
    target.textContent = copied ? "copied" : "selected: press Ctrl+C";
    setTimeout(() => (target.textContent = "copy as Python"), 2000);
  };
  const ontoggle = ({ target }) => app.set({ open: target.open });
  const keep = fold("Save, Python, numbers", "Take what you found with you.", { ontoggle },
    box("row",
      own("file", "str", "name", "explanation", null, "Of the file or folder, in the folder where the kernel runs."),
      save("image", "save image (PNG)", "The figure, with its titles."),
      save("explanation", "save explanation", "The raw numbers, which Explanation.load reads."),
      button("copy as Python", "The lines that compute this map again, in any notebook.", copy)),
    box("row", button("does the map depend on the caption?",
      "Is it another map when something else is asked? Compared with the maps of other prompts.",
      () => app.change({ dependence: true })), h("output", {}, app.data.dependence)),
    h("pre", { tabIndex: 0 }, app.data.script),
    box("tables", app.open && (app.tables ||= tables(app.data))));
  return box("folds",
    fold("Method and layers", "Which method, and how it is set.", {}, box("row", app.at("method"))),
    fold("Drawing", "How numbers become colours.", {}, box("row", app.at("drawing"),
      own("contour", "bool", "contour", true, app.preview,
        "A line where relevance is half of the largest value; dashes for what is against."),
      own("path", "str", "path of an image file", "", (fields) => app.send({ kind: "path", ...fields }),
        "A file where the kernel runs. Enter shows it."))),
    keep);
};

const known = (app, words) => {
  const add = (word) => {
    const { value } = app.data.controls.find((one) => one.name === "caption");
    app.turned.caption = `${(app.turned.caption ?? value).trim()} ${word}`.trim();
    app.change({ caption: app.turned.caption });
  };
  const help = "The words that this model was shown; press one to add it to the caption.";
  return fold("known words", help, { hidden: !words.length },
    words.map((word) => button(word, `add “${word}” to the caption`, () => add(word))));
};

// ---------------------------------------------------------------------------------------------------------------- view

const legend = ({ data, look, active }) => {
  const { phrase } = active(), [one] = data.sides, words = phrase && one.regions;
  const top = words ? one.region_scale : one.scale, most = top ? top.toPrecision(3) : "the largest of each map";
  const said = look.colours === "image" ? `hidden: relevance 0, clear: ${most}`
    : `pale or middle: relevance 0, strongest: ${most}`;
  const title = "Relevance is linear in what you see; the line runs where it is half of the largest value.";
  const more = one.signed || words ? `; purple: against${top ? `, −${most}` : ""}` : "";
  const note = one.note && !phrase ? ` (${one.note})` : "";
  return h("small", { className: "gradeclip-legend", title }, said + more + note);
};

const verdict = ({ data, active }) => {
  const { phrase } = active(), { all, words, phrase: kept } = data.verdict;
  const one = phrase && (String(phrase) === String(data.phrase) ? kept : phrase[0] === phrase[1] && words[phrase[0]]);
  return h("p", { className: "gradeclip-verdict", "aria-live": "polite", hidden: !(one || all) }, one || all);
};

const view = (app) => {
  const { scenes, sides, ratio } = app.data; // the whole panel has scenes
  const bare = button("hold: image", "Hold this button, or the key I, to see the image without its map.", null,
    { className: "gradeclip-button gradeclip-hold" }); // whose :active uncovers the image
  return [
    ...(app.model.send ? desk(app) : []),
    h("div", { className: `gradeclip-body${sides.length > 1 ? " gradeclip-two" : ""}`, style: `--ratio: ${ratio}` },
      [0, 1, 2].map((index) => frame(app, index)), scored(app)),
    verdict(app),
    box("foot", legend(app), scenes && box("row", app.at("look"), bare)),
    ...(scenes ? [folds(app)] : []),
  ];
};

const render = ({ model, el }) => {
  const root = document.createElement("div");
  root.className = "gradeclip-explorer";
  root.dataset.lmSuppressShortcuts = "true"; // our keys, not a notebook's
  el.append(root);
  const app = { model, pointed: null, look: { contour: true }, turned: {}, group: Math.random().toString(36) };
  app.draw = () => put(root, view(app));
  app.set = (fields) => {
    Object.assign(app, fields);
    app.draw();
  };
  app.active = () => app.pointed || app.picked;
  app.at = (place) => app.data.controls.filter((one) => one.place === place)
    .filter(({ name }) => place !== "ask" || name === app.data.ask).map((one) => control(app, one));
  app.send = (message, buffers) => model.send?.(message, undefined, buffers);
  app.change = (fields) => app.send({ kind: "change", fields });
  app.preview = (fields) => app.set({ look: { ...app.look, ...fields } });
  app.point = (pointed) => app.set({ pointed });
  app.pick = (place) => {
    const key = ({ phrase, patch }) => String([phrase, patch]);
    app.set({ picked: key(place) === key(app.picked) ? {} : place, pointed: null });
    app.change({ phrase: app.picked.phrase || null, patch: app.picked.patch || null });
  };
  const take = () => {
    const { phrase, patch, opacity, threshold, colours, controls } = (app.data = model.get("data"));
    const [image, words] = ["image", "vocabulary"].map((name) => model.get(name));
    if (app.image !== image) delete app.turned.path;
    if (app.words !== words) app.known = known(app, words);
    Object.assign(app, { image, words, picked: { phrase, patch }, sent: {}, notice: null, tables: null });
    const writes = root.contains(document.activeElement) && document.activeElement.name;
    for (const { name, kind, refused } of controls) // a refused text, or one in which somebody writes, is left to them
      if (!refused && !(kind === "str" && name === writes)) delete app.turned[name];
    app.preview({ opacity, threshold, colours });
  };
  for (const name of ["keydown", "keyup", "keypress"]) {
    root.addEventListener(name, (event) => {
      event.stopPropagation(); // a notebook would take the focus
      const off = name !== "keydown" || /^(INPUT|SELECT|PRE)$/.test(event.target.tagName);
      if (event.key.toLowerCase() === "i" && name !== "keypress") root.classList.toggle("gradeclip-bare", !off);
      if (event.key === "Escape" && !off) app.pick({});
    });
  }
  take();
  model.on("change:busy", app.draw);
  model.on("change:data", take); // with which a new image and another model's words come
};

// The same in a page of HTML, from the data that stand in it; there is nobody to send messages to.
const open = (el) => {
  const { views, image } = JSON.parse(el.querySelector("script").textContent);
  el.replaceChildren();
  for (const data of views) {
    const values = { data, image };
    render({ model: { get: (name) => values[name], on() {} }, el: el.appendChild(document.createElement("div")) });
  }
};

export default { render, open };
