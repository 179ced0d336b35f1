# The same work in PyTorch, to measure ours against: a decoder of the presets' shapes, one thread.
#   python3 data/peer.py train tiny      ./g2rl bench --only train_step --preset tiny --threads 1
#   python3 data/peer.py sample tiny 64  ./g2rl bench --only sample --preset tiny --threads 1
# Prints tokens a second: medians of 5, after one that does not count. Where this PyTorch has fused
# norms and attention they are used; FUSED=0 does without. Run both by turns on a quiet machine.
import os
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

torch.set_num_threads(1)
torch.manual_seed(0)
FUSED = hasattr(F, "rms_norm") and os.environ.get("FUSED", "1") != "0"
PROMPT, NEW = 16, 64
# layers, hidden_size, intermediate_size, heads, kv heads, head_dim, vocab_size, batch, length
PRESETS = {
    "tiny": (4, 128, 384, 4, 2, 32, 64, 64, 64),
    "small": (6, 384, 1024, 6, 2, 64, 4096, 16, 256),
    "medium": (30, 576, 1536, 9, 3, 64, 49152, 4, 256),
}


class Norm(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, x):
        if FUSED:
            return F.rms_norm(x, self.weight.shape, self.weight, 1e-6)
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Layer(nn.Module):
    def __init__(self, d, ff, H, KV, hd):
        super().__init__()
        self.H, self.KV, self.hd = H, KV, hd
        self.norm1, self.norm2, self.norm_q, self.norm_k = Norm(d), Norm(d), Norm(hd), Norm(hd)
        self.qkv = nn.Linear(d, (H + 2 * KV) * hd, bias=False)
        self.o = nn.Linear(H * hd, d, bias=False)
        self.gate_up = nn.Linear(d, 2 * ff, bias=False)
        self.down = nn.Linear(ff, d, bias=False)

    def forward(self, x, cos, sin, mask, cache, start):
        B, T, _ = x.shape
        H, KV, hd = self.H, self.KV, self.hd
        q, k, v = self.qkv(self.norm1(x)).view(B, T, H + 2 * KV, hd).split((H, KV, KV), 2)
        q = rotate(self.norm_q(q).transpose(1, 2), cos, sin)
        k, v = rotate(self.norm_k(k).transpose(1, 2), cos, sin), v.transpose(1, 2)
        if cache is not None:
            cache[0][:, :, start:start + T], cache[1][:, :, start:start + T] = k, v
            k, v = cache[0][:, :, :start + T], cache[1][:, :, :start + T]
        if FUSED:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=T > 1, enable_gqa=True)
        else:  # the query heads of a kv head as rows of one product
            S = k.shape[2]
            k, v = k.reshape(B * KV, S, hd), v.reshape(B * KV, S, hd)
            a = torch.bmm(q.reshape(B * KV, H // KV * T, hd), k.transpose(1, 2)) * hd ** -0.5
            if T > 1:
                a = (a.view(B * KV, H // KV, T, S) + mask).view(B * KV, -1, S)
            y = torch.bmm(F.softmax(a, -1), v).view(B, H, T, hd)
        x = x + self.o(y.transpose(1, 2).reshape(B, T, H * hd))
        g, u = self.gate_up(self.norm2(x)).chunk(2, -1)
        return x + self.down(F.silu(g) * u)


class Decoder(nn.Module):
    def __init__(self, L, d, ff, H, KV, hd, V):
        super().__init__()
        self.embed = nn.Embedding(V, d)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.layers = nn.ModuleList([Layer(d, ff, H, KV, hd) for _ in range(L)])
        self.norm = Norm(d)
        angle = torch.outer(torch.arange(256.0), 1e4 ** (-torch.arange(0, hd, 2) / hd))
        self.cos, self.sin = angle.cos(), angle.sin()

    def forward(self, tokens, caches=None, start=0):  # logits; with caches, of the last row only
        T, x = tokens.shape[1], self.embed(tokens)
        cos, sin = self.cos[start:start + T], self.sin[start:start + T]
        mask = torch.full((T, T), float("-inf")).triu(1)
        for i, layer in enumerate(self.layers):
            x = layer(x, cos, sin, mask, caches and caches[i], start)
        return F.linear(self.norm(x[:, -1] if caches else x), self.embed.weight)


def train_step(model, optimizer, tokens, targets):
    loss = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


@torch.no_grad()
def sample(model, prompts, caches):  # seconds, from when the prompts are in the cache
    logits = model(prompts, caches)
    clock = time.perf_counter()
    for i in range(NEW):
        token = torch.multinomial(F.softmax(logits, -1), 1)
        logits = model(token, caches, PROMPT + i)
    return time.perf_counter() - clock


what, (L, d, ff, H, KV, hd, V, batch, length) = sys.argv[1], PRESETS[sys.argv[2]]
model, seconds = Decoder(L, d, ff, H, KV, hd, V), []
if what == "train":
    count = batch * length
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, foreach=True)
    tokens, targets = torch.randint(0, V, (2, batch, length))
else:
    n = int(sys.argv[3])
    count, prompts = n * NEW, torch.randint(0, V, (n, PROMPT))
    caches = [[torch.zeros(n, KV, PROMPT + NEW, hd) for _ in "kv"] for _ in range(L)]
for _ in range(6):
    clock = time.perf_counter()
    if what == "train":
        train_step(model, optimizer, tokens, targets)
        seconds.append(time.perf_counter() - clock)
    else:
        seconds.append(sample(model, prompts, caches))
print(f"{what} {sys.argv[2]}: {count / statistics.median(seconds[1:]):.0f} tokens/s, "
      f"torch {torch.__version__}, fused {FUSED}")
