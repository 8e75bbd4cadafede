"""Fine-tuning: a model's own maps as region labels, so that it sees finer (lesson 07).

    pairs -> losses -> run -> evaluate -> experiment -> plots

`pairs` reads images and captions, `losses` has the losses, `run` the loop (`fine_tune`) and its command, `evaluate`
measures what a model sees, `experiment` runs every arm and ships the result, `plots` draws it.
"""
