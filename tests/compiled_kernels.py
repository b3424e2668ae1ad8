"""Compiles the GPU's kernels for GPUs that need not be there; prints what came of it as JSON.

The interpreter runs kernels as Python, and forgives what the compiler does not.
"""

import json
import sys

import triton
from cs336lm.model.kernels import one_token
from cs336lm.optim import adamw_kernel
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


def ptx(kernel, types, warps, capability, **constants):
    """The assembler code of ``kernel``, whose pointers and sizes divide by 16."""
    names = kernel.arg_names
    types = iter(types)
    signature = {name: "constexpr" if name in constants else next(types) for name in names}
    source = ASTSource(
        kernel,
        signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={
            (number,): [["tt.divisibility", 16]]
            for number, name in enumerate(names)
            if signature[name][0] in "*i"
        },
    )
    made = triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps}
    )
    assert made.asm["cubin"]
    return made.asm["ptx"]


def kernels(dtype, capability):
    """Every kernel, in every way that it is used."""
    weight = f"*{dtype}"
    overlaps = capability >= 90
    for activation in one_token.ACTIVATIONS.values():
        for normalizes in (True, False):
            yield ptx(
                one_token._project_kernel,
                ["*fp32", *[weight] * 4, "*fp32", "i32", "i32", "i32", "fp32"],
                4,
                capability,
                d_in=768,
                columns=1024,
                rows=4,
                normalizes=normalizes,
                activation=activation,
                adds=not normalizes,
                overlaps=overlaps,
            )
            yield ptx(
                one_token._attend_kernel,
                [
                    *("*fp32", weight, weight, "*fp32", "*fp32", "*i64", weight, weight, "*fp32"),
                    *("i32", "fp32", "fp32"),
                ],
                8,
                capability,
                heads=12,
                kv_heads=4,
                d_head=64,
                columns=64,
                rows=128,
                blocks=2,
                rotates=activation != 1,
                normalizes=normalizes,
                overlaps=overlaps,
            )
    yield ptx(
        one_token._join_kernel,
        ["*fp32", "*fp32", "i32"],
        1,
        capability,
        d_head=64,
        columns=64,
        most=8,
        overlaps=overlaps,
    )
    yield ptx(
        adamw_kernel._adamw_kernel,
        ["*i64", "*i64", "*i32", "*i32", "i32", *["fp32"] * 6],
        8,
        capability,
        block=4096,
    )


if __name__ == "__main__":
    found = {}
    for dtype, capability in (("bf16", 80), ("bf16", 90), ("fp32", 90)):
        code = list(kernels(dtype, capability))
        found[f"{dtype} sm_{capability}"] = {
            "kernels": len(code),
            # Four numbers of 32 bits at once: a load that must be split takes four times as long.
            "with wide loads": sum("ld.global.v4" in text for text in code),
            "waiting": sum("griddepcontrol.wait" in text for text in code),
        }
    json.dump(found, sys.stdout)
