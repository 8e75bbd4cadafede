"""Training: the bundled models from nothing, their figures, and the fine-tuning of any CLIP.

| file | holds |
| --- | --- |
| `rounds` | the rounds that a CLIP is trained in: recipes, and the scenes of each batch |
| `scratch` | the bundled model, trained from nothing on emoji scenes |
| `distil` | its students: models of other architectures that learn from it |
| `card` | what the bundled model recognises, and what it cannot |
| `loop` | the loop of all of them, with a state that a killed run goes on from |
| `options` | a recipe as arguments, a table in a card |
| `finetune/` | a model's own maps as region labels, so that it sees finer |
"""
