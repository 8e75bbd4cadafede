// What a kernel is needed for, around the view of `plots/front/view.js`, behind whose text this one stands: the scenes,
// the controls, and what is folded away. A kernel sends `data` and hears messages.
//
//     what was turned -> message -> kernel -> data -> view

const LONGEST = 1024; // pixels of an image that is sent to the kernel
const PATIENCE = 3000; // milliseconds without an answer
const SILENT = "The kernel has not answered for three seconds. It is busy, or it was restarted: then run this cell again.";

const button = (text, title, onclick, more) =>
  h("button", { type: "button", className: "gradeclip-button", title, onclick, ...more }, text);
const fold = (text, more, ...children) =>
  h("details", { className: "gradeclip-fold", ...more }, h("summary", {}, text), h("div", {}, ...children));

// One control. What was turned, and the kernel has not answered yet, stands in `app.turned`.
const control = (app, spec) => {
  const { name, kind, options, label, help, max } = spec;
  const value = app.turned[name] ?? spec.value, type = kind === "int" ? "range" : null;
  const read = ({ target }) => (app.turned[name] = type ? target.valueAsNumber : target.value);
  const ask = (event, again) => { // again: Enter asks the same once more
    if (again || read(event) !== app.sent[name]) app.change({ [name]: (app.sent[name] = read(event)) });
  };
  const shared = { name, disabled: spec.disabled, "aria-invalid": spec.refused, onchange: (event) => ask(event) };
  const typed = {
    type, min: 1, max, spellcheck: false, autocomplete: "off", oninput: (event) => void (read(event), app.draw()),
    onkeydown: (event) => void (event.key === "Enter" && kind === "str" && ask(event, true)),
    placeholder: name === "caption" ? "type what to look for, then press Enter" : "",
    then: (node) => name === "caption" && app.fresh && ((app.fresh = false), node.focus()),
  };
  return h("label", { className: `gradeclip-control gradeclip-${name}`, title: help }, h("span", {}, label),
    kind === "choice"
      ? h("select", { ...shared, value }, options.map(([text, key]) => h("option", { value: key }, text)))
      : h("input", { ...typed, ...shared, value: String(value) }),
    h("output", {}, type ? String(value) : ""));
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
  const note = `${width} × ${height} pixels were reduced to ${canvas.width} × ${canvas.height}.`;
  app.send({ kind: "image", name, note }, [await (await canvas.convertToBlob()).arrayBuffer()]);
};

// The caption with another text, as if it were typed.
const retype = (app, text) => app.change({ caption: (app.turned.caption = text) });
const typedCaption = (app) => app.turned.caption ?? app.data.controls.find((one) => one.name === "caption").value;
const wholeWord = (text) => new RegExp(`(?<!\\p{L})${text}(?!\\p{L})`, "iu"); // not a part of another one

// Words that the model does not know, each with known ones near it.
const struck = (app) => app.data.struck.map(({ text, near }) => h("span", { className: "gradeclip-control" }, near ? h("s", {}, text) : text, (near || []).map((word) =>
  button(word, `“${word}” instead of “${text}”`, () => retype(app, typedCaption(app).replace(wholeWord(text), word))))));

// The scenes, the caption and what can be pressed, above the view; and what there is to say.
const head = (app) => {
  const { scenes, changes, struck: unknown, message } = app.data;
  const scene = ({ text, chosen }, index) => button(
    h("img", { src: app.model.get("thumbnails")[index], alt: "" }), text, () => app.send({ kind: "scene", index }),
    { "aria-label": text, "aria-pressed": chosen });
  const busy = app.model.get("busy"), say = app.notice || (busy.text ? busy : message);
  return [
    box("row", h("div", { className: "gradeclip-scenes", role: "group", "aria-label": "images" }, scenes.map(scene)),
      button("+ image", "Choose an image file of this computer.", (event) => event.target.nextSibling.click()),
      h("input", { type: "file", accept: "image/*", hidden: true, "aria-label": "an image of your own",
        onchange: ({ target }) => target.files.length && upload(app, target)
          .catch(({ message: text }) => app.set({ notice: { text, kind: "wrong" } })) }),
      button("reset", "The start, with all settings as they were.", () => app.send({ kind: "reset" })), app.at("head")),
    box("row", app.at("caption"), app.known),
    box("row", changes.map((name) => button(name, "Does the similarity fall?", () => app.send({ kind: "scene", name })))),
    unknown.length > 0 && box("row", h("span", {}, "This model does not know:"), struck(app)),
    h("div", { className: `gradeclip-message gradeclip-${say.kind || "quiet"}`, role: say.kind === "wrong" ? "alert" : "status" }, say.text),
  ].filter(Boolean);
};

// What is folded away below the view.
const folds = (app) => {
  const { pinned, script } = app.data;
  const copy = async ({ target }) => {
    const node = target.closest("details").querySelector("pre");
    const copied = await navigator.clipboard?.writeText(node.textContent).then(() => true, () => false);
    if (!copied) getSelection().selectAllChildren(node);
    target.textContent = copied ? "copied" : "selected: press Ctrl+C";
    setTimeout(() => (target.textContent = "copy as Python"), 2000);
  };
  const pin = pinned ? button("unpin", "Show one map again.", () => app.send({ kind: "unpin" })) : button("pin this map",
    "Its caption, model and method stay, with the difference of both maps.", () => app.send({ kind: "pin" }), { hidden: !script });
  return box("folds",
    fold("Compare", {}, pin, app.at("compare")),
    fold("Method and layers", {}, app.at("method")),
    fold("Save, Python", { hidden: !script },
      h("label", { className: "gradeclip-control" }, h("span", {}, "name"),
        h("input", { name: "file", value: app.turned.file ?? "explanation", oninput: ({ target }) => void (app.turned.file = target.value) })),
      button("save image (PNG)", "The figure as it is shown.", () => app.send({ kind: "save", name: app.turned.file ?? "explanation" })),
      button("copy as Python", "The lines that compute this map again, in any notebook.", copy),
      h("pre", { tabIndex: 0 }, script)));
};

const known = (app, groups) => {
  const add = (word) => retype(app, `${typedCaption(app).trim()} ${word}`.trim());
  return fold("known words", { hidden: !groups.length, className: "gradeclip-fold gradeclip-known" },
    groups.flatMap(([name, words]) => [h("b", {}, name), ...words.map((word) =>
      button(word, `add “${word}” to the caption`, () => add(word), { name: "caption" }))]));
};

const desk = (app) => {
  const { model, root } = app;
  Object.assign(app, { turned: {}, sent: {}, notice: null });
  app.above = () => head(app);
  app.below = () => [folds(app)];
  app.at = (place) => app.data.controls.filter((one) => one.place === place).map((one) => control(app, one));
  app.send = (message, buffers) => {
    clearTimeout(app.waiting);
    app.waiting = setTimeout(() => app.set({ notice: { text: SILENT, kind: "wrong" } }), PATIENCE);
    try {
      model.send(message, undefined, buffers);
    } catch {} // the line to a kernel that was restarted is closed
  };
  app.change = (fields) => app.send({ kind: "change", fields });
  app.taken = () => {
    const words = model.get("vocabulary"), writes = root.contains(document.activeElement) && document.activeElement.name;
    if (app.words !== words) app.known = known(app, words);
    const empty = app.data.empty && app.image !== undefined && app.image !== model.get("image");
    Object.assign(app, { words, sent: {}, fresh: empty });
    for (const { name, kind, refused } of app.data.controls) // a text that is refused, or in somebody's hands, is left alone
      if (empty || kind !== "str" || (!refused && name !== writes)) delete app.turned[name];
  };
  model.on("change:busy", () => {
    clearTimeout(app.waiting);
    app.notice = null;
    app.draw();
  });
};

export default { render: (context) => front.render(context, desk) };
