"""The messages on the page of errors are those of the program."""

import ast
import re

import pytest
from conftest import ROOT

ROWS = re.findall(
    r"^\| `([^`]+)` \|", (ROOT / "docs" / "errors.md").read_text(encoding="utf-8"), re.M
)


def text_of(node):
    """Returns a string of the source, with "…" for what is put into it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%[sd.\d]*[sdf]", "…", node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    return "…"


def messages():
    """Returns all strings of the program, without backquotes."""
    files = (ROOT / "paddleseg_infer").rglob("*.py")
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text())))
    return [
        text_of(node).replace("`", "")
        for node in nodes
        if isinstance(node, ast.Constant | ast.JoinedStr)
    ]


@pytest.fixture(scope="module")
def sentences():
    return messages()


@pytest.mark.parametrize("row", ROWS)
def test_the_program_has_this_message(sentences, row):
    pattern = ".*".join(map(re.escape, row.split("…")))
    assert any(re.search(pattern, sentence, re.DOTALL) for sentence in sentences)


def test_the_page_lists_messages():
    assert len(ROWS) > 50
