"""Text to token ids and back: training, saving and loading, over the `tokenizers` library.

`bpe`, `unigram` and `bytes` work on the bytes of UTF-8: no text is unknown to them and decoding gives back what was
encoded. `chars` and `words` know what they were trained on. Nothing here opens data or knows tensors.
"""

from antiphon.tokenizer.codec import (
    JOINT_FILE,
    SOURCE_FILE,
    TARGET_FILE,
    UNKNOWN_TEXT,
    Tokenizer,
    TokenizerPair,
    load,
    save,
)
from antiphon.tokenizer.kinds import SPECIAL_TOKENS
from antiphon.tokenizer.training import train_tokenizers

__all__ = [
    "JOINT_FILE",
    "SOURCE_FILE",
    "SPECIAL_TOKENS",
    "TARGET_FILE",
    "UNKNOWN_TEXT",
    "Tokenizer",
    "TokenizerPair",
    "load",
    "save",
    "train_tokenizers",
]
