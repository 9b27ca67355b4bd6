"""Every way in which peft saves an adapter: verdicts and answers are those of transformers and peft alone.

One backend holds all adapters of a base model, so that the table also shows that none influences another.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AdaLoraConfig,
    HRAConfig,
    IA3Config,
    LilyConfig,
    LNTuningConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    TrainableTokensConfig,
    VeraConfig,
    get_peft_model,
)
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from caef_data.errors import UserError
from caef_data.eval.backends.local import TransformersBackend
from caef_data.eval.backends.model import Model
from caef_data.eval.backends.tokens import load_tokenizers
from caef_data.eval.calls import Request
from caef_data.tests.plain import plain_answers
from caef_data.tests.sizes import LONG
from caef_data.tests.small_model import END, learn, make_tokenizer, save

chance = random.Random(0)
LENGTHS = (2, 3, 5, 6, 8, 12)
TEXTS = [
    ("".join(chance.choices("abcx1234|", k=length)) + "=", "".join(chance.choices("abx12", k=chance.randint(1, 4))))
    for length in LENGTHS * 8
]
TEXTS[0] = ("a12=", TEXTS[0][1])  # of a word that some vocabularies grow by
PROMPTS = [prompt for prompt, _ in TEXTS[: len(LENGTHS)]]
TOKENS: list[int] = make_tokenizer().convert_tokens_to_ids(["1", "a", "="])
MOST = 12  # tokens that are decoded
# What the parts of a model are called.
NAMES = {
    "llama": {
        "attention": ["q_proj", "v_proj"],
        "inner": "down_proj",
        "norm": "norm",
        "words": "embed_tokens",
        "first": "layers.0.self_attn.q_proj",
        "pattern": r".*layers\.1\..*_proj",
        "layers": "layers",
        "weight": "q_proj.weight",
    },
    "gpt2": {
        "attention": ["c_attn"],
        "inner": "mlp.c_proj",
        "norm": "ln_f",
        "words": "wte",
        "first": "h.0.attn.c_attn",
        "pattern": r".*h\.1\..*c_(attn|fc)",
        "layers": "h",
        "weight": "c_attn.weight",
    },
}
Names = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A way to make an adapter.

    Args:
        config: from the names of a model's parts to its configuration.
        grown: words that the tokenizer and the embeddings get before.
        ending: the token that ends an answer, in a tokenizer of its own.
        twice: the embeddings are saved though nothing trained or grew them.
        only: the architecture that has it; None for both.
    """

    config: Callable[[Names], Any]
    grown: tuple[str, ...] = ()
    ending: str | None = None
    twice: bool = False
    only: str | None = None


def lora(*more: str, **settings: Any) -> Callable[[Names], LoraConfig]:
    """Return what makes a LoRA's configuration; texts that are names of parts stand for these."""

    def config(names: Names) -> LoraConfig:
        targets = [*names["attention"], *(names.get(one, one) for one in more)]
        made = {name: value(names) if callable(value) else value for name, value in settings.items()}
        return LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": targets, "task_type": "CAUSAL_LM", **made})

    return config


def other(kind: Any, **settings: Any) -> Callable[[Names], Any]:
    """Return what makes a configuration of another kind."""
    return lambda names: kind(
        **{"target_modules": names["attention"], "task_type": "CAUSAL_LM"}
        | {name: value(names) if callable(value) else value for name, value in settings.items()}
    )


WORDS = ("12=", "xx", "<|tool|>")
KINDS = {
    "plain": Kind(lora()),
    "no task type": Kind(lora(task_type=None)),
    "rslora": Kind(lora(use_rslora=True)),
    "dora": Kind(lora(use_dora=True)),
    "all modules": Kind(lora(target_modules="all-linear")),
    "patterns": Kind(
        lora("inner", rank_pattern=lambda names: {names["first"]: 7}, alpha_pattern=lambda names: {names["inner"]: 33})
    ),
    "one pattern": Kind(lora(target_modules=lambda names: names["pattern"])),
    "some layers": Kind(lora(layers_to_transform=[1], layers_pattern=lambda names: names["layers"])),
    "excluded modules": Kind(
        lora(target_modules="all-linear", exclude_modules=lambda names: [names["inner"], names["first"]])
    ),
    "embeddings": Kind(lora("words")),
    "vocabulary projection": Kind(lora("lm_head")),
    "both": Kind(lora("words", "lm_head")),
    "a whole norm": Kind(lora(modules_to_save=lambda names: [names["norm"]])),
    "whole embeddings": Kind(lora(modules_to_save=lambda names: [names["words"]])),
    "whole projection": Kind(lora(modules_to_save=["lm_head"])),
    "whole embeddings and projection": Kind(lora(modules_to_save=lambda names: [names["words"], "lm_head"])),
    "embeddings saved, too": Kind(lora(), twice=True),
    "whole embeddings saved twice": Kind(lora(modules_to_save=lambda names: [names["words"]]), twice=True),
    "biases": Kind(lora(bias="lora_only"), only="gpt2"),
    "all biases": Kind(lora(bias="all"), only="gpt2"),
    "biases of its own": Kind(lora(lora_bias=True)),
    "some tokens": Kind(lora(trainable_token_indices=TOKENS)),
    "tokens alone": Kind(
        other(TrainableTokensConfig, target_modules=lambda names: [names["words"]], token_indices=TOKENS)
    ),
    "grown": Kind(lora(), grown=WORDS),
    "grown, embeddings": Kind(lora("words", "lm_head"), grown=WORDS),
    "grown, whole": Kind(lora(modules_to_save=lambda names: [names["words"], "lm_head"]), grown=WORDS),
    "grown, some tokens": Kind(lora(trainable_token_indices=[*TOKENS, 264]), grown=WORDS),
    "an end of its own": Kind(lora(), ending="a"),
    "replicated layers": Kind(lora(layer_replication=[[0, 2], [1, 2]]), only="llama"),
    "a parameter": Kind(lora(target_modules=[], target_parameters=lambda names: [names["weight"]])),
    "pissa": Kind(lora(init_lora_weights="pissa")),
    "olora": Kind(lora(init_lora_weights="olora"), only="llama"),
    "orthogonal": Kind(lora(init_lora_weights="orthogonal")),
    "ia3": Kind(
        other(
            IA3Config,
            target_modules=lambda names: [*names["attention"], names["inner"]],
            feedforward_modules=lambda names: [names["inner"]],
        ),
        only="llama",
    ),
    "loha": Kind(other(LoHaConfig, r=4), only="llama"),
    "lokr": Kind(other(LoKrConfig, r=4), only="llama"),
    "oft": Kind(other(OFTConfig, oft_block_size=16), only="llama"),
    "vera": Kind(other(VeraConfig, r=4)),
    "hra": Kind(other(HRAConfig, r=4), only="llama"),
    "adalora": Kind(other(AdaLoraConfig, total_step=10)),
    "norms": Kind(other(LNTuningConfig, target_modules=lambda names: [names["norm"]])),
}
# Of GPT-2, in CI: what only it has, and what its tied embeddings change.
FEW = (
    "plain",
    "biases",
    "all biases",
    "embeddings",
    "whole embeddings",
    "grown, embeddings",
    "some tokens",
)
TABLE = [
    pytest.param(shape, name, id=f"{shape}-{name}")
    for shape in NAMES
    for name, kind in KINDS.items()
    if kind.only in (None, shape) and (LONG or shape == "llama" or name in FEW)
]


def make_base(folder: Path, shape: str) -> Path:
    """Write a small model that has learnt answers; GPT-2's embeddings are its projection, too."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    own: dict[str, Any] = {"vocab_size": len(tokenizer), "bos_token_id": None, "eos_token_id": END, "pad_token_id": 0}
    if shape == "llama":
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        model: Any = LlamaForCausalLM(LlamaConfig(**own, **sizes, max_position_embeddings=64))
    else:
        model = GPT2LMHeadModel(GPT2Config(**own, n_embd=32, n_layer=2, n_head=2, n_positions=64, embd_pdrop=0))
    learn(model, [(tokenizer.encode(prompt), tokenizer.encode(answer)) for prompt, answer in TEXTS], 50)
    return save(folder, model, tokenizer)


@dataclass
class Zoo:
    """A base model with one adapter of each kind."""

    base: Path
    shape: str
    names: list[str]
    truths: dict[str, list[tuple[str, bool]]] = field(default_factory=dict)

    @cached_property
    def adapters(self) -> dict[str, Path]:
        """The folder of each adapter."""
        return {name: self.make(name) for name in self.names}

    @cached_property
    def backend(self) -> TransformersBackend:
        """A backend with all of them."""
        return self.backend_of(self.adapters)

    def backend_of(self, adapters: dict[str, Path]) -> TransformersBackend:
        """Return a backend with some adapters."""
        tokens = load_tokenizers(self.base, adapters)
        return TransformersBackend(self.base, adapters, tokens, device="cpu", dtype="float32")

    @cached_property
    def before(self) -> list[tuple[str, bool]]:
        """What the base model answers."""
        return plain_answers(self.base, None, PROMPTS, MOST)

    def make(self, name: str) -> Path:
        """Save an adapter that changes some answers, and lets some end."""
        for share in (0.7, 2.0, 0.2, 5.0, 12.0):
            folder = self.save(name, share)
            truth = plain_answers(self.base, folder, PROMPTS, MOST)
            if sum(ended for _, ended in truth) >= 2 and truth != self.before:
                self.truths[name] = truth
                return folder
        raise AssertionError(f"no size of {name} gives answers that end and differ from the base model's")

    def save(self, name: str, share: float) -> Path:
        """Save an adapter whose trained weights are moved at random, by a share of their size."""
        kind, folder, tokenizer = KINDS[name], self.base.parent / "adapters" / name / str(share), make_tokenizer()
        torch.manual_seed(len(name))
        model = AutoModelForCausalLM.from_pretrained(self.base)
        if kind.grown:
            tokenizer.add_tokens(list(kind.grown))
            model.resize_token_embeddings(len(tokenizer))
        model = get_peft_model(model, kind.config(NAMES[self.shape]))
        for weight in (weight for weight in model.parameters() if weight.requires_grad):
            size = weight.detach().std() if weight.numel() > 1 and weight.detach().any() else torch.tensor(0.1)
            weight.data += torch.randn_like(weight) * share * (size or 0.1)
        model.save_pretrained(folder, save_embedding_layers=kind.twice or "auto")
        if kind.ending:
            tokenizer.eos_token = kind.ending
        if kind.ending or kind.grown:
            tokenizer.save_pretrained(folder)
        return folder

    def check(self, backend: TransformersBackend, name: str) -> None:
        """Compare right and wrong rows of an adapter with the ground truth."""
        calls, right = [], []
        for at, (prompt, (text, ended)) in enumerate(zip(PROMPTS, self.truths[name], strict=True)):
            wrong = at % 3 == 1 if ended else at % 2 == 0
            completion = (text[:-1] if at % 2 else text + "d") if wrong else text
            calls.append(Request(prompt, completion))
            right.append(ended and completion == text)
        assert 0 < sum(right) < len(calls)
        verdicts = dict(backend.verify(name, calls))
        assert [verdicts[at].right for at in range(len(calls))] == right, name
        answers = dict(backend.decode(name, [Request(call.prompt, call.completion) for call in calls]))
        for at, (text, ended) in enumerate(self.truths[name]):
            assert answers[at].text == text if ended else answers[at].text.startswith(text[:MOST]), (name, calls[at])
            assert answers[at].ended or not ended


@pytest.fixture(scope="module")
def zoos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Zoo]:
    """Return for each architecture a base model with an adapter of each kind."""
    torch.set_num_threads(1)
    made = {}
    for shape in NAMES:
        names = [one.values[1] for one in TABLE if one.values[0] == shape]
        made[shape] = Zoo(make_base(tmp_path_factory.mktemp(shape) / "base", shape), shape, names)
        assert made[shape].backend
    return made


@pytest.mark.parametrize(("shape", "name"), TABLE)
def test_an_adapter_is_judged_as_peft_and_transformers_decode_it(zoos: dict[str, Zoo], shape: str, name: str) -> None:
    zoos[shape].check(zoos[shape].backend, name)


def digest(model: Any) -> str:
    """Return a hash of a model's weights."""
    return sha256(b"".join(weight.numpy().tobytes() for weight in model.state_dict().values())).hexdigest()


SIXTEEN = [
    "grown",
    "plain",
    "dora",
    "embeddings",
    "whole embeddings and projection",
    "an end of its own",
    "pissa",
    "vera",
]
SIXTEEN += ["grown, whole", "a whole norm", "vocabulary projection", "ia3", "some tokens", "oft", "olora", "lokr"]


@pytest.mark.parametrize("order", ["backwards", "shuffled"])
def test_sixteen_adapters_in_another_order(zoos: dict[str, Zoo], order: str) -> None:
    zoo = zoos["llama"]
    names = [name for name in SIXTEEN if name in zoo.adapters]
    assert len(names) == 16
    names = names[::-1] if order == "backwards" else random.Random(1).sample(names, 16)
    plain = digest(Model(zoo.base, {}, device="cpu").base)
    backend = zoo.backend_of({name: zoo.adapters[name] for name in names})
    for name in [*names, *names[::-2]]:
        zoo.check(backend, name)
    assert digest(backend.model.base) == digest(zoo.backend.model.base) == plain


REFUSED: dict[str, tuple[Callable[[Names], Any], str]] = {
    "prompt tuning": (
        lambda _: PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
        "of kind PROMPT_TUNING: it needs more",
    ),
    "prefix tuning": (
        lambda _: PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
        "of kind PREFIX_TUNING: it needs more",
    ),
    "alora": (lora(alora_invocation_tokens=[60]), "aLoRA: it needs more than the tokens"),
    "another task": (lora(task_type="TOKEN_CLS"), "trained for 'TOKEN_CLS'"),
    "a random beginning": (lora(init_lora_weights="pissa_niter_2"), "'pissa_niter_2', which cannot be repeated"),
    "a mean over the row": (other(LilyConfig, r=4), "looks ahead"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_adapters_that_would_be_judged_otherwise_are_refused(tmp_path: Path, zoos: dict[str, Zoo], name: str) -> None:
    config, why = REFUSED[name]
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(zoos["llama"].base), config(NAMES["llama"]))
    for weight in (weight for weight in model.parameters() if weight.requires_grad):
        weight.data += torch.randn_like(weight) * 0.1
    model.save_pretrained(tmp_path / "odd")
    with pytest.raises(UserError, match=why) as raised:
        Model(zoos["llama"].base, {"executors/add": tmp_path / "odd"}, device="cpu")
    assert str(tmp_path / "odd") in str(raised.value)


TIED: dict[str, dict[str, Any]] = {  # settings of a LoRA on a model whose vocabulary projection is its embeddings
    "whole embeddings": {"modules_to_save": ["embed_tokens"]},
    "whole embeddings, tied": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "embeddings, tied": {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True},
    "projection": {"target_modules": ["q_proj", "lm_head"]},
    "some tokens": {"trainable_token_indices": {"embed_tokens": [1, 2, 3]}},
    "saved unchanged": {},
}


@pytest.mark.parametrize("name", TIED)
def test_tied_embeddings_stay_tied(tmp_path: Path, name: str) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=64, tie_word_embeddings=True, **sizes)
    save(tmp_path / "base", LlamaForCausalLM(config), make_tokenizer())
    settings = {"target_modules": ["q_proj"], "init_lora_weights": False, "task_type": "CAUSAL_LM", **TIED[name]}
    trained = get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), LoraConfig(r=2, **settings))
    for weight in (weight for weight in trained.parameters() if weight.requires_grad):
        weight.data += torch.randn_like(weight) * 0.1
    trained.save_pretrained(tmp_path / "adapter", save_embedding_layers="auto" if TIED[name] else True)
    model = Model(tmp_path / "base", {name: tmp_path / "adapter"}, device="cpu")
    model.use(name)
    ids = torch.arange(1, 12)[None]
    with torch.inference_mode():
        assert torch.equal(model.net(input_ids=ids).logits, trained.eval()(input_ids=ids).logits)
