"""The peer's side of `pretrain.py`: litgpt's model, loss and Fabric on the same batches, as in its own training loop.

Run by `pretrain.py --litgpt PYTHON` with the python of an environment that holds litgpt: BATCHES.npy VOCAB FFN.
bf16-mixed keeps weights and moments in float32, as we do. The model is compiled, as litgpt's own command does.
"""

import json
import os
import sys
import time

os.environ.update(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0", OMP_NUM_THREADS="1")

import numpy as np
import torch
from lightning.fabric import Fabric
from litgpt.model import GPT, Config
from litgpt.utils import chunked_cross_entropy

batches, vocab, ffn = np.load(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
config = Config(
    name="benchmark",
    block_size=batches.shape[2] - 1,
    vocab_size=vocab,
    padded_vocab_size=vocab,
    n_layer=8,
    n_head=4,
    n_embd=256,
    rotary_percentage=1.0,
    parallel_residual=False,
    bias=False,
    norm_class_name="RMSNorm",
    mlp_class_name="LLaMAMLP",
    intermediate_size=ffn,
)
fabric = Fabric(devices=1, accelerator="cpu", precision="bf16-mixed")
fabric.launch()
fabric.seed_everything(0)
with fabric.init_module(empty_init=False):
    model = GPT(config)
model = fabric.setup(torch.compile(model))
optimizer = fabric.setup_optimizers(torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), fused=True))
clock = []
for batch in batches:
    rows = torch.from_numpy(batch)
    fabric.backward(chunked_cross_entropy(model(rows[:, :-1]), rows[:, 1:].contiguous()))
    fabric.clip_gradients(model, optimizer, max_norm=1.0)
    optimizer.step()
    optimizer.zero_grad()
    clock.append(time.process_time())
sys.stdout.write("\n" + json.dumps(clock) + "\n")
