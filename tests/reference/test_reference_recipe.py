import numpy as np
import pytest

from tests.reference.recipe import integers, load, normal, reference_value, uniform

STORED = load("recipe")
SHAPES = {
    "resnet50.conv1.weight": (64, 3, 7, 7),
    "resnet50.layer1.0.bn3.weight": (256,),
    "resnet50.bn1.running_var": (64,),
    "resnet50.bn1.running_mean": (64,),
    "visual.class_embedding": (128,),
    "aspp.c0.bias": (5,),
}
INPUTS = {
    "sipe.images": lambda name: normal(name, (2, 3, 128, 160)),
    "irn.cam": lambda name: uniform(name, (3, 24, 32)),
    "ddfp.labels": lambda name: integers(name, (500,), 21),
}


@pytest.mark.parametrize("name", STORED["names"].tolist())
def test_weights_are_those_of_the_references(name: str) -> None:
    value = reference_value(name, SHAPES[name]).double().numpy()
    np.testing.assert_allclose(value.ravel()[:16], STORED[f"{name}.first"], atol=1e-6)
    np.testing.assert_allclose(value.sum(), STORED[f"{name}.sum_f64"], atol=1e-6 * value.size)


@pytest.mark.parametrize("name", STORED["inputs"].tolist())
def test_inputs_are_those_of_the_references(name: str) -> None:
    np.testing.assert_allclose(
        INPUTS[name](name).numpy().ravel()[:16], STORED[f"{name}.first"], atol=1e-6
    )
