"""The block-wise loss, against torch's plain one."""

import math

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from alignment.errors import ModelError
from alignment.pretrain import loss
from alignment.pretrain.loss import LinearCrossEntropy

WIDTH, VOCAB = 24, 90


@pytest.fixture(autouse=True)
def in_many_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows of the vocabulary at a time, with a rest, as a real one is cut."""
    monkeypatch.setattr(loss, "CACHED", 1 << 12)


def drawn(
    tokens: int, dtype: torch.dtype = torch.float32, size: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states and a head of a size that ask for gradients, and targets of which some are not scored."""
    draw = torch.Generator().manual_seed(tokens)
    hidden = torch.randn(tokens, WIDTH, generator=draw).to(dtype).requires_grad_()
    weight = (size * torch.randn(VOCAB, WIDTH, generator=draw)).to(dtype).requires_grad_()
    targets = torch.randint(0, VOCAB, (tokens,), generator=draw)
    targets[::7] = loss.IGNORED
    return hidden, weight, targets


def plain(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, z: float) -> torch.Tensor:
    logits = (hidden @ weight.T).float()
    scored = logits[targets != loss.IGNORED]
    return F.cross_entropy(logits, targets, reduction="sum") + z * scored.logsumexp(1).square().sum()


@pytest.mark.parametrize("z", [0.0, 1e-2])
@pytest.mark.parametrize("tokens", [1, 256, 512 + 33])
@pytest.mark.parametrize("size", [0.1, 30.0])  # logits that can be raised to a power as they are, and of some hundreds
def test_it_equals_the_plain_loss_in_value_and_gradient(tokens: int, z: float, size: float) -> None:
    hidden, weight, targets = drawn(tokens, size=size)
    assert loss.Head(weight, hidden)._shifted == (size > 1)
    if tokens == 1:
        targets[0] = 3
    wanted = plain(hidden, weight, targets, z)
    expected = torch.autograd.grad(wanted / tokens, (hidden, weight))
    total, nats = LinearCrossEntropy.apply(hidden, weight, targets, z)
    found = torch.autograd.grad(total / tokens, (hidden, weight))
    assert total.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert nats.item() == pytest.approx(plain(hidden, weight, targets, 0.0).item(), rel=1e-5)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_logits_near_the_bound_are_raised_as_they_are() -> None:
    """All logits at plus or minus 49: sums of e to the 49 and to the -49."""
    hidden = torch.zeros(2, WIDTH)
    hidden[:, 0] = torch.tensor([7.0, -7.0])
    weight = torch.zeros(VOCAB, WIDTH)
    weight[:, 0] = 7.0
    assert not loss.Head(weight, hidden)._shifted
    total, _ = LinearCrossEntropy.apply(hidden, weight, torch.tensor([1, 2]), 0.0)
    assert total.item() == pytest.approx(2 * math.log(VOCAB), rel=1e-6)


def test_in_bfloat16_the_value_stays_float32_and_gradients_are_as_near_as_the_plain_ones() -> None:
    """The library's own rounds the sum to 8 bits; this is why it is not used."""
    hidden, weight, targets = drawn(600, torch.bfloat16)
    exact = [part.detach().float().requires_grad_() for part in (hidden, weight)]
    wanted = torch.autograd.grad(plain(*exact, targets, 0.0), exact)
    value = plain(hidden, weight, targets, 0.0)
    rounded = torch.autograd.grad(value, (hidden, weight))
    total, _ = LinearCrossEntropy.apply(hidden, weight, targets, 0.0)
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(value.item(), rel=1e-5)
    found = torch.autograd.grad(total, (hidden, weight))
    for ours, theirs, true in zip(found, rounded, wanted, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours - true).norm() <= 1.5 * (theirs - true).norm() < 0.02 * true.norm()


def test_from_an_unlikely_target_one_is_taken_exactly() -> None:
    """By the head: each target's row loses its hidden state itself, not a state that was scaled and rounded."""
    hidden, weight, targets = drawn(40, torch.bfloat16, size=0.01)
    weight.grad_dtype = None
    exact = [part.detach().float().requires_grad_() for part in (hidden, weight)]
    (wanted,) = torch.autograd.grad(plain(*exact, targets, 0.0), exact[1:])
    LinearCrossEntropy.apply(hidden, weight, targets, 0.0)[0].backward()
    assert weight.grad.dtype == torch.float32
    assert (weight.grad - wanted).norm() <= 5e-4 * wanted.norm()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["hidden", "weight"])
def test_what_is_not_a_number_makes_the_loss_none(bad: float, where: str) -> None:
    """The guard refuses such an update."""
    hidden, weight, targets = drawn(40)
    with torch.no_grad():
        {"hidden": hidden, "weight": weight}[where][3, 3] = bad
    assert not math.isfinite(LinearCrossEntropy.apply(hidden, weight, targets, 0.0)[0].item())


@pytest.mark.parametrize("longest", [1.0, 100.0])  # rows of the head that allow the powers as they are, and that do not
def test_in_bfloat16_a_token_that_is_nearly_certain_keeps_its_small_gradient(longest: float) -> None:
    """Less 1, a rounded p of 0.989 would be off by a tenth and more."""
    weight = torch.zeros(VOCAB, WIDTH)
    weight[:8, :8] = torch.eye(8)
    weight[-1, -1] = longest  # meets no hidden state
    hidden, targets = 9 * torch.eye(8, WIDTH), torch.arange(8)  # logits of 9 for the target, of 0 for all others
    inputs = [part.bfloat16().requires_grad_() for part in (hidden, weight)]
    found = torch.autograd.grad(LinearCrossEntropy.apply(*inputs, targets, 0.0)[0], inputs)
    exact = [part.requires_grad_() for part in (hidden, weight)]
    expected = torch.autograd.grad(plain(*exact, targets, 0.0), exact)
    for ours, wanted in zip(found, expected, strict=True):
        assert (ours - wanted).norm() <= 0.005 * wanted.norm()


def test_under_autocast_it_computes_in_bfloat16_and_its_gradients_are_float32() -> None:
    hidden, weight, targets = drawn(300)
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = LinearCrossEntropy.apply(hidden, weight, targets, 0.0)
    rounded = plain(hidden.bfloat16(), weight.bfloat16(), targets, 0.0)
    assert total.item() == pytest.approx(rounded.item(), rel=1e-5)
    total.backward()
    assert weight.grad.dtype == torch.float32


def test_the_loss_of_each_token_is_the_plain_one() -> None:
    hidden, weight, targets = drawn(300)
    expected = F.cross_entropy(hidden @ weight.T, targets, reduction="none", ignore_index=loss.IGNORED)
    assert torch.allclose(loss.per_token(hidden, weight, targets), expected, atol=1e-5)


def test_a_model_that_reshapes_its_logits_is_refused() -> None:
    settings = AutoConfig.for_model("gemma2", num_hidden_layers=1, hidden_size=16, intermediate_size=16, vocab_size=32)
    with torch.device("meta"), pytest.raises(ModelError, match="gemma2: its final_logit_softcapping changes the logits"):
        loss.attach(AutoModelForCausalLM.from_config(settings))


def test_a_second_backward_pass_is_an_error_and_not_a_wrong_gradient() -> None:
    total, _ = LinearCrossEntropy.apply(*drawn(10), 0.0)
    total.backward(retain_graph=True)
    with pytest.raises(AttributeError):
        total.backward()
