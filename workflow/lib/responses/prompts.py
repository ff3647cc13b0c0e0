"""From (instruction, response) to the text a model reads, and where its response begins.

Base models read ``instruction + "\\n" + response``; instructed models read their own chat template, up to and
with the generation prompt, then the response. No end-of-sequence token is appended (study 1, section 1.4 of
the paper's code: the loss is the mean cross-entropy of the response alone).
"""

from typing import Any

from workflow.lib.errors import InputError

SYSTEM_PROMPT = "You are a helpful assistant."


def base_prompt(instruction: str) -> str:
    """The prompt of a base model."""
    return f"{instruction}\n"


def chat_prompt(tokenizer: Any, instruction: str) -> str:
    """The prompt of an instructed model, by the tokenizer's own chat template.

    The system message is given where the template takes one (Gemma's, for one, refuses it); the template is
    asked, not the model's name. Raises `InputError` where the tokenizer has no chat template.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            f"model '{tokenizer.name_or_path}': its tokenizer has no chat template; set kind to 'base' in its row of "
            "models.tsv, or run without --chat"
        )
    user = {"role": "user", "content": instruction}
    for messages in ([{"role": "system", "content": SYSTEM_PROMPT}, user], [user]):
        try:
            return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:
            # Templates refuse a role with Jinja's raise_exception; its other errors are a broken template.
            if not type(error).__module__.startswith("jinja2"):
                raise
            if type(error).__name__ != "TemplateError":
                raise InputError(
                    f"model '{tokenizer.name_or_path}': its chat template cannot be used ({type(error).__name__}: "
                    f"{error}); mend chat_template.jinja, or fetch it again"
                ) from None
            refusal = error
    raise InputError(f"model '{tokenizer.name_or_path}': its chat template refuses a plain user message: {refusal}")
