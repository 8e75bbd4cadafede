// What a kernel is needed for, around the view of `plots/front/view.js`, behind whose text this one stands: the scenes,
// the controls, and what is folded away. A kernel sends `data` and hears messages.
//
//     what was turned -> message -> kernel -> data -> view

const LONGEST = 1024; // pixels of an image that is sent to the kernel

const button = (text, title, onclick, more) =>
  h("button", { type: "button", className: "gradeclip-button", title, onclick, ...more }, text);
const fold = (text, title, more, ...children) =>
  h("details", { className: "gradeclip-fold", ...more }, h("summary", { title }, text), h("div", {}, ...children));

// One control. What was turned, and the kernel has not answered yet, stands in `app.turned`. While it has the focus an
// answer may be to an older value, and leaves it alone.
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
    type, min, max, step, spellcheck: false, oninput: (event) => void (read(event), app.draw()),
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
const head = (app) => {
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
      own("contour", "bool", "contour", true, null,
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
    words.map((word) => button(word, `add “${word}” to the caption`, () => add(word), { name: "caption" })));
};

// Below the view, beside what its colours mean.
const drawing = (app) => box("row", app.at("look"), button(
  "hold: image", "Hold this button, or the key I, to see the image without its map.", null,
  { className: "gradeclip-button gradeclip-hold" })); // whose :active uncovers the image

const desk = (app) => {
  const { model, root } = app, whole = () => app.data.scenes; // the explorer, and not one of its controls alone
  Object.assign(app, { turned: {}, group: Math.random().toString(36) });
  app.above = () => head(app);
  app.beside = () => whole() && drawing(app);
  app.below = () => (whole() ? [folds(app)] : []);
  app.at = (place) => app.data.controls.filter((one) => one.place === place)
    .filter(({ name }) => place !== "ask" || name === app.data.ask).map((one) => control(app, one));
  app.send = (message, buffers) => model.send(message, undefined, buffers);
  app.change = (fields) => app.send({ kind: "change", fields });
  app.taken = () => {
    const words = model.get("vocabulary"), writes = root.contains(document.activeElement) && document.activeElement.name;
    if (app.image !== model.get("image")) delete app.turned.path;
    if (app.words !== words) app.known = known(app, words);
    Object.assign(app, { words, sent: {}, notice: null, tables: null });
    for (const { name, refused } of app.data.controls) // what is refused, or in somebody's hands, is left to them
      if (!refused && name !== writes) delete app.turned[name];
  };
  model.on("change:busy", app.draw);
};

export default { render: (context) => front.render(context, desk) };
