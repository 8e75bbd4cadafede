"""The schematic of the method: both towers as boxes, and arrows between them."""

from matplotlib.figure import Figure

from gradeclip_utils.plots.figures import PALETTE, new_figure

# Of one tower: box -> inches from the left and from the middle of the figure, text of the image's,
# text of the text's.
_TOWERS = {
    "tokens": (0.7, 1.5, "tokens:\nCLS, patches", "tokens:\nSOT, words, EOT"),
    "v": (2.1, 2.25, "$v_i$ of patch $i$", "$v'_j$ of token $j$"),
    "q": (2.1, 1.5, "$q$ of CLS", "$q'$ of EOT"),
    "k": (2.1, 0.75, "$k_i$ of patch $i$", "$k'_j$ of token $j$"),
    "lam": (
        3.62,
        1.5,
        r"$\lambda_i$: $\cos(q, k_i)$," + "\nstretched to 0 ... 1",
        r"$\lambda'_j$: $\cos(q', k'_j)$," + "\nstretched to 0 ... 1",
    ),
    "alpha": (
        3.62,
        0.75,
        r"$\alpha_i$ = softmax $q \cdot k_i$",
        r"$\alpha'_j$ = softmax $q' \cdot k'_j$," + "\ncausal: none after EOT",
    ),
    "o": (
        5.35,
        0.75,
        r"$o = \Sigma_i \, \alpha_i v_i$",
        r"$o' = \Sigma_j \, \alpha'_j v'_j$",
    ),
    "w": (
        6.6,
        1.5,
        r"$w = \partial S / \partial o$",
        r"$w' = \partial S / \partial o'$",
    ),
    "map": (
        5.35,
        2.25,
        r"map$_i$ = $\lambda_i \, (w \cdot v_i)$",
        r"score$_j$ = $\lambda'_j \, (w' \cdot v'_j)$;" + "\na word adds up its tokens",
    ),
}
_FORWARD = (
    "tokens v",
    "tokens q",
    "tokens k",
    "q alpha",
    "k alpha",
    "alpha o",
    "v o",
    "o S",
)
_ADDED = ("q lam", "k lam", "lam map", "v map", "S w", "w map")


def plot_method() -> Figure:
    """Both towers, and the sources of q, k, v, attention, o, S, w, the loosened weight and map."""
    title = (
        "what Grad-ECLIP adds to a forward pass: "
        "a gradient w and a weight λ, by which each value v counts"
    )
    alt = (
        "Two towers. From the image's tokens come q of CLS, and k and v of every patch; q and k "
        "give the attention alpha, alpha and v give o. The text's tower does the same with q of "
        "EOT and k and v of every token of a word, and both meet in the similarity S. Dashed: the "
        "gradient of S by o is w; q and k give the loosened weight lam; and lam times the product "
        "of w and v is the map of the image, and the score of a token."
    )
    # Inches: of the figure, of its middle from below, and of the line above.
    width = 7.3
    middle = 2.6
    head = 0.24
    figure = new_figure(width, 2 * middle + head, f"{title}. {alt}")
    figure.text(0.12 / width, 1 - 0.08 / figure.get_figheight(), title, va="top", fontsize=10)
    axes = figure.add_axes((0, 0, 1, 2 * middle / figure.get_figheight()))
    axes.set(xlim=(0, width), ylim=(0, 2 * middle))
    axes.set_axis_off()
    boxes = {"S": (6.35, middle, "the rest of both\ntowers; cosine: $S$")}
    for side, up in (("image", 1), ("text", -1)):
        for name, (x, y, *texts) in _TOWERS.items():
            boxes[f"{side} {name}"] = (x, middle + up * y, texts[up < 0])
    frame = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": "0.4"}
    style = {
        "ha": "center",
        "va": "center",
        "fontsize": 10,
        "linespacing": 1.3,
        "bbox": frame,
    }
    drawn = {
        name: axes.text(x, y, text, **style).get_bbox_patch()
        for name, (x, y, text) in boxes.items()
    }
    for side, up in (("image", 1), ("text", -1)):
        looks = {pair: {"color": "0.2"} for pair in _FORWARD}
        looks["v o"]["connectionstyle"] = f"arc3,rad={-0.32 * up}"  # around the loosened weight
        looks |= {pair: {"color": PALETTE[0], "linestyle": (0, (4, 2))} for pair in _ADDED}
        for pair, look in looks.items():
            start, end = (name if name == "S" else f"{side} {name}" for name in pair.split())
            ends = {"patchA": drawn[start], "patchB": drawn[end]}
            line = {"arrowstyle": "-|>", "shrinkA": 1, "shrinkB": 1, **ends, **look}
            axes.annotate("", boxes[end][:2], boxes[start][:2], arrowprops=line)
        axes.text(
            0.1,
            middle + 2.25 * up,
            f"{side} tower",
            va="center",
            fontsize=10,
            fontweight="bold",
        )
    legend = (
        "solid: the model's own forward pass,\nthrough one layer of each tower\n"
        "dashed: what Grad-ECLIP adds"
    )
    axes.text(0.1, middle, legend, va="center", fontsize=9.5, color="0.35", linespacing=1.4)
    return figure
