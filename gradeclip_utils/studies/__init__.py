"""The studies: what the lessons measure, each on top of the explainer and of scenes whose truth is known.

    matching/          lesson 04: how a caption meets a picture
    binding/           lesson 05: does the model know which object is red?
    concreteness/      lesson 06: are concrete words the ones that count?
    architectures      lesson 08: the same question to other architectures
    seeds              do their figures hold when the model is trained again?

`matching.measures`, `binding.measures`, `concreteness.measures` and `architectures` each have ``figures(clip)``: the
study's main figures in one tidy table, so that another model, or another training seed, is measured by the same call.
Figures for people are drawn in the `plots` of each.
"""
