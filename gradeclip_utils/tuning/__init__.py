"""Fine-tuning: a model's own maps as region labels, so that it sees finer (lesson 07).

    pairs -> regions -> finetuning -> finegrained -> experiment

`pairs` reads pictures and captions, `regions` has the losses, `finetuning` the loop (`training.fine_tune`),
`finegrained` measures what a model sees, `experiment` runs every arm and ships the result, `tuned_figures` draws it.
"""
