"""docs/guarantees.md: every line names tests that exist, and every operator has its lines."""

import ast
import re
from pathlib import Path

import torch

import fastcl  # noqa: F401  defines the operators

ROOT = Path(__file__).resolve().parents[1]
NAME = r"`(tests/\w+\.py)::(test_\w+)`"
KINDS = ["Error", "Bits", "Memory"]


def page():
    return (ROOT / "docs" / "guarantees.md").read_text()


def lines(text):
    """Every guarantee, which is an item of a list, on one line."""
    return [" ".join(item.split()) for item in re.split(r"^- ", text, flags=re.M)[1:]]


def written_in(path):
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_line_names_tests_that_exist():
    found = lines(page())
    assert len(found) > 50 and [line for line in found if not re.search(NAME, line)] == []
    named = set(re.findall(NAME, page()))
    assert page().count("::test_") == len(re.findall(NAME, page()))
    assert [pair for pair in named if pair[1] not in written_in(pair[0])] == []


def test_every_operator_has_a_line_of_every_kind():
    schemas = (schema.name.split("::") for schema in torch._C._jit_get_all_schemas())
    # These two ask and say which instruction set runs.
    operators = {x for space, x in schemas if space == "fastcl"} - {"processor", "use_processor"}
    sections = re.findall(r"^### (.*)\n((?:.|\n)*?)(?=^#)", page(), re.M)
    kinds = {}
    for heading, text in sections:
        found = [re.match(r"\*\*(\w+)\.\*\* ", line)[1] for line in lines(text)]
        kinds |= dict.fromkeys(re.findall(r"`(\w+)`", heading), found)
    assert kinds == dict.fromkeys(operators, KINDS)
