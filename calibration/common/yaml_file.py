"""Reading a YAML file that someone else may have written: plain values only, each key once, of bounded size."""

from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import yaml

from calibration.common.command_line import UserError, existing_file

MOST_BYTES = 4 * 2**20
MERGE = "tag:yaml.org,2002:merge"
MOST_VALUES = 200_000  # once every alias is written out: a few lines of aliases of aliases can stand for billions


class _Loader(yaml.SafeLoader):
    """SafeLoader (no Python objects) that refuses what stands twice and what grows without bound."""

    def compose_document(self) -> yaml.Node:
        """The tree of the file, small enough to be printed."""
        node = super().compose_document()
        _count(node, {}, set())
        return node


def _refuse(what: str, node: yaml.Node) -> NoReturn:
    raise yaml.composer.ComposerError(None, None, what, node.start_mark)


def _count(node: yaml.Node, known: dict[int, int], above: set[int]) -> int:
    """Values below `node`, aliases written out. `known`: of nodes already counted; `above`: those it lies in."""
    if id(node) in known:
        return known[id(node)]
    if id(node) in above:
        _refuse("it contains itself", node)
    children: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        children = [part for pair in node.value for part in pair]
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != MERGE]
        if len(set(keys)) < len(keys):  # the reader would see one value and the program take the other
            _refuse(f"key '{Counter(keys).most_common(1)[0][0]}' stands twice", node)
    above.add(id(node))
    total = 1 + sum(_count(child, known, above) for child in children)
    above.discard(id(node))
    if total > MOST_VALUES:
        _refuse(f"it holds more than {MOST_VALUES} values", node)
    known[id(node)] = total
    return total


def read_yaml(path: str | Path, hint: str = "check the path") -> Any:
    """Plain values of a YAML file. UserError naming the file and the line when it is missing or not readable as YAML.

    hint: what to do about a missing file. Refused beside wrong syntax: tags of Python objects, a key that stands twice,
    aliases that stand for more than MOST_VALUES values.
    """
    path = existing_file(path, hint)
    if path.stat().st_size > MOST_BYTES:
        raise UserError(f"{path}: {path.stat().st_size} bytes, at most {MOST_BYTES} are read; is it no YAML?")
    try:
        return parse_yaml(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or a date such as 2012-13-01
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(f"{path}: not readable as YAML ({reason}); correct it") from None


def parse_yaml(text: str) -> Any:
    """Plain values of YAML text. yaml.YAMLError, ValueError or RecursionError as read_yaml says."""
    return yaml.load(text, Loader=_Loader)
