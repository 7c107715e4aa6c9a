"""`{% load adserver %}`: the tags `ad`, `ad_group` and `ad_placement`, and the filter `ads`."""

from django import template
from django.utils.safestring import SafeString, mark_safe

from adserver import client

register = template.Library()


@register.simple_tag  # type: ignore[untyped-decorator]
def ad(ask: object) -> SafeString:
    return _safe(client.ad(ask))


@register.simple_tag  # type: ignore[untyped-decorator]
def ad_group(ask: object) -> SafeString:
    return _safe(client.ad_group(ask))


@register.simple_tag  # type: ignore[untyped-decorator]
def ad_placement(ask: object) -> SafeString:
    return _safe(client.ad_placement(ask))


@register.filter(needs_autoescape=True)  # type: ignore[untyped-decorator]
def ads(article: object, autoescape: bool = True) -> SafeString:  # noqa: FBT001, FBT002 - Django calls it so
    """An article with its ads; text that is not marked safe is escaped, where the template escapes."""
    return _safe(client.body(article, escaping=autoescape))


def _safe(marked: str) -> SafeString:
    return mark_safe(str(marked))  # noqa: S308 - escaped, or marked safe by the site
