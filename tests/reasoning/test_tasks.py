"""The shipped tasks: who answers right scores 1, who answers wrong scores 0, on our fixtures and on the real files."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install lightning-edit[eval]")
pytest.importorskip("math_verify", reason="math-verify is not installed: pip install lightning-edit[eval]")

from lightning_edit.errors import EditError
from lightning_edit.reasoning.harness import Harness, draw
from lightning_edit.reasoning.harness_model import HarnessModel
from tests.reasoning.oracle import TASKS, oracle, write_all
from tests.reasoning.published import ANSWERS, FILES, HUB, LOCAL

ON_FIXTURES_ALONE = ("gpqa_diamond", "aime25")
REAL = [name for name in TASKS if not name.startswith(ON_FIXTURES_ALONE)]


def run(harness: Harness, name: str, tokenizer: Any, shuffled: bool = False) -> Any:
    return harness.run(HarnessModel(oracle(harness, name, tokenizer, shuffled), max_new_tokens=256))[name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("benchmarks"))


@pytest.mark.parametrize("name", TASKS)
def test_who_knows_scores_one_and_who_errs_scores_zero(name: str, folder: Path, tokenizer: Any) -> None:
    harness = Harness([name], data_dir=folder)
    right, wrong = run(harness, name, tokenizer), run(harness, name, tokenizer, shuffled=True)
    rows = LOCAL[FILES[name.removesuffix("_likelihood")]]
    assert (right.score, right.metric, right.count) == (1.0, "acc", len(rows))
    assert set(right.metrics.values()) == {1.0}
    assert wrong.score == 0.0
    assert max(value for key, value in wrong.metrics.items() if key != "mcc") == 0.0


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_gold_is_what_the_rows_say(name: str, folder: Path) -> None:
    docs = list(Harness([name], data_dir=folder)._tasks[name].eval_docs)
    assert [doc["answer"] for doc in docs] == ANSWERS[name]


def test_choices_of_experts_stand_in_an_order_of_their_own(folder: Path) -> None:
    docs = list(Harness(["gpqa_diamond"], data_dir=folder)._tasks["gpqa_diamond"].eval_docs)
    assert [doc["choices"][doc["gold"]] for doc in docs] == ["photon", "N2"]
    assert set(docs[0]["choices"]) == {"photon", "electron", "proton", "neutron"}
    again = list(Harness(["gpqa_diamond"], data_dir=folder)._tasks["gpqa_diamond"].eval_docs)
    assert [doc["choices"] for doc in again] == [doc["choices"] for doc in docs]


@pytest.mark.parametrize("name", sorted(HUB))
def test_the_hub_gives_the_same_answers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def load_dataset(path: str, config: str | None, split: str) -> Any:
        asked.append((path, config, split))
        return HUB[name]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    docs = list(Harness([name])._tasks[name].eval_docs)
    assert [doc["answer"] for doc in docs] == ANSWERS[name]
    assert len(asked) == 1


def test_questions_with_two_answers_have_none_and_are_left_out(tmp_path: Path) -> None:
    rows = [("She sings.", 1), ("Sings she the.", 0), ("I know who.", 1), ("I know who. ", 0), ("She sings.", 1)]
    lines = [json.dumps({"sentence": sentence, "label": label}) for sentence, label in rows]
    (tmp_path / "cola.jsonl").write_text("\n".join(lines))
    docs = list(Harness(["cola"], data_dir=tmp_path)._tasks["cola"].eval_docs)
    assert [doc["sentence"] for doc in docs] == ["She sings.", "Sings she the.", "She sings."]


def test_an_unreachable_hub_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load_dataset(*_: Any, **__: Any) -> Any:
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(EditError, match=r"openai/gsm8k could not be loaded .*offline.*data_dir="):
        Harness(["gsm8k"])


def test_a_folder_without_the_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(EditError, match=r"gsm8k/test\.jsonl, gsm8k\.jsonl in "):
        Harness(["gsm8k"], data_dir=tmp_path)


def test_a_row_that_is_none_is_an_error_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "gsm8k.jsonl").write_text('{"question": "How many?", "answer": "12"}\n')
    with pytest.raises(EditError, match=r"gsm8k\.jsonl, row 1: .*no #### in '12'.*expected columns question"):
        Harness(["gsm8k"], data_dir=tmp_path)


def test_glue_rows_without_labels_are_refused(tmp_path: Path) -> None:
    (tmp_path / "sst2.jsonl").write_text('{"sentence": "fine", "label": -1}\n')
    with pytest.raises(EditError, match="test sets of GLUE have none"):
        Harness(["sst2"], data_dir=tmp_path)


@pytest.mark.slow  # lm-eval's own thousands of tasks are looked through
def test_an_unknown_task_is_an_error_that_lists_the_shipped_ones(folder: Path) -> None:
    with pytest.raises(EditError, match=r"gsm8x.*aime24.*world_arithmetic"):
        Harness(["gsm8x"], data_dir=folder)


def test_a_task_file_of_ones_own_runs(tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "colours.jsonl").write_text('{"q": "The sky is", "a": "blue"}\n{"q": "Grass is", "a": "green"}\n')
    lines = [
        "task: colours",
        "dataset_path: json",
        f"dataset_kwargs: {{data_files: {{test: {tmp_path / 'colours.jsonl'}}}, cache_dir: {tmp_path / 'cache'}}}",
        "test_split: test",
        "output_type: generate_until",
        'doc_to_text: "{{q}}"',
        'doc_to_target: "{{a}}"',
        'generation_kwargs: {until: ["."], max_gen_toks: 8}',
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]",
    ]
    (tmp_path / "colours.yaml").write_text("\n".join(lines))
    harness = Harness(["colours"], include_path=tmp_path)
    found = run(harness, "colours", tokenizer)
    assert (found.score, found.metric, found.count) == (1.0, "exact_match", 2)


def test_shots_come_from_other_questions(folder: Path, tokenizer: Any) -> None:
    harness = Harness(["gsm8k"], data_dir=folder, num_fewshot=2)
    seen: list[str] = []

    class Listener(HarnessModel):
        def generate_until(self, requests: Any) -> list[str]:
            seen.extend(request.args[0] for request in requests)
            return ["#### 12" for _ in requests]

    found = harness.run(Listener(oracle(harness, "gsm8k", tokenizer)))["gsm8k"]
    assert found.score == pytest.approx(1 / 3)
    for row in LOCAL["gsm8k/test"]:
        (prompt,) = (text for text in seen if text.split("Question: ")[-1].startswith(row["question"]))
        assert prompt.count("Question: ") == 3
        assert prompt.count(row["question"]) == 1


def test_a_limit_asks_the_same_few_questions_every_time(folder: Path) -> None:
    few = Harness(["gsm8k"], limit=2, seed=3, data_dir=folder)
    questions = [doc["question"] for doc in few._tasks["gsm8k"].eval_docs]
    assert few.count("gsm8k") == len(questions) == 2
    again = Harness(["gsm8k"], limit=2, seed=3, data_dir=folder)
    assert [doc["question"] for doc in again._tasks["gsm8k"].eval_docs] == questions
    assert draw("t", 100, 10, 0) != draw("t", 100, 10, 1)
    assert set(draw("t", 100, 10, 0)) < set(draw("t", 100, 20, 0))


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_the_real_files_are_read_and_marked(name: str, shared_data: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared_data / "lm" / "gpt2_tokenizer")
    harness = Harness([name], limit=24, data_dir=shared_data)
    right = 0.95 if name.endswith("_likelihood") else 1.0  # an answer that begins with another choice is no likelier
    assert right <= run(harness, name, tokenizer).score <= 1.0
    assert run(harness, name, tokenizer, shuffled=True).score <= 0.05


def test_what_is_left_out_of_a_real_file(shared_data: Path) -> None:
    assert Harness(["cola"], data_dir=shared_data).count("cola") == 644 - 6  # three sentences, twice each
