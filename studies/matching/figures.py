"""Figures: all that lessons 01 and 04 show and judge, part by part; a judged figure has the name of its claim."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from gradeclip_utils.explain import Explainer
from gradeclip_utils.measures.localisation import located
from gradeclip_utils.measures.sanity import randomised
from gradeclip_utils.scenes import CANVAS, arrange, concepts, draw_scene, phrase

from ..relevance import as_array, choose_recognised, embedded
from ..tables import gained, told
from .adjectives import ColourPair, adjective_shift, colour_pairs
from .composition import CASES, CHANGES, caption_changes, noun_pairs, span_fractions, two_colour_scenes
from .map_sums import DISPLAYS, energy_explained, map_sums, part_agreement, two_thing_scene
from .wording import leave_one_out_agreement, own_region_hits, template_effect, word_fractions

Tables = list[pd.DataFrame]


def known_pairs(explainer: Explainer, n: int) -> list[ColourPair]:
    """Of 3 n colour pairs those whose things are recognised alone, 2 n at most; of a model that knows few, any."""
    return choose_recognised(colour_pairs(3 * n), lambda one: [one.scene], 2 * n, explainer)[0]


def known_scenes(explainer: Explainer, n: int) -> list:
    """Of 3 n scenes of two tinted things those whose things are recognised alone, as `known_pairs`."""
    return choose_recognised(two_colour_scenes(3 * n), lambda one: [one], 2 * n, explainer)[0]


def _by(rows: pd.DataFrame, value: str, columns: str, index: str = "image") -> pd.DataFrame:
    return rows.pivot_table(value, index, columns)


def _two_of_a_kind(explainer: Explainer, n: int) -> Tables:
    pairs = known_pairs(explainer, n)
    rows = adjective_shift(explainer, pairs)
    tinted, plain = (_by(part, "moved", "prompt") for _, part in rows.groupby("second", sort=False))
    blind = adjective_shift(Explainer(randomised(explainer.clip, seed=0)), pairs[:n])
    blind = _by(blind[blind["second"] == "another colour"], "moved", "prompt")
    two_colours = rows[rows["second"] == "another colour"]
    own = "a colour moves relevance to the thing that has it"
    return [
        told("moved by {prompt}, the second thing in {second}", rows[rows["prompt"] != "no adjective"], "moved"),
        told("{measure}, {prompt}", two_colours, ["on_things", "area"]),
        gained(own.capitalize(), tinted["its colour"]),
        gained("The other's colour moves relevance away from the first thing", -tinted["the other's colour"]),
        gained("A colour that neither has moves relevance to the first thing", tinted["a colour of neither"]),
        gained(f"With random weights too, {own}", blind["its colour"]),
        gained(
            "Beside an untinted thing, a colour of neither moves relevance to the tinted one",
            plain["a colour of neither"],
        ),
    ]


def _wholes(explainer: Explainer, n: int) -> Tables:
    rows = part_agreement(explainer, known_scenes(explainer, n)[:n])
    wide, claim = _by(rows, "agreement", "part"), "The map of a phrase is nearer to its noun's map than to"
    added = ("its phrases, added", "its words as prompts, added", "its words as read in it, added")
    return [
        told("agreement of the maps of {whole} and {part}", rows, "agreement"),
        gained(f"{claim} its adjective's", wide["its noun"] - wide["its adjective alone"]),
        gained(f"{claim} another caption's", wide["its noun"] - wide["another's adjective + noun"]),
        *(
            gained(
                f"A sentence's map is nearer to that of {name}, than to another caption's",
                wide[name] - wide["another's phrases, added"],
            )
            for name in added
        ),
    ]


def _planes(explainer: Explainer, n: int) -> Tables:
    pairs = noun_pairs(3 * n)
    rows = span_fractions(explainer, pairs)
    removed = rows[rows["mean_prompt"] == "removed"]
    own, other = (
        _by(removed[removed["parts"] == one], "fraction", "case", "pair")["and"] for one in ("own", "foreign")
    )
    weights = removed[removed["parts"] == "own"]
    first, second = (_by(weights, one, "case", "pair") for one in ("first", "second"))
    blind = span_fractions(Explainer(randomised(explainer.clip, seed=0)), pairs, ["and"])
    blind = _by(blind[blind["mean_prompt"] == "removed"], "fraction", "parts", "pair")
    single = embedded(explainer, [phrase(noun) for pair in pairs for noun in pair])
    cosines, from_mean = (single @ single.T).sum(1) - 1, np.linalg.norm(single - single.mean(0), axis=1)
    forms = {case: embedded(explainer, [of(*pair) for pair in pairs]) for case, of in CASES.items()}
    apart = {case: form - forms["and"] for case, form in forms.items() if case != "and"}
    made_of = "“A and B” lies more in the plane of its own parts"
    return [
        told(
            "fraction in the plane of {parts} parts: {case}, mean prompt {mean_prompt}", rows, "fraction", unit="pair"
        ),
        told("weight of the {measure} part: {case}", weights, ["first", "second"], unit="pair"),
        gained("cosine of two prompts like “a cat”", cosines / (len(single) - 1)),
        gained("a noun lies from the mean noun", from_mean),
        *(
            gained(f"the mean of “{case}” lies from that of “and”", one @ one.mean(0) / np.linalg.norm(one.mean(0)))
            for case, one in apart.items()
        ),
        gained(f"{made_of} than in a foreign one", own - other),
        gained("In “A and B”, the first part weighs more than the second", first["and"] - second["and"]),
        gained(f"With random weights too, {made_of}", blind["own"] - blind["foreign"]),
        gained("Training puts more of “A and B” into the plane of its parts", own - blind["own"].loc[own.index]),
    ]


def _sentences(explainer: Explainer, n: int) -> Tables:
    rows = caption_changes(explainer, known_scenes(explainer, n))
    wins, drop = (_by(rows, value, "change") for value in ("wins", "drop"))
    drop = drop / drop["a noun replaced"].mean()
    claims = [gained(f"The image prefers its own sentence to one with {one}", wins[one], 0.5) for one in CHANGES]
    costs = [
        gained(f"A wrong noun costs more similarity than this: {one}", drop["a noun replaced"] - drop[one])
        for one in CHANGES[1:4]
    ]
    return [
        told("own sentence preferred: {change}", rows, "wins"),
        told("cosine with the changed sentence: {change}", rows, "alike"),
        *(gained(f"cost in wrong nouns: {one}", drop[one]) for one in CHANGES[1:4]),
        *claims,
        *costs,
    ]


def _displays(explainer: Explainer, n: int) -> Tables:
    pairs = noun_pairs(3 * n)[:n]
    rows = map_sums(explainer, pairs)
    both = _by(rows[rows["case"] == "A and B"].assign(of=lambda t: t["parts"] + t["display"]), "alike", "of")
    more = {name: both[f"own{name}"] - both[f"foreign{name}"] for name in DISPLAYS}
    one_each = rows[(rows["display"] == "signed") & (rows["parts"] == "own")]
    ahead = _by(one_each.assign(ahead=one_each["on_first"] - one_each["seen_first"]), "ahead", "case")
    apart, half = ahead["A and B"], ahead["A and B, A half hidden"]
    ends = np.stack([embedded(explainer, [phrase(noun) for noun in pair]) for pair in pairs])
    scenes = [two_thing_scene(*pair, "apart", seed=i).image() for i, pair in enumerate(pairs)]
    maps = as_array(explainer.maps(scenes, ends))
    exact = [energy_explained(np.maximum(m.sum(0), 0), np.maximum(m, 0).sum(0)) for m in maps]
    claim = "The sum of its own parts' maps explains more of a map than that of foreign parts does"
    return [
        told("fraction of the map explained: {case}, {display}, {parts} parts", rows, "alike"),
        told("fraction of the visible pixels on the first: {case}", one_each, "seen_first"),
        gained("an exact sum after relu", exact),
        *(gained(f"{claim} ({name})", beyond) for name, beyond in more.items()),
        gained("The display makes foreign parts explain more", both["foreignrelu, normalised"] - both["foreignsigned"]),
        gained("The display makes its own parts stand out less", more["signed"] - more["relu, normalised"]),
        gained("Of two things apart, the first has more relevance than pixels", apart),
        gained("A half-hidden thing has more relevance than visible pixels", half),
        gained("Hiding a thing takes more pixels from it than relevance", half - apart),
    ]


def _kinds_of_words(explainer: Explainer, n: int) -> Tables:
    rows = word_fractions(explainer, [draw_scene([73, i], split="development") for i in range(2 * n)])
    own, noun = rows[rows["shown"] == "own image"], _by(rows[rows["kind"] == "noun"], "fraction", "shown")
    effects = _by(own, "leave_one_out", "kind")[["colour", "noun"]].dropna()
    opening = own[own["kind"] == "opening"].groupby("image")["fraction"].mean()
    nouns, order = "Nouns have more of the relevance", leave_one_out_agreement(rows)
    return [
        told("fraction of a {kind}, {shown}", rows, "fraction"),
        told("{measure} of a {kind}", own, ["leave_one_out", "score"]),
        gained("rank correlation of score and leave-one-out effect", order),
        gained(f"{nouns} than an average word", noun["own image"] - 1),
        gained(f"{nouns} beside their own image than beside another", noun["own image"] - noun["another image"]),
        gained("Word scores and leave-one-out effects correlate by more than one half", order - 0.5),
        gained(
            "Leaving out a colour costs more similarity than leaving out a noun",
            (effects["colour"] - effects["noun"]) / effects["noun"].mean(),
        ),
        gained("Words of the opening have more of the relevance than an average word", opening - 1),
    ]


def _templates(explainer: Explainer, n: int) -> Tables:
    pairs = noun_pairs(3 * n)
    nouns, single = [first for first, _ in pairs[:n]], embedded(explainer, [phrase(noun) for p in pairs for noun in p])
    rows = template_effect(explainer, nouns)
    seen = as_array(explainer.embed_images([arrange([noun], seed=i).image() for i, noun in enumerate(nouns)]))
    stake = ((seen * single[: 2 * n : 2]).sum(1) - seen @ single.mean(0)).mean()
    photo = rows.loc[rows["template"] == "a photo of a cat", "gain"] / stake
    return [
        told("template “{template}”: {measure}", rows, ["gain", "map", "alike", "right"]),
        gained("“a photo of” raises the similarity of a true prompt", photo),
    ]


def _regions(explainer: Explainer, n: int) -> Tables:
    rows = own_region_hits(explainer, known_scenes(explainer, n)[:n])
    hit, said = _by(rows[rows["centred"]], "hit", "kind"), rows["centred"].map({True: "centred", False: "as it is"})
    return [
        told("a {kind} answers to its own thing, {said}", rows.assign(said=said), "hit"),
        *(gained(f"A {kind} answers to its own thing more often than to the other", hit[kind], 0.5) for kind in hit),
        gained("Nouns answer to their own thing more often than colours do", hit["noun"] - hit["colour"]),
    ]


def _first_lesson(explainer: Explainer, n: int) -> Tables:
    asked, nouns = ["dog", "umbrella", "piano"], list(concepts().index)  # the piano is the control: it is not there
    scenes = [arrange(asked[:2], seed=seed) for seed in range(n)]
    images, prompts = [scene.image(CANVAS) for scene in scenes], [phrase(noun) for noun in asked]
    fits = as_array(explainer.embed_images(images)) @ embedded(explainer, [phrase(noun) for noun in nouns]).T
    fit = fits[:, [nouns.index(noun) for noun in asked]]
    rank = (fits[:, None] > fit[..., None]).sum(-1)  # (n, 3), how many nouns fit better
    maps = [explainer.explain(image, prompts[:2]) for image in images]
    lies = np.array([[located(one.heatmap(i), scene.masks(CANVAS))[i][1:] for i in range(2)]
                     for one, scene in zip(maps, scenes, strict=True)]).mean(1)  # fmt: skip
    words = word_fractions(explainer, [draw_scene([74, i], split="development") for i in range(n)])
    told_of = words[words["shown"] == "own image"]
    order, noun = leave_one_out_agreement(told_of), told_of[told_of["kind"] == "noun"]
    above, of = (noun[["score", "leave_one_out"]] > 0).astype(float), noun["image"].array
    places = ("the thing that is named", "the other thing", "nothing")
    claim = "Word scores order the words of a caption more like leaving them out does than by chance"
    return [
        gained("a dog and an umbrella are both recognised", (rank[:, :2] < 5).all(1)),
        *(gained(f"relevance of “a dog” or “an umbrella” on {place}", lies[:, i]) for i, place in enumerate(places)),
        *(gained(f"nouns of true captions above zero, {name}", above[name], 0.0, of) for name in above),
        gained("The map of a prompt lies on the thing that it names more than on the other thing", *lies.T[:2]),
        gained(claim, order),
        gained("More than half of the nouns of true captions score above zero", above["score"], 0.5, of),
        gained("Of a dog, an umbrella and a piano, the piano that is not there fits worst",
               fit[:, 2] < fit[:, :2].min(1), 1 / 3),
    ]  # fmt: skip


PARTS: dict[str, Callable[[Explainer, int], Tables]] = {
    "first lesson": _first_lesson,
    "two of a kind": _two_of_a_kind, "wholes": _wholes, "planes": _planes, "sentences": _sentences,
    "displays": _displays, "kinds of words": _kinds_of_words, "templates": _templates, "regions": _regions,
}  # fmt: skip
