"""The results of a run as the workflow leaves them, with small untrained networks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from brnf.cam.network import new_cam_network, save_cam_network
from brnf.config.experiment import read_experiments
from brnf.config.sections.cam import BackboneOptions, CamMaps, CamTraining
from brnf.config.sections.segmentation import (
    Crf,
    CrfLabels,
    DeepLabNetwork,
    PredictionCrf,
    SegmentationTest,
)
from brnf.data.index import ImageRecord, Index, shard_of
from brnf.engine.runtime import Runtime
from brnf.segment.deeplab import build_deeplab, save_deeplab
from brnf.stages import (
    compute_cams,
    make_pseudo_labels,
    predict_segmentation,
    write_cam_model,
    write_segmentation_model,
)

QUIET = Runtime(device="cpu", threads=1, workers=0, progress="none")
CLASSES, VALUES = ("cat", "dog"), (8, 12)
TEST = SegmentationTest(scales=(1.0, 1.5), crf=PredictionCrf(iterations=2))
CAM = CamMaps(scales=(1.0,), map_stride=2)
LABELS = CrfLabels(crf=Crf(iterations=2))
COLOURS = np.array([(100, 100, 100), (220, 30, 30), (30, 200, 40)], np.uint8)


class Results:
    """Results of an experiment named mini, of its model base and seed 0.

    Arguments:
        folder: that Snakemake would run in.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.photographs = folder, folder / "photographs"
        self.root = folder / "results" / "mini"
        self.index, self.run = self.root / "index", self.root / "base" / "seed0"
        self.segmenter = self.run / "segmentation" / "model.pt"
        self.cam = self.run / "network" / "model.pt"
        self.records = self._images()
        self._config()
        self._networks()
        self._masks()

    def _images(self) -> tuple[ImageRecord, ...]:
        """Draw photographs of one square each, and their index in two shards."""
        self.photographs.mkdir(parents=True)
        random = np.random.default_rng(0)
        records = []
        for number in range(4):
            path, label = self.photographs / f"image{number}.png", 1 + number % 2
            truth = np.zeros((48, 64), np.uint8)
            truth[8:34, 10 + 4 * number : 44 + 4 * number] = label
            noise = random.integers(0, 30, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(COLOURS[truth] + noise).save(path)
            records.append(ImageRecord(path.stem, path, 64, 48, (label,)))
        Index(CLASSES, VALUES, tuple(records)).write(self.index, "train", shards=2)
        self.shards = sorted({shard_of(record.id, 2) for record in records})
        return tuple(records)

    def _config(self) -> None:
        settings = {
            "name": "mini",
            "dataset": {"kind": "scenes", "train": "train", "eval_split": "train", "val": "val"},
            "segmentation": {"test": {"scales": [1.0, 1.5], "crf": {"iterations": 2}}},
            "cam": {"scales": [1.0], "map_stride": 2},
            "base": {"seed_map": "classifier"},
            "pseudo_labels": {"crf": {"iterations": 2}},
        }
        record = read_experiments(settings)["mini"].record()
        (self.root / "config.yaml").write_text(yaml.safe_dump(record))

    def _networks(self) -> None:
        """Write networks whose weights make other masks of other images, and their models."""
        torch.manual_seed(0)
        network = DeepLabNetwork(
            backbone="test_resnet", weights="none", head="aspp_sum", rates=(1, 2)
        )
        deeplab = build_deeplab(replace(network, output_stride=16), 3)
        with torch.no_grad():
            for parameter in deeplab.head.parameters():
                parameter.copy_(torch.randn_like(parameter))
        save_deeplab(self.segmenter.with_name("network.pt"), deeplab.eval(), CLASSES)
        backbone = BackboneOptions(name="test_resnet", weights="none", dilated=True)
        cam = new_cam_network(backbone, CamTraining(), 2, torch.device("cpu"), 0)
        with torch.no_grad():
            cam.classifier.weight.abs_()
        save_cam_network(self.cam.with_name("network.pt"), cam.eval(), backbone, CLASSES)
        for stage, model, options in (
            (
                write_segmentation_model,
                self.segmenter,
                write_segmentation_model.Options(test=TEST),
            ),
            (
                write_cam_model,
                self.cam,
                write_cam_model.Options(cam=CAM, product="classifier", pseudo_labels=LABELS),
            ),
        ):
            inputs = stage.Inputs(self.index, model.with_name("network.pt"))
            stage.run(inputs, stage.Outputs(model), options, QUIET)

    def _masks(self) -> None:
        """Run the stages that make masks."""
        for shard in self.shards:
            images = self.index / "shards" / "train" / f"{shard}.csv"
            place = Path("train", str(shard))
            maps = self.run / "cams" / place.with_suffix(".h5")
            compute_cams.run(
                compute_cams.Inputs(self.index, self.cam.with_name("network.pt"), images),
                compute_cams.Outputs(maps),
                compute_cams.Options(cam=CAM),
                QUIET,
            )
            make_pseudo_labels.run(
                make_pseudo_labels.Inputs(self.index, images, maps),
                make_pseudo_labels.Outputs(*self._outputs("pseudo_labels", place)),
                make_pseudo_labels.Options(product="classifier", pseudo_labels=LABELS),
                QUIET,
            )
            network = self.segmenter.with_name("network.pt")
            predict_segmentation.run(
                predict_segmentation.Inputs(self.index, network, images),
                predict_segmentation.Outputs(
                    *self._outputs("predictions", place), self.run / "confidences.csv"
                ),
                predict_segmentation.Options(test=TEST),
                QUIET,
            )

    def _outputs(self, product: str, place: Path) -> tuple[Path, Path]:
        masks = self.run / product / place
        return masks, masks.with_suffix(".h5")

    def masks(self, product: str) -> dict[str, bytes]:
        """Return the bytes of every mask of a product, by image."""
        found = {path.stem: path.read_bytes() for path in self.run.glob(f"{product}/train/*/*.png")}
        assert len(set(found.values())) > 1, "masks that are all the same tell nothing"
        return found


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return Results(tmp_path_factory.mktemp("use"))
