"""Peak memory of adaptation by gradients, one method a process.

usage: memory.py tpt|tent BATCH

CLIP ViT-B/16 as OpenAI's code builds it, random float32 weights, K = 100
labels, on the CPU. tpt: test-time prompt tuning (Shu et al., NeurIPS 2022, code
azshue/TPT, tpt_classification.py): BATCH = 64 views of a frame, the surest
tenth of them, one AdamW step on four context vectors through the text tower,
then the frame itself. tent: Wang et al., ICLR 2021, on the image tower's
LayerNorms, BATCH frames a step. Weights that stay fixed need no gradient, so
both keep as little as their authors' code does. Prints one JSON line.
"""

import json
import sys
import time

import torch
from torch import nn

K, WIDTH, CONTEXT = 100, 512, 77


def status(key):
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith(key + ":"))


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    def __init__(self, d, heads, mask=None):
        super().__init__()
        self.attn, self.ln_1, self.ln_2 = nn.MultiheadAttention(d, heads), nn.LayerNorm(d), nn.LayerNorm(d)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), QuickGELU(), nn.Linear(4 * d, d))
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x):  # [length, batch, width]
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=self.mask)[0]
        return x + self.mlp(self.ln_2(x))


class Image(nn.Module):
    def __init__(self, d=768):
        super().__init__()
        self.conv = nn.Conv2d(3, d, 16, 16, bias=False)
        self.token, self.position = nn.Parameter(0.02 * torch.randn(d)), nn.Parameter(0.02 * torch.randn(197, d))
        self.ln_pre, self.ln_post = nn.LayerNorm(d), nn.LayerNorm(d)
        self.blocks = nn.Sequential(*(Block(d, 12) for _ in range(12)))
        self.proj = nn.Parameter(d**-0.5 * torch.randn(d, WIDTH))

    def forward(self, x):
        x = self.conv(x).flatten(2).permute(0, 2, 1)
        x = torch.cat([self.token.expand(len(x), 1, -1), x], 1) + self.position
        x = self.blocks(self.ln_pre(x).permute(1, 0, 2))
        return nn.functional.normalize(self.ln_post(x[0]) @ self.proj, dim=-1)


class Text(nn.Module):
    def __init__(self, d=WIDTH):
        super().__init__()
        mask = torch.full((CONTEXT, CONTEXT), float("-inf")).triu(1)
        self.tokens, self.position = nn.Embedding(49408, d), nn.Parameter(0.01 * torch.randn(CONTEXT, d))
        self.blocks = nn.Sequential(*(Block(d, 8, mask) for _ in range(12)))
        self.ln_final, self.proj = nn.LayerNorm(d), nn.Parameter(d**-0.5 * torch.randn(d, WIDTH))

    def forward(self, prompts, end):  # embeddings [K, context, width], places of the ends [K]
        x = self.blocks((prompts + self.position).permute(1, 0, 2)).permute(1, 0, 2)
        x = self.ln_final(x)[torch.arange(len(x)), end]
        return nn.functional.normalize(x @ self.proj, dim=-1)


def entropy(logits):
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)


def average_entropy(logits):
    """Of the mean answer, as TPT has it."""
    logits = logits.log_softmax(-1)
    mean = logits.logsumexp(0) - torch.log(torch.tensor(float(len(logits))))
    return -(mean * mean.exp()).sum()


def main(method, batch):
    base = status("VmHWM")
    torch.manual_seed(0)
    image, text = Image().eval().requires_grad_(False), Text().eval().requires_grad_(False)
    embedded = text.tokens(torch.randint(49408, (K, CONTEXT)))
    prefix, suffix, end = embedded[:, :1], embedded[:, 5:], torch.full((K,), 8)
    context = nn.Parameter(embedded[0, 1:5].clone())

    def labels():
        return text(torch.cat([prefix, context.expand(K, -1, -1), suffix], 1), end)

    if method == "tpt":
        optimizer = torch.optim.AdamW([context], 5e-3)
    else:
        with torch.no_grad():
            e = labels()
        norms = [p for m in image.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()]
        for p in norms:
            p.requires_grad_(True)
        optimizer = torch.optim.Adam(norms, 1e-3)

    # One step: more of them free and take the same again.
    begin = time.time()
    frames = torch.rand(batch, 3, 224, 224)
    if method == "tpt":
        with torch.no_grad():
            f = image(frames)
        logits = 100 * f @ labels().T
        sure = entropy(logits).argsort()[: max(1, batch // 10)]
        loss = average_entropy(logits[sure])
    else:
        logits = 100 * image(frames) @ e.T
        loss = entropy(logits).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if method == "tpt":
        with torch.no_grad():
            logits = 100 * image(frames[:1]) @ labels().T
    assert logits.isfinite().all()
    print(json.dumps({
        "runtime": f"PyTorch {torch.__version__}", "peak_bytes": status("VmHWM"), "base_bytes": base,
        "ms": round(1000 * (time.time() - begin) / (batch if method == "tent" else 1), 1),
    }))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
