"""Matching: how a caption meets a picture (lesson 04).

| file | holds |
| --- | --- |
| `measures` | paths between twins, adjectives, sums of maps; ``figures(clip)`` |
| `composition` | is the embedding of two things the sum of theirs? |
| `wording` | which words of a caption count, and where their regions lie |
| `directions` | prompts as vectors, and the maps of any vectors |
| `plots` | the figures |
"""
