"""Batch norm folded into the convolutions before it, for nets that are only looked at."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from doorward.core.outputs import logits_of


class _Tracer(torch.fx.Tracer):
    """Leaves convolutions whole that pad their images themselves, as TensorFlow does ("same")."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether the module is called as it is."""
        return isinstance(m, nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)


def fold_batch_norm(net: nn.Module, probe: Tensor) -> nn.Module:
    """The net with each batch norm that follows a convolution folded into it; the net itself where it cannot be traced.

    Args:
        net: in evaluation mode.
        probe: normalised images ``[B, C, H, W]``; a folded net that answers otherwise on them is dropped.
    """
    try:
        traced = torch.fx.GraphModule(net, _Tracer().trace(net))
        with torch.no_grad():
            expected = net(probe)
            _keep_logits(traced, traced(probe))
            folded = _folded(traced)
            found = folded(probe)
    except Exception:  # control flow that depends on data, modules that tracing does not know: the net stays as it is
        return net
    finite = bool(expected.isfinite().all())
    same = finite and torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    return folded.requires_grad_(False) if same else net


def _keep_logits(traced: torch.fx.GraphModule, output: object) -> None:
    """Let the traced net give the logits alone, where it gives a tuple or a dictionary that holds them."""
    logits = logits_of(output)
    if logits is output or not isinstance(output, dict | tuple | list):
        return
    held = output.items() if isinstance(output, dict) else enumerate(output)
    at = next(key for key, value in held if value is logits)
    last = next(node for node in traced.graph.nodes if node.op == "output")
    last.args = (last.args[0][at],)
    traced.graph.eliminate_dead_code()
    traced.recompile()


def _folded(traced: torch.fx.GraphModule) -> torch.fx.GraphModule:
    modules = dict(traced.named_modules())
    calls = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        before = node.args[0]
        if before.op != "call_module" or not isinstance(modules[before.target], nn.Conv2d) or len(before.users) > 1:
            continue
        if calls.count(before.target) > 1 or calls.count(node.target) > 1:
            continue
        owner, _, leaf = str(before.target).rpartition(".")
        fused = fuse_conv_bn_eval(modules[before.target], modules[node.target])
        setattr(modules[owner] if owner else traced, leaf, fused)
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced
