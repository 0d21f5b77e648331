"""EditableModule trains, resumes, generates and saves like any LightningModule, for any causal LM."""

import copy
import json

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_edit import EditableModule
from lightning_edit.errors import EditError
from lightning_edit.model.language_model import LanguageModel, as_language_model
from lightning_edit.model.weights import read_weight, write_weight

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),  # advice for more than four batches
    pytest.mark.filterwarnings(
        "ignore:You defined a `validation_step` but have no `val_dataloader`"
    ),  # true, and meant
]

LORA = {"r": 2, "target_modules": ["down_proj"], "init_lora_weights": False}
PROMPTS = ["The capital", "The language of the people of the country is", "A"]


@pytest.fixture
def folder(tiny_model, tokenizer, tmp_path):
    """A model on disk, as users have them."""
    tiny_model("llama").save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def batches(tokenizer):
    """Four batches of two padded texts."""
    lm_batches = []
    for i in range(4):
        texts = [f"The city number {i} is large.", f"Ada {i}"]
        rows = [tokenizer(text)["input_ids"] for text in texts]
        width = max(map(len, rows))
        ids = torch.tensor([row + [1] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        lm_batches.append({"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)})
    return lm_batches


def loader(batches):
    return DataLoader(batches, batch_size=None)


def trainer(path, **options):
    defaults = {"max_steps": 4, "logger": False, "enable_checkpointing": False, "accelerator": "cpu"}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}
    return L.Trainer(default_root_dir=path, **{**defaults, **quiet, **options})


def test_a_folder_is_loaded_in_the_asked_dtype(folder):
    module = EditableModule.from_pretrained(folder)
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    half = EditableModule.from_pretrained(folder, dtype="bfloat16", lr=3e-4)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert half.hparams.lr == 3e-4
    assert half.hparams.model == str(folder)
    assert as_language_model(half) is half.language_model
    assert isinstance(half.language_model, LanguageModel)
    assert module.editor is None


def test_wrong_arguments_are_named(folder, tiny_model, tokenizer):
    with pytest.raises(EditError, match=r"dtype='auto'.*float32"):
        EditableModule.from_pretrained(folder, dtype="auto")
    with pytest.raises(EditError, match="no name to load it by"):
        EditableModule(model="")


def test_fit_trains_in_train_mode_and_logs(folder, batches, tmp_path):
    module = EditableModule.from_pretrained(folder, lr=1e-2)
    assert not module.model.training
    before = read_weight(module.language_model.projection(0)).clone()
    modes, losses = [], []

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            modes.append({m.training for m in pl_module.modules()})

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(outputs["loss"].item())

    run = trainer(tmp_path, max_steps=24, max_epochs=6, callbacks=[Watch()], logger=CSVLogger(tmp_path))
    run.fit(module, loader(batches), loader(batches))
    assert all(mode == {True} for mode in modes)
    assert losses[-1] < 0.8 * losses[0]
    assert not torch.equal(before, read_weight(module.language_model.projection(0)))
    assert {"train_loss", "val_loss"} <= set(run.callback_metrics)
    assert "train_loss" in (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().split("\n")[0]


def test_the_loss_is_that_of_transformers_and_padding_does_not_count(folder, batches):
    module = EditableModule.from_pretrained(folder)
    module.log = lambda *args, **kwargs: None
    batch = batches[0]
    loss = module.training_step(batch, 0)
    total, count = 0.0, 0
    for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        ids = ids[mask.bool()]
        scores = module.model(input_ids=ids.unsqueeze(0)).logits[0].log_softmax(-1)
        total -= sum(scores[i, ids[i + 1]] for i in range(len(ids) - 1))
        count += len(ids) - 1
    assert torch.allclose(loss, total / count, atol=1e-5)
    del batch["labels"]
    assert torch.equal(module.validation_step(batch, 0), loss)


def test_norms_and_biases_do_not_decay(tiny_model, tokenizer):
    module = EditableModule.from_model(tiny_model("gpt2"), tokenizer, lr=1e-3, weight_decay=0.3, betas=(0.8, 0.9))
    optimizer = module.configure_optimizers()
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay) == len(list(module.parameters()))
    for name, parameter in module.named_parameters():
        plain = name.endswith("bias") or ".ln_" in name
        assert decay[id(parameter)] == (0.0 if plain else 0.3), name
    assert optimizer.defaults["betas"] == (0.8, 0.9)


def test_warmup_and_cosine(folder, batches, tmp_path):
    rates = []

    class Watch(L.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            rates.append(optimizer.param_groups[0]["lr"])

    module = EditableModule.from_pretrained(folder, lr=1.0, warmup_steps=2, schedule="cosine")
    trainer(tmp_path, max_steps=6, callbacks=[Watch()]).fit(module, loader(batches))
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.853553, 0.5, 0.146447], abs=1e-5)
    rates.clear()
    module = EditableModule.from_pretrained(folder, lr=1.0, warmup_steps=2)
    trainer(tmp_path, max_steps=4, callbacks=[Watch()]).fit(module, loader(batches))
    assert rates == [0.5, 1.0, 1.0, 1.0]


def test_a_cosine_without_an_end_is_refused(folder, batches, tmp_path):
    module = EditableModule.from_pretrained(folder, schedule="cosine")
    run = trainer(tmp_path, max_steps=-1, max_epochs=-1)
    with pytest.raises(EditError, match="needs to know its end"):
        run.fit(module, loader(batches))


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_resumed_run_is_the_uninterrupted_one(folder, batches, tmp_path):
    def fit(checkpoint=None):
        module = EditableModule.from_pretrained(folder, lr=1e-2, warmup_steps=1, schedule="cosine")
        keeper = ModelCheckpoint(tmp_path / "kept", filename="{step}", every_n_epochs=2, save_top_k=-1)
        run = trainer(tmp_path, max_steps=4, callbacks=[keeper], enable_checkpointing=True)
        run.fit(module, loader(batches[:1]), ckpt_path=checkpoint)
        return torch.cat([p.detach().flatten() for p in module.parameters()])

    whole = fit()
    half = tmp_path / "kept/step=2.ckpt"
    assert torch.load(half, weights_only=True)["global_step"] == 2
    assert torch.equal(fit(half), whole)


def test_a_checkpoint_loads_without_arguments(folder, batches, tmp_path):
    module = EditableModule.from_pretrained(folder, lr=1e-2)
    run = trainer(tmp_path)
    run.fit(module, loader(batches))
    run.save_checkpoint(tmp_path / "module.ckpt")
    again = EditableModule.load_from_checkpoint(tmp_path / "module.ckpt", map_location="cpu")
    assert again.hparams == module.hparams
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))


def test_generate_continues_each_prompt_as_if_alone(family_model, tokenizer):
    module = EditableModule.from_model(family_model.train(), tokenizer)
    tokenizer.padding_side = "right"
    together = module.generate(PROMPTS, max_new_tokens=6)
    assert module.generate(PROMPTS, max_new_tokens=6, batch_size=2) == together
    family_model.eval()
    for prompt, text in zip(PROMPTS, together, strict=True):
        ids = tokenizer(prompt)["input_ids"]
        for _ in range(6):
            with torch.no_grad():
                ids.append(family_model(input_ids=torch.tensor([ids])).logits[0, -1].argmax().item())
            if ids[-1] == tokenizer.eos_token_id:
                break
        new = ids[len(tokenizer(prompt)["input_ids"]) :]
        assert tokenizer.decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False) == text


def test_generate_leaves_the_module_alone(folder):
    module = EditableModule.from_pretrained(folder).train()
    state = torch.get_rng_state()
    (text,) = module.generate("Ada")
    assert isinstance(text, str)
    assert all(m.training for m in module.modules())
    assert torch.equal(state, torch.get_rng_state())
    with torch.inference_mode():
        assert module.generate(["Ada"]) == [text]
    sampled = {module.generate("Ada", do_sample=True, temperature=2.0)[0] for _ in range(4)}
    assert len(sampled) > 1
    assert module.generate([]) == []


def test_saved_generation_settings_do_not_leak_in(tiny_model, tokenizer):
    model = tiny_model("llama")
    plain = EditableModule.from_model(model, tokenizer).generate(PROMPTS)
    model.generation_config.update(do_sample=True, temperature=3.0, top_k=5, repetition_penalty=5.0, max_length=3)
    assert EditableModule.from_model(model, tokenizer).generate(PROMPTS) == plain


def test_the_saved_folder_is_plain_transformers(family_model, tokenizer, tmp_path):
    module = EditableModule.from_model(family_model, tokenizer)
    site = module.language_model.projection(1)
    write_weight(site, read_weight(site) + 0.1)
    module.save_pretrained(tmp_path / "edited")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "edited", dtype=torch.float32)
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        assert torch.equal(again.eval()(input_ids=ids).logits, module.model.eval()(input_ids=ids).logits)
    assert AutoTokenizer.from_pretrained(tmp_path / "edited")("Ada is")["input_ids"] == tokenizer("Ada is")["input_ids"]


def test_tied_weights_stay_tied(tiny_model, tokenizer, batches, tmp_path):
    module = EditableModule.from_model(tiny_model("llama", tie_word_embeddings=True), tokenizer, lr=1e-2)
    trainer(tmp_path).fit(module, loader(batches))
    model = module.model
    assert model.lm_head.weight is model.model.embed_tokens.weight
    module.save_pretrained(tmp_path / "tied")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "tied")
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)


def test_an_adapter_is_trained_and_the_matrix_under_it_is_edited(folder, batches, tmp_path):
    module = EditableModule(str(folder), lr=1e-1, peft=LORA)
    assert isinstance(module.model, PeftModel)
    projection = module.language_model.projection(1)
    frozen, adapter = read_weight(projection).clone(), projection.lora_B["default"].weight.detach().clone()
    run = trainer(tmp_path)
    run.fit(module, loader(batches))
    assert torch.equal(read_weight(projection), frozen)
    assert not torch.equal(projection.lora_B["default"].weight, adapter)
    write_weight(projection, frozen + 0.1)
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        logits = module.model.eval()(input_ids=ids).logits
    before = copy.deepcopy(module.state_dict())
    module.save_pretrained(tmp_path / "merged")
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    with torch.no_grad():
        assert torch.allclose(again(input_ids=ids).logits, logits, atol=1e-5)
    run.save_checkpoint(tmp_path / "peft.ckpt")
    loaded = EditableModule.load_from_checkpoint(tmp_path / "peft.ckpt", map_location="cpu")
    assert torch.equal(read_weight(loaded.language_model.projection(1)), frozen + 0.1)


def test_the_command_line_builds_it(folder, batches, tmp_path, capsys, monkeypatch):
    class Data(L.LightningDataModule):
        def train_dataloader(self):
            return loader(batches)

    arguments = [
        "fit", "--seed_everything=0",
        f"--model.model={folder}", "--model.lr=0.002", "--model.betas=[0.8,0.9]", "--model.peft.r=2",
        '--model.peft.target_modules=["down_proj"]', "--trainer.max_steps=1", "--trainer.logger=false",
        "--trainer.enable_checkpointing=false", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
        f"--trainer.default_root_dir={tmp_path}",
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["train", *arguments])
    cli = LightningCLI(EditableModule, Data, save_config_callback=None)
    assert cli.model.hparams.lr == 0.002
    assert isinstance(cli.model.model, PeftModel)
    assert cli.trainer.global_step == 1
    json.dumps(dict(cli.model.hparams))
    monkeypatch.setattr("sys.argv", ["train", "fit", "--help"])
    with pytest.raises(SystemExit):
        LightningCLI(EditableModule, Data)
    shown = capsys.readouterr().out
    for sentence in ("Hub name or folder of a causal LM", "Steps of linear warmup", "Weight decay of matrices"):
        assert sentence in shown.replace("\n", " ").replace("  ", "")


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "32-true"])
def test_precisions(folder, batches, tmp_path, precision):
    module = EditableModule.from_pretrained(folder, dtype="bfloat16" if precision == "bf16-true" else "float32")
    run = trainer(tmp_path, precision=precision)
    run.fit(module, loader(batches))
    assert run.global_step == 4
    assert torch.isfinite(run.callback_metrics["train_loss"])
    assert module.language_model.read_keys(["Ada is"], [(0, 3)], [0])[0].dtype == torch.float32


def test_a_copy_has_its_own_language_model(folder):
    module = EditableModule.from_pretrained(folder)
    twin = copy.deepcopy(module)
    assert twin.language_model.model is twin.model
    assert twin.language_model.model is not module.model


@pytest.mark.parametrize("name", ["tiny1m", "stories260K"])
def test_real_folders(shared_data, name, tmp_path):
    module = EditableModule.from_pretrained(shared_data / "lm" / name)
    texts = module.generate(["Once upon a time", "Lily and her"], max_new_tokens=12)
    assert all(" " in text.strip() and text.isascii() for text in texts)
    module.save_pretrained(tmp_path / name)
    assert (
        EditableModule.from_pretrained(tmp_path / name).generate(["Once upon a time"], max_new_tokens=12) == texts[:1]
    )


def test_the_embedded_model_has_a_name(monkeypatch, tiny_model, tokenizer):
    import lightning_edit.data.world as world

    monkeypatch.setattr(world, "load_world_model", lambda dtype: (tiny_model("llama", dtype=dtype), tokenizer))
    module = EditableModule(dtype="bfloat16")
    assert module.hparams.model == "embedded"
    assert module.language_model.dtype == torch.bfloat16
