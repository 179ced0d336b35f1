# The same work in PyTorch, to measure ours against: a decoder of the presets' shapes, one thread.
#   python3 data/peer.py train tiny      ./g2rl bench --only train_step --preset tiny --threads 1
#   python3 data/peer.py sample tiny 64  ./g2rl bench --only sample --preset tiny --threads 1
#   python3 data/peer.py rl tiny         ./g2rl bench --only rl_step --preset tiny --threads 1
# Prints tokens a second (rl: seconds a step): medians of 5, after one that does not count. Where
# this PyTorch has fused norms and attention they are used; FUSED=0 does without. Run both by turns
# on a quiet machine.
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

    def forward(self, tokens, caches=None, start=0, head=True):
        # logits; with caches, of the last row only; without the head, what it reads
        T, x = tokens.shape[1], self.embed(tokens)
        cos, sin = self.cos[start:start + T], self.sin[start:start + T]
        mask = torch.full((T, T), float("-inf")).triu(1)
        for i, layer in enumerate(self.layers):
            x = layer(x, cos, sin, mask, caches and caches[i], start)
        x = self.norm(x[:, -1] if caches else x)
        return F.linear(x, self.embed.weight) if head else x


def train_step(model, optimizer, tokens, targets):
    loss = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


# One step of G2RL: 16 rollouts for each of 16 prompts from a cache, the reference's log-probs, one
# update with the features of each token, a group or two at a time. Every third answer is right.
GROUPS, M, RL_NEW = 16, 16, 48


def logprobs(model, tokens):  # of the responses' tokens, with the hidden rows that predict them
    h = model(tokens[:, :-1], head=False)[:, PROMPT - 1:]
    logp = F.log_softmax(F.linear(h, model.embed.weight), -1)
    return logp, logp.gather(-1, tokens[:, PROMPT:, None]).squeeze(-1)


@torch.no_grad()
def advantages(model, logp, tokens, reward):  # Eq 6-13 and 2, of whole groups
    W = model.embed.weight
    Phi = (W[tokens[:, PROMPT:]] - logp.exp() @ W).mean(1).view(-1, M, W.shape[1])
    S = F.normalize(Phi, dim=-1)
    S = S @ S.transpose(1, 2)
    r = reward.view(-1, M)
    w = r.exp()[:, None, :] * (1 - torch.eye(M))
    nu = (1 - (w / w.sum(-1, keepdim=True) * S * S).sum(-1)).clamp(min=0)
    low, high = nu.min(1, keepdim=True)[0], nu.max(1, keepdim=True)[0]
    shaped = (r * (1 + (nu - low) / (high - low).clamp(min=1e-6))).clamp(-3, 3)
    std, mean = torch.std_mean(shaped, 1, keepdim=True, unbiased=False)
    return ((shaped - mean) / (std + 1e-6)).view(-1, 1)


@torch.no_grad()
def rollouts(model, prompts, caches):
    tokens = torch.empty(GROUPS * M, PROMPT + RL_NEW, dtype=torch.long)
    tokens[:, :PROMPT], old = prompts.repeat_interleave(M, 0), []
    first = [[x[:GROUPS] for x in layer] for layer in caches]
    logits = model(prompts, first).repeat_interleave(M, 0)
    for layer in caches:
        for x in layer:
            x[:, :, :PROMPT] = x[:GROUPS, :, :PROMPT].repeat_interleave(M, 0)
    for i in range(PROMPT, PROMPT + RL_NEW):
        logp = F.log_softmax(logits, -1)
        y = torch.multinomial(logp.exp(), 1)
        tokens[:, i:i + 1] = y
        old.append(logp.gather(-1, y))
        if i + 1 < PROMPT + RL_NEW:
            logits = model(y, caches, i)
    return tokens, torch.cat(old, 1)


def rl_step(model, reference, optimizer, prompts, caches, at_once):
    tokens, old = rollouts(model, prompts, caches)
    reward = torch.tensor([-1.0 if (i // M + i % M) % 3 else 1.0 for i in range(GROUPS * M)])
    with torch.no_grad():
        ref = torch.cat([logprobs(reference, t)[1] for t in tokens.split(at_once)])
    optimizer.zero_grad(set_to_none=True)
    for t, o, f, r in zip(*[x.split(at_once) for x in (tokens, old, ref, reward)]):
        all_logp, logp = logprobs(model, t)
        A, ratio, q = advantages(model, all_logp, t, r), (logp - o).exp(), f - logp
        loss = -torch.min(ratio * A, ratio.clamp(0.8, 1.2) * A) + 0.001 * (q.exp() - q - 1)
        (loss.sum() / (GROUPS * M * RL_NEW)).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
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
elif what == "rl":
    reference = Decoder(L, d, ff, H, KV, hd, V)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, foreach=True)
    prompts = torch.randint(0, V, (GROUPS, PROMPT))
    caches = [[torch.zeros(GROUPS * M, KV, PROMPT + RL_NEW, hd) for _ in "kv"] for _ in range(L)]
else:
    n = int(sys.argv[3])
    count, prompts = n * NEW, torch.randint(0, V, (n, PROMPT))
    caches = [[torch.zeros(n, KV, PROMPT + NEW, hd) for _ in "kv"] for _ in range(L)]
for _ in range(6):
    clock = time.perf_counter()
    if what == "train":
        train_step(model, optimizer, tokens, targets)
        seconds.append(time.perf_counter() - clock)
    elif what == "rl":
        rl_step(model, reference, optimizer, prompts, caches, 4 * M if sys.argv[2] == "tiny" else M)
        seconds.append(time.perf_counter() - clock)
    else:
        seconds.append(sample(model, prompts, caches))
middle = statistics.median(seconds[1:])
speed = f"{middle:.3f} s" if what == "rl" else f"{count / middle:.0f} tokens/s"
print(f"{what} {sys.argv[2]}: {speed}, torch {torch.__version__}, fused {FUSED}")
