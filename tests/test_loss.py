"""The fused loss against the framework's own, with all logits laid out."""

import pytest
import torch
import torch.nn.functional as F

from antiphon.training import loss as loss_module
from antiphon.training.loss import cross_entropy

M, D, V = 13, 6, 9


def random_problem(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(M, D, generator=generator, dtype=dtype, requires_grad=True)
    weight = torch.randn(V, D, generator=generator, dtype=dtype, requires_grad=True)
    return features, weight, torch.randint(0, V, (M,), generator=generator)


@pytest.mark.parametrize("chunk", [1, 2 * V, 5 * V + 1, 1 << 22])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_loss_and_gradients_are_the_framework_s(smoothing: float, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "CHUNK", chunk)
    features, weight, targets = random_problem()
    loss, nll = cross_entropy(features, weight, targets, smoothing)
    (3 * loss).backward()
    found = (features.grad, weight.grad)
    features.grad = weight.grad = None
    logits = features @ weight.T
    expected = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="sum")
    (3 * expected).backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(nll, F.cross_entropy(logits, targets, reduction="sum").detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, (features.grad, weight.grad), rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_small_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "CHUNK", 4 * V)
    features, weight, targets = random_problem()
    assert torch.autograd.gradcheck(lambda f, w: cross_entropy(f, w, targets, 0.1)[0], (features, weight))


def test_the_negative_log_likelihood_is_not_smoothed_and_carries_no_gradient() -> None:
    features, weight, targets = random_problem()
    smoothed, plain = (cross_entropy(features, weight, targets, smoothing) for smoothing in (0.3, 0.0))
    assert smoothed[1] == plain[1] == plain[0]
    assert smoothed[0] != plain[0]
    assert not smoothed[1].requires_grad


def test_without_gradients_the_loss_is_the_same() -> None:
    features, weight, targets = random_problem()
    with torch.inference_mode():
        found = cross_entropy(features.clone(), weight.clone(), targets, 0.1)
    assert found[0] == cross_entropy(features, weight, targets, 0.1)[0].detach()


@pytest.mark.parametrize("frozen", [0, 1])
def test_one_side_may_be_frozen(frozen: int) -> None:
    sides = [part.detach().requires_grad_(index != frozen) for index, part in enumerate(random_problem()[:2])]
    targets = random_problem()[2]
    cross_entropy(*sides, targets, 0.1)[0].backward()
    assert sides[frozen].grad is None
    assert sides[1 - frozen].grad is not None


def test_bfloat16_products_come_close() -> None:
    features, weight, targets = random_problem(torch.float32)
    exact = cross_entropy(features, weight, targets, 0.1)[0]
    exact.backward()
    expected = (features.grad, weight.grad)
    features.grad = weight.grad = None
    rough = cross_entropy(features, weight, targets, 0.1, torch.bfloat16)[0]
    rough.backward()
    torch.testing.assert_close(rough, exact, rtol=0.01, atol=0.01)
    torch.testing.assert_close((features.grad, weight.grad), expected, rtol=0.05, atol=0.05)
    assert features.grad is not None
    assert features.grad.dtype == torch.float32


def test_loss_of_no_token_is_zero() -> None:
    features, weight, targets = random_problem()
    loss, nll = cross_entropy(features[:0], weight, targets[:0], 0.1)
    assert (loss.item(), nll.item()) == (0, 0)
