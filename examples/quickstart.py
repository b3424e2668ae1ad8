"""From text to a generated story in Python, a cell at a time.

Run it as it is (a minute on a laptop), or cell by cell in an editor that knows ``# %%``. Everything
that the commands do is here by name, with the training loop written out.
"""

# %% The text: two megabytes of the built-in stories, and some more to validate on.
import math
import os
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from cs336lm import (
    AdamW,
    ModelConfig,
    Tokenizer,
    TransformerLM,
    clip_gradients,
    cross_entropy,
    generate,
    get_batch,
    load_checkpoint,
    lr_cosine_schedule,
    save_checkpoint,
    train_bpe,
)
from cs336lm.text.stories import SEPARATOR, corpus, entropy, stories

steps = int(os.environ.get("STEPS", "200"))
folder = TemporaryDirectory()
text_file = Path(folder.name) / "stories.txt"
text_file.write_bytes(b"".join(corpus(2_000_000, seed=1)))
print(text_file.read_text()[:300], "...\n")

# %% A tokenizer: the 256 bytes, the most frequent pairs, and one special token.
vocab, merges = train_bpe(text_file, vocab_size=1000, special_tokens=["<|endoftext|>"])
tokenizer = Tokenizer(vocab, merges, special_tokens=["<|endoftext|>"])
ids = tokenizer.encode("Once upon a time, there was a tokenizer.")
print(ids, [tokenizer.decode([i]) for i in ids])
assert tokenizer.decode(ids) == "Once upon a time, there was a tokenizer."

# %% Token ids: in an array here, in a memory-mapped file when there are more of them.
train = np.array(tokenizer.encode(text_file.read_text()), dtype=np.uint16)
held_out = "".join(story + SEPARATOR for story in islice(stories(seed=2), 60))
val = np.array(tokenizer.encode(held_out), dtype=np.uint16)
print(f"{len(train):,} tokens to train on, {len(val):,} to validate on")

# %% A model.
torch.manual_seed(0)  # decides the weights and the windows
device = "cuda" if torch.cuda.is_available() else "cpu"
config = ModelConfig(
    vocab_size=tokenizer.vocab_size, context_length=128, d_model=64, num_layers=2, num_heads=2
)
model = TransformerLM(config, device=device)
optimizer = AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
print(f"{sum(p.numel() for p in model.parameters()):,} parameters")


# %% The loop. Validation is over the same windows of the held-out text each time.
val_x, val_y = get_batch(val, 64, config.context_length, device)


@torch.no_grad()
def validate() -> float:
    """The mean loss in nats per token."""
    return cross_entropy(model(val_x), val_y).item()


for step in range(steps):
    for group in optimizer.param_groups:
        group["lr"] = lr_cosine_schedule(step, 1e-2, 1e-3, steps // 20, steps)
    x, y = get_batch(train, 32, config.context_length, device)
    loss = cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    clip_gradients(model.parameters(), max_l2_norm=1.0)
    optimizer.step()
    if step % 20 == 0 or step == steps - 1:
        print(f"step {step:4}  loss {loss.item():.3f}  validation {validate():.3f}")

# %% How far from the floor? The entropy of the stories is known exactly.
bytes_per_token = len(held_out.encode()) / len(val)
bits_per_byte = validate() / math.log(2) / bytes_per_token
floor = entropy()
print(f"validation  {validate():.3f} nats per token, {bits_per_byte:.3f} bits per byte")
print(f"entropy     {floor.nats_per_token(bytes_per_token):.3f} and {floor.bits_per_byte:.3f}")

# %% A story.
prompt = "Once upon a time"
print(prompt + generate(model, tokenizer, prompt, max_new_tokens=200, temperature=0.7, seed=1))

# %% Save it, and load it again.
checkpoint = Path(folder.name) / "model.pt"
save_checkpoint(model, optimizer, steps, checkpoint)
again = TransformerLM(config, device=device)
assert load_checkpoint(checkpoint, again, AdamW(again.parameters())) == steps
tokenizer.save(Path(folder.name) / "tokenizer")
assert Tokenizer.load(Path(folder.name) / "tokenizer").vocab == tokenizer.vocab
