"""The fused loss against the framework's own, with all logits laid out."""

import pytest
import torch
import torch.nn.functional as F
from laws.toys import ARCHITECTURES, random_model

from antiphon.data.batches import Batch
from antiphon.training import loss as loss_module
from antiphon.training.loss import batch_loss, cross_entropy

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


def random_ways(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Shares and probabilities of a second way to each right token; one of them all but impossible."""
    ways = torch.rand(M, 2, generator=torch.Generator().manual_seed(2), dtype=dtype).log()
    ways[3, 1] = -700
    return ways.requires_grad_()


@pytest.mark.parametrize("chunk", [2 * V, 1 << 22])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_with_a_second_way_it_is_the_loss_of_the_mixture(
    smoothing: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_module, "CHUNK", chunk)
    features, weight, targets = random_problem()
    ways = random_ways()
    loss, nll = cross_entropy(features, weight, targets, smoothing, ways=ways)
    (3 * loss).backward()
    found = (features.grad, weight.grad, ways.grad)
    features.grad = weight.grad = ways.grad = None
    log_probs = (features @ weight.T).log_softmax(1)
    generated = log_probs.gather(1, targets.unsqueeze(1)).squeeze(1)
    mixture = (ways[:, 0].exp() * generated.exp() + ways[:, 1].exp()).log()
    expected = -((1 - smoothing) * mixture + smoothing * log_probs.mean(1)).sum()
    (3 * expected).backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(nll, -mixture.sum().detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, (features.grad, weight.grad, ways.grad), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if ARCHITECTURES[name].copying])
def test_a_model_that_copies_learns_from_the_probabilities_that_it_gives(name: str, in_float64: None) -> None:
    """The loss of a padded batch is that of the log-probabilities of `forward`, and so is every gradient."""
    model = random_model(name)
    source = torch.tensor([[5, 6, 7, 3], [8, 3, 0, 0]])
    target_out = torch.tensor([[6, 6, 9, 3], [8, 3, 0, 0]])
    target_in = torch.tensor([[2, 6, 6, 9], [2, 8, 0, 0]])
    batch_loss(model, Batch(source, target_in, target_out), 0.0, torch.float32)[0].backward()
    found = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    log_probs = model(source, source != 0, target_in)
    torch.testing.assert_close(log_probs.exp().sum(2), torch.ones(2, 4))
    F.nll_loss(log_probs.flatten(0, 1), target_out.flatten(), ignore_index=0, reduction="sum").backward()
    torch.testing.assert_close(found, [parameter.grad for parameter in model.parameters()], rtol=1e-9, atol=1e-9)
    model.zero_grad()


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
