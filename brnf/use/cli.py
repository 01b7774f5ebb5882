"""The command ``brnf``: make a folder for the workflow, and use the networks that it trained."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from brnf import __version__
from brnf.errors import UserError
from brnf.use.folder import KINDS, make_folder

__all__ = ["main"]

NETWORK = "model.pt, or network.pt, of results/<name>/<model>/seed<k>/segmentation or network"


def main(words: Sequence[str] | None = None) -> None:
    """Run the command; exit with status 2 and one line for a mistake of the user."""
    given = _parser().parse_args(words)
    try:
        sys.exit(given.run(given))
    except KeyboardInterrupt:
        sys.exit(130)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    """Return what reads the command line; it imports no torch, so that help comes at once."""
    parser = argparse.ArgumentParser(prog="brnf", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_init(commands.add_parser("init", help="make a folder to run the workflow in"))
    _add_predict(commands.add_parser("predict", help="write masks of photographs"))
    _add_export(commands.add_parser("export", help="write a network as ONNX or for torch.export"))
    _add_labels(commands.add_parser("labels", help="write pseudo-labels for other programs"))
    _add_provenance(commands.add_parser("provenance", help="say what made a result"))
    _add_runs(commands.add_parser("runs", help="list runs and what differs between them"))
    return parser


def _add_init(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make a folder to run the workflow in: a configuration to edit, profiles, and a Snakefile "
        "that finds the installed workflow. Prints the commands that come next."
    )
    parser.set_defaults(run=_init)
    parser.add_argument("folder", type=Path, help="to make; what is in it stays")
    parser.add_argument(
        "--kind",
        choices=KINDS,
        default="demo",
        help="of experiment: demo (rendered scenes, minutes on a CPU; default), own (photographs "
        "of your own), voc12 or coco14 (the paper's settings)",
    )


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.description = "Write masks of photographs; what is there already is kept."
    parser.set_defaults(run=_predict)
    parser.add_argument("network", type=Path, help=NETWORK)
    parser.add_argument(
        "images", nargs="+", help="photographs, folders, or patterns such as 'photos/**/*.jpg'"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the outputs")
    parser.add_argument(
        "--labels", help="for a CAM network: cat,dog, or a CSV with the columns image,labels"
    )
    parser.add_argument("--overlay", action="store_true", help="write photographs under colours")
    parser.add_argument("--confidence", action="store_true", help="write the winner's probability")
    parser.add_argument("--overwrite", action="store_true", help="predict again what is there")
    parser.add_argument(
        "--long-side", type=_side, help="pixels at which photographs are seen (default: model's)"
    )
    parser.add_argument("--no-crf", action="store_true", help="leave the dense CRF out")
    _add_machine(parser)


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.description = "Write a network for other programs, and compare it before it appears."
    parser.set_defaults(run=_export)
    parser.add_argument("network", type=Path, help=NETWORK)
    parser.add_argument("file", type=Path, help="to write: .onnx, or .pt2 for torch.export")


def _add_labels(parser: argparse.ArgumentParser) -> None:
    parser.description = "Write pseudo-labels in the layout and the mask values of VOC's kind."
    parser.set_defaults(run=_labels)
    parser.add_argument("results", type=Path, help="results/<name>/<model>/seed<k>")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--split", help="of the images (default: the one trained on)")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder")


def _add_provenance(parser: argparse.ArgumentParser) -> None:
    parser.description = "Say what made a result, and what that was made from: options, code, data."
    parser.set_defaults(run=_provenance)
    parser.add_argument("results", nargs="+", type=Path, help="files or folders below results/")
    parser.add_argument("--json", action="store_true", help="all stamps as one JSON object each")


def _add_runs(parser: argparse.ArgumentParser) -> None:
    parser.description = "List runs, what they measured, and the settings in which they differ."
    parser.set_defaults(run=_runs)
    parser.add_argument(
        "results",
        nargs="*",
        type=Path,
        default=[Path("results")],
        help="all below a folder (default: results), or some of them, such as results/demo",
    )


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    parser.add_argument("--threads", type=_count, default=1, help="of the CPU (default: 1)")


def _count(word: str) -> int:
    """Read a positive number."""
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"'{word}' is no positive number")
    return int(word)


def _side(word: str) -> int:
    """Read the side of an image, as the sections of the configuration bound it."""
    if not word.isdecimal() or int(word) < 32:
        raise argparse.ArgumentTypeError(f"'{word}' is no number of at least 32 pixels")
    return int(word)


def _init(given: argparse.Namespace) -> int:
    """Make a folder; return the exit status."""
    print(make_folder(given.folder, given.kind))
    return 0


def _predict(given: argparse.Namespace) -> int:
    """Predict photographs; return the exit status."""
    from brnf.use.photographs import find_photographs

    photographs = find_photographs(given.images, given.out)

    from brnf.engine.runtime import Runtime
    from brnf.use.load import load
    from brnf.use.predict import Products, labels_of, predict_files

    model = load(given.network, given.device, given.threads)
    if model.needs_labels and given.labels is None:
        names = ",".join(model.classes)
        raise UserError(f"{given.network}: a CAM network needs --labels, a CSV or some of {names}")
    if not model.needs_labels and given.labels is not None:
        raise UserError(f"{given.network}: a segmenter finds the classes itself; omit --labels")
    labels = None if given.labels is None else labels_of(given.labels, model.classes)
    bad = predict_files(
        model.with_options(given.long_side, crf=not given.no_crf),
        photographs,
        given.out,
        Products(given.overlay, given.confidence),
        labels,
        Runtime(),
        given.overwrite,
    )
    if bad:
        raise UserError(f"{bad} of {len(photographs)} photographs could not be used; see above")
    return 0


def _export(given: argparse.Namespace) -> int:
    """Export a network; return the exit status."""
    from brnf.use.export import export

    print(export(given.network, given.file))
    return 0


def _provenance(given: argparse.Namespace) -> int:
    """Say what made results; return the exit status."""
    from brnf.use.provenance import print_provenance

    print_provenance(given.results, given.json)
    return 0


def _runs(given: argparse.Namespace) -> int:
    """List runs; return the exit status."""
    from brnf.evaluate.runs import describe, read_recorded

    print(describe(read_recorded(given.results)), end="")
    return 0


def _labels(given: argparse.Namespace) -> int:
    """Collect pseudo-labels; return the exit status."""
    from brnf.use.labels import write_labels

    print(write_labels(given.results, given.out, given.split, given.overwrite))
    return 0


if __name__ == "__main__":
    main()
