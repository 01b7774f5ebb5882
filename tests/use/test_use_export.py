"""``brnf export``: graphs that give the network's own numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import brnf
from brnf.config.sections.segmentation import DeepLabNetwork, PredictionCrf, SegmentationTest
from brnf.errors import UserError
from brnf.segment.deeplab import build_deeplab, save_deeplab
from brnf.use import export as module
from brnf.use.export import export
from brnf.use.model import Model
from brnf.use.model_file import SegmentationUse, write_model

SIZE = (75, 118)
"""Of no image that the export itself looks at."""


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (*SIZE, 3), generator=generator, dtype=torch.uint8).numpy()


def run_onnx(path: Path, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    planes = image.transpose(2, 0, 1)[None].astype(np.float32)
    return np.asarray(session.run(None, {"image": planes})[0])[0]


def test_onnx_gives_the_probabilities_of_one_scale(
    results: Any, tmp_path: Path, image: np.ndarray
) -> None:
    path = tmp_path / "model.onnx"
    assert "differs by at most" in export(results.segmenter, path)
    once = SegmentationTest(scales=(1.0,), flip=False, crf=PredictionCrf(iterations=0))
    model = brnf.load(results.segmenter)
    file = type(model.file)(**{**vars(model.file), "use": SegmentationUse(test=once)})
    expected = Model(model.network, file, model.device)(image).probabilities
    assert np.abs(run_onnx(path, image) - expected).max() < 1e-4
    told = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(told["classes"]) == ["cat", "dog"]
    assert json.loads(told["mask_values"]) == [8, 12]


def test_torch_export_writes_the_maps_of_a_cam_network(
    results: Any, tmp_path: Path, image: np.ndarray
) -> None:
    path = tmp_path / "maps.pt2"
    export(results.cam, path)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    network = brnf.load(results.cam).network
    with torch.no_grad():
        maps = torch.export.load(path).module()(planes)
        expected = module.Maps(network)(planes)
    assert maps.shape == (1, 2, *SIZE) and torch.allclose(maps, expected, atol=1e-4)
    assert float(maps.min()) >= 0 and 0.9 < float(maps.max()) <= 1


def test_padding_of_tensorflow_is_fixed_for_sides_that_every_stride_divides() -> None:
    torch.manual_seed(0)
    options = DeepLabNetwork(backbone="tf_efficientnet_lite0", weights="none", head="aspp_sum")
    network = build_deeplab(options, 3).eval()
    image = 255 * torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = network(image)
        assert module._fix_padding(network) and not module._fix_padding(network)
        assert torch.equal(network(image), expected)


def test_a_graph_with_other_numbers_does_not_appear(
    results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pt2"
    monkeypatch.setattr(module, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match="differs by"):
        export(results.segmenter, path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_named_in_one_line(
    results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="ends with neither"):
        export(results.segmenter, tmp_path / "model.pt")
    monkeypatch.setattr(module, "find_spec", lambda name: name != "onnxruntime" or None)
    with pytest.raises(UserError, match="ONNX needs onnxruntime; run pip install onnxruntime"):
        export(results.segmenter, tmp_path / "model.onnx")


@pytest.mark.parametrize("name", ["pvt_v2_b0", "vit_tiny_patch16_224"])
def test_transformers_take_images_of_any_size(name: str, tmp_path: Path, image: np.ndarray) -> None:
    torch.manual_seed(0)
    options = DeepLabNetwork(
        backbone=name, weights="none", head="aspp_sum", output_stride=16, rates=(1, 2)
    )
    save_deeplab(tmp_path / "network.pt", build_deeplab(options, 3), ("cat", "dog"))
    use = SegmentationUse(test=SegmentationTest(scales=(1.0,), flip=False))
    write_model(tmp_path / "network.pt", tmp_path / "model.pt", use, ("cat", "dog"), (8, 12))
    export(tmp_path / "model.pt", tmp_path / "model.onnx")
    network = brnf.load(tmp_path / "model.pt").network
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        expected = module.Probabilities(network)(planes)[0].numpy()
    assert np.abs(run_onnx(tmp_path / "model.onnx", image) - expected).max() < 1e-4
