"""The final answer that a response states."""

from workflow.lib.corpora.samples import FINAL


def stated_answer(response: str, variant: str) -> str | None:
    """The label of a response: a None response itself, what follows the last "The final answer is", or None.

    The LAST occurrence counts: two published StrategyQA responses hold the phrase twice. The new line before it is
    not asked for, since the published shuffles lose it.
    """
    if variant == "none":
        return response
    _, phrase, answer = response.rpartition(FINAL.lstrip())
    return answer.strip().removesuffix(".") if phrase else None


def boxed(response: str) -> str | None:
    r"""What stands in the last ``\boxed{...}`` (or ``\fbox``) of a MATH solution, braces matched; None without one.

    >>> boxed(r"so \boxed{\frac{1}{2}}.")
    '\\frac{1}{2}'
    """
    for command in (r"\boxed", r"\fbox"):
        start = response.rfind(command)
        if start < 0:
            continue
        depth, begin = 0, None
        for i in range(start + len(command), len(response)):
            if response[i] == "{":
                depth += 1
                begin = i + 1 if begin is None else begin
            elif response[i] == "}":
                depth -= 1
                if depth == 0 and begin is not None:
                    return response[begin:i]
            elif begin is None and not response[i].isspace():
                # `\boxed 5`: a single token without braces.
                return response[i:].split()[0].rstrip("$.")
    return None


# How a dataset's gold answers are found, by the name in the `gold` column of datasets.tsv: (variant, reader).
GOLD = {
    "none": ("none", lambda response: response),
    "final_answer": ("simplified", lambda response: stated_answer(response, "simplified")),
    "boxed": ("simplified", boxed),
}
