"""params.yaml is read as DVC reads it, with another library."""

import math
import runpy

import pytest
import yaml
from dvc.utils.serialize import YAMLFileCorruptedError
from dvc.utils.serialize import parse_yaml as parse_as_dvc
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.core import yaml as our_yaml

SCALARS = [
    *("1e-05", "1.0e-5", "3E-4", "1e5", "1E+5", "1.", ".5", "-.5", "+.5", ".5e+3", ".5e3", "0.0001", "-0", "+12"),
    *("12", "1_000", "1_0.5_0", "017", "0o17", "-0o17", "0O17", "08", "0b101", "0x1F", "0xg", "190:20:30", "1:30.5"),
    *("12345678901234567890", "1e400", "1-2", "1.2.3", "--1", "+", "-", ".", "._", "1e", "e5", "0.1.", "1,000", "½"),
    *(".inf", "-.inf", "+.INF", ".nan", ".NaN", "nan", "inf", "-.nan", "Infinity"),
    *("no", "yes", "on", "off", "y", "n", "No", "ON", "true", "True", "TRUE", "tRue", "false", "'true'"),
    *("null", "Null", "NULL", "~", "", "nULL", "none", "''", '"~"'),
    *("2020-01-02", "2020-1-2", "2020-01-02T03:04:05", "2020-01-02 03:04:05.6", "12:30", "12:30:45", "'2020-01-02'"),
    *("<", "=", "a: b: c", "a #b", "a#b", "'it''s'", '"a\\n\\u00e9\\/"', "é", "🙂", "http://a.b/c?d=e&f", "a:b"),
    *("[5, cat]", "[]", "{}", "{a: 1, b: [x, 1e-3]}", '{"a":1}', "[1,2]", "{a}", "!!str 12", "!!int '3'"),
    *(
        "!!float 3",
        "|\n  a\n  b",
        ">\n  a\n  b",
        ">-\n  a\n\n  b",
        "'a\n\n  b'",
        "a\n  b",
        "&x 1",
        "!!python/name:os.system",
    ),
]
DOCUMENTS = {
    "duplicate key": "a: 1\na: 2\n",
    "equal numbers as keys": "1: a\n1.0: b\n",
    "duplicate key in a flow mapping": "{a: 1, a: 1}",
    "byte order mark": "\ufeffa: 1\n",
    "carriage returns": "a: 1\r\nb:\r\n  c: x y\r\n",
    "merge key": "base: &b {x: 1, y: 2}\nown:\n  <<: *b\n  y: 3\n",
    "merge key below": "base: &b {x: 1, y: 2}\nown:\n  y: 3\n  <<: *b\n",
    "merge of a list": "a: &a {x: 1}\nb: &b {x: 2, y: 2}\nown:\n  <<: [*a, *b]\n",
    "merge key and a duplicate key": "a: &a {x: 1}\nown:\n  <<: *a\n  y: 1\n  y: 2\n",
    "two merge keys": "a: &a {x: 1}\nown:\n  <<: *a\n  <<: *a\n",
    "merge of a number": "own:\n  <<: 1\n",
    "unknown anchor": "a: *b\n",
    "comment only": "# nothing\n",
    "document start": "---\na: 1\n",
    "two documents": "a: 1\n---\nb: 2\n",
    "tab as indentation": "a:\n\tb: 1\n",
    "open bracket": "a: [1\n",
    "colon twice": "a: : b\n",
    "control character": "a: \0\n",
    "at sign": "a: @b\n",
    "percent sign": "a: %b\n",
    "numbers, null and true as keys": "7: a\nnull: b\ntrue: c\nno: d\n1e-1: e\n",
    "list below a key": "a:\n- 1\n- b: 2\n  c: 3\n",
    "no such month": "a: 2020-13-01\n",
    "no digits": "a: 0x_\n",
}
DOCUMENTS |= {repr(scalar): f"value: {scalar}\n" for scalar in SCALARS}


def outcome(parse, errors, text):
    """What a reader makes of a text, with types; "refused" if it raises an error."""
    try:
        return described(parse(text))
    except errors:
        return "refused"


def described(value):
    if isinstance(value, dict):
        return [(described(key), described(item)) for key, item in sorted(value.items(), key=lambda pair: str(pair[0]))]
    if isinstance(value, list):
        return [described(item) for item in value]
    return (type(value).__name__, "nan" if isinstance(value, float) and math.isnan(value) else value)


@pytest.fixture(scope="module", params=["C", "Python"])
def parse(request):
    """The reader, also as it is if PyYAML was built without libyaml."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "Python":
            patch.delattr(yaml, "CSafeLoader")
        module = runpy.run_path(our_yaml.__file__)
    assert issubclass(module["Yaml12Loader"], yaml.CSafeLoader) == (request.param == "C")
    return module["parse_yaml"]


@pytest.mark.parametrize("text", DOCUMENTS.values(), ids=DOCUMENTS)
def test_yaml_is_read_as_dvc_reads_it(text, parse):
    ours = outcome(parse, (yaml.YAMLError, ValueError), text)
    dvc = outcome(lambda text: YAML(typ="safe", pure=True).load(text), (YAMLError, ValueError), text)
    assert ours == dvc
    if ours != "refused" and ours != ("NoneType", None):
        assert outcome(lambda text: parse_as_dvc(text, "params.yaml"), YAMLFileCorruptedError, text) == ours
