"""Templates: what stands around a prompt in training stands around it in evaluation, and what ends an answer."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="templates need caef-data[eval]")

from caef_data import UserError, tokenize_row
from caef_data.eval.backends.tokens import Tokens
from caef_data.eval.settings import EvalSettings
from caef_data.eval.training.settings import TrainSettings
from caef_data.tests.small_model import END, make_tokenizer

PROMPT, COMPLETION = "12+34=", " 46\n"
TURN = (
    "{% for m in messages %}<begin>{{ m['role'] }}\n{{ m['content'] }}<pad>\n{% endfor %}"
    "{% if add_generation_prompt %}<begin>assistant\n{% endif %}"
)


def chatty(template: str | None = TURN) -> Any:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<begin>"]})
    tokenizer.chat_template = template
    return tokenizer


def spelled(tokenizer: Any, template: str | None) -> tuple[str, str]:
    prompt, completion = tokenize_row(tokenizer, PROMPT, COMPLETION, template=template)
    return tokenizer.decode(prompt), tokenizer.decode(completion)


@pytest.mark.parametrize(
    ("template", "asked", "told"),
    [
        (None, PROMPT, COMPLETION + "<end>"),
        ("{prompt}", PROMPT, COMPLETION + "<end>"),
        ("### Q: {prompt}\n### A:", f"### Q: {PROMPT}\n### A:", COMPLETION + "<end>"),
        ("Q {prompt} A {completion}", f"Q {PROMPT} A ", COMPLETION + "<end>"),
        ("Q {prompt} A {completion}<pad> more", f"Q {PROMPT} A ", COMPLETION + "<pad>"),
        ("<begin>{prompt}", f"<begin>{PROMPT}", COMPLETION + "<end>"),
        ("chat", f"<begin>user\n{PROMPT}<pad>\n<begin>assistant\n", COMPLETION + "<pad>"),
    ],
)
def test_rows_are_spelled_in_their_template(template: str | None, asked: str, told: str) -> None:
    assert spelled(chatty(), template) == (asked, told)


def test_an_end_token_that_changes_is_seen() -> None:
    tokenizer = chatty()
    assert spelled(tokenizer, None)[1] == COMPLETION + "<end>"
    tokenizer.eos_token = "<pad>"
    assert spelled(tokenizer, None)[1] == COMPLETION + "<pad>"


def test_the_answer_is_judged_without_what_ends_it() -> None:
    tokens = Tokens(chatty(), "chat")
    assert tokens.end == 0 != END
    [prompt], [answer] = tokens.prompts([PROMPT]), tokens.completions([COMPLETION])
    assert tokens.text(prompt, answer) == COMPLETION


@pytest.mark.parametrize(("begin", "before"), [("{prompt}", "<begin>"), ("<begin>Q {prompt}", "<begin>Q ")])
def test_a_token_before_every_text_stands_there_once(begin: str, before: str) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = chatty()
    special = [("<begin>", tokenizer.convert_tokens_to_ids("<begin>"))]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<begin> $A", special_tokens=special)
    assert spelled(tokenizer, begin)[0] == before + PROMPT
    assert spelled(tokenizer, "chat")[0].startswith("<begin>user")


TRIMMING = TURN.replace("m['content']", "m['content'] | trim")
THINKING = TURN.replace("{{ m['content'] }}", "{% if m.role == 'assistant' %}<think>{% endif %}{{ m['content'] }}")
DATED = "{{ strftime_now('%d') }}" + TURN


@pytest.mark.parametrize(
    ("template", "chat", "said"),
    [
        ("chat", None, "there is none"),
        ("chat", "{{ raise_exception('no system') }}", "no system"),
        ("chat", TRIMMING, "it changes a prompt's text"),
        ("chat", THINKING, "not the text that training saw"),
        ("chat", DATED, "today's date"),
        ("chat", TURN.replace("<pad>", ""), "no special token stands behind the completion"),
        ("Q {prompt} A {completion} bye", TURN, "no special token stands behind the completion"),
    ],
)
def test_what_cannot_be_asked_as_trained_is_refused(template: str, chat: str | None, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Tokens(chatty(chat), template)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", 'template is ""'),
        ("Q", "this is no template, and no file of one"),
        ("{prompt} {prompt}", "does not write the prompt once"),
        ("{completion} {prompt}", "does not write the prompt once"),
        ("{prompt}{completion}{completion}", "does not write the prompt once"),
        ("{{prompt}}", "does not write the prompt once"),
        ("{{ prompt }}", "no file of one"),
    ],
)
def test_settings_refuse_what_is_no_template(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        EvalSettings(adapters="ckpt", template=text)
    with pytest.raises(UserError, match=said):
        TrainSettings(base_model="base", template=text)


def test_a_template_of_a_file_is_its_text(tmp_path: Path) -> None:
    """Whatever becomes of the file: the run, its identity and its command have the text."""
    file = tmp_path / "own.txt"
    file.write_text("\ufeffQ {prompt}\nA {completion}\n", "utf-8")
    text = "Q {prompt}\nA {completion}"
    settings = EvalSettings(adapters="ckpt", template=str(file))
    assert settings.template == TrainSettings(base_model="base", template=str(file)).template == text
    assert str(file) not in settings.command
    assert EvalSettings(adapters="ckpt", template=text) == settings
    assert spelled(chatty(), str(file)) == spelled(chatty(), "Q {prompt}\nA ")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff{prompt}", "no file of one"),
        (b"chat", "does not write"),
    ],
)
def test_a_file_that_holds_no_template_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "own").write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        EvalSettings(adapters="ckpt", template=str(tmp_path / "own"))
    assert "own" in str(caught.value)


def test_a_template_is_part_of_a_runs_identity(smoke: Path, tmp_path: Path) -> None:
    from caef_data.eval.session import prepare

    settings = {"backend": "oracle", "data": str(smoke), "out": str(tmp_path), "task": "add"}
    runs = [prepare(EvalSettings(**settings, template=text)) for text in (None, "Q {prompt}", "Q: {prompt}")]
    assert len({run.tables.run_id for run in runs}) == 3


def test_a_model_trained_through_a_template_is_judged_through_it(tmp_path: Path) -> None:
    """By both strategies: what greedy decoding writes behind the rendered prompt, up to the template's end token."""
    import torch
    from transformers import GenerationConfig

    from caef_data.eval.backends.local import TransformersBackend
    from caef_data.eval.calls import BASE, Request
    from caef_data.tests.small_model import learn, make_model, make_texts, save

    tokenizer, texts = chatty(), make_texts(12)
    rows = [tokenize_row(tokenizer, prompt, answer, template="chat") for prompt, answer in texts]
    model = make_model(len(tokenizer), seed=1)
    learn(model, rows[:9], 120)
    folder = save(tmp_path / "base", model, tokenizer)
    settings = GenerationConfig(do_sample=False, max_new_tokens=60, eos_token_id=0, pad_token_id=0)
    plain = []
    for prompt, _ in texts:
        question = [{"role": "user", "content": prompt}]
        asked = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
        given = tokenizer(asked, add_special_tokens=False, return_tensors="pt").input_ids
        with torch.inference_mode():
            answer = model.generate(given, attention_mask=torch.ones_like(given), generation_config=settings)
        plain.append(tokenizer.decode(answer[0, given.shape[1] :]).partition("<pad>")[0])
    right = [text == answer for text, (_, answer) in zip(plain, texts, strict=True)]
    assert sum(right[:9]) > 6 and not all(right)
    judged = {}
    for template in ("chat", None):
        tokens = {BASE: Tokens(tokenizer, template)}
        backend = TransformersBackend(folder, {}, tokens, dtype="float32", device="cpu")
        verdicts = dict(backend.verify(BASE, [Request(prompt, answer) for prompt, answer in texts]))
        answers = dict(backend.decode(BASE, [Request(prompt, answer) for prompt, answer in texts]))
        decoded = [answers[place].ended and answers[place].text == text for place, (_, text) in enumerate(texts)]
        judged[template] = decoded
        assert [verdicts[place].right for place in range(len(texts))] == decoded
    assert judged["chat"] == right and not any(judged[None])
