"""The model: shapes, initialisation, gradients, precision, and scores that nothing but the image decides."""

import copy
import math

import numpy as np
import pytest
import torch
from factories import BACKBONES, hub_object, make_picture, make_tiny_model
from torch import nn
from transformers import AutoModel

from hybridiqa.models import hub_code

run_target_network = hub_object("modeling_hybridiqa.run_target_network")


def random_batch(batch_size: int = 3, num_patches: int = 4) -> torch.Tensor:
    return torch.randn(batch_size, num_patches, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_forward_gives_scores_of_patches_and_images(backbone):
    model = make_tiny_model(backbone)
    pixel_values, labels = random_batch(), torch.tensor([1.0, 5.0, 9.0])
    output = model(pixel_values, labels)
    assert output.patch_scores.shape == (3, 4)
    assert torch.allclose(output.logits, output.patch_scores.mean(dim=1))
    assert torch.allclose(output.loss, (output.logits - labels).abs().mean())
    assert model(pixel_values).loss is None
    single = model(pixel_values[:, 0])
    assert single.patch_scores.shape == (3, 1)
    assert torch.allclose(single.logits, output.patch_scores[:, 0], atol=1e-5)


def test_a_batch_of_one_keeps_its_dimensions():
    output = make_tiny_model()(random_batch(1, 1), torch.tensor([5.0]))
    assert output.logits.shape == (1,)
    assert output.patch_scores.shape == (1, 1)


def test_wrong_shapes_are_refused(tiny_model):
    with pytest.raises(ValueError, match=r"pixel_values must be \(batch, patches, 3, 64, 64\).*got \(1, 3, 32, 64\)"):
        tiny_model(torch.zeros(1, 3, 32, 64))
    with pytest.raises(ValueError, match=r"got \(2, 0, 3, 64, 64\)"):
        tiny_model(torch.zeros(2, 0, 3, 64, 64))
    with pytest.raises(ValueError, match=r"labels must be \(batch,\) = \(3,\), got \(3, 1\)"):
        tiny_model(random_batch(), torch.zeros(3, 1))


def test_the_target_network_is_a_small_network_for_each_patch():
    vectors = torch.tensor([[1.0, 2.0], [0.5, -1.0]])
    layers = [
        (torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 2.0]]]), torch.tensor([[0.0, 1.0], [0.0, 0.0]])),
        (torch.tensor([[[1.0, -1.0]], [[3.0, 1.0]]]), torch.tensor([[0.5], [0.0]])),
    ]

    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    expected = [sigmoid(1) - sigmoid(3) + 0.5, 3 * sigmoid(1) + sigmoid(-2)]
    assert torch.allclose(run_target_network(vectors, layers), torch.tensor(expected))


def test_layers_start_from_the_published_deviations():
    model_class = hub_code.HybridIQAModel
    torch.manual_seed(0)
    model = model_class(model_class.config_class(backbone_config=BACKBONES["resnet"]))
    kaiming = [module for module in model.modules() if type(module).__name__ in ("KaimingConv2d", "KaimingLinear")]
    assert len(kaiming) == 3 + 4 + 5 + 5  # LDA convolutions and linears, generated weights and biases
    for layer in kaiming:
        fan_in = layer.weight[0].numel()
        tolerance = 5 / math.sqrt(2 * layer.weight.numel())
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=tolerance), layer
        if layer.bias is not None:
            assert layer.bias.abs().max() <= 1 / math.sqrt(fan_in)
            assert layer.bias.abs().max() > 0
    for layer in model.hyper_network.reduce:
        if isinstance(layer, nn.Conv2d):  # torch's default: uniform within 1 / sqrt(fan-in)
            bound = 1 / math.sqrt(layer.weight[0].numel())
            assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
            assert layer.weight.abs().max() <= bound


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_parameter_gets_a_gradient(backbone):
    model = make_tiny_model(backbone).train()
    model(random_batch(), torch.tensor([1.0, 5.0, 9.0])).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_a_frozen_backbone_keeps_weights_and_statistics():
    model = make_tiny_model()
    model.freeze_backbone()
    before = copy.deepcopy(model.backbone.state_dict())
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    model(random_batch(), torch.tensor([1.0, 5.0, 9.0])).loss.backward()
    optimizer.step()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.backbone.state_dict().items())
    trained = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {"distortion_features", "hyper_network"}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_gradient_checkpointing_changes_nothing(backbone):
    plain = make_tiny_model(backbone).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.gradient_checkpointing_enable()
    kept = []
    for model in (plain, checkpointed):
        num_bytes = 0

        def count(tensor):
            nonlocal num_bytes
            num_bytes += tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = model(random_batch(), torch.tensor([1.0, 5.0, 9.0])).loss
        kept.append((loss.item(), num_bytes))
        loss.backward()
    assert kept[0][0] == kept[1][0]
    assert kept[1][1] < 0.7 * kept[0][1]  # it really keeps less
    for (name, ours), theirs in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), name
    for (name, ours), theirs in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_scores_in_float32(tiny_checkpoint, dtype):
    full = AutoModel.from_pretrained(tiny_checkpoint, trust_remote_code=True)
    half = AutoModel.from_pretrained(tiny_checkpoint, trust_remote_code=True, dtype=dtype)
    assert half.dtype == dtype
    with torch.no_grad():
        assert half(random_batch()).patch_scores.dtype == torch.float32
    image = make_picture()
    assert half.score(image).dtype == torch.float32
    assert torch.allclose(half.score(image), full.score(image), atol=0.05)


def test_a_score_does_not_depend_on_company_order_or_kind_of_input(tiny_model, tmp_path):
    images = [make_picture(100 + 30 * index, 90 + 20 * index, seed=index) for index in range(7)]
    together = tiny_model.score(images)
    assert together.shape == (7,) and together.dtype == torch.float32
    for batch_size in (1, 3, 7):
        assert torch.equal(tiny_model.score(images, batch_size=batch_size), together)
    order = [4, 0, 6, 2, 5, 1, 3]
    assert torch.equal(tiny_model.score([images[index] for index in order]), together[order])
    path = tmp_path / "a.png"
    images[0].save(path)
    array = np.asarray(images[0])
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    for given in (str(path), path, path.read_bytes(), images[0], array, tensor):
        assert torch.equal(tiny_model.score(given), together[:1])


def test_scoring_leaves_the_model_and_the_global_seed_alone(tiny_model):
    tiny_model.train()
    tiny_model.backbone.eval()
    torch.manual_seed(0)
    before = torch.random.get_rng_state(), copy.deepcopy(tiny_model.state_dict())
    score = tiny_model.score(make_picture(), sampling="random", seed=1)
    assert tiny_model.training and not tiny_model.backbone.training and tiny_model.hyper_network.training
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert all(torch.equal(before[1][name], tensor) for name, tensor in tiny_model.state_dict().items())
    assert not score.requires_grad
    assert (score * torch.ones(1, requires_grad=True)).sum().backward() is None  # usable in autograd


def test_an_empty_list_scores_to_nothing_and_rubbish_is_named(tiny_model):
    assert tiny_model.score([]).shape == (0,)
    with pytest.raises(ValueError, match="got int"):
        tiny_model.score([make_picture(), 5])
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        tiny_model.score(make_picture(), batch_size=0)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_model_prepared_for_scoring_gives_the_same_scores(backbone):
    model = make_tiny_model(backbone)
    for name, buffer in model.named_buffers():  # statistics that folding must not take for 0 and 1
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand(buffer.shape, generator=torch.Generator().manual_seed(len(name))) + 0.5)
    pixel_values = random_batch()
    before = model.predict_patch_scores(pixel_values)
    assert model.prepare_for_scoring() is model and not model.training
    after = model.predict_patch_scores(pixel_values)
    assert torch.allclose(after, before, rtol=0, atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert torch.equal(model.prepare_for_scoring().predict_patch_scores(pixel_values), after)


def test_a_model_prepared_for_scoring_is_neither_trained_nor_saved(tiny_model, tmp_path):
    tiny_model.prepare_for_scoring()
    with pytest.raises(RuntimeError, match="can only score; load it again to train it"):
        tiny_model.train()
    with pytest.raises(RuntimeError, match="can only score; save it before that call"):
        tiny_model.save_pretrained(tmp_path / "broken")
    assert not (tmp_path / "broken").exists()
    assert not tiny_model.eval().training


def test_half_precision_is_folded_in_float32(tiny_model):
    full, half = tiny_model, copy.deepcopy(tiny_model).bfloat16()
    full.prepare_for_scoring(), half.prepare_for_scoring()
    assert half.dtype == torch.bfloat16
    assert torch.allclose(
        half.predict_patch_scores(random_batch()), full.predict_patch_scores(random_batch()), atol=0.05
    )


def test_scores_in_training_come_by_the_forward_that_mixed_precision_wraps(monkeypatch):
    model = make_tiny_model()
    forward, calls = model.forward, []
    monkeypatch.setattr(model, "forward", lambda *args, **options: calls.append(args) or forward(*args, **options))
    scores = model.predict_patch_scores(random_batch())
    assert scores.shape == (3, 4) and len(calls) == 3  # an image of four patches is one chunk
