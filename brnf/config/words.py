"""What CLIP is asked for: prompts of the classes and of things that are background
(`docs/method.md` section 3, clip_es).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from brnf.errors import UserError
from brnf.shipped import CONFIG

__all__ = ["ClipWords", "prompts", "read_words", "words_file"]


@dataclass(frozen=True)
class ClipWords:
    """Words for a data set.

    Attributes:
        names: class -> how CLIP is asked for it, for classes whose own name is ambiguous.
        background: things that photographs show around objects.
    """

    names: dict[str, str]
    background: tuple[str, ...]


def words_file(words: str) -> Path:
    """Return the file of a list of words: the project's own by name, any other by path."""
    shipped = CONFIG / "clip_es" / f"{words}.yaml"
    return shipped if shipped.is_file() else Path(words)


def read_words(path: Path) -> ClipWords:
    """Read a YAML file with a mapping ``names`` and a list ``background``.

    Raises:
        UserError: the file is missing, damaged, or holds something else.
    """
    remedy = "give it a mapping names and a list background, as in config/clip_es/voc.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(
            f"{path}: words for CLIP cannot be read ({' '.join(str(error).split())[:120]}); "
            f"{remedy}"
        ) from error
    names = content.get("names", {}) if isinstance(content, dict) else None
    background = content.get("background") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not isinstance(background, list) or not background:
        raise UserError(f"{path}: holds no words for CLIP; {remedy}")
    words = [*names, *names.values(), *background]
    if not all(isinstance(word, str) and word for word in words):
        wrong = next(word for word in words if not (isinstance(word, str) and word))
        raise UserError(f"{path}: {wrong!r} is no word; put it between quotes")
    return ClipWords(dict(names), tuple(background))


def prompts(template: str, names: Sequence[str], words: ClipWords) -> list[str]:
    """Return one text a name; classes without words of their own are asked for by their name.

    Arguments:
        template: with ``{name}`` in it.
        names: of classes or background things.
        words: see :class:`ClipWords`.

    Raises:
        UserError: the template lacks ``{name}``.
    """
    if "{name}" not in template:
        raise UserError(
            f"base.clip_es.prompt: '{template}' lacks {{name}}; write for example 'a clean origami "
            f"{{name}}.'"
        )
    return [template.replace("{name}", words.names.get(name, name)) for name in names]
