"""Prompts of base and instructed models.

A base model reads ``instruction + "\\n" + response``; an instructed model reads its chat template with the generation
prompt, then the response. No end-of-sequence token is appended, as in the study's code.
"""

from datetime import date
from typing import Any

from gradatlas.core.errors import InputError

SYSTEM_PROMPT = "You are a helpful assistant."
# The date for templates that write today's date (Llama's from 3.2 on): their default without a clock.
CHAT_DATE = date(2024, 7, 26)
CHAT_DATE_STRING = CHAT_DATE.strftime("%d %b %Y")
# The function that such a template calls, replaced by a macro in front of it: the library does not accept a function.
_CLOCK = "strftime_now"
_STILL = "".join(
    [
        f"{{% macro {_CLOCK}(format) %}}{{{{ format",
        *(f"|replace('%{code}', '{CHAT_DATE.strftime(f'%{code}')}')" for code in "aAbBdHIjmMpSyYFT"),
        *(f"|replace('%-{code}', '{int(CHAT_DATE.strftime(f'%{code}'))}')" for code in "dHIjmMSy"),
        " }}{% endmacro %}",
    ]
)


def base_prompt(instruction: str) -> str:
    """The prompt of a base model."""
    return f"{instruction}\n"


def chat_prompt(tokenizer: Any, instruction: str) -> str:
    """The prompt of an instructed model, by the tokenizer's chat template.

    With the system message, unless the template refuses one (as Gemma's). A template that writes today's date gets
    `CHAT_DATE`. Raises `InputError` where the tokenizer has no chat template, or one that fails or does not contain the
    instruction.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            f"model '{tokenizer.name_or_path}': its tokenizer has no chat template; set kind to 'base' in its row of "
            "models.tsv, or run without --chat"
        )
    prompt = _rendered(tokenizer, instruction)
    # A template may trim or escape the instruction, so compare with the prompt of another one.
    if instruction.strip() not in prompt and prompt == _rendered(tokenizer, f"{instruction} {instruction}?"):
        raise InputError(
            f"model '{tokenizer.name_or_path}': its chat template ignores the user's message; fix chat_template.jinja, "
            "or fetch it again"
        )
    return prompt


def dated(template: str) -> str:
    """A chat template that writes `CHAT_DATE` where it asks for today's date; `date_string` is `CHAT_DATE_STRING`."""
    return (_STILL if _CLOCK in template else "") + template


def _rendered(tokenizer: Any, instruction: str) -> str:
    """The chat template with one instruction, and with the system message unless it is refused."""
    user = {"role": "user", "content": instruction}
    for messages in ([{"role": "system", "content": SYSTEM_PROMPT}, user], [user]):
        try:
            return tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=True,
                chat_template=dated(tokenizer.get_chat_template()),
                date_string=CHAT_DATE_STRING,
            )
        except Exception as error:
            # A template refuses a role with Jinja's raise_exception; any other error is a defect.
            if (type(error).__module__.split(".")[0], type(error).__name__) != ("jinja2", "TemplateError"):
                raise InputError(
                    f"model '{tokenizer.name_or_path}': its chat template fails ({type(error).__name__}: {error}); fix "
                    "chat_template.jinja, or fetch it again"
                ) from error
            refusal = error
    raise InputError(
        f"model '{tokenizer.name_or_path}': its chat template refuses a user message ({refusal}); set prompt to "
        "'plain' in its row of models.tsv"
    )
