"""Binding: does the model know which object is red? (lesson 05).

| file | holds |
| --- | --- |
| `binding_index` | where the maps of attribute words lie |
| `mistakes` | what foretells a wrong answer |
| `exposure` | what training showed of each attribute |
| `playground` | one scene that you change |
| `cached_explainer` | captions and images that are asked again and again |
| `plots` | the figures |
"""
