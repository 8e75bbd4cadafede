"""Concreteness: are concrete words the ones that count? (lesson 06)

| file | holds |
| --- | --- |
| `measures` | what each word of a caption counts for; ``figures(clip)`` |
| `informativeness` | how often training said a word, and how much it tells |
| `exposure` | what training showed of each attribute |
| `statistics` | correlations over words, permutations, mixed models |
| `plots` | the figures |
"""
