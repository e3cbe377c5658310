"""Batch normalisation over the batch of several processes; PyTorch's SyncBatchNorm does so on GPUs alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from inpaint_fast.training.processes import Processes


class _Sum(torch.autograd.Function):
    """The sum over processes, each of which goes on with it: gradients, too, are the sums of theirs."""

    @staticmethod
    def forward(context: Any, tensor: Tensor, processes: Processes) -> Tensor:
        context.processes = processes
        return processes.sum(tensor.clone())

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return context.processes.sum(gradient.contiguous().clone()), None


class _Joint(nn.modules.batchnorm._BatchNorm):
    """Mixed in before nn.BatchNorm1d or 2d: in training the statistics are those of all processes' rows, which are
    equally many in each. Same parameters, buffers and state_dict."""

    processes: Processes

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        dims = [dim for dim in range(x.dim()) if dim != 1]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        here = torch.stack(torch.var_mean(x, dims, correction=0))
        everywhere = here.new_zeros(self.processes.count, *here.shape)
        everywhere[self.processes.rank] = here
        variances, means = _Sum.apply(everywhere, self.processes).unbind(1)
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        self._move(mean.detach(), variance.detach(), self.processes.count * x.numel() // x.shape[1])
        result = (x - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            result = result * self.weight.view(shape) + self.bias.view(shape)
        return result.to(input.dtype)

    @torch.no_grad()
    def _move(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """The running statistics, as nn.BatchNorm moves them."""
        if self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
            momentum = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
            self.running_mean.data.lerp_(mean, momentum)
            self.running_var.data.lerp_(variance * (count / (count - 1)), momentum)


class JointBatchNorm1d(_Joint, nn.BatchNorm1d):
    """nn.BatchNorm1d over all processes."""


class JointBatchNorm2d(_Joint, nn.BatchNorm2d):
    """nn.BatchNorm2d over all processes."""


JOINT = {nn.BatchNorm1d: JointBatchNorm1d, nn.BatchNorm2d: JointBatchNorm2d}


def join_norms(network: nn.Module, processes: Processes) -> None:
    """Make the network's batch normalisations joint ones; parameters and buffers stay theirs."""
    for module in network.modules():
        if type(module) in JOINT:
            module.__class__ = JOINT[type(module)]
            vars(module)["processes"] = processes
