"""G2RL in TRL, for models and machines beyond this program: G2RLTrainer is GRPOTrainer with the
shaped reward r~ of Eq 12-13 in the place of the reward r.

    from trl_g2rl import G2RLTrainer

    def reward(completions, answer, **columns):         # +1 right, -1 wrong: a 0 stays 0 in Eq 12
        return [1.0 if c.strip() == a else -1.0 for c, a in zip(completions, answer)]

    G2RLTrainer(model, reward, args=GRPOConfig(...), train_dataset=problems).train()

TRL itself is not changed (1.16.0 here). Its hook is the reward function, which it calls once for
each batch of rollouts, in every process with the responses of that process: after sampling, before
rewards are normalised within groups. Here that function is a method of the trainer, shaped_reward:

    r        your reward
    Phi      a forward pass of the policy, without gradients: last hidden states and head   Eq 6-8
    gather   r and Phi of all processes, since a group may lie across two of them
    S, nu    cosines, novelty                                                              Eq 9-11
    r~       the shaped reward                                                            Eq 12-13

and TRL goes on with A = (r~ - mean) / (std + 1e-4), its Eq 2. Its std divides by m - 1, that of
g2rl.c by m: the advantages are smaller by sqrt((m - 1) / m). tests/trl_test.py compares with g2rl.

For text models, without tools. The head must be W h, and whole in each process: alone, under DDP,
DeepSpeed's ZeRO-1 and ZeRO-2; what shards it, ZeRO-3 and FSDP, is refused."""
import inspect
import math
import warnings

import torch
from accelerate.utils import gather
from torch.distributed.tensor import DTensor
from torch.nn.utils.rnn import pad_sequence
from trl import GRPOTrainer

FLOOR = 1e-6  # less than this is rounding: all rewards of a group equal, or all novelty
LIMIT = 3.0  # the clip of r~


def token_features(h, y, W, T, tile=4096):
    """phi_t = W[y_t] - sum_v p_v W[v], p = softmax(W h_t / T) (Eq 6-7, 14).

    h: [n, d], hidden states; y: [n], the tokens that they predicted; W: [V, d], the head. [n, d].
    The sum is attention with queries h, and with W as keys and values. As in FlashAttention the
    vocabulary goes by in tiles: with `top` the largest logit so far, `total` and `mean` hold
    sum_v e_v and sum_v e_v W[v], e_v = exp(z_v - top), and no [n, V] is ever stored.
    """
    h = h.float()
    top = torch.full_like(h[:, :1], -math.inf)
    total, mean = torch.zeros_like(top), torch.zeros_like(h)
    for rows in W.split(tile):
        rows = rows.float()
        z = h @ rows.T / T
        higher = torch.maximum(top, z.amax(1, keepdim=True))
        e, rescale = (z - higher).exp(), (top - higher).exp()
        total = total * rescale + e.sum(1, keepdim=True)
        mean = mean * rescale + e @ rows
        top = higher
    return W[y].float() - mean / total


@torch.no_grad()
def features(model, prompts, responses, T, batch=8):
    """Phi_i, the mean of phi_t over the tokens of response i (Eq 8): float32 [responses, d].

    prompts, responses: as many lists of token ids each; a response includes its end token. Each
    sequence is padded on the right, which a causal model never reads.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model  # of PEFT
    W = causal.get_output_embeddings().weight
    if isinstance(W, DTensor) or hasattr(W, "ds_id"):
        raise NotImplementedError("the head is sharded (FSDP, ZeRO-3); features need all of it")
    hidden, Phi, training = [], [], model.training
    hook = causal.base_model.register_forward_hook(lambda module, args, out: hidden.append(out[0]))
    model.eval()
    for at in range(0, len(prompts), batch):
        pairs = list(zip(prompts[at:at + batch], responses[at:at + batch]))
        ids = pad_sequence([torch.tensor([*x, *y]) for x, y in pairs], batch_first=True)
        logits = model(input_ids=ids.to(W.device), logits_to_keep=1, use_cache=False).logits
        h = hidden.pop()
        check_head(h[:, -1], W, logits[:, -1])
        # h at position k predicts token k + 1: a response's first token is the prompt's last h.
        rows = torch.cat([h[i, len(x) - 1:len(x) + len(y) - 1] for i, (x, y) in enumerate(pairs)])
        tokens = torch.tensor([token for _, y in pairs for token in y], device=W.device)
        phi = token_features(rows, tokens, W, T)
        Phi += [part.mean(0) for part in phi.split([len(y) for _, y in pairs])]
    hook.remove()
    model.train(training)
    return torch.stack(Phi)


def check_head(h, W, logits):
    """The model's own logits must be W h. What scales them, caps them or has a bias is not."""
    z = h.float() @ W.float().T
    if (z - logits.float()).norm() > 0.05 * z.norm():  # bfloat16 rounds by 0.4 %
        raise NotImplementedError("the logits of this model are not W h: scaled, capped or biased")


def cosines(Phi):
    """S_ij = cos(Phi_i, Phi_j) (Eq 9): [groups, m, d] -> [groups, m, m]; 0 where a Phi is 0."""
    norm = Phi.norm(dim=-1, keepdim=True)
    unit = Phi / norm.clamp(min=1e-12) * (norm >= 1e-12)
    return unit @ unit.mT


def novelty(S, r):
    """nu_i = max(1 - sum_j w_ij S_ij^2, 0), w_ij = exp(r_j) / sum_{k != i} exp(r_k) (Eq 10-11),
    and nubar: nu taken to 0 .. 1 within its group, by min-max. Both [groups, m]."""
    others = r[:, None, :].expand_as(S)
    w = others.masked_fill(torch.eye(r.shape[1], dtype=torch.bool), -math.inf).softmax(-1)
    nu = (1 - (w * S * S).sum(-1)).clamp(min=0)
    nu = nu * (S.diagonal(dim1=1, dim2=2) > 0)  # certainty is not novelty
    low, high = nu.amin(1, keepdim=True), nu.amax(1, keepdim=True)
    return nu, (nu - low) / (high - low).clamp(min=FLOOR) * (high - low >= FLOOR)


def shaped_rewards(r, nubar, strength=0.5, dead_groups="full"):
    """r~ = r (1 + lambda r nubar), clipped to -3 .. 3 (Eq 12-13). [groups, m].
    dead_groups: of groups whose rewards are all equal, "full" shapes them as any other, the paper;
    "zero" leaves r~ = r, so that they have no advantage."""
    shaped = (r * (1 + strength * r * nubar)).clamp(-LIMIT, LIMIT)
    return torch.where(is_dead(r), r, shaped) if dead_groups == "zero" else shaped


def is_dead(r):
    return r.amax(1, keepdim=True) - r.amin(1, keepdim=True) < FLOOR


def metrics(r, S, nu, shaped):
    """What g2rl logs, by the same names (./g2rl help metrics); base_reward is the mean of r."""
    first, second = torch.triu_indices(r.shape[1], r.shape[1], 1)
    pairs = S[:, first, second]
    A = (shaped - shaped.mean(1, keepdim=True)) / (shaped.std(1, keepdim=True) + 1e-4)
    alike = ((r[:, :, None] - r[:, None, :]).abs() < FLOOR).double()
    by_reward = (alike @ A[:, :, None]).squeeze(-1) / alike.sum(-1)  # mean A of those with this r
    return {
        "base_reward": r.mean().item(),
        "frac_dead": is_dead(r).double().mean().item(),
        "phi/cos_mean": pairs.mean().item(),
        "phi/neg_ratio": (pairs < 0).double().mean().item(),
        "phi/nu_mean": nu.mean().item(),
        "adv/novelty_share": ((A * (A - by_reward)).sum() / (A * A).sum()).item(),
    }


class G2RLTrainer(GRPOTrainer):
    """GRPOTrainer with one reward function, whose rewards it shapes in training.

    strength: lambda of Eq 12. dead_groups: "full" or "zero", see shaped_rewards. Everything else is
    GRPOTrainer's. An evaluation reports the reward itself.
    """

    def __init__(self, model, reward_funcs, *, strength=0.5, dead_groups="full", **others):
        if not callable(reward_funcs) or inspect.iscoroutinefunction(reward_funcs):
            raise ValueError(f"reward_funcs: {reward_funcs}; expected one function, not async")
        if dead_groups not in ("full", "zero"):
            raise ValueError(f"dead_groups: {dead_groups}; expected 'full' or 'zero'")
        for name in ("tools", "environment_factory", "rollout_func"):
            if others.get(name):
                raise ValueError(f"{name}: features of what others wrote are not the policy's")
        self.base_reward, self.strength, self.dead_groups = reward_funcs, strength, dead_groups
        super().__init__(model, self.shaped_reward, **others)
        if self._is_vlm:
            raise ValueError("features are made of text alone; this model takes images")

    def shaped_reward(self, prompts, completions, completion_ids, log_metric, **columns):
        """TRL's reward function: r~ of this process's responses."""
        r = self.base_reward(prompts=prompts, completions=completions, log_metric=log_metric,
                             completion_ids=completion_ids, **columns)
        r = torch.tensor([math.nan if x is None else float(x) for x in r])
        if not r.isfinite().all():
            raise ValueError("a reward is not a number; Eq 10 needs one of every response")
        if not self.model.training:
            return r.tolist()
        if (r == 0).any():
            warnings.warn("a reward of 0 stays 0, however novel (Eq 12): let wrong be -1")
        ids = self._tokenize_prompts(prompts)[0]  # the ids that TRL sampled from
        Phi = features(self.model, ids, completion_ids, self.temperature,
                       self.args.per_device_train_batch_size)
        shaped = self.shape(r.to(Phi.device), Phi, log_metric)
        start = self.accelerator.process_index * len(r)
        return shaped[start:start + len(r)].tolist()

    def shape(self, r, Phi, log_metric):
        """r~ of the responses of all processes, from the r and Phi of this one's. TRL deals out a
        group's prompts one after the other, on through the processes."""
        m = self.num_generations
        r = gather(r).cpu().double().view(-1, m)
        Phi = gather(Phi).cpu().double().view(*r.shape, -1)
        S = cosines(Phi)
        nu, nubar = novelty(S, r)
        shaped = shaped_rewards(r, nubar, self.strength, self.dead_groups)
        for name, value in metrics(r, S, nu, shaped).items():
            log_metric(name, value)
        return shaped.flatten()
