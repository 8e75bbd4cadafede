"""Training: the bundled models from nothing, their figures, and the fine-tuning of any CLIP.

| file | holds |
| --- | --- |
| `scratch` | the bundled model, trained from nothing on emoji scenes |
| `distil` | its pupils: models of other architectures that learn from it |
| `card` | what the bundled model recognises, and what it cannot |
| `finetune/` | a model's own maps as region labels, so that it sees finer |
"""
