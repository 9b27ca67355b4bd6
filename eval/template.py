"""A template: the text around a prompt and its completion that an adapter was trained with, and is asked with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError, printable_path, quoted

CHAT = "chat"
PROMPT, COMPLETION = "{prompt}", "{completion}"
ALLOWED = (
    f"{CHAT}, or a text, or a file of it, with {PROMPT} once, and where another token than the tokenizer's own ends an"
    f" answer, {COMPLETION} behind it"
)
# A row that is put into a chat template, to see what stands around it.
_PROBE, _ANSWER = "ADD, q0, [HEAD1] |2|1\nCMD: [C] 0, q1\n", "ADD, q1,  |2[HEAD1]|1\nCMD: [C] 1, q2\n"


@dataclass(frozen=True)
class Template:
    """The text around a prompt, and what ends an answer.

    Args:
        before: text before the prompt.
        after: text between prompt and completion.
        end: text of the token that ends a completion; empty for the tokenizer's end-of-text token.
        whole: whether ``before`` holds every special token, so that the tokenizer adds none.
    """

    before: str = ""
    after: str = ""
    end: str = ""
    whole: bool = False

    def render(self, prompt: str) -> str:
        """Return the text that the model reads."""
        return self.before + prompt + self.after


def template_text(given: str, where: str = "--template") -> str:
    """Return the text of a template: the one that was given, or what the file of that name holds.

    Args:
        given: ``chat``, a text with ``{prompt}``, or a file; of a file, its last line feed is no part.
        where: what gave it, for messages.

    Raises:
        UserError: it can be no template.
    """
    if given == CHAT:
        return given
    if PROMPT not in given:
        try:
            given, where = Path(given).read_text("utf-8-sig").removesuffix("\n"), printable_path(given)
        except (OSError, ValueError) as error:
            what = f"this is no template, and no file of one: {quoted(given, 300)}: {quoted(error, 200)}"
            raise UserError(what, where=where, allowed=ALLOWED) from None
    before, _, rest = given.partition(PROMPT)
    once = PROMPT in given and PROMPT not in rest and COMPLETION not in before and rest.count(COMPLETION) < 2
    if not once or "{{" in given:  # which is Jinja's way of writing
        what = f"this template does not write the prompt once, and behind it at most one completion: {quoted(given)}"
        raise UserError(what, where=where, allowed=ALLOWED)
    return given


def read_template(text: str | None, tokenizer: Any) -> Template:
    """Return the template that a setting names.

    Args:
        text: ``chat`` for the tokenizer's own chat template, the prompt being the only user message; a text around
            ``{prompt}``, or a file of it; None for the bare prompt.
        tokenizer: of the transformers library.

    Raises:
        UserError: the tokenizer has no chat template, or one that changes texts; or no special token ends an answer.
    """
    if text is None:
        return Template()
    text = template_text(text)
    if text == CHAT:
        return _chat(tokenizer)
    before, _, rest = text.partition(PROMPT)
    after, _, rest = rest.partition(COMPLETION)
    return Template(before, after, _end(rest, tokenizer))


def _chat(tokenizer: Any) -> Template:
    """Split what the chat template makes of a prompt and an answer; some trim white space, which is refused."""
    question, answer = {"role": "user", "content": _PROBE}, {"role": "assistant", "content": _ANSWER}
    asked = told = ""
    try:
        asked = tokenizer.apply_chat_template([question], tokenize=False, add_generation_prompt=True)
        told = tokenizer.apply_chat_template([question, answer], tokenize=False)
        fault = None if "strftime_now" not in str(tokenizer.chat_template) else "it writes today's date"
    except Exception as error:  # there is none, or it raises whatever its author thought of
        fault = f"there is none that takes a user's message: {quoted(str(error).strip().partition(chr(10))[0], 200)}"
    before, kept, after = asked.partition(_PROBE)
    if fault is None and not kept:
        fault = f"it changes a prompt's text: {quoted(_PROBE)} becomes {quoted(asked, 300)}"
    elif fault is None and not told.startswith(asked + _ANSWER):
        asks, saw = quoted(after + _ANSWER, 300), quoted(told[len(asked) - len(after) :], 300)
        fault = f"an answer behind its generation prompt, {asks}, is not the text that training saw: {saw}"
    if fault is not None:
        next_step = f"write the text that training used: --template '...{PROMPT}...'"
        raise UserError(fault, where=f"the chat template of {_name(tokenizer)}", next_step=next_step)
    return Template(before, after, _end(told[len(asked + _ANSWER) :], tokenizer), whole=True)


def _name(tokenizer: Any) -> str:
    return f"the tokenizer {printable_path(str(tokenizer.name_or_path))}".rstrip()


def _end(rest: str, tokenizer: Any) -> str:
    """Return the special token that a text begins with; nothing for no text.

    Raises:
        UserError: it begins with none: what ends an answer would be part of the answer.
    """
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    found = max((token for token in special if rest.startswith(token)), key=len, default="")
    if rest and not found:
        raise UserError(
            f"no special token stands behind the completion, but {quoted(rest)}",
            where=f"--template, with {_name(tokenizer)}",
            allowed="a special token of the tokenizer, or nothing, for its end-of-text token",
        )
    return found
