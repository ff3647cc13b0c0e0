"""Models that kernels, budgets and training are measured on: the committed miniature, and shapes of real models."""

import random
from typing import Any

import torch
import transformers

from benchmarks.probes import MODEL
from gradatlas.finetuning.sequences import EncodedResponse
from gradatlas.models.loading import load

#: Sizes as in the models' config.json; the embeddings of both are tied.
SHAPES: dict[str, dict[str, int]] = {
    "qwen2-0.5b": {"vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
                   "num_attention_heads": 14, "num_key_value_heads": 2},
    "qwen2-1.5b": {"vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
                   "num_attention_heads": 12, "num_key_value_heads": 2},
}  # fmt: skip
#: Tokens of a made-up prompt, and of a response: from the first number to the second.
PROMPT, RESPONSE = (20, 60), (20, 100)
#: Responses to a made-up prompt; the study has as many types of probes.
TYPES = 13


def model_of(shape: str, device: str) -> tuple[Any, Any]:
    """(model, tokenizer) in float32: the miniature (`toy`), or random weights, made on the device, and no tokenizer."""
    if shape == "toy":
        return load(str(MODEL), dtype="float32", device=device)
    config = transformers.Qwen2Config(**SHAPES[shape], tie_word_embeddings=True)
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.Qwen2ForCausalLM(config)
    return model.eval(), None


def responses_of(vocabulary: int, count: int, seed: int = 0) -> dict[str, EncodedResponse]:
    """`count` responses of random tokens, by key: `TYPES` to each prompt."""
    rng = random.Random(seed)
    found: dict[str, EncodedResponse] = {}
    while len(found) < count:
        prompt = [rng.randrange(vocabulary) for _ in range(rng.randint(*PROMPT))]
        for _ in range(min(TYPES, count - len(found))):
            response = [rng.randrange(vocabulary) for _ in range(rng.randint(*RESPONSE))]
            found[f"{len(found):04}"] = EncodedResponse((*prompt, *response), len(prompt))
    return found


def facts_of(device: str) -> dict[str, Any]:
    """Columns that say where a row was measured."""
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    return {"device": name, "torch": torch.__version__, "transformers": transformers.__version__}
