"""Extraction from small synthetic sources."""

from __future__ import annotations

from typing import Any

import pytest
from schemagen_util import BASE, HEAD, lora, tree

from adapterlint.schemagen.extract import Extraction, extract


def plain(extraction: Extraction, name: str = "LoraConfig") -> dict[str, tuple[Any, ...]]:
    fields = extraction.classes[name].fields.values()
    return {field.name: (field.default, [kind.plain() for kind in field.kinds]) for field in fields}


def test_inherited_fields_come_first_and_a_field_declared_again_keeps_its_place() -> None:
    extraction = extract(tree(lora('r: int = 8\npeft_type: str = field(default="X")')))
    found = plain(extraction)
    assert list(found) == ["peft_type", "task_type", "r"]
    assert found["peft_type"] == ("X", ["str"])
    assert extraction.classes["LoraConfig"].fields["task_type"].annotation == "Optional[Union[str, TaskType]]"


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        ("int", ["int"]),
        ("Optional[int]", ["int", "null"]),
        ("int | None", ["int", "null"]),
        ("None | int", ["int", "null"]),
        ("Union[List[str], str]", ["list[str]", "str"]),
        ("Optional[Union[list[str], str]]", ["list[str]", "str", "null"]),
        ("Optional[list[tuple[int, int]]]", ["list[list[int]]", "null"]),
        ("Optional[set[str]]", ["list[str]", "null"]),
        ("Dict[str, int]", ["dict[int]"]),
        ("dict[str, Union[int, float]]", ["dict[int|float]"]),
        ("dict", ["dict"]),
        ("bool | Literal['gaussian', 'loftq']", ["bool", {"enum": ["gaussian", "loftq"]}]),
        ("Literal[1, True, None]", [{"enum": [1, True, None]}]),
        ("Union[str, TaskType]", ["str", {"enum": "TaskType"}]),
        ("'Optional[str]'", ["str", "null"]),
        ("typing.Optional[typing.Any]", ["any", "null"]),
        ("Optional[EvaConfig]", ["dict", "null"]),
        ("Variant", [{"enum": ["a", "b"]}]),
    ],
)
def test_annotations(annotation: str, expected: list[Any]) -> None:
    nested = '@dataclass\nclass EvaConfig:\n    rho: float = 2.0\nVariant = Literal["a", "b"]\n'
    extraction = extract(tree(nested + lora(f"x: {annotation} = 1")))
    assert plain(extraction)["x"] == (1, expected)
    assert extraction.enums["TaskType"] == ("SEQ_CLS",)


@pytest.mark.parametrize(
    ("default", "expected", "factory"),
    [
        ("8", 8, ""),
        ("-0.5", -0.5, ""),
        ('field(default="a" "b")', "ab", ""),
        ("field(default=(1, 2))", [1, 2], ""),
        ("field(default=True)", True, ""),
        ("field(default_factory=dict)", {}, "dict"),
        ("field(default_factory=list)", [], "list"),
        ("field(default_factory=lambda: ['q', 'v'])", ["q", "v"], "lambda"),
        ("field(default_factory=EvaConfig)", {"rho": 2.0}, "EvaConfig"),
        ("TaskType.SEQ_CLS", "SEQ_CLS", ""),
    ],
)
def test_defaults(default: str, expected: Any, factory: str) -> None:
    nested = "@dataclass\nclass EvaConfig:\n    rho: float = 2.0\n"
    field = extract(tree(nested + lora(f"x: str = {default}"))).classes["LoraConfig"].fields["x"]
    assert (field.default, field.factory, field.required) == (expected, factory, False)
    assert type(field.default) is type(expected)


def test_a_default_of_none_makes_null_a_kind_whatever_the_annotation_says() -> None:
    assert plain(extract(tree(lora("x: int = None"))))["x"] == (None, ["int", "null"])


def test_required_and_init_false_and_help_and_classvar() -> None:
    text = 'x: int\ny: int = field(default=1, init=False, metadata={"help": ("one " "two\\n  three")})'
    text += "\nz: ClassVar[int] = 3"
    fields = extract(tree(lora(text))).classes["LoraConfig"].fields
    assert (fields["x"].required, fields["x"].default) == (True, None)
    assert (fields["y"].init, fields["y"].help) == (False, "one two three")
    assert "z" not in fields


def test_a_default_that_is_no_literal_is_remarked_upon() -> None:
    extraction = extract(tree(lora("x: int = (field(default=1),)")))
    assert extraction.classes["LoraConfig"].fields["x"].default is None
    assert "LoraConfig.x is no literal" in extraction.remarks[0]


@pytest.mark.parametrize(
    "value", ["PeftType.LORA", 'PeftType("LORA")', 'PeftType["LORA"]', '"LORA"', "PeftType.LORA.value"]
)
def test_every_way_to_set_the_peft_type(value: str) -> None:
    extraction = extract(tree(lora("r: int = 8", f"self.peft_type = {value}")))
    assert extraction.classes["LoraConfig"].peft_type == "LORA"
    assert not extraction.remarks


def test_peft_type_as_class_attribute_and_inherited() -> None:
    body = "@dataclass\nclass Parent(PeftConfig):\n    peft_type = PeftType.LORA\n"
    body += "@dataclass\nclass LoraConfig(Parent):\n    r: int = 8\n"
    assert extract(tree(body)).classes["LoraConfig"].peft_type == "LORA"


def test_a_class_that_sets_another_type_is_remarked_upon() -> None:
    extraction = extract(tree(lora("r: int = 8", "self.peft_type = PeftType.OTHER")))
    assert extraction.remarks == ("LORA selects LoraConfig, which sets peft_type to OTHER",)


def test_the_mapping_of_older_releases() -> None:
    mapping = """
from .tuners import LoraConfig
PEFT_TYPE_TO_CONFIG_MAPPING = {"LORA": LoraConfig, "LORAPLUS": LoraConfig, PeftType.OTHER: LoraConfig}
"""
    sources = tree(lora("r: int = 8"), peft__mapping=mapping)
    sources["peft/tuners/__init__.py"] = "from .lora import LoraConfig\n"
    sources["peft/tuners/lora/__init__.py"] = "from .config import LoraConfig\n"
    assert extract(sources).mapping == {"LORA": "LoraConfig", "LORAPLUS": "LoraConfig", "OTHER": "LoraConfig"}


def test_a_registered_name_that_is_no_peft_type_is_left_out_and_docstrings_are_not_read() -> None:
    sources = tree(lora("r: int = 8"))
    sources["peft/tuners/new/__init__.py"] = (
        "from peft.tuners.lora import LoraConfig\n"
        'if "NEW" in PeftType.__members__:\n'
        '    register_peft_method(name="new", config_cls=LoraConfig, model_cls=None)\n'
    )
    assert extract(sources).mapping == {"LORA": "LoraConfig"}


def test_a_package_hides_a_module_of_the_same_name() -> None:
    """The wheel of 0.6.2 holds stale files beside the packages that replaced them."""
    sources = tree(lora("r: int = 8"))
    sources["peft/tuners/lora.py"] = HEAD + "@dataclass\nclass LoraConfig:\n    stale: int = 1\n"
    sources["peft/utils/config.py"] = BASE + "    stale: int = 1\n"
    assert list(plain(extract(sources))) == ["peft_type", "task_type", "r"]


def test_guards_follow_inheritance_and_super() -> None:
    body = """
@dataclass
class Parent(PeftConfig):
    x: int = 1
    def __post_init__(self):
        if self.x < 0:
            raise ValueError("no")
@dataclass
class LoraConfig(Parent):
    y: int = 1
    def __post_init__(self):
        {}
        self.peft_type = PeftType.LORA
        allowed = {{"a", "b"}}
        if self.y == 1:
            self.y = 2
        elif self.y not in allowed:
            if not self.x:
                raise TypeError("no")
"""
    own = "not (self.y == 1) && self.y not in allowed && not self.x"
    with_super = extract(tree(body.format("super().__post_init__()"))).classes["LoraConfig"].guards
    assert [(guard.text, guard.exception) for guard in with_super] == [("self.x < 0", "ValueError"), (own, "TypeError")]
    assert with_super[1].names == (("allowed", '{"a", "b"}'),)
    without = extract(tree(body.format("pass"))).classes["LoraConfig"].guards
    assert [guard.text for guard in without] == [own]


def test_a_field_without_decorator_is_no_field() -> None:
    assert "r" not in plain(extract(tree(lora("r: int = 8").removeprefix("@dataclass\n"))))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lora("x: Callable[[int], int] = None"), r"peft\.tuners\.lora\.config: LoraConfig\.x: .*Callable"),
        (lora("x: Mystery = None"), r"LoraConfig\.x: Mystery is neither an enum nor a dataclass"),
        ("", "class LoraConfig is not in the sources"),
    ],
)
def test_what_is_not_understood_is_an_error_that_says_where(body: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        extract(tree(body))


def test_other_sources_are_refused() -> None:
    with pytest.raises(ValueError, match="not the sources of PEFT"):
        extract({"peft/__init__.py": '__version__ = "1"'})
