"""Tiny random models with spread logits, and a byte-level tokenizer with a chat template, built in memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alignment import chat


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """256 bytes, the end token and the opening token: ids 256 and 257."""
    vocabulary = {mark: i for i, mark in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=chat.EOS, bos_token=chat.BOS)
    tokenizer.chat_template = chat.TEMPLATES["deepseek-llm"]
    return tokenizer


@pytest.fixture(scope="session")
def llama(tokenizer: PreTrainedTokenizerFast) -> Callable[..., LlamaForCausalLM]:
    """Build a two-layer Llama; large weights keep near ties rare."""

    def build(seed: int = 0, kv_heads: int = 4, context: int = 256) -> LlamaForCausalLM:
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=kv_heads,
                max_position_embeddings=context,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=None,
            )
        )
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim == 2:
                    weight.normal_(0, 0.15)
            model.lm_head.weight.normal_(0, 0.6)
            # the end token comes now and then, so that rows leave the batch at different times
            model.lm_head.weight[tokenizer.eos_token_id] *= 2.5
        return model.eval()

    return build
