"""How much of the upper bound, the segmenter trained on true masks, each model reaches."""

import pandas as pd

from brnf.config.studies import SUPERVISED
from brnf.evaluate.names import SHARE

__all__ = ["with_share"]


def with_share(table: pd.DataFrame) -> pd.DataFrame:
    """Add behind mIoU its share of the mIoU that true masks lead to, in percent.

    Arguments:
        table: of results, a row a model, product, split and protocol, and a seed where it is not
            the mean; returned as it is where no row is of the model ``supervised``.
    """
    bound = table[table.model == SUPERVISED]
    if bound.empty:
        return table
    keys = [key for key in ("product", "split", "protocol", "seed") if key in table]
    reached = table.merge(bound[[*keys, "miou"]], how="left", on=keys, suffixes=("", "_bound"))
    shares = 100 * table.miou.to_numpy() / reached.miou_bound.to_numpy()
    whole = table.copy()
    whole.insert(list(table.columns).index("miou") + 1, SHARE, shares)
    return whole
