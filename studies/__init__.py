"""The measurements of the lessons that are too long for a cell. The notebooks are the studies.

    lesson            what all lessons share: models, claims, scenes that are shown
    relevance         maps of many methods, and where a map lies
    pairs             two images and two captions that differ in one attribute
    methods           lesson 03: the maps of many methods, measured in four ways
    pointing_game     several things in one caption
    s04_word_importance  lesson 04: captions with a false word, and word scores
    matching          lesson 05: the parts of a caption
    binding           lesson 06: which colour belongs to which thing
    s07_word_concreteness  lesson 07: captions, word scores and ratings
    finetuning        lesson 08: arms and seeds of an experiment
    architectures     lesson 09: the same question to other encoders
    photographs       lessons 05 and 06 on photographs; `choices` reads published sets
    rivals            other methods, added to the package from outside
    runs              a lesson on a model of your own
    replication       all lessons on it, and what was predicted; `power` says how much data it takes

`python -m studies 06 --model ViT-B-16 --pretrained openai` runs a lesson on a model of your own.
"""

FEWEST = 20  # scenes or images of a lesson
