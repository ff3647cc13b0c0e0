"""From (instruction, response) to the text a model reads, and where its response begins.

Base models read ``instruction + "\\n" + response``; instructed models read their own chat template, up to and
with the generation prompt, then the response. No end-of-sequence token is appended (study 1, section 1.4 of
the paper's code: the loss is the mean cross-entropy of the response alone).
"""

from datetime import date
from typing import Any

from gradatlas.core.errors import InputError

SYSTEM_PROMPT = "You are a helpful assistant."
# Some templates (Llama's from 3.2 on) write today's date: always this one, which is theirs where there is no clock.
CHAT_DATE = date(2024, 7, 26)
# What such a template calls for the time, as a macro that stands before it: the library takes no function from outside.
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
    """The prompt of an instructed model, by the tokenizer's own chat template.

    The system message is given where the template takes one (Gemma's, for one, refuses it); the template is
    asked, not the model's name. A template that writes today's date gets `CHAT_DATE`, whenever it runs. Raises
    `InputError` where the tokenizer has no chat template, or one that fails or leaves the instruction out.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            f"model '{tokenizer.name_or_path}': its tokenizer has no chat template; set kind to 'base' in its row of "
            "models.tsv, or run without --chat"
        )
    prompt = _rendered(tokenizer, instruction)
    # A template may trim or escape what it is given: one that writes the same whatever it is given has left it out.
    if instruction.strip() not in prompt and prompt == _rendered(tokenizer, f"{instruction} {instruction}?"):
        raise InputError(
            f"model '{tokenizer.name_or_path}': its chat template leaves the user's message out; "
            "mend chat_template.jinja, or fetch it again"
        )
    return prompt


def _rendered(tokenizer: Any, instruction: str) -> str:
    """The chat template over one instruction, with the system message where it is not refused."""
    user = {"role": "user", "content": instruction}
    for messages in ([{"role": "system", "content": SYSTEM_PROMPT}, user], [user]):
        try:
            template = tokenizer.get_chat_template()
            return tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=True,
                chat_template=(_STILL if _CLOCK in template else "") + template,
                date_string=CHAT_DATE.strftime("%d %b %Y"),
            )
        except Exception as error:
            # Templates refuse a role with Jinja's raise_exception; any other error is of a broken one.
            if (type(error).__module__.split(".")[0], type(error).__name__) != ("jinja2", "TemplateError"):
                raise InputError(
                    f"model '{tokenizer.name_or_path}': its chat template cannot be used ({type(error).__name__}: "
                    f"{error}); mend chat_template.jinja, or fetch it again"
                ) from error
            refusal = error
    raise InputError(f"model '{tokenizer.name_or_path}': its chat template refuses a plain user message: {refusal}")
