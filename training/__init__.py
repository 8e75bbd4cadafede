"""How `data/` was made: `python -m training COMMAND` (see `__main__`), a command a file.

| file | holds |
| --- | --- |
| `rounds` | the recipes of the models that are trained from scenes, and their batches |
| `scratch` | training from nothing or from other weights, and export |
| `seeds` | three more trainings from other seeds, and what lessons claim of each |
| `distil`, `recognition` | the students, which learn from `emoji`; which concepts a model knows |
| `fine` | `emoji-fine` and its card, from the experiment in `studies/finetuning` |
| `layers` | how many image layers should explain a model |
| `card`, `gallery`, `tables` | the figures of the card, and maps to look at |
| `compact` | the form of the files in `data/` |
| `loop`, `optimiser` | the loop of all trainings, which goes on after a kill; Muon |
| `art`, `npm` | the archive of drawings; packages that npm fetches |

The package needs nothing of this folder.
"""
