"""Evaluation: is this map better than that one?

    map + ground truth -> measure -> rows -> statistics -> table with intervals

Measures take plain maps and give tidy rows; `run` measures methods on data sets.

| file | holds |
| --- | --- |
| `localisation` | does a map lie on the object? |
| `faithfulness` | deletion and insertion: does the answer hang on what the map marks? |
| `words` | are the scores of a prompt's words right, and is it saturation where they are not? |
| `causal` | do maps rank objects by what taking them out of the scene does? |
| `pointing_game` | several things in one caption: does each word point at its own? |
| `sanity` | does a map depend on the model's weights, and what does it cost? |
| `attributes` | pairs of images and captions that differ in one attribute: can the model tell? |
| `statistics`, `resampling` | intervals of rows |
| `verdicts` | every comparison of a notebook in one sentence |
| `dataset_report`, `report_page` | which pairs of a data set deserve a second look? A page, the worst first |
| `maps` | maps of many methods, for which an image is traced once |
| `shards` | a computation dealt out to the processes of a cluster, and put together again |
| `run`, `worker`, `results` | methods on a data set: what is asked, what a process does, what is kept |
"""
