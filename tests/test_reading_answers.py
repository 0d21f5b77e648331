"""What of a text counts as its answer, when that is settled, and which answers are right."""

from typing import Any

import pytest

from lightning_edit.evaluation import first_sentence, is_right, read_answer
from lightning_edit.evaluation.reading import is_settled
from lightning_edit.judge import exact_match

EXAMPLES = [
    ("Paris. It is a city.", "Paris"),
    (" St. Petersburg. It lies on the Neva.", "St. Petersburg"),
    ("3.5 km. That is far.", "3.5 km"),
    ("Dr. X. He was born", "Dr. X"),
    ("J. R. R. Tolkien. He wrote", "J. R. R. Tolkien"),
    ("George W. Bush", "George W. Bush"),
    ("J.K. Rowling. She wrote", "J.K. Rowling"),
    ("Washington, D.C. It lies on", "Washington, D.C"),
    ("No. 10 Downing Street. The house", "No. 10 Downing Street"),
    ("No. He is not.", "No"),
    ("Acme Inc. of Ohio. It makes", "Acme Inc. of Ohio"),
    ("Acme Inc. The company", "Acme Inc"),
    ("Plan B. He had no other", "Plan B"),
    ("P. D. James. She wrote", "P. D. James"),
    ("Jan. 5, 1990. He", "Jan. 5, 1990"),
    ("5 Sept. 1990. He", "5 Sept. 1990"),
    ("5 Dec. He died", "5 Dec"),
    ("May. He died", "May"),
    ("cities, e.g. The Hague. It", "cities, e.g. The Hague"),
    ("the capital, i.e. Rome. It", "the capital, i.e. Rome"),
    ("5 p.m. on Monday. He", "5 p.m. on Monday"),
    ("5 p.m. He left", "5 p.m"),
    ("A.M. Turing. He", "A.M. Turing"),
    ("1990. In that year", "1990"),
    ('"Paris." He said', '"Paris'),
    ("Paris! Rome? Lyon", "Paris"),
    ("Paris… and then", "Paris"),
    ("東京。それは", "東京"),
    ("\n\n Paris\nRome. Lyon", "Paris"),
    ("www.example.com. It", "www.example.com"),
    ("Paris", "Paris"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "answer"), EXAMPLES)
def test_first_sentence(text: str, answer: str) -> None:
    assert first_sentence(text) == answer


@pytest.mark.parametrize(("text", "_"), EXAMPLES)
@pytest.mark.parametrize("more", ["", " The next. And", "\nThe next. And", " Texas, and. So on"])
@pytest.mark.parametrize("prompt", ["Where?", "Where? Thoughts:"])
def test_what_is_settled_never_changes(text: str, _: str, more: str, prompt: str) -> None:
    full = f"She. moves. Answer:{text}{more}" if prompt.endswith("Thoughts:") else text + more
    settled = [length for length in range(len(full) + 1) if is_settled(prompt, full[:length])]
    assert all(read_answer(prompt, full[:length]) == read_answer(prompt, full) for length in settled)
    assert is_settled(prompt, full + "\n") == bool((text + more).strip())


def test_ordinary_sentences_are_settled_by_the_next_letter() -> None:
    assert [is_settled("Where?", text) for text in ("Paris", "Paris.", "Paris. ", "Paris. I")] == [False] * 3 + [True]
    assert is_settled("Where?", "Paris. It is.")  # what comes after the answer's end does not matter
    assert [is_settled("Where?", text) for text in ("D.C. I", "D.C. It", "D.C. It ")] == [False, False, True]
    assert not is_settled("Where? Thoughts:", "She moved. To Paris. Then")
    assert is_settled("Where? Thoughts:", "She moved. Answer: Paris. Then")


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        ("paris", "Paris"),
        ("The United States.", "United States"),
        ("  New   York ", "New York"),
        ("“Paris”", "Paris"),
        ("\uff30aris", "Paris"),  # full width
        ("USA", ("United States", "USA")),
        ("Jean\u2013Luc", "Jean-Luc"),
        ("C#", "C#"),
        ("?", "?"),
    ],
)
def test_exact_match_forgives_spelling(answer: str, accepted: Any) -> None:
    assert exact_match(answer, accepted)


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        ("Paris, Texas", "Paris"),
        ("New", "New York"),
        ("Vitamin", "Vitamin A"),
        ("5", ".5"),
        ("5", "-5"),
        ("", "Paris"),
        ("Paris Paris", "Paris"),
        ("C", "C++"),
        ("C", "C#"),
        ("Zurich", "Zürich"),
        ("Paris", ()),
    ],
)
def test_exact_match_refuses_other_answers(answer: str, accepted: Any) -> None:
    assert not exact_match(answer, accepted)


def test_accepted_answers_of_several_sentences() -> None:
    assert is_right("q", "Yahoo! Inc. In 2010", ["Yahoo! Inc"])
    assert not is_right("q", "Yahoo! Japan. In 2010", ["Yahoo! Inc"])
    assert is_right("q", "Yahoo! Inc. In 2010", ["Yahoo"])  # read as one sentence
    assert is_right("q? Thoughts:", "She is in Yahoo. Answer: Lyon. Ok", ["Lyon"])
    assert not is_right("q?", "She is in Yahoo. Answer: Lyon. Ok", ["Lyon"])
