"""What attention over a shape that is new costs on a GPU, forwards and backwards, with cuDNN's and without.

python benchmarks/attention.py [shapes]
"""

from __future__ import annotations

import random
import sys
import time


def main(count: int) -> None:
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    if not torch.cuda.is_available():
        raise SystemExit("this needs a GPU: on a CPU there is no such choice")

    def once(tokens: int) -> None:
        shape = (80, 8, tokens, 32)
        q, k, v = (
            torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3)
        )
        mask = torch.ones(80, 1, tokens, tokens, device="cuda", dtype=torch.bool)
        scaled_dot_product_attention(q, k, v, attn_mask=mask).sum().backward()  # type: ignore[no-untyped-call]

    random.seed(0)
    shapes = [random.randint(236, 300) for _ in range(count)]
    for _ in range(2):
        for name, enabled in (("cuDNN", True), ("without", False)):
            torch.backends.cuda.enable_cudnn_sdp(enabled)
            once(200)
            torch.cuda.synchronize()
            started = time.perf_counter()
            for tokens in shapes:
                once(tokens)
            torch.cuda.synchronize()
            print(f"{name}: {1000 * (time.perf_counter() - started) / count:.1f} ms a shape")
        shapes = [tokens + 65 for tokens in shapes]  # new ones again


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 24)
