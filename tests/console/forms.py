"""A page's forms as a browser would send them: their own fields and no other, with what they hold already."""

from html.parser import HTMLParser

import httpx
from msgspec import Struct, field

from tests.console.desks import Browser


class Form(Struct):
    """A form of a page. *buttons* are what pressing one of them adds, `("", "")` for one without a name."""

    method: str
    action: str
    fields: dict[str, list[str]] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    buttons: list[tuple[str, str]] = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self._path = path
        self._form: Form | None = None
        self._select: str | None = None
        self._options: list[tuple[str, bool]] = []
        self._text: tuple[str, str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        name, value = given.get("name", ""), given.get("value", "")
        if tag == "form":
            self._form = Form(given.get("method", "get").upper(), given.get("action", self._path))
            self.forms.append(self._form)
        if self._form is None:
            return
        if tag == "input" and name and "disabled" not in given:
            kind = given.get("type", "text")
            if kind == "file":
                self._form.files.append(name)
            elif kind not in ("checkbox", "radio"):
                self._form.fields.setdefault(name, []).append(value)
            elif "checked" in given:
                self._form.fields.setdefault(name, []).append(value or "on")
        elif tag == "button" and "disabled" not in given:
            self._form.buttons.append((name, value))
        elif tag == "select":
            self._select, self._options = name, []
        elif tag == "option" and self._select:
            self._options.append((value, "selected" in given))
        elif tag == "textarea":
            self._text = name, ""

    def handle_data(self, data: str) -> None:
        if self._text:
            self._text = self._text[0], self._text[1] + data

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        if self._form is None:
            return
        if tag == "select" and self._select:
            chosen = [value for value, selected in self._options if selected] or [self._options[0][0]]
            self._form.fields.setdefault(self._select, []).append(chosen[0])
            self._select = None
        elif tag == "textarea" and self._text:
            self._form.fields.setdefault(self._text[0], []).append(self._text[1].removeprefix("\n"))
            self._text = None


def forms_of(page: str, path: str = "") -> list[Form]:
    """Every form of a page at *path*."""
    reader = _Reader(path)
    reader.feed(page)
    return reader.forms


def form_at(browser: Browser, path: str, action: str) -> Form:
    """The form of the page at *path* that leads to *action*."""
    answer = browser.get(path)
    return next(one for one in forms_of(answer.text, path) if one.action == action and one.method == "POST")


def submit(browser: Browser, form: Form, changed: dict[str, str] | None = None, button: int = 0) -> httpx.Response:
    """Send *form* as a browser does, with what was *changed* in it, by its button number so and so."""
    fields = {**form.fields, **{name: [value] for name, value in (changed or {}).items()}}
    if form.buttons and form.buttons[button][0]:
        name, value = form.buttons[button]
        fields[name] = [value]
    if form.method == "GET":
        return browser.get(form.action.partition("#")[0], params=fields)
    headers = {**browser.headers, "origin": browser.url}
    return browser.http.post(form.action, data=fields, headers=headers)
