"""Templates of text memories: what is asked, and how a reply is read."""

import pytest

from lightning_edit.editors.retrieval.templates import BASE, EMBEDDED, INSTRUCT, PromptTemplates, make_templates
from lightning_edit.errors import EditError

FACTS = ["The mayor of Korr is Ada Brandt.", "Korr lies on the river Ahn.", "No Doubt comes from Anaheim."]


@pytest.mark.parametrize(
    ("reply", "chosen"),
    [
        ("The mayor of Korr is Ada Brandt.\nFacts: more", 0),
        (' "korr  lies on the river Ahn"', 1),
        ("No Doubt comes from Anaheim", 2),  # begins like a refusal and is a fact
        ("none", None),
        ("None.", None),
        ("No.", None),
        ("None of the facts, although Korr lies on the river Ahn.", None),
        ("There is no relevant information.", None),
        ("There are no fitting facts", None),
        ("That is false: Korr lies on the river Ahn.", 1),
        ("The fact that fits is: Korr lies on the river Ahn.", 1),
        ("2", 1),
        ("Fact 3: whatever", 2),
        ("2. Korr lies", 1),
        ("7", None),
        ("Ada Brandt", 0),
        ("Ahn.", 1),
        ("Korr", None),  # a part of two
        ("comes from Anaheim", 2),
        ("the", None),  # in one fact as a word, and its answer in none
        ("is", None),
        ("lies on the", 1),
        ("Korr lies on the ri", 1),  # there was no room for more
        ("or", None),  # inside a word
        ("Paris", None),  # was not listed
        ("", None),
        ("\n\n", None),
    ],
)
def test_a_reply_names_a_listed_fact_or_none(reply, chosen):
    assert BASE.chosen(reply, FACTS) == chosen
    assert INSTRUCT.chosen(reply, FACTS) == chosen


def test_of_facts_that_begin_alike_the_longer_one_is_meant_where_the_reply_has_it():
    near = ["Ann lives in York.", "Ann lives in York County.", "ann lives in york county"]
    assert BASE.chosen("Ann lives in York County.", near) == 1
    assert BASE.chosen("Ann lives in York.", near[::-1]) == 2
    assert BASE.chosen("It says: Ann lives in York County, of course", near) == 1
    assert BASE.chosen("York County", near) == 1  # of the one fact that is listed twice
    assert BASE.chosen("Ann lives", near) is None


def test_the_embedded_models_reply_is_the_value_up_to_its_full_stop():
    assert EMBEDDED.chosen("Ahn. Answer: Ahn.", FACTS) == 1
    assert EMBEDDED.chosen("none. Answer: Ahn.", FACTS) is None
    assert EMBEDDED.chosen("none.", FACTS) is None
    same = ["Bob Ray works for Korr.", "The town of Ann is Korr.", "Korr is a town.", "The home of Ida is in Lissa."]
    assert EMBEDDED.chosen("Korr. Answer: Korr.", same) == 0  # the first with this value
    assert EMBEDDED.chosen("Korr. Answer", same[2:]) is None
    assert EMBEDDED.chosen("the. Answer", same) is EMBEDDED.chosen("of. Answer", same) is None
    assert BASE.chosen("Korr.", same) is None
    assert EMBEDDED.is_over("Ahn. Answer")
    assert not EMBEDDED.is_over(" Ahn.")


def test_what_is_asked():
    own = PromptTemplates("{facts} | {question}", "{fact} > {prompt}", fact="{bare} {number}.", joint=" ")
    text = own.selection("Think. Question: Who?  Q: Who\ngoverns Korr? Answer: ", FACTS[:2])
    assert text == "The mayor of Korr is Ada Brandt 1. Korr lies on the river Ahn 2. | Who\ngoverns Korr?"
    assert own.asked("The mayor of Korr is") == "The mayor of Korr is"
    assert EMBEDDED.asked("Question: Who governs Korr? Thoughts:") == "Who governs Korr?"
    assert own.told("F.", "P {x}") == "F. > P {x}"
    assert EMBEDDED.told("F.", "Question: Who? Answer:") == "Context: F. Question: Who? Answer:"
    assert EMBEDDED.told("F.", "Question: Who? Thoughts:") == "Question: Who? Thoughts: F."
    assert own.told("F.", "Question: Who? Thoughts:") == "F. > Question: Who? Thoughts:"


def test_one_may_bring_ones_own_and_is_told_what_is_wrong_with_them():
    changed = make_templates({"style": "instruct", "answer": "{fact}{prompt}", "ends": ["###"]})
    assert (changed.answer, changed.select, changed.ends) == ("{fact}{prompt}", INSTRUCT.select, ("###",))
    assert make_templates("embedded") is not None
    assert make_templates({"answer": "{fact} {prompt}"}).select == BASE.select
    with pytest.raises(EditError, match=r"answer='\{fact\}' has the places \['fact'\]"):
        make_templates({"answer": "{fact}"})
    with pytest.raises(EditError, match=r"fact='\{text\}'"):
        make_templates({"fact": "{text}"})
    with pytest.raises(EditError, match="no templates 'chatty'"):
        make_templates("chatty")
    with pytest.raises(EditError, match="no 'anwser'"):
        make_templates({"anwser": "{fact} {prompt}"})
    with pytest.raises(EditError, match="cannot be read"):
        make_templates({"number": "("})
    with pytest.raises(EditError, match="has no group"):
        make_templates({"question": "Who"})
