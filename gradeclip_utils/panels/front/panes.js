// Four panes that ipywidgets does not have: a gallery, an image whose patches can be picked, words that are buttons,
// and a script that can be copied. Python sends `data` and `images`; a pane answers with a message. Nothing is kept
// here, and nothing is loaded from anywhere. User text is only ever set as text, never as HTML.

const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

const address = (bytes) => URL.createObjectURL(new Blob([bytes], { type: "image/png" }));

// An image goes in only when it has been decoded, so that nothing flickers while a slider moves; the newest one wins.
const show = async (image, bytes) => {
  const next = new Image();
  next.src = image.newest = address(bytes);
  await next.decode().catch(() => {});
  if (image.newest !== next.src) return URL.revokeObjectURL(next.src);
  const old = image.src;
  image.src = next.src;
  if (old) URL.revokeObjectURL(old);
};

const panes = {
  gallery(model, el) {
    const draw = () => {
      const { items = [], chosen = -1, label = "" } = model.get("data");
      const images = model.get("images");
      if (el.children.length !== items.length) {
        el.setAttribute("role", "group");
        el.setAttribute("aria-label", label);
        el.replaceChildren(
          ...items.map((item, i) => {
            const image = make("img", { alt: "" });
            image.src = address(images[i]);
            const button = make("button", { type: "button", title: item, "aria-label": `scene: ${item}` }, image);
            button.onclick = () => model.send({ kind: "scene", index: i });
            return button;
          }),
        );
      }
      [...el.children].forEach((button, i) => button.setAttribute("aria-pressed", i === chosen));
    };
    model.on("change:data", draw);
    draw();
  },

  words(model, el) {
    const strip = make("div", { role: "group", class: "gradeclip-strip" });
    const note = make("small");
    el.append(strip, note);
    const send = (index, extend) => model.send({ kind: "word", index, extend });
    const button = (index) => {
      const node = make("button", { type: "button" }, make("span"), make("small"));
      node.onclick = (event) => send(index, event.shiftKey);
      node.onkeydown = (event) => {
        if (event.key === "Enter") {
          event.preventDefault();
          send(index, event.shiftKey);
        }
      };
      return node;
    };
    const draw = () => {
      const { words = [], label = "", note: said = "" } = model.get("data");
      strip.setAttribute("aria-label", label);
      while (strip.children.length > words.length) strip.lastChild.remove();
      while (strip.children.length < words.length) strip.append(button(strip.children.length));
      words.forEach((word, i) => {
        const node = strip.children[i];
        node.children[0].textContent = word.text;
        node.children[1].textContent = word.value;
        node.title = word.label;
        node.setAttribute("aria-label", word.label);
        node.setAttribute("aria-pressed", word.chosen);
        node.style.background = word.background;
        node.style.color = word.colour;
      });
      note.textContent = said;
    };
    model.on("change:data", draw);
    draw();
  },

  canvas(model, el) {
    const image = make("img", { draggable: "false" });
    const marker = make("div", { class: "gradeclip-marker", hidden: "" });
    const cursor = make("div", { class: "gradeclip-marker gradeclip-cursor", hidden: "" });
    const frame = make("div", { class: "gradeclip-frame", tabindex: "0", role: "application" }, image, cursor, marker);
    const reading = make("small", { "aria-live": "polite", class: "gradeclip-reading" });
    el.append(frame, reading);
    let at = null; // the patch under the pointer or the keyboard's cursor

    const put = (node, patch) => {
      const { rows, columns, box } = model.get("data");
      node.hidden = !patch;
      if (!patch) return;
      const [left, top, width, height] = box;
      const styles = [left + (width * patch[1]) / columns, top + (height * patch[0]) / rows, width / columns, height / rows];
      ["left", "top", "width", "height"].forEach((side, i) => (node.style[side] = `${100 * styles[i]}%`));
    };
    const read = (patch) => {
      const { rows, columns, values } = model.get("data");
      if (patch && (patch[0] >= rows || patch[1] >= columns)) patch = null; // the grid has become smaller
      at = patch;
      put(cursor, patch);
      reading.textContent = patch
        ? `row ${patch[0] + 1}, column ${patch[1] + 1}: ${values[patch[0] * columns + patch[1]]}`
        : model.get("data").hint || "";
    };
    const under = (event) => {
      const { rows, columns, box } = model.get("data");
      const area = image.getBoundingClientRect();
      const x = ((event.clientX - area.left) / area.width - box[0]) / box[2];
      const y = ((event.clientY - area.top) / area.height - box[1]) / box[3];
      return x >= 0 && x < 1 && y >= 0 && y < 1 ? [Math.floor(y * rows), Math.floor(x * columns)] : null;
    };
    const pick = (patch) => {
      if (!patch) return;
      const chosen = model.get("data").patch;
      const again = chosen && chosen[0] === patch[0] && chosen[1] === patch[1];
      model.send(again ? { kind: "no patch" } : { kind: "patch", row: patch[0], column: patch[1] });
    };
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    frame.onpointermove = (event) => read(under(event));
    frame.onpointerleave = () => read(null);
    frame.onclick = (event) => pick(under(event));
    frame.onblur = () => read(null);
    frame.onkeydown = (event) => {
      const { rows, columns, patch } = model.get("data");
      if (event.key in steps) {
        const from = at || patch || [Math.floor(rows / 2), Math.floor(columns / 2)];
        const inside = (value, count) => Math.min(Math.max(value, 0), count - 1);
        read([inside(from[0] + steps[event.key][0], rows), inside(from[1] + steps[event.key][1], columns)]);
      } else if (event.key === "Enter" || event.key === " ") pick(at || patch);
      else if (event.key === "Escape") model.send({ kind: "no patch" });
      else return;
      event.preventDefault();
    };
    const draw = () => {
      const { alt = "", patch } = model.get("data");
      image.alt = alt;
      frame.setAttribute("aria-label", `${alt}. Arrow keys move over the patches, Enter picks one, Escape lets go.`);
      put(marker, patch);
      read(at);
    };
    const paint = () => model.get("images").length && show(image, model.get("images")[0]);
    model.on("change:data", draw);
    model.on("change:images", paint);
    draw();
    paint();
  },

  script(model, el) {
    const button = make("button", { type: "button" });
    const text = make("pre", { tabindex: "0" });
    el.append(button, text);
    const draw = () => {
      text.textContent = model.get("data").text || "";
      button.textContent = "copy to the clipboard";
    };
    button.onclick = async () => {
      const range = document.createRange();
      range.selectNodeContents(text);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      try {
        await navigator.clipboard.writeText(text.textContent);
        button.textContent = "copied";
      } catch {
        button.textContent = "selected: press Ctrl+C";
      }
    };
    model.on("change:data", draw);
    draw();
  },
};

export default {
  render({ model, el }) {
    const kind = model.get("kind");
    el.classList.add(`gradeclip-${kind}`);
    el.setAttribute("data-lm-suppress-shortcuts", "true"); // arrow keys and Enter are ours, not the notebook's
    panes[kind](model, el);
  },
};
