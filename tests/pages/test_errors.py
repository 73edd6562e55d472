"""The page of errors lists the program's messages, and no others."""

import ast
import re

import pytest
from conftest import ROOT

PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (`.+?`) \|", PAGE.split("## The mask is black")[0], re.M)
LISTED = [message for row in ROWS for message in re.findall(r"`([^`]+)`", row)]
# These modules define the flags. A message about the value of a flag says which values it takes.
# arguments.py has parts of the message about the argument of a transform.
LEFT_OUT = {"flags.py", "settings.py", "option.py", "choose.py", "arguments.py", "__init__.py"}


def pattern_of(message):
    return "[^:]*".join(map(re.escape, message.split("…")))


def text_of(node):
    """Returns a string of the source, with "…" for what is put into it, without backquotes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%[sd.\d]*[sdf]", "…", node.value).replace("`", "")
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    return "…"


def strings_in(tree):
    """Returns the strings of a syntax tree: each f-string as one, without its parts."""
    parts = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node
    }
    return [
        text_of(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in parts
    ]


def is_message(node):
    """Returns whether a node makes an error or logs a warning."""
    if isinstance(node, ast.Raise):
        return node.exc is not None
    called = node.func if isinstance(node, ast.Call) else None
    if isinstance(called, ast.Name):
        return called.id.endswith("Error") or called.id == "CannotRun"
    return isinstance(called, ast.Attribute) and called.attr == "warning"


def reasons(tree):
    """Yields the nodes that functions return whose result is a text, as the reason of an error."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and ast.unparse(function.returns or tree) == "str":
            for node in ast.walk(function):
                if isinstance(node, ast.Return) and node.value is not None:
                    yield node.value


def trees():
    for path in sorted((ROOT / "paddleseg_infer").rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def strings():
    return [string for _, tree in trees() for string in strings_in(tree)]


@pytest.mark.parametrize("message", LISTED)
def test_the_program_has_this_message(strings, message):
    assert any(re.search(pattern_of(message), string, re.DOTALL) for string in strings)


def raised_and_logged():
    """Returns the errors, warnings and reasons of at least three words."""
    return sorted(
        {
            string
            for path, tree in trees()
            if path.name not in LEFT_OUT
            for node in (*filter(is_message, ast.walk(tree)), *reasons(tree))
            for string in strings_in(node)
            if len(re.findall(r"[A-Za-z]{2,}", string)) >= 3
        }
    )


@pytest.mark.parametrize("message", raised_and_logged())
def test_the_page_has_this_message(message):
    assert any(re.search(pattern_of(listed), message, re.DOTALL) for listed in LISTED)


def test_messages_were_found():
    assert len(raised_and_logged()) > 150
