"""The miniatures' tokenizer: byte-level BPE, trained on the corpora, with a chat template.

Every word and number of the corpora is one token; any other text becomes pieces and bytes, never an unknown token. No
token is added around a text; the end token separates documents.
"""

from functools import cache
from itertools import islice

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from gradatlas.data.made_up.miniature import training_documents, vocabulary_texts
from gradatlas.data.responses.prompts import SYSTEM_PROMPT

END = "<|endoftext|>"
PAD = "<|pad|>"
TURN, TURN_END = "<|im_start|>", "<|im_end|>"
VOCABULARY = 1536
_DOCUMENTS = 20_000

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The one tokenizer of every miniature, whatever its seed; the same bytes on every machine."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained()),
        bos_token=END,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[TURN, TURN_END],
        chat_template=CHAT_TEMPLATE,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


@cache
def _trained() -> str:
    """The trained tokenizer as JSON, once for a process that builds several."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[END, PAD, TURN, TURN_END],
        show_progress=False,
    )
    texts = [document.text for document in islice(training_documents(0), _DOCUMENTS)]
    # Repeated, so that rare words are merged to one token.
    texts += [f"system\nuser\nassistant\n{SYSTEM_PROMPT}"] * 20 + vocabulary_texts() * 5
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str()
