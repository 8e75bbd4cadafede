"""Binding: does the model know which object is red? (lesson 05)

| file | holds |
| --- | --- |
| `measures` | where the maps of attribute words lie; ``figures(clip)`` |
| `mistakes` | what foretells a wrong answer |
| `playground` | one scene that a reader changes |
| `plots` | the figures |
"""
