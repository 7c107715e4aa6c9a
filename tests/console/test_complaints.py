"""What the checks complain of, as people who sell ads read it."""

import ast
import inspect
import re
from typing import Any

import pytest
from msgspec import structs

from adserver import checks
from adserver.console.complaints import names_of, of_entry, of_field, tell
from adserver.console.desk import problems_of
from adserver.model import Cap, PageRule, SlotId, Targeting, Terms
from tests import make

OF_FILES = re.compile(
    r"\bfields?\b|[a-z_]+ = '|\[site\]|\[\]|which does not exist|['“][a-z]+_[a-z_]+|[a-z_]+ = “|'[a-z_]+'|\bkind\b"
)
"""Words of whoever writes configuration files, which nobody who sells ads has ever seen."""


def spell(node: ast.expr) -> str:
    """The sentence that an expression in `checks` would make."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    assert isinstance(node, ast.JoinedStr)
    parts = []
    for one in node.values:
        if isinstance(one, ast.Constant):
            parts.append(str(one.value))
            continue
        assert isinstance(one, ast.FormattedValue)
        name = ast.unparse(one.value)
        known = {
            "missing": "creative 'mill', which does not exist",
            "field": "'title'",
            "names": "'a', 'b'",
            "name": "'ends'",
            "sizes": "300x250, 320x100",
        }
        parts.append(known.get(name, "'mill'" if one.conversion == ord("r") else "7"))
    return "".join(parts)


def sentences() -> list[str]:
    """Everything that `checks` may say."""
    found = []
    for node in ast.walk(ast.parse(inspect.getsource(checks))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Problem":
            what = node.args[1]
            if not isinstance(what, ast.Name):
                found.append(spell(what))
    assert len(found) > 25
    return found


@pytest.mark.parametrize("what", sentences())
def test_nothing_is_said_in_the_words_of_files(what: str) -> None:
    """
    Whatever a check says, no field's name, option or table of a file is left of it; a new one fails here until it is
    said for people.
    """
    if "expected exactly one of the fields" in what or "has the key of" in what:
        return  # no form can make these
    said = of_entry(what, {})
    assert not OF_FILES.search(said.sentence), said.sentence
    assert said.sentence[:1] in "“" or said.sentence[:1].isupper() or said.sentence[:1].isdigit()


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"targeting": Targeting(all=Terms(lang=("en", "de")), any=Terms(section=("sport",)))}, None),
        ({"targeting": Targeting(all=Terms(section=("sport",)), none=Terms(section=("sport",)))}, "target_all"),
        ({"targeting": Targeting(any=Terms(section=("sport",)), none=Terms(section=("sport",)))}, "target_any"),
        ({"page": PageRule.ROADBLOCK_ALL, "frequency": (Cap(1, 86_400),)}, "frequency"),
    ],
)
def test_what_can_never_show_is_said_beside_its_rule(given: dict[str, Any], field: str | None) -> None:
    """
    Rules about pages that no page meets, and a cap below what is shown at once.
    """
    item = make.line_item("prob", slots=(make.SLOT, SlotId(make.SLOT + 1)), **given)
    document = make.document(item, slots=[make.slot(), make.slot(make.SLOT + 1)])
    said = [of_entry(one.what, {}) for one in problems_of(document)]
    assert field is None or field in {one.field for one in said}, said
    assert not any(OF_FILES.search(one.sentence) for one in said)


@pytest.mark.parametrize(
    ("field", "what", "said"),
    [
        ("slots", "is []; expected a list of at least 1", "Choose at least one place"),
        ("creatives", "is []; expected a list of at least 1", "Choose what is shown, or drop a new image"),
        ("name", "is empty; expected a name", "Say what it is called"),
        ("label", "is empty; expected a name", "This is empty, and it is needed"),
        ("click_url", "'a:b' is not a web address; expected it to start with https://",
         "“a:b” is no web address; expected it to start with https://"),
        ("rotation", "is 'x'; expected one of 'even', 'weighted'", "This cannot be chosen; take one of the list"),
        ("goal_n", "has clicks 0; expected a whole number from 1", "This is 0; expected a whole number from 1")
    ],
)  # fmt: skip
def test_a_fields_problem_is_a_sentence(field: str, what: str, said: str) -> None:
    """
    What to do stands in it, as the form calls it.
    """
    assert of_field(field, what) == said


def test_a_documents_problem_names_entries_as_people_do() -> None:
    """
    On the draft's page a booking is called by its name, and a creative that is gone is said to be gone.
    """
    document = make.document(make.line_item("prob", name="Bakery spring", creatives=("gone",)))
    document = structs.replace(document, creatives=())
    [found] = problems_of(document)
    told = tell(found, names_of(document))
    assert (told.where, told.what) == (
        "Line item “Bakery spring”",
        "It shows a creative that is not there any more: “gone”",
    )
