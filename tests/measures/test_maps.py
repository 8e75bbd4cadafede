"""Maps of many methods: which of them a model can have."""

import pytest

from gradeclip_utils import Explainer, ExplanationWarning, UnsupportedModel
from gradeclip_utils.measures import maps
from gradeclip_utils.measures.evaluation import evaluate
from gradeclip_utils.measures.maps import available, method_names
from gradeclip_utils.measures.worker import REFERENCES
from gradeclip_utils.methods import METHODS, Method, register_method
from gradeclip_utils.scenes import draw_scene
from studies.causal import causal
from studies.methods_compared import causal_summary
from tests.conftest import build, wrap

BEYOND = ["rollout", "game", "clip-surgery", "cci"]  # go through layers below an attention pool


@pytest.fixture(scope="module")
def pooling():
    """A tiny model whose image encoder ends in an attention pool."""
    return wrap(build({"attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 3}))


@pytest.fixture
def few(monkeypatch):
    """Only some methods are there, so that all of them are soon done."""
    names = ["game", "grad-eclip", "rollout", "maskclip"]
    monkeypatch.setattr(maps, "METHODS", {name: METHODS[name] for name in names})


def test_all_are_those_that_a_model_can_have_and_one_note_names_the_others_and_why(pooling, tiny, recwarn):
    every = maps.possible()
    assert method_names("all", tiny) == tuple(every) and not recwarn
    assert method_names("all", pooling) == tuple(name for name in every if name not in BEYOND)
    (note,) = (str(one.message) for one in recwarn)
    assert note.startswith("left out are methods that the model 'tiny' cannot have: rollout, game, clip-surgery, cci (")
    assert note.endswith("ends in an attention pool (AttentionalPooler), the one layer where a latent query reads and "
                         "so the only one that can be explained) [W-method-left-out]")  # fmt: skip
    assert method_names(["game"], pooling) == ("game",)  # who names one is told why it cannot be had


@pytest.mark.parametrize("name", BEYOND)
def test_what_all_leaves_out_is_refused_where_it_is_named(pooling, picture, name):
    with pytest.raises(UnsupportedModel, match="ends in an attention pool"):
        Explainer(pooling, method=name).explain(picture, "a dog")
    with pytest.raises(UnsupportedModel, match="ends in an attention pool"):
        available(pooling, [name])


def test_an_evaluation_and_a_study_of_all_measure_what_the_model_can_have(pooling, few):
    with pytest.warns(ExplanationWarning, match="cannot have: game, rollout "):
        rows = evaluate(pooling, "scenes:development:2", "all", progress=False)
    assert list(dict.fromkeys(rows["method"])) == ["grad-eclip", "maskclip", *REFERENCES]
    with pytest.raises(UnsupportedModel, match="GAME goes through"):
        evaluate(pooling, "scenes:development:2", ["grad-eclip", "game"], progress=False)
    scenes = [draw_scene(i, split="development", n_objects=2) for i in range(2)]
    with pytest.warns(ExplanationWarning, match="cannot have: game, rollout "):
        effects = causal(pooling, scenes, "all", size=96)
    assert list(dict.fromkeys(effects["method"])) == ["grad-eclip", "maskclip", "area", "random"]


def test_a_part_of_the_study_of_effects_that_a_model_cannot_have_is_said_and_has_no_figures(pooling, few, monkeypatch):
    with pytest.warns(ExplanationWarning, match="cannot have: game, rollout "):
        assert any("MaskCLIP" in figure for figure in causal_summary(pooling, 2, part="quick")["figure"])
    monkeypatch.setattr("studies.methods_compared.COSTLY", ("game",))
    with pytest.warns(ExplanationWarning, match="no part 'game' of this model: GAME goes through 4 layers"):
        assert causal_summary(pooling, 2, part="game").empty


def test_at_native_resolution_all_leaves_out_what_reads_the_models_own_size_alone(tiny):
    with pytest.warns(ExplanationWarning, match=r"integrated-gradients \(gradients of pixels need"):
        assert available(tiny, ["integrated-gradients", "rise"], "native") == ("rise",)


def test_a_model_without_attention_is_evaluated_by_what_needs_none_and_has_no_text_blind_rows():
    convolutions = wrap(build({"timm_model_name": "test_convnext", "timm_pool": "", "image_size": 64}), size=64)
    with pytest.warns(ExplanationWarning, match="the rows 'text-blind' are left out: .* all convolutions"):
        rows = evaluate(convolutions, "scenes:development:2", "grad-cam", progress=False)
    assert list(dict.fromkeys(rows["method"])) == ["grad-cam", *(name for name in REFERENCES if name != "text-blind")]


def test_no_method_costs_more_than_its_first_pass_before_it_is_known_whether_it_can_be_had(tiny):
    passes = []

    def costly(tower, trace, directions):
        for _ in range(500):
            tower.forward(trace.inputs)
            passes.append(1)

    register_method(Method("costly", "Costly", "nobody", "nothing", "500 passes", image=costly))
    try:
        assert available(tiny, ["costly"]) == ("costly",) and not passes
    finally:
        del METHODS["costly"]
    assert "costly" not in METHODS
