"""Tags and a filter for Jinja2: `{% ad 889990 %}`, `{% ad_group "sidebar" %}`, `{% ad_placement "top" %}`, `| ads`.

    environment = Environment(autoescape=True, extensions=["adserver.client.jinja.Ads"])
    environment.adserver = Client("http://127.0.0.1:8000")
    environment.get_template("article.html").render(body=article, adserver={"section": "sport"})

Tags leave marks, also in included and imported templates, and `render` fills them all by one call when the page is
complete; `render_async` does without blocking. `generate` and `stream` hand the page over in one piece. What the
service should know of the page and its reader is the template's variable `adserver`, by the names of
`adserver.client.about`. A template rendered for a part of another's page leaves its marks to that.
"""

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, Template, nodes, pass_eval_context
from jinja2.ext import Extension
from jinja2.nodes import EvalContext
from jinja2.parser import Parser
from markupsafe import Markup

from adserver import client
from adserver.client import marks

_TAGS = {"ad": client.ad, "ad_group": client.ad_group, "ad_placement": client.ad_placement}
_inside: ContextVar[bool] = ContextVar("inside_a_page_with_ads", default=False)

if TYPE_CHECKING:
    _Kind = Template
else:
    _Kind = object


class Ads(Extension):
    """The extension. The environment's attribute `adserver` is a `Client` or an `AsyncClient`, set once by the site."""

    tags = set(_TAGS)  # noqa: RUF012 - Jinja2's own declaration

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.extend(adserver=None)
        environment.filters["ads"] = _ads
        kind = environment.template_class
        if not issubclass(kind, _Filling):
            environment.template_class = type("AdsTemplate", (_Filling, kind), {})

    def parse(self, parser: Parser) -> nodes.Node:
        tag = next(parser.stream)
        call = self.call_method("_mark", [nodes.Const(tag.value), parser.parse_expression()], lineno=tag.lineno)
        return nodes.Output([call]).set_lineno(tag.lineno)

    def _mark(self, tag: str, ask: object) -> Markup:
        return _TAGS[tag](ask)


@pass_eval_context
def _ads(context: EvalContext, article: object) -> str:
    marked = client.body(article, escaping=context.autoescape)
    return marked if context.autoescape else str(marked)


class _Filling(_Kind):
    """A template whose marks are filled when it is rendered."""

    def render(self, *args: Any, **kwargs: Any) -> str:
        if self.environment.is_async or _inside.get():  # Jinja2 runs `render_async` then
            return super().render(*args, **kwargs)
        with _page():
            page = super().render(*args, **kwargs)
        ads = self._client(page)
        return marks.fill(page, ()) if ads is None else ads.fill(page, _facts(args, kwargs))

    async def render_async(self, *args: Any, **kwargs: Any) -> str:
        if _inside.get():
            return await super().render_async(*args, **kwargs)
        with _page():
            page = await super().render_async(*args, **kwargs)
        ads = self._client(page)
        return marks.fill(page, ()) if ads is None else await ads.fill_async(page, _facts(args, kwargs))

    def generate(self, *args: Any, **kwargs: Any) -> Iterator[str]:
        yield self.render(*args, **kwargs)

    async def generate_async(self, *args: Any, **kwargs: Any) -> AsyncGenerator[str, object]:
        yield await self.render_async(*args, **kwargs)

    def _client(self, page: str) -> client.Client | client.AsyncClient | None:
        if not marks.has_marks(page):
            return None
        found = getattr(self.environment, "adserver", None)
        if isinstance(found, client.Client | client.AsyncClient):
            return found
        client.tell_once(f"the environment's 'adserver' is {found!r:.80}; expected a Client or AsyncClient")
        return None


@contextmanager
def _page() -> Iterator[None]:
    """Templates rendered within leave their marks to whoever opened it."""
    token = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(token)


def _facts(args: Any, kwargs: Any) -> dict[str, Any]:
    """The variable `adserver` of what a template is rendered with."""
    try:
        found = dict(*args, **kwargs).get("adserver")
        return dict(found) if isinstance(found, Mapping) else {}
    except Exception:
        return {}
