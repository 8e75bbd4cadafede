// An image, its maps, and words that carry their maps: point at a word and its map fades in, at a patch and the words
// follow. This is what a page of HTML shows, where no kernel runs; the explorer shows more around it (`panels/desk.js`).
// It loads nothing, and sets what a user wrote as text only, never as HTML.
//
//     data, what is pointed at and turned -> view -> put -> page

const FADE = 150; // milliseconds
const FINE = 288; // pixels on the longest side of what is laid over the image

// What should stand on the page: a tag, its properties or attributes (`then` is called with the node), what is inside.
// Handlers give nothing back: false would undo what the browser does by itself.
const h = (tag, attributes, ...children) => ({ tag, attributes, children: children.flat().filter((one) => one) });
const box = (name, ...children) => h("div", { className: `gradeclip-${name}` }, ...children);
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
  const { sides, ratio } = app.data;
  return [
    ...app.above(),
    h("div", { className: `gradeclip-body${sides.length > 1 ? " gradeclip-two" : ""}`, style: `--ratio: ${ratio}` },
      [0, 1, 2].map((index) => frame(app, index)), scored(app)),
    verdict(app),
    box("foot", legend(app), app.beside()),
    ...app.below(),
  ];
};

// `more` is called with what is shown before it is drawn: it may put its own parts around, and hear of what is done.
const render = ({ model, el }, more) => {
  const root = document.createElement("div"), nothing = () => [];
  root.className = "gradeclip-explorer";
  root.dataset.lmSuppressShortcuts = "true"; // our keys, not a notebook's
  el.append(root);
  const app = { model, root, pointed: null, above: nothing, beside: nothing, below: nothing };
  app.draw = () => {
    app.look = { contour: true, ...app.data, ...app.turned }; // what is turned is seen before the kernel has answered
    put(root, view(app));
  };
  app.set = (fields) => {
    Object.assign(app, fields);
    app.draw();
  };
  app.active = () => app.pointed || app.picked;
  app.point = (pointed) => app.set({ pointed });
  app.pick = (place) => {
    const key = ({ phrase, patch }) => String([phrase, patch]);
    app.set({ picked: key(place) === key(app.picked) ? {} : place, pointed: null });
    app.change?.({ phrase: app.picked.phrase || null, patch: app.picked.patch || null });
  };
  const take = () => {
    const { phrase, patch } = (app.data = model.get("data"));
    app.taken?.();
    app.set({ image: model.get("image"), picked: { phrase, patch } });
  };
  for (const name of ["keydown", "keyup", "keypress"]) {
    root.addEventListener(name, (event) => {
      event.stopPropagation(); // a notebook would take the focus
      const off = name !== "keydown" || /^(INPUT|SELECT|PRE)$/.test(event.target.tagName);
      if (event.key.toLowerCase() === "i" && name !== "keypress") root.classList.toggle("gradeclip-bare", !off);
      if (event.key === "Escape" && !off) app.pick({});
    });
  }
  more?.(app);
  take();
  model.on("change:data", take); // with which a new image and another model's words come
};

// Views in a page of HTML, from the data that stand in it; there is nobody to send messages to.
const open = (el) => {
  const { views, image } = JSON.parse(el.querySelector("script").textContent);
  el.replaceChildren();
  for (const data of views) {
    const values = { data, image };
    render({ model: { get: (name) => values[name], on() {} }, el: el.appendChild(document.createElement("div")) });
  }
};

export default { render, open };
