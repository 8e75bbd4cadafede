"""The page of refusals and warnings: what each code means, and what to do about it."""

# code -> what it means, and what to do
CODES = {
    "argument-type": ("an argument of another type than the function takes", "give what the sentence says"),
    "art-other": ("a package of drawings that was fetched is another than before", "fetch the version that is named"),
    "baseline-missing": ("a method or unit of a paired comparison is missing", "measure every unit with every method"),
    "box-shape": ("a box is inside out", "give left, top, right, bottom, in the image's pixels"),
    "card-markers": ("a card lacks the lines between which a table is written", "put the two markers back"),
    "choice-none": ("none of several names was given", "give one or more of those that the sentence lists"),
    "choice-same": ("two things must differ, and do not", "choose another"),
    "choice-unknown": ("a name that is none of those known", "choose one of those that the sentence lists"),
    "claim-twice": ("two verdicts would make the same claim", "name more columns of the table in the claim"),
    "cluster-labels": ("labels of clusters do not fit the values", "give every value, and every unit, one label"),
    "curve-option": ("a deletion or insertion curve that cannot be had", "see `evaluation.faithfulness`"),
    "dask-missing": ("no Dask scheduler answers at this address", "begin one, or leave out --dask"),
    "data-damaged": ("a file of a data set cannot be read", "fetch it again; the sentence names it"),
    "data-empty": ("there is nothing to measure", "give one example or more"),
    "data-few": ("too few values for a conclusion", "measure more; the sentence says how many are the least"),
    "data-kind": ("a kind of data set whose name is taken, or has a colon", "choose another name"),
    "data-mask": ("a mask that does not fit its image, or shows nothing", "the sentence names the file"),
    "data-masks": ("no example has a mask, and nothing else was to be measured", "ask for --faithfulness"),
    "data-missing": ("a file or folder of a data set is not there", "look at the path that the sentence names"),
    "data-pairs": ("rows that belong together are not both there", "take both from the same call"),
    "data-split": ("a data set of several splits, and none or another was named", "name one, as the sentence shows"),
    "data-table": ("a table of captions that cannot be read", "write one with the columns image and caption"),
    "data-twice": ("two examples have one name", "rename one, since rows are kept by name"),
    "data-type": ("something that is no example", "make `datasets.Example`s, or name a data set"),
    "data-unknown": ("no data set of this name", "`python -m gradeclip_utils evaluate --help` lists them"),
    "data-words": ("an image shows all that is asked of the others", "evaluate more examples, or --no-references"),
    "device-unknown": ("a device that torch does not know, or does not see here", "use cpu, cuda, cuda:1 or mps"),
    "disk-full": ("too little space for what will be written", "free some, or choose another place"),
    "embedding-shape": ("embeddings or directions of another shape or width", "give (T, E), as the model has E"),
    "faithfulness-native": ("faithfulness is measured at the model's own resolution", "take resolution='model'"),
    "image-damaged": ("a file that ends too early, or that Pillow cannot decode", "save it again"),
    "image-dtype": ("an array of other numbers than uint8", "scale it to 0 to 255, as the sentence shows"),
    "image-empty": ("an image without pixels", "give one of a pixel or more each way"),
    "image-floats": ("a file of floats, which have no agreed range", "convert it to 8 bits"),
    "image-none": ("no image was given", "give one or more"),
    "image-range": ("an image of more than 16 bits a channel", "scale it to 8 bits"),
    "image-shape": ("an array that is no image", "give (H, W, 3): red, green, blue"),
    "image-sizes": ("images of several shapes in one call at their own resolution", "ask for one after the other"),
    "image-too-large": ("an image of more megapixels than are read", "reduce it first"),
    "image-type": ("something that is no image", "give a PIL image, a path, or a uint8 array (H, W, 3)"),
    "image-unreadable": ("a file that is no image of a known format", "save it as PNG or JPEG"),
    "interval-order": ("an interval whose low end lies above its high end", "give low, then high"),
    "library-missing": ("a library that only this needs is not installed", "install it as the sentence says"),
    "list-type": ("something that is no list", "give a list, also of one"),
    "loss-not-finite": ("a training's loss ran away", "take a lower learning rate, in another folder"),
    "map-shape": ("a map of another shape than is measured", "give (H, W), resized to the mask"),
    "map-unreadable": ("a file of a map that is no array, or is cut short", "write it again with `numpy.save`"),
    "maps-missing": ("no folder of maps, or no map of an example", "name files after examples, as the sentence shows"),
    "margin-reason": ("a margin without its reason", "say why it is the smallest difference that matters"),
    "mask-empty": ("a mask that covers nothing", "leave such images out, and say how many"),
    "mask-shape": ("a mask of another shape or kind", "give True and False, in the image's pixels"),
    "metagame-over": ("players of METAGAME that are no words of the caption", "give word numbers, each at most once"),
    "method-attention": ("a choice of attention that this method has not", "leave attention at 'model'"),
    "method-empty": ("a method that explains neither images nor prompts", "give image= or text="),
    "method-images": ("a method that has no maps of images", "choose one whose `image` is not None"),
    "method-interactions": ("interactions are defined for Grad-ECLIP alone", "take method='grad-eclip'"),
    "method-native": ("gradients of pixels at another resolution than the model's", "take resolution='model'"),
    "method-none": ("no method was given", "choose one or more of those that are listed"),
    "method-option": ("an option that the method has not", "choose one of those that the sentence lists"),
    "method-unknown": ("no method of this name", "`gradeclip_utils.METHODS` has all of them"),
    "method-words": ("a method that has no scores of words", "choose one whose `text` is not None"),
    "model-damaged": ("weights that are cut off, or that their library cannot load", "fetch them again"),
    "model-download": ("weights or a tokenizer are not here, and no network is", "copy them here as it says"),
    "model-foreign": ("a file of weights of another architecture, or of none", "name the architecture it is of"),
    "model-missing": ("a file of a bundled model is not there", "install gradeclip again"),
    "model-not-finite": ("weights or embeddings with NaN or infinity", "use another file, or fp32"),
    "model-pickle": ("pickled objects, which could run code as they are read", "save weights as safetensors"),
    "model-preprocess": ("a preprocessing that is not the model's", "take what came with it"),
    "model-processor": ("a processor that is missing, or another model's", "load it under the model's name"),
    "model-shared": ("the file that a bundled model shares weights with is another", "put that one beside it"),
    "model-tokenizer": ("a tokenizer that is missing, or another model's", "take what came with the model"),
    "model-type": ("something that is no `Clip`", "wrap it: Clip(model, preprocess, tokenizer)"),
    "model-unknown": ("no architecture of this name", "open_clip.list_models() has all of them"),
    "model-unsupported": ("a part of the model cannot be opened", "see the page of architectures"),
    "model-weights": ("weights that are not given, not there, or given where they cannot be", "see `load_clip`"),
    "name-taken": ("something of this name is registered", "choose another name"),
    "null-maps": ("null maps of another shape, or too few", "give (M, h, w), two or more"),
    "number-range": ("a number beyond its bounds", "choose one within those that the sentence names"),
    "number-type": ("something that is no number", "give a number"),
    "number-whole": ("something that is no whole number", "give an int"),
    "option-caption": ("an image without a caption", "say with --caption what should be looked for"),
    "option-data": ("no data, or two kinds of it at once", "give those options together that the sentence lists"),
    "pair-count": ("not as many of one as of the other", "give one of each for every pair"),
    "pair-missing": ("images of pairs are not there", "look at --images"),
    "pair-none": ("there are no pairs to learn from", "give some"),
    "pair-type": ("something that is no pair of an image and a caption", "make `Pair`s"),
    "pair-where": ("pairs that do not know where things are", "give each a `where`, or choose other maps"),
    "panel": ("a panel was asked for what cannot be had", "the panel says what; all else stays as it was"),
    "panel-controls": ("controls of a panel that do not fit its function", "give one an argument"),
    "panel-figure": ("a panel's function gave no figure", "return a matplotlib figure"),
    "path-empty": ("an empty path", "name a file or folder"),
    "path-is-file": ("a file where a folder is needed", "choose another name"),
    "path-is-folder": ("a folder where a file is needed", "name a file in it"),
    "path-missing": ("nothing is there", "look at the path"),
    "path-no-file": ("a pipe or a device where a file is needed", "name a file"),
    "path-read-only": ("a place that cannot be written", "choose another place"),
    "path-suffix": ("a file name with another ending", "end it as the sentence says"),
    "path-taken": ("a folder that holds something else already", "choose another name"),
    "path-type": ("something that is no path", "give a string or a Path"),
    "path-unusable": ("a path that the operating system does not take", "shorten it, or look for odd letters"),
    "plot-option": ("a figure that cannot be drawn so", "see the sentence, and the function's arguments"),
    "prompt-count": ("not one prompt, or one for each", "give one, or as many"),
    "prompt-empty": ("a prompt without a word", "say what should be looked for"),
    "prompt-none": ("no captions were given", "give one or more"),
    "prompt-surrogate": ("half of a character (a lone surrogate)", "decode the text as UTF-8"),
    "prompt-too-long": ("a prompt of more characters than are read", "cut it: models read about 77 tokens"),
    "prompt-type": ("something that is no prompt", "give strings, or floats (T, E)"),
    "prompt-unread": ("the model does not read the prompt to its end", "shorten it"),
    "refused": ("what is asked for cannot be had", "the sentence says why"),
    "result-damaged": ("a stored result that was changed or cut off", "compute it again; the file is named"),
    "result-missing": ("a folder without a result", "look at the path"),
    "run-foreign": ("a folder that holds something else", "choose another folder"),
    "run-locked": ("another process works on this folder", "wait, or choose another folder"),
    "run-missing": ("a folder without a training", "train first, as the sentence says"),
    "run-other": ("a folder with a run of other settings", "choose another folder, or give the same settings"),
    "sanity-option": ("a sanity check that cannot be had", "see `evaluation.sanity`"),
    "scene-count": ("too few or too many objects", "the sentence says how many"),
    "scene-phrase": ("phrases that do not fit the objects of a caption", "give one value a group"),
    "scene-room": ("no place is left for the objects", "place `Object`s yourself, or fewer"),
    "scene-size": ("a size at which no scene is drawn", "take a multiple of 96"),
    "scene-type": ("something that is no scene", "give what `scenes.arrange` or `scenes.draw_scene` gives"),
    "scene-word": ("a word that the scenes do not have", "scenes.concepts() has all nouns, COLOURS all colours"),
    "shard-form": ("a shard that is not i of n", "write 0/8 to 7/8"),
    "shard-missing": ("shards that are not there", "run those that the sentence names"),
    "shard-mixed": ("shards of two divisions in one folder", "take those away that are not meant"),
    "shard-other": ("a shard of another computation", "run it again with the settings of the others"),
    "shard-out": ("a shard without the folder where all meet", "say where with the option that the sentence names"),
    "shard-short": ("a shard of a study that is short", "leave out --shard: it takes minutes as a whole"),
    "shard-unfinished": ("a shard that is not done", "run it again: it goes on where it was stopped"),
    "state-damaged": ("the state of a training cannot be read", "delete it, and begin again"),
    "study-word": ("a word that no caption of the study holds", "choose another"),
    "table-columns": ("a table without a column that is needed", "name one of those that it has"),
    "table-empty": ("a table without the rows that are needed", "measure first"),
    "table-other": ("a table of something else, or none", "choose another --out"),
    "text-type": ("something that is no text", "give a string"),
    "tuning-worse": ("a tuned model that is not better than before", "it is not shipped"),
    "values-not-finite": ("NaN or infinity among values that are averaged", "leave those out, and say how many"),
    "values-shape": ("values that are no array of numbers", "give numbers, in the shape that the sentence names"),
    "word-groups": ("groups of words that cannot be centred", "give two or more, each word at most once"),
    "words-too-few": ("a caption that names fewer than two things", "give the words in over="),
    "write-failed": ("a file could not be written in the end", "the sentence says where it is kept instead"),
}

WARNINGS = {
    "activation-unknown": ("weights of quick GELU and of GELU look alike, and give other numbers",
                           "name the architecture with or without `-quickgelu`, as the weights were trained"),
    "font-letters": ("letters of this script are drawn as boxes", "set matplotlib's `font.family`"),
    "image-not-drawn": ("a bundled model sees an image that is not marked as a scene",
                        "load real CLIP for photographs; mark what is a drawn scene with `notices.mark_drawn`"),
    "interval-none": ("too few values or clusters to resample", "measure more"),
    "map-empty": ("no patch or word has relevance: all answer alike", "nothing, where the target is constant"),
    "method-left-out": ("this model cannot have some methods or rows", "name others, or ask another model"),
    "pair-skipped": ("images of a table are not there", "correct the table or the folder"),
    "preprocess-unknown": ("a preprocessing has a step that may move pixels, so a map may lie beside its place",
                           "use steps of torchvision or open_clip"),
    "prompt-cut": ("the prompt is longer than the model reads", "shorten it; the rest has no effect"),
    "rows-again": ("kept rows are damaged, or of inputs that changed, and are computed again", "nothing"),
    "word-unknown": ("a bundled model knows few words", "use those of its vocabulary, or another model"),
    "words-unsplit": ("the tokenizer does not say which tokens make a word", "take the one that came with the model"),
}  # fmt: skip

HEAD = """# Refusals and warnings

What cannot be had is refused in one sentence, before anything is computed: what was given, what is allowed, what to do.
Every such error is a `gradeclip_utils.errors.GradeclipError`, and also what is Python's habit: a `ValueError`, a
`TypeError`, an `OSError`, a `FileNotFoundError` or an `ImportError`. Its `code` is short, and stays as it is when the
sentence is reworded:

```python
from gradeclip_utils import load_clip
from gradeclip_utils.errors import GradeclipError

try:
    load_clip("ViT-B-61")
except GradeclipError as refusal:
    print(refusal.code, refusal)    # E-model-unknown open_clip has no model 'ViT-B-61'. Nearest: ...
```

A traceback ends with the code. A command prints the sentence with its code and exits with 2; `--debug` shows where it
was said. Any other error is a fault of this package, and has its traceback: please report it.
"""


WARNINGS_HEAD = r"""## Warnings

What is answered all the same, and should be read with care, comes with a warning: an `ExplanationWarning` where it is
about an explanation, else a `UserWarning`. Its message ends with a short code. A command prints it as a note, and a
panel, without the code, in its own line. Who has read a warning and goes on all the same silences it by its code:

```python
import warnings

warnings.filterwarnings("ignore", r".*\[W-word-unknown\]")
```
"""


def refusals_page() -> str:
    """The page as Markdown: a table of the codes of refusals, and one of those of warnings."""
    refused, noted = (_table(letter, codes) for letter, codes in (("E", CODES), ("W", WARNINGS)))
    return "\n".join([HEAD, *refused, WARNINGS_HEAD, *noted])


def _table(letter: str, codes: dict[str, tuple[str, str]]) -> list[str]:
    """The lines of a table, each row of which can be pointed to by its code."""
    rows = [
        f'| <span id="{letter}-{code}"></span>`{letter}-{code}` | {meaning} | {advice} |'
        for code, (meaning, advice) in codes.items()
    ]
    return ["| code | what it means | what to do |", "| --- | --- | --- |", *rows, ""]
