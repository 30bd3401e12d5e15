"""YAML as Kubernetes reads it. The values were compared with what a real kube-apiserver got from kubectl (see e2e)."""

from typing import Any

import pytest

from bessemer_operator.cli.yamltree import MAX_BYTES, MAX_VALUES, YamlTextError, read_trees

SCALARS: tuple[tuple[str, Any], ...] = (
    ("2e-5", 2e-5),
    ("2.0E-5", 2e-5),
    (".5", 0.5),
    ("1.", 1),
    ("1e3", 1000),
    ("10.0", 10),
    ("1.5", 1.5),
    ("+1", 1),
    ("-0", 0),
    ("-7", -7),
    ("017", 15),
    ("0o17", 15),
    ("0x1F", 31),
    ("0b11", 3),
    ("1_000", 1000),
    ("09", 9),
    ("1:30", "1:30"),
    ("2026-01-31", "2026-01-31"),
    ("1e400x", "1e400x"),
    ("1e", "1e"),
    ("_1", "_1"),
    ("0.0.1", "0.0.1"),
    ("yes", True),
    ("On", True),
    ("y", True),
    ("TRUE", True),
    ("no", False),
    ("Off", False),
    ("N", False),
    ("tRue", "tRue"),
    ("null", None),
    ("~", None),
    ("", None),
    ('"2e-5"', "2e-5"),
    ("'yes'", "yes"),
    ("!!str 5", "5"),
    ("!!int 5", 5),
    ("!!float 5", 5),
    ("s3://bucket/key", "s3://bucket/key"),
    ("|\n  two\n  lines\n", "two\nlines\n"),
    (">-\n  one\n  line\n", "one line"),
)


@pytest.mark.parametrize(("text", "value"), SCALARS, ids=[text for text, _ in SCALARS])
def test_a_scalar_is_read_as_kubernetes_reads_it(text: str, value: object) -> None:
    (tree,) = read_trees(f"a: {text}")
    assert tree.value == {"a": value}
    assert type(tree.value["a"]) is type(value)


def test_lines_of_fields_items_and_what_is_missing() -> None:
    (tree,) = read_trees("# first\na:\n  b:\n  - c: 1\n    d: 2\n  -\n    c: 3\ne: [1,\n  2]\n")
    assert tree.value == {"a": {"b": [{"c": 1, "d": 2}, {"c": 3}]}, "e": [1, 2]}
    lines = {path: tree.line_of(path) for path in [(), ("a",), ("a", "b", 0, "d"), ("a", "b", 1, "c"), ("e", 1)]}
    assert lines == {(): 2, ("a",): 2, ("a", "b", 0, "d"): 5, ("a", "b", 1, "c"): 7, ("e", 1): 9}
    assert tree.line_of(("a", "b", 0, "missing", "deep")) == 4
    assert tree.line_of(("nothing",)) == 2


def test_several_documents_keep_their_lines() -> None:
    trees = read_trees("a: 1\n---\nb: 2\n---\n")
    assert [(tree.value, tree.line) for tree in trees] == [({"a": 1}, 1), ({"b": 2}, 3), (None, 5)]


def test_aliases_and_merges_are_written_out() -> None:
    text = "x: &t {rate: 1, steps: 2}\nv: {<<: *t, steps: 3}\nz: *t\nw:\n  <<: [{a: 1}, {a: 2, b: 2}]\n"
    (tree,) = read_trees(text)
    train = {"rate": 1, "steps": 2}
    assert tree.value == {"x": train, "v": {"rate": 1, "steps": 3}, "z": train, "w": {"a": 1, "b": 2}}
    assert tree.line_of(("z", "steps")) == 3


BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(8)
)
BROKEN: tuple[tuple[str, str, int, str], ...] = (
    ("a_key_twice", "a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", 5, '"c" is here twice; the first is in line 3'),
    ("a_tab", "a:\n\tb: 1\n", 2, "this is no YAML"),
    ("an_open_bracket", "a: [1, 2\nb: 3\n", 2, "this is no YAML"),
    ("a_bad_indentation", "a:\n  b: 1\n c: 2\n", 3, "this is no YAML"),
    ("infinity", "a: .inf", 1, ".inf is no number"),
    ("not_a_number", "a: .nan", 1, ".nan is no number"),
    ("a_number_too_large", "a: 1e400", 1, "1e400 is larger than any number"),
    ("a_number_as_key", "a:\n  1: 2\n", 2, "the key '1' is no text"),
    ("yes_as_key", "yes: 2\n", 1, "the key 'yes' is no text"),
    ("a_list_as_key", "? [a]\n: 2\n", 1, "a key must be a word"),
    ("an_unknown_alias", "a: *b\n", 1, "there is no &b before *b"),
    ("an_alias_inside_itself", "a: &a [*a]\n", 1, "there is no &a before *a"),
    ("an_alias_bomb", BOMB, 6, f"more than {MAX_VALUES:,} values"),
    ("deep_nesting", "a: " + "[" * 50 + "]" * 50, 1, "nested more than 40 deep"),
    ("a_merge_of_a_number", "a: {<<: 3}", 1, "<< merges mappings only"),
    ("a_foreign_tag", "a: !!python/object:os.system ls", 1, "does not fit"),
    ("a_wrong_tag", "a: !!int x", 1, "does not fit"),
    ("nul", "a: b\0c", 1, "this is no YAML"),
    ("a_large_file", "a: " + "x" * MAX_BYTES, 1, "larger than"),
)


@pytest.mark.parametrize(("text", "line", "message"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_what_kubernetes_could_not_read_is_refused_with_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(YamlTextError) as refusal:
        read_trees(text)
    assert (refusal.value.line, message in refusal.value.message, bool(refusal.value.fix)) == (line, True, True)
