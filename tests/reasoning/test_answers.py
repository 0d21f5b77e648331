"""Which answer is read from a text, and what counts as right."""

import threading

import pytest

from lightning_edit.reasoning import answers
from lightning_edit.reasoning.marking import chosen_letter_class, label_word, mathematics, weighted_f1

LONG = "First $a = 2$, then $b = 40$. "


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("12", "12"),
        ("... so 3 * 4 = 12\n#### 12", "12"),
        ("#### $1,450.", "1450"),
        (LONG + r"Hence \boxed{42}.", "42"),
        (LONG + r"First \boxed{7}, no: \boxed{42}", "42"),
        (r"\boxed{\frac{3}{2}}", r"\dfrac{3}{2}"),
        (r"\boxed{\left(3, -1\right)}", r"\left( 3, -1 \right)"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"\left( 3, \frac{\pi}{2} \right)"),
        (r"\framebox{204}", "204"),
        (r"\boxed{025}", "25"),
    ],
)
def test_right_without_algebra(text: str, gold: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_verified", None)  # not even asked
    assert answers.is_right(text, gold)


@pytest.mark.parametrize(
    ("text", "gold"), [("#### 13", "12"), (LONG + r"\boxed{41}", "42"), (r"\boxed{1,450}", "1451"), ("12.5", "12")]
)
def test_other_numbers_are_wrong(text: str, gold: str) -> None:
    assert not answers.is_right(text, gold)


@pytest.mark.parametrize(
    ("text", "gold", "right"),
    [
        (r"so \boxed{1.5}", r"\frac{3}{2}", True),
        (r"so \boxed{\frac{\sqrt{8}}{2}}", r"\sqrt{2}", True),
        (r"The roots are $\boxed{-18, 2, -1}$", "2,-1,-18", True),
        ("The answer is 42.", "42", True),
        (LONG + "So the final answer is $42$. I hope it is correct.", "42", True),
        (r"so \boxed{(2,1)}", "(1,2)", False),
        (r"so \boxed{\sqrt{3}}", r"\sqrt{2}", False),
        ("I cannot say.", "42", False),
        ("", "42", False),
    ],
)
def test_formulas_are_compared_by_the_library(text: str, gold: str, right: bool) -> None:
    pytest.importorskip("math_verify", reason="math-verify is not installed: pip install lightning-edit[eval]")
    assert answers.is_right(text, gold) is right


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#### Conclusion\n" + r"The answer is \boxed{5}.", "5"),
        ("#### Final Answer\n" + r"\boxed{18}", "18"),
        (r"so \boxed{5}" + "\n\n#### Note\nchecked", "5"),
        (r"so \boxed{5}" + "\n\n#### 2. Check\nchecked", "5"),
        ("#### 3 cases\n" + r"so \boxed{5}", "5"),
        (r"\boxed{7}, no:" + "\n#### 8", "8"),  # of two marks the one that stands last
        ("#### 7\nNo: " + r"\boxed{8}", "8"),
        ("#### **18**", "18"),
        ("#### **18** dollars", "18"),
        ("#### 18 dollars", "18"),
        (r"#### **\$1,450.50** a year", "1,450.50"),
        ("#### -3 degrees", "-3"),
        ("#### 50%", "50"),
        ("#### 1/2 of it", "1/2"),
        ("#### 12 x 3 = 36 apples", "12 x 3 = 36 apples"),  # math-verify's to read
        (r"#### 5\sqrt{2}", r"5\sqrt{2}"),
        ("#### Step 1\nTwo.\n#### 18", "18"),
        ("##### 18", None),
        ("#### 1. Setup\nTwo and two.", None),
        ("#### Conclusion\nThe answer is 5.", None),
    ],
)
def test_hashes_mark_an_answer_only_before_a_number(text: str, said: str | None) -> None:
    assert answers.final(text) == said


@pytest.mark.parametrize(
    "text", ["#### Conclusion\nThe answer is 5.", "#### Answer: 5", "####\n5", "#### 5. So it is."]
)
def test_behind_a_heading_the_library_reads_on(text: str) -> None:
    pytest.importorskip("math_verify", reason="math-verify is not installed: pip install lightning-edit[eval]")
    assert answers.is_right(text, "5")
    assert not answers.is_right(text, "6")


def test_outside_of_the_main_thread_formulas_are_compared_too() -> None:
    pytest.importorskip("math_verify", reason="math-verify is not installed: pip install lightning-edit[eval]")
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(answers.is_right(r"\boxed{0.5}", r"\frac12")))
    thread.start()
    thread.join()
    assert found == [True]


def test_a_tolerance_is_kept() -> None:
    assert answers.is_right(r"\boxed{4.3}", "4.25", tolerance=0.1)
    assert not answers.is_right(r"\boxed{4.4}", "4.25", tolerance=0.1)
    assert mathematics({"answer": "4.25", "tolerance": 0.1}, [r"\boxed{4.2}"]) == {"acc": 1.0}


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("C", "C"),
        ("(C)", "C"),
        ("C) because", "C"),
        ("B.\nQuestion", "B"),
        ("The answer is (A).", "A"),
        ("the answer is B", "B"),
        ("**Answer:** D", "D"),
        (r"so \boxed{B}", "B"),
        (r"so \boxed{\text{(B)}}", "B"),
        ("The answer is (A). No, wait: the answer is (D).", "D"),
        ("Neither (A) nor (B), so it must be (C)", "C"),
        ("The answer is: C", "C"),
        ("The answer is: **C**.", "C"),
        ("The answer is option C", "C"),
        ("The answer is **choice (C)**", "C"),
        ("Answer: Option D.", "D"),
        (r"the answer is $\boxed{\text{B}}$", "B"),
        ("The answer is A because trees grow.", "A"),
        ("The answer is C for sure", "C"),
        ("The answer is A whale.", None),
        ("The answer is option A whale would take.", None),
        ("The answer is A whale, hence (B).", "B"),
        ("A cat sat on the mat.", None),
        ("The answer is a tree.", None),
        ("The answer is Apples.", None),
        ("E", None),
        ("", None),
    ],
)
def test_letters(text: str, letter: str | None) -> None:
    assert answers.letter(text, 4) == letter


def test_i_is_a_letter_and_a_word() -> None:
    assert answers.letter("The answer is I think (C).", 10) == "C"
    assert answers.letter("The answer is I am not sure.", 10) is None
    assert answers.letter("The answer is I.", 10) == "I"


@pytest.mark.parametrize(
    ("text", "labels", "place"),
    [
        ("positive", ["negative", "positive"], 1),
        (" Negative, not positive", ["negative", "positive"], 0),
        ("True.", ["True", "False"], 0),
        ("false\n", ["True", "False"], 1),
        ("nothing", ["no", "yes"], None),
        ("I know", ["no", "yes"], None),
        ("", ["no", "yes"], None),
    ],
)
def test_labels(text: str, labels: list[str], place: int | None) -> None:
    assert answers.label(text, labels) == place


def test_what_cannot_be_read_is_a_class_of_its_own() -> None:
    doc = {"labels": ["no", "yes"], "gold": 1}
    assert label_word(doc, ["maybe"]) == {"acc": 0.0, "f1": (1, -1)}
    choice = {"choices": ["a", "b", "c"], "answer": "C", "gold": 2}
    assert chosen_letter_class(choice, ["(C)"]) == {"acc": 1.0, "f1": (2, 2)}
    assert chosen_letter_class(choice, ["D"]) == {"acc": 0.0, "f1": (2, -1)}


def test_weighted_f1_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn comes with lightning-edit[eval]")
    pairs = [(0, 0), (0, 1), (1, 1), (1, -1), (1, 1), (2, 0), (2, 2), (0, -1)]
    gold, said = zip(*pairs, strict=True)
    expected = metrics.f1_score(gold, said, average="weighted", zero_division=0)
    assert weighted_f1(pairs) == pytest.approx(expected, abs=1e-12)
    assert weighted_f1([(0, -1), (1, -1)]) == 0.0
