"""Tags and a filter for Django: `{% ad 889990 %}`, `{% ad_group "sidebar" %}`, `{% ad_placement "top" %}`, `|ads`.

In the settings:

    INSTALLED_APPS = [..., "adserver.client.django"]
    MIDDLEWARE = [..., "adserver.client.django.middleware.ads", ...]     # behind gzip, before UpdateCacheMiddleware
    ADSERVER = {"url": "http://127.0.0.1:8000"}

In a template, after `{% load adserver %}`: `{% ad 889990 %}` and `{{ article.body|safe|ads }}`. Tags leave marks, and
the middleware fills them all by one call when the page is complete.
"""
