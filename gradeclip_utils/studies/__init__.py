"""The studies: what the lessons measure, each on top of the explainer and of scenes whose truth is known.

    directions                                        prompts as vectors, and the maps of any vectors
    matching, composition, wording                    lesson 04: how a caption meets a picture
    attributes, binding, mistakes, exposure           lesson 05: does the model know which object is red?
    concreteness, informativeness, word_statistics    lesson 06: are concrete words the ones that count?
    readers                                           lesson 08: the same question to other architectures
    seeds                                             do their figures hold when the model is trained again?

`matching`, `binding`, `concreteness` and `readers` each have ``figures(clip)``: the study's main figures in one tidy
table, so that another model, or another training seed, is measured by the same call. Figures for people are drawn in
`matching_plots`, `binding_plots`, `playground` (a panel's) and `word_plots`.
"""
