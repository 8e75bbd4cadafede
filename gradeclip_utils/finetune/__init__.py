"""Fine-tuning: a model's own maps as region labels, so that it sees finer (lesson 07).

    pairs -> losses -> run, by loop

`pairs` reads images and captions, `losses` has the losses, `run` has `fine_tune` and its command.
"""
