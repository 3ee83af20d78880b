"""The ids of the special tokens: the first four of every vocabulary.

PAD fills a batch up and is never a real token. UNK stands for text that a vocabulary does not know. BOS is the GO that
prompts the decoder for the first word. EOS ends every source, and every target that is complete.
"""

PAD, UNK, BOS, EOS = 0, 1, 2, 3
