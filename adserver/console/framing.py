"""What the frames of previews may load: whatever an ad loads on a reader's page, and all of it in a box.

A tag's own frame has the policy of the page it stands in, so that page, the preview, has to allow what tags load. It is
therefore in a box itself: `sandbox` gives it an origin of its own, from where neither the console nor its cookies can
be reached, nor anything sent to it in somebody's name. The console's own pages allow nothing more than ever.
"""

from collections.abc import Mapping

_BOX = "sandbox allow-scripts allow-popups allow-popups-to-escape-sandbox; frame-ancestors 'self'"
_OURS = (
    "default-src 'none'; style-src 'self'; img-src 'self' {base} http: https: data:; frame-src 'self';"
    " base-uri 'none'; form-action 'none'; "
) + _BOX
_ANYBODYS = "default-src http: https: ws: wss: data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; " + _BOX


def headers_of(html: str, headers: Mapping[str, str], base_url: str) -> dict[str, str]:
    """The console's *headers* for a page of ads in a frame: with a third party's tag in it, such a tag may load
    anything.
    """
    policy = _ANYBODYS if " srcdoc=" in html else _OURS
    kept = {name: value for name, value in headers.items() if name != "cross-origin-opener-policy"}
    return {**kept, "content-security-policy": policy.format(base=base_url)}
