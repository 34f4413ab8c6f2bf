"""Hypergradient of a bilevel problem by implicit differentiation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Loss = Callable[[Tensor], Tensor]


def hypergradient(
    inner: Loss, outer: Loss, point: Tensor, parameters: Sequence[Tensor], *, steps: int, rate: float
) -> list[Tensor]:
    """Gradient of ``outer(point(parameters), parameters)``, where ``point`` minimises ``inner`` for given parameters.

    At a minimum the gradient of ``inner`` vanishes whatever the parameters are, so that (implicit function theorem)
    d outer = grad_p outer - (d^2 inner / dp dx) (d^2 inner / dx^2)^-1 grad_x outer. The inverse is applied by the
    fixed-point iteration q <- q + rate (grad_x outer - H q), each step one Hessian-vector product; the Hessian itself
    is never formed. Zeng et al., ICLR 2022, Section 3.2 and Algorithm 1.

    Args:
        inner, outer: scalar losses of the point; both read the parameters as they are.
        point: where ``inner`` is (nearly) minimal; any shape.
        parameters: tensors that require gradients.
        steps: of the iteration; few of them (truncation) keep it stable where the Hessian is not positive.
        rate: of the iteration; below 2 / (largest eigenvalue of the Hessian) to converge.

    Returns: one gradient per parameter, of its shape.
    """
    at = point.detach().requires_grad_(True)
    with sdpa_kernel(SDPBackend.MATH):  # of fused attention PyTorch has no second derivative
        slope = torch.autograd.grad(inner(at), at, create_graph=True)[0]
        by_point, *direct = torch.autograd.grad(outer(at), [at, *parameters], allow_unused=True)
        solution = torch.zeros_like(at)
        if by_point is not None:
            for _ in range(steps):
                product = torch.autograd.grad(slope, at, solution, retain_graph=True)[0]
                solution = solution + rate * (by_point - product)
        through = torch.autograd.grad(slope, list(parameters), solution, allow_unused=True)
    return [
        _or_zero(one, parameter) - _or_zero(other, parameter)
        for one, other, parameter in zip(direct, through, parameters, strict=True)
    ]


def _or_zero(gradient: Tensor | None, parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if gradient is None else gradient
