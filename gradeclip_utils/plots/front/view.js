// A drawing in a page of HTML, by the description of `plots/drawing.py`: an image, and a panel a prompt with its shaded
// words, its map and its similarity. Point at a word to see its map, at a patch to see its words.
// It loads nothing, and sets what a user wrote as text only, never as HTML.
//
//     description, what is pointed at -> view -> put -> page

const FINE = 288; // pixels on the longest side of a map

// What should stand on the page: a tag, its properties or attributes (`then` is called with the node), what is inside.
const h = (tag, attributes, ...children) => ({ tag, attributes, children: children.flat().filter((one) => one) });
const box = (name, ...children) => h("div", { className: `gradeclip-${name}` }, ...children);
// Bring what is inside of a node in line. Nodes of a kind are made once, so that none loses the keyboard's focus.
const kind = ({ tag, attributes }) => (tag ? `${tag} ${attributes.className?.split(" ")[0]}` : "text");
const put = (parent, wanted) => {
  wanted.forEach((item, i) => {
    const same = [...parent.childNodes].slice(i).find((one) => one.wanted != null && kind(one.wanted) === kind(item));
    const node = same || (item.tag ? document.createElement(item.tag) : document.createTextNode(""));
    while (same && parent.childNodes[i] !== same) parent.childNodes[i].remove(); // what stood between is not wanted
    if (!same) parent.insertBefore(node, parent.childNodes[i] || null);
    if (node.wanted === item) return;
    const before = node.wanted?.attributes || {};
    node.wanted = item;
    if (!item.tag) return void (node.data = item);
    put(node, item.children); // first: a list has options before it has a value
    const { then, ...attributes } = item.attributes;
    for (const key of Object.keys(before)) if (!(key in attributes) && !(key in node)) node.removeAttribute(key);
    for (const [key, value] of Object.entries(attributes)) {
      if (value == null) node.removeAttribute(key);
      else if (!(key in node)) node.setAttribute(key, value);
      else if (!(key in before) || node[key] !== value) node[key] = value; // an empty `alt` is to be there, too
    }
    then?.(node);
  });
  while (parent.childNodes.length > wanted.length) parent.lastChild.remove();
};

const within = (value, least, most) => Math.min(Math.max(value, least), most);
const mix = (one, other, part) => one * (1 - part) + other * part;

// ------------------------------------------------------------------------------------------------------------- colours

// Red, green, blue (0 to 255) and alpha (0 to 1) of a value of -1 to 1, by the table that `plots.colours.colormap` gives.
const rgba = (colormap, value) => {
  const at = ((within(value, -1, 1) + 1) / 2) * (colormap.length - 1), low = Math.floor(at), high = Math.min(low + 1, colormap.length - 1);
  return colormap[low].map((part, i) => mix(part, colormap[high][i], at - low) * (i < 3 ? 255 : 1));
};
// A value's colour on white, with black or white letters, whichever have more contrast (by WCAG's luminance).
const onWhite = (colormap, value) => {
  const [r, g, b, alpha] = rgba(colormap, value), parts = [r, g, b].map((part) => Math.round(mix(255, part, alpha)));
  const [red, green, blue] = parts.map((part) => (part / 255) ** 2.2);
  const dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.179;
  return `background: rgb(${parts}); color: ${dark ? "#fff" : "#000"}`;
};

// Cells (numbers, or rows of them) drawn out over pixels: between the middles of two cells a mixture of both.
const stretch = (cells, start, length, pixels, outside, blend) =>
  Array.from({ length: pixels }, (_, i) => {
    const at = ((i + 0.5) / pixels - start) / length, place = within(at * cells.length - 0.5, 0, cells.length - 1);
    const first = Math.floor(place), second = Math.min(first + 1, cells.length - 1);
    return at < 0 || at > 1 ? outside : blend(cells[first], cells[second], place - first);
  });
const spread = (values, [rows, columns], [left, top, width, height], across, down) => {
  const row = (_, i) => stretch(values.slice(i * columns, (i + 1) * columns), left, width, across, 0, mix);
  const both = (one, other, part) => one.map((value, i) => mix(value, other[i], part));
  return stretch(Array.from({ length: rows }, row), top, height, down, Array(across).fill(0), both).flat();
};

const paint = (canvas, values, shape, { ratio, box: place, colormap }) => {
  const [across, down] = [ratio, 1 / ratio].map((side) => Math.max(1, Math.round(FINE * Math.min(1, side))));
  if (canvas.width !== across || canvas.height !== down) [canvas.width, canvas.height] = [across, down];
  const context = canvas.getContext("2d"), pixels = context.createImageData(across, down);
  const table = Array.from({ length: 513 }, (_, i) => rgba(colormap, i / 256 - 1));
  spread(values, shape, place, across, down).forEach((value, i) => {
    const [r, g, b, alpha] = table[Math.round(256 * within(value, -1, 1)) + 256];
    pixels.data.set([r, g, b, 255 * alpha], 4 * i);
  });
  context.putImageData(pixels, 0, 0);
};

// --------------------------------------------------------------------------------------------------------------- parts

const number = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toPrecision(2);
const percent = (part) => `${100 * part}%`;
const lay = (place) => ["left", "top", "width", "height"].map((name, i) => `${name}: ${percent(place[i])}`).join("; ");

// The map of a panel in -1 to 1: of everything that was asked, or of the words from first to last.
const strongest = (maps) => Math.max(...maps.flat().map(Math.abs)) || 1;
const layer = ({ map, regions, scale }, phrase) => {
  if (!phrase || !regions) return map.map((value) => value / (scale || 1));
  const words = regions.slice(phrase[0], phrase[1] + 1);
  const sum = map.map((_, i) => words.reduce((all, one) => all + one[i], 0));
  const top = strongest([...regions, sum]);
  return sum.map((value) => value / top);
};

// What the mouse and the keys do on a map: a patch is pointed at or kept.
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
  return {
    tabIndex: 0, role: "group", onpointermove: (event) => over(under(event)), onpointerleave: leave, onblur: leave,
    onclick, onkeydown,
  };
};

// The image in colour, or light grey below the map of a panel.
const frame = (app, panel) => {
  const { data, image } = app, [left, top, width, height] = data.box, [rows, columns] = panel?.shape || [1, 1];
  const { patch, phrase } = app.active(), keys = "Arrow keys move over the patches, Enter keeps one, Escape lets go.";
  const at = ([row, column]) =>
    lay([left + (width * column) / columns, top + (height * row) / rows, width / columns, height / rows]);
  const ours = data.panels[1] && String(phrase) === String(data.phrase); // then the map itself, on the scale of both
  const text = phrase && panel?.regions && wordsOf(panel, phrase), framed = data.framed && h("div", { className: "gradeclip-crop", style: lay(data.box) });
  const alt = panel ? `${data.alt}, with the map of “${text || panel.name}”` : data.alt;
  const handlers = panel?.regions ? { ...onPatches(app, panel.shape), "aria-label": `${alt}. ${keys}` } : {};
  return h("div", { className: `gradeclip-frame${panel ? " gradeclip-map" : ""}`, ...handlers },
    h("img", { alt, src: image, draggable: false }),
    panel && (panel.map ? h("canvas", { "aria-hidden": "true", then: (canvas) => paint(canvas, layer(panel, ours ? null : phrase), panel.shape, data) })
      : h("span", { className: "gradeclip-none" }, "no map: words alone")),
    framed, panel?.regions && patch && h("div", { className: "gradeclip-cursor", style: at(patch) }));
};

const wordsOf = (panel, [first, last]) => panel.cells.slice(first, last + 1).map(([word]) => word.text).join(" ");

// The title: words shaded by their scores. Those that have a map can be pointed at and kept.
const title = (app, panel) => {
  const { colormap, word_scale: scale } = app.data, { patch } = app.active(), { phrase } = app.picked;
  const at = patch && panel.regions, cell = at && patch[0] * panel.shape[1] + patch[1];
  const top = at ? strongest(panel.regions) : scale;
  const word = (one, index) => {
    if (!one) return null;
    const score = at ? panel.regions[index]?.[cell] : one.score, shade = score == null || !top ? "" : onWhite(colormap, score / top);
    const label = score == null ? one.text : `${one.text}: ${number(score)}`, className = `gradeclip-word${one.small ? " gradeclip-small" : ""}`;
    if (!panel.regions?.[index]) return h("span", { className, title: label, style: shade }, one.text);
    const [first, last] = phrase || [index, index], leave = () => app.point(null), point = () => app.point({ phrase: [index, index] });
    const keep = ({ shiftKey }) => app.pick({ phrase: shiftKey ? [Math.min(first, index), Math.max(last, index)] : [index, index] });
    const onkeydown = (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault(); // the click that it would make does not know of Shift
      keep(event);
    };
    return h("button", {
      type: "button", className, title: label, "aria-label": label, style: shade, onclick: keep, onkeydown, onfocus: point, onblur: leave,
      onpointerenter: point, onpointerleave: leave, "aria-pressed": Boolean(phrase) && first <= index && index <= last,
    }, one.text);
  };
  return box("title", panel.cells.map(([upper, lower], index) =>
    lower ? box("pair", word(upper, null), word(lower, null)) : word(upper, index)));
};

// The similarity or the lead as a bar, and the place that half of the other captions lie below.
const bar = (app, panel) => {
  const { bars: [low, high] } = app.data, place = (value) => (value - low) / (high - low), { value, median } = panel;
  const { phrase } = app.active(), word = phrase && panel.regions && panel.cells[phrase[0]]?.[0];
  const line = word ? `“${wordsOf(panel, phrase)}”${phrase[0] === phrase[1] ? `: relevance ${number(word.score)}` : ""}` : panel.labels[0];
  const from = place(Math.min(0, value)), filled = `left: ${percent(from)}; width: ${percent(place(Math.max(0, value)) - from)}`;
  return box("match", value != null && h("div", { className: "gradeclip-bar", "aria-hidden": "true" },
    h("i", { className: panel.best ? "gradeclip-best" : "", style: filled }),
    [low < 0 ? 0 : null, median].map((tick) => tick != null && h("b", { style: `left: ${percent(place(tick))}` }))),
  h("small", {}, line || ""));
};

const legend = ({ data }) => {
  const steps = Array.from({ length: 17 }, (_, i) => (data.both ? i / 8 - 1 : i / 16));
  const strip = steps.map((value) => /rgb\([^)]*\)/.exec(onWhite(data.colormap, value))[0]).join(", ");
  return box("legend", h("span", {}, data.both ? "against" : ""),
    h("i", { style: `background: linear-gradient(90deg, ${strip})` }), h("span", {}, "for"),
    data.legend.map((line) => h("small", {}, line)));
};

const sentence = ({ data, active }) => {
  const { phrase } = active(), { all, words, phrase: kept } = data.sentences || {};
  const one = phrase && (String(phrase) === String(data.phrase) ? kept : phrase[0] === phrase[1] && words?.[phrase[0]]);
  return h("p", { className: "gradeclip-verdict", "aria-live": "polite", hidden: !(one || all) }, one || all || "");
};

// ---------------------------------------------------------------------------------------------------------------- view

const view = (app) => {
  const { panels, ratio, origin } = app.data, many = Math.min(panels.length, 3) + 1;
  const side = (...inside) => h("div", { className: "gradeclip-side" }, ...inside);
  return [
    ...app.above(),
    h("div", { className: "gradeclip-body", style: `--ratio: ${ratio}; --columns: ${many}` },
      side(box("title"), frame(app, null), legend(app)),
      panels.map((panel) => side(title(app, panel), frame(app, panel), bar(app, panel)))),
    sentence(app),
    h("small", { className: "gradeclip-origin" }, origin),
    ...app.below(),
  ];
};

// `more` is called with what is shown before it is drawn: it may put its own parts around, and hear of what is done.
const render = ({ model, el }, more) => {
  const root = document.createElement("div"), nothing = () => [];
  root.className = "gradeclip-explorer";
  root.dataset.lmSuppressShortcuts = "true"; // our keys, not a notebook's
  el.append(root);
  const app = { model, root, pointed: null, picked: {}, above: nothing, below: nothing };
  app.draw = () => put(root, view(app));
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
    app.set({ image: model.get("image"), picked: { phrase, patch }, pointed: null });
  };
  for (const name of ["keydown", "keyup", "keypress"]) {
    root.addEventListener(name, (event) => {
      event.stopPropagation(); // a notebook would take the focus
      const typing = /^(INPUT|SELECT|PRE)$/.test(event.target.tagName);
      if (event.key === "Escape" && name === "keydown" && !typing) app.pick({});
    });
  }
  more?.(app);
  take();
  model.on("change:data", take); // with which a new image and another model's words come
};

// A view in a page of HTML, from the data that stand in it; there is nobody to send messages to.
const open = (el) => {
  const values = JSON.parse(el.querySelector("script").textContent);
  el.replaceChildren();
  render({ model: { get: (name) => values[name], on() {} }, el });
};

export default { render, open, h, put, spread, strongest, within, mix, onWhite }; // the live page takes all but the first two
