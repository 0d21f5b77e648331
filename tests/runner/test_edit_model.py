"""`edit_model` on a tiny model that knows what is to be changed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_edit import load_edits
from lightning_edit.cli import main
from lightning_edit.editors.delta_file import apply_delta
from lightning_edit.errors import EditError, RequestError
from lightning_edit.jobs import inputs
from lightning_edit.jobs.inputs import read_requests, sample_corpus
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.module import EditableModule
from lightning_edit.requests import EditRequest
from tests.runner.conftest import FACTS, OTHERS, PROMPT

ROOT = Path(__file__).resolve().parents[2]
STRONG = ("--options.clamp=6", "--options.steps=40", "--options.weight_decay=0", "--options.prior_weight=1")


def run(output: Path, *arguments: str) -> list[dict[str, Any]]:
    assert main(["run", "edit_model", "--output", str(output), "--options.layers=[1]", *arguments]) == 0
    summary = json.loads((output / "summary.json").read_text())
    assert summary["recipe"] == "edit_model"
    return summary["rows"]


def test_a_model_is_edited_measured_and_saved(
    model_folder: Path, request_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["--model", str(model_folder), "--requests", str(request_file)]
    before, after = run(tmp_path, *names, "--edits_per_commit=2", *STRONG)
    assert before["reliability"] == 0.0
    assert before["target_likelier_than_old"] == 0.0
    protocol = "greedy-24, to sentence, exact_match, by probes, locality unedited"
    assert before["protocol"] == after["protocol"] == protocol
    assert after["reliability"] >= 0.75
    assert after["target_likelier_than_old"] == 1.0
    assert (after["editor"], after["aligned"], after["edits"]) == ("memit", True, 4)
    assert 0 <= after["locality"] <= 1
    assert after["seconds_per_edit"] > 0
    printed = capsys.readouterr().out
    assert "before" in printed
    assert str(tmp_path / "model") in printed

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    for (subject, _), target in zip(FACTS, OTHERS, strict=True):
        ids = tokenizer(PROMPT.format(subject), return_tensors="pt").input_ids
        with torch.no_grad():
            answer = model.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=1)[0, ids.shape[1] :]
        assert tokenizer.decode(answer).strip().startswith(target)  # plain transformers, without us

    report = (tmp_path / "report.md").read_text()
    assert "layers [1] were edited" in report
    assert 'wanted was "language"' in report
    assert "what the model itself wrote" in report


def test_edits_leave_as_an_adapter_or_as_a_delta(model_folder: Path, request_file: Path, tmp_path: Path) -> None:
    names = ["--model", str(model_folder), "--requests", str(request_file), "--decode=teacher_forced", *STRONG]
    plain = EditableModule.from_pretrained(model_folder)
    clean = plain.model.model.layers[1].mlp.down_proj.weight.clone()
    run(tmp_path, *names, "--export=adapter", "--rank=2")
    assert "that it lacks: model.layers.1.mlp.down_proj: 0." in (tmp_path / "report.md").read_text()
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_folder), tmp_path / "adapter")
    assert adapted.peft_config["default"].r == 2
    assert adapted.peft_config["default"].base_model_name_or_path == str(model_folder)
    for options in ((), ("--options.aligned=false",)):
        run(tmp_path, *names, "--export=delta", *options)
        assert apply_delta(plain, tmp_path / "edits.safetensors") == [f"r{i}" for i in range(4)]
        assert not torch.equal(plain.model.model.layers[1].mlp.down_proj.weight, clean)
        plain = EditableModule.from_pretrained(model_folder)
    assert not (tmp_path / "model").exists()


BESIDE = {
    "grace": ("--options.layer=1", "--options.radius=0.05", "--options.lr=0.5", "--options.steps=60"),
    "ice": ("--options.max_new_tokens=16",),
    "lora": ("--export=editor", "--options.lr=0.01", "--options.steps=40", "--options.rank=2"),
}


def test_edits_that_are_not_in_the_weights_stand_beside_them_and_another_process_has_them(
    model_folder: Path, request_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["run", "edit_model", "--model", str(model_folder), "--requests", str(request_file)]
    said, script = {}, ["import json", "said = {}"]
    prompts = [PROMPT.format(subject) for subject, _ in FACTS]
    for editor, options in BESIDE.items():
        output = tmp_path / editor
        assert main([*names, "--editor", editor, "--output", str(output), "--decode=teacher_forced", *options]) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if "load_edits(" in line]
        assert str(output / "model") in line
        assert ("not in the weights" in line) == (editor != "lora")
        script += [line.split("`")[1], f"said[{editor!r}] = module.generate({prompts!r}, 4)"]
        clean = EditableModule.from_pretrained(model_folder).model.state_dict()
        saved = EditableModule.from_pretrained(output / "model")
        assert all(torch.equal(value, clean[name]) for name, value in saved.model.state_dict().items())
        module = load_edits(output / "model")
        assert [request.id for request in module.editor.requests] == [f"r{i}" for i in range(4)]
        said[editor] = module.generate(prompts, 4)
        assert said[editor] != saved.generate(prompts, 4)
        assert editor == "ice" or all(
            text.strip().startswith(target) for text, target in zip(said[editor], OTHERS, strict=True)
        )
    script.append("print(json.dumps(said))")
    found = subprocess.run(
        [sys.executable, "-c", "\n".join(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    assert json.loads(found.stdout.splitlines()[-1]) == said


def test_statistics_come_from_a_corpus_or_a_file_and_never_from_both(
    model_folder: Path, request_file: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "text.txt"
    corpus.write_text("\n\n".join(f"The city of number {n} is known for its river and its {n * 7}." for n in range(80)))
    names = ["--model", str(model_folder), "--requests", str(request_file), "--decode=teacher_forced", "--count=2"]
    _, after = run(tmp_path, *names, "--corpus", str(corpus), "--editor=alphaedit", "--options.nullspace_energy=0.1")
    assert after["editor"] == "alphaedit"
    assert after["edits"] == 2
    assert f"of {corpus}" in (tmp_path / "report.md").read_text()
    assert main(["run", "edit_model", *names, "--output", str(tmp_path), "--corpus=a", "--statistics=b"]) == 1


def test_a_hyper_parameter_file_names_editor_and_options(
    model_folder: Path, request_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "llama.yaml"
    file.write_text("alg_name: AlphaEdit\nlayers: [0]\nv_num_grad_steps: 2\nclamp_norm_factor: 1\nL2: 3\nv_lr: 5e-1")
    names = ["--model", str(model_folder), "--requests", str(request_file), "--decode=teacher_forced", "--count=1"]
    _, after = run(tmp_path, *names, "--editor_hparams", str(file), "--options.nullspace_energy=0.1", "--tokens=700")
    assert after["editor"] == "alphaedit"
    assert "layers [1] were edited" in (tmp_path / "report.md").read_text()  # what `run` asks for goes first


def test_mistakes_are_named(
    model_folder: Path, request_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["run", "edit_model", "--output", str(tmp_path), "--model", str(model_folder), "--requests"]
    assert main([*names, str(request_file), "--editor=memti"]) == 1
    assert "did you mean 'memit'" in capsys.readouterr().err
    assert main([*names, str(request_file), "--edits_per_commit=0"]) == 1
    assert "expected at least one request" in capsys.readouterr().err
    assert main([*names, str(tmp_path / "no.jsonl")]) == 1
    assert "no.jsonl" in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit_:
        main([*names, str(request_file), "--editr=memit"])
    assert exit_.value.code == 2


def test_requests_are_counted_and_bad_ones_are_skipped_by_name(tmp_path: Path, request_file: Path) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text(request_file.read_text() + '\n{"id": "bad", "prompt": "A prompt"}')
    with pytest.raises(EditError, match="target"):
        read_requests(str(file), None)
    requests, notes = read_requests(str(file), 9, on_bad="skip")
    assert len(requests) == len(FACTS)
    assert "target" in notes[0]
    assert "9 were asked for" in notes[1]
    assert len(read_requests(str(file), 2, on_bad="skip")[0]) == 2
    with pytest.raises(RequestError, match="count=0"):
        read_requests(str(file), 0)


def test_a_sampled_corpus_is_the_models_own_and_leaves_the_random_state(
    tiny_lm: LanguageModel, known_requests: list[EditRequest]
) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = sample_corpus(tiny_lm, known_requests, tokens=300, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert first == sample_corpus(tiny_lm, known_requests, tokens=300, seed=1)
    assert first != sample_corpus(tiny_lm, known_requests, tokens=300, seed=2)
    assert not any(text.startswith("the mother of") for text in first)  # whose keys are to be edited
    assert sum(len(ids) for ids in tiny_lm.tokenizer(first)["input_ids"]) >= 290


def test_a_model_that_writes_nothing_gives_no_corpus(tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "write_freely", lambda lm, count, longest: [" "] * count)
    with pytest.raises(EditError, match=r"writes nothing from its start token.*as corpus"):
        sample_corpus(tiny_lm, [], tokens=10, seed=0)


def test_one_request_is_edited_without_a_corpus(model_folder: Path, request_file: Path, tmp_path: Path) -> None:
    """Its own key is not priced as if all texts were about it."""
    names = ["--model", str(model_folder), "--requests", str(request_file)]
    _, after = run(tmp_path, *names, "--count=1", "--options.clamp=6", "--options.steps=40")
    assert after["reliability"] == 1.0
