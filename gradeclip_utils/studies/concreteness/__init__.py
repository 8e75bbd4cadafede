"""Concreteness: are concrete words the ones that count? (lesson 06).

| file | holds |
| --- | --- |
| `saliency` | what each word of a caption counts for |
| `word_study` | many captions measured, and the questions about them |
| `informativeness` | how often training said a word, and how much it tells |
| `correlations` | correlations over words, permutations, mixed models |
| `assigned` | one drawing with a concrete or an abstract tag |
| `plots` | the figures |
"""
