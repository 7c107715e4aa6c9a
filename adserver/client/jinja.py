"""Tags and a filter for Jinja2: `{% ad 889990 %}`, `{% ad_group "sidebar" %}`, `{% ad_placement "top" %}`, `| ads`.

    environment = Environment(autoescape=True, extensions=["adserver.client.jinja.Ads"])
    environment.adserver = Client("http://127.0.0.1:8000")
    environment.get_template("article.html").render(body=article, adserver={"section": "sport"})

Tags leave marks, also in included and imported templates, and `render` fills them all by one call when the page is
complete; `render_async` does without blocking. `generate` and `stream` hand the page over in one piece. What the
service should know of the page and its reader is the template's variable `adserver`, by the names of
`adserver.client.about`. A template rendered while another is, by the same environment and without an `adserver` of its
own, is a part of that page and leaves its marks to it; any other, such as a mail, is completed by itself. What is no
text, as a `NativeEnvironment` may give, has no ads.
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
if TYPE_CHECKING:
    _Kind = Template
else:
    _Kind = object


class _Page:
    """A page that is being rendered. A task begun by its template may still hold it when it is not *open* any more."""

    def __init__(self, environment: Environment, facts: dict[str, Any]) -> None:
        self.environment, self.facts, self.open = environment, facts, True

    def has_part(self, environment: Environment, facts: dict[str, Any]) -> bool:
        """Whether what is rendered now by *environment*, and says *facts* of itself, is a part of this page."""
        return self.open and environment is self.environment and (not facts or _are_same(facts, self.facts))


_around: ContextVar[_Page | None] = ContextVar("page_with_ads_around", default=None)


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

    def render(self, *args: Any, **kwargs: Any) -> Any:
        facts = _facts(args, kwargs)
        if self.environment.is_async or self._is_part(facts):  # Jinja2 runs `render_async` where it is async
            return super().render(*args, **kwargs)
        with _page(self.environment, facts):
            page: Any = super().render(*args, **kwargs)  # whatever it is, where the environment is a native one
        if not isinstance(page, str):
            return page
        ads = self._client(page)
        return marks.fill(page, ()) if ads is None else ads.fill(page, facts)

    async def render_async(self, *args: Any, **kwargs: Any) -> Any:
        facts = _facts(args, kwargs)
        if self._is_part(facts):
            return await super().render_async(*args, **kwargs)
        with _page(self.environment, facts):
            page: Any = await super().render_async(*args, **kwargs)
        if not isinstance(page, str):
            return page
        ads = self._client(page)
        return marks.fill(page, ()) if ads is None else await ads.fill_async(page, facts)

    def generate(self, *args: Any, **kwargs: Any) -> Iterator[str]:
        yield self.render(*args, **kwargs)

    async def generate_async(self, *args: Any, **kwargs: Any) -> AsyncGenerator[str, object]:
        yield await self.render_async(*args, **kwargs)

    def _is_part(self, facts: dict[str, Any]) -> bool:
        around = _around.get()
        return around is not None and around.has_part(self.environment, facts)

    def _client(self, page: str) -> client.Client | client.AsyncClient | None:
        if not marks.find_asks(page):
            return None
        found = getattr(self.environment, "adserver", None)
        if isinstance(found, client.Client | client.AsyncClient):
            return found
        client.tell_once(f"the environment's 'adserver' is {found!r:.80}; expected a Client or AsyncClient")
        return None


@contextmanager
def _page(environment: Environment, facts: dict[str, Any]) -> Iterator[None]:
    """Parts rendered within leave their marks to whoever opened it."""
    page = _Page(environment, facts)
    token = _around.set(page)
    try:
        yield
    finally:
        page.open = False
        _around.reset(token)


def _facts(args: Any, kwargs: Any) -> dict[str, Any]:
    """The variable `adserver` of what a template is rendered with."""
    try:
        found = dict(*args, **kwargs).get("adserver")
        return dict(found) if isinstance(found, Mapping) else {}
    except Exception:
        return {}


def _are_same(facts: dict[str, Any], others: dict[str, Any]) -> bool:
    try:
        return bool(facts == others)
    except Exception:
        return False
