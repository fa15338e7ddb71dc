"""The family's byte-level BPE (paper 2.1): pretokens -> counting -> learning -> folder, and a report; `stage` is the road.

The names below are what other modules use.
"""

from alignment.tokenizer.folder import digest as digest
from alignment.tokenizer.folder import load as load
from alignment.tokenizer.folder import rows as rows
from alignment.tokenizer.folder import write as write
from alignment.tokenizer.learning import PAD as PAD
from alignment.tokenizer.learning import SPECIAL as SPECIAL
from alignment.tokenizer.learning import learn as learn
from alignment.tokenizer.learning import special_tokens as special_tokens
from alignment.tokenizer.pretokens import pre_tokenizer as pre_tokenizer
from alignment.tokenizer.stage import train as train
