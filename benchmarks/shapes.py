"""Models that kernels, budgets and training are measured on: the committed miniature, and shapes of real models."""

import random
from typing import Any

import torch
import transformers

from benchmarks.probes import MODEL
from gradatlas.finetuning.sequences import EncodedResponse
from gradatlas.models.loading import load

#: Architecture, full depth, and config, as in the models' config.json.
SHAPES: dict[str, tuple[str, int, dict[str, int]]] = {
    "Qwen2-0.5B": ("Qwen2", 24, {"vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
                                 "num_attention_heads": 14, "num_key_value_heads": 2}),
    "Qwen2-1.5B": ("Qwen2", 28, {"vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960,
                                 "num_attention_heads": 12, "num_key_value_heads": 2}),
    "gemma-2-2b": ("Gemma2", 26, {"vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216,
                                  "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256}),
    "Llama-3.1-8B": ("Llama", 32, {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
                                   "num_attention_heads": 32, "num_key_value_heads": 8}),
}  # fmt: skip
#: Those that kernels, budgets and training are measured on; the embeddings of both are tied.
TIED = ("Qwen2-0.5B", "Qwen2-1.5B")
#: Tokens of a made-up prompt, and of a response: from the first number to the second.
PROMPT, RESPONSE = (20, 60), (20, 100)
#: Responses to a made-up prompt; the study has as many types of probes.
TYPES = 13


def random_model(kind: str, layers: int, sizes: dict[str, int], device: str, **more: Any) -> Any:
    """A model of an architecture with random float32 weights, made on the device; `more`: of its config."""
    config = getattr(transformers, f"{kind}Config")(**sizes, num_hidden_layers=layers, **more)
    torch.manual_seed(0)
    with torch.device(device):
        return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


def model_of(shape: str, device: str) -> tuple[Any, Any]:
    """(model, tokenizer) in float32: the miniature (`toy`), or random weights and no tokenizer."""
    if shape == "toy":
        return load(str(MODEL), dtype="float32", device=device)
    return random_model(*SHAPES[shape], device, tie_word_embeddings=True), None


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
