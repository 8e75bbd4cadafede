// From relevance to colours and pixels, as `plots/colours.py` does it.

const LETTERS_TURN_WHITE = 0.179; // luminance below which white has more contrast than black (WCAG)

export const within = (value, least, most) => Math.min(Math.max(value, least), most);
export const mix = (start, end, part) => start * (1 - part) + end * part;
export const absMax = (values) => Math.max(...values.flat().map(Math.abs)) || 1;

// Red, green, blue (0 to 255) and alpha (0 to 1) of a value of -1 to 1.
export const rgba = (colormap, value) => {
  const place = ((within(value, -1, 1) + 1) / 2) * (colormap.length - 1);
  const low = Math.floor(place);
  const high = Math.min(low + 1, colormap.length - 1);
  const mixed = colormap[low].map((part, i) => mix(part, colormap[high][i], place - low));
  const [red, green, blue, alpha] = mixed;
  return [255 * red, 255 * green, 255 * blue, alpha];
};

// A value's colour on a white page: red, green, blue.
export const onWhite = (colormap, value) => {
  const [red, green, blue, alpha] = rgba(colormap, value);
  return [red, green, blue].map((part) => Math.round(mix(255, part, alpha)));
};

// A word's colour on a white page, with letters that have more contrast.
export const wordStyle = (colormap, value) => {
  const parts = onWhite(colormap, value);
  const [red, green, blue] = parts.map((part) => (part / 255) ** 2.2);
  const luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  const letters = luminance < LETTERS_TURN_WHITE ? "#fff" : "#000";
  return `background: rgb(${parts}); color: ${letters}`;
};

// Cells (numbers, or rows of them) over pixels: between the middles of two cells their mixture.
// `start` and `length` say which part of the pixels the cells cover, in fractions.
const stretch = (cells, start, length, pixels, outside, blend) =>
  Array.from({ length: pixels }, (_, i) => {
    const place = ((i + 0.5) / pixels - start) / length;
    if (place < 0 || place > 1) return outside;
    const cell = within(place * cells.length - 0.5, 0, cells.length - 1);
    const first = Math.floor(cell);
    const second = Math.min(first + 1, cells.length - 1);
    return blend(cells[first], cells[second], cell - first);
  });

// A map of rows and columns over an image of across x down pixels, of which it covers a box.
export const spread = (values, [rows, columns], [left, top, width, height], across, down) => {
  const wide = Array.from({ length: rows }, (_, row) => {
    const cells = values.slice(row * columns, (row + 1) * columns);
    return stretch(cells, left, width, across, 0, mix);
  });
  const mixRows = (upper, lower, part) => upper.map((value, i) => mix(value, lower[i], part));
  return stretch(wide, top, height, down, Array(across).fill(0), mixRows).flat();
};

// Draw a map (-1 to 1) into a canvas with a transparent background.
export const paintMap = (canvas, values, shape, { ratio, box, colormap }, longest) => {
  const across = Math.max(1, Math.round(longest * Math.min(1, ratio)));
  const down = Math.max(1, Math.round(longest * Math.min(1, 1 / ratio)));
  canvas.width = across;
  canvas.height = down;

  const context = canvas.getContext("2d");
  const pixels = context.createImageData(across, down);
  const table = Array.from({ length: 513 }, (_, i) => rgba(colormap, i / 256 - 1));
  spread(values, shape, box, across, down).forEach((value, i) => {
    const [red, green, blue, alpha] = table[Math.round(256 * within(value, -1, 1)) + 256];
    pixels.data.set([red, green, blue, 255 * alpha], 4 * i);
  });
  context.putImageData(pixels, 0, 0);
};
