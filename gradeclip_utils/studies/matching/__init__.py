"""Matching: how a caption meets an image (lesson 04).

| file | holds |
| --- | --- |
| `adjectives` | two things of one noun in two colours: where the adjective moves the map |
| `map_sums` | is the map of a whole made of the maps of its parts? |
| `composition` | is the embedding of two things the sum of theirs? |
| `wording` | which words of a caption count, and where their regions lie |
| `plots` | the figures |
"""
