# adserver by Varnish's edge side includes (ESI): pages are cached without their ads, and each view gets fresh ones.
#
# For Varnish 6.6 or newer: /etc/varnish/default.vcl. Change the two addresses: where the site is, and where adserver
# is. In a page, an ad goes where this stands (mind the &amp;):
#
#     <esi:include src="/_ads/889990?section=sport&amp;tag=football&amp;lang=en&amp;url=/sport/final"/>
#
# Varnish asks for one ad after the other, so six that hang hold a page up for six times the time below. The probe
# notices within some two seconds, and from then on nobody waits; a server that is stopped is noticed at once. The times
# are for the next byte: one that sends a byte now and then holds those pages up that ask it before the probe has noticed.
vcl 4.1;

backend site {
    .host = "127.0.0.1";
    .port = "9000";
}

backend adserver {
    .host = "127.0.0.1";
    .port = "8000";
    .connect_timeout = 100ms;
    .first_byte_timeout = 150ms;
    .between_bytes_timeout = 100ms;
    .probe = {
        .url = "/healthz";
        .interval = 1s;
        .timeout = 300ms;
        .window = 2;
        .threshold = 2;
        .initial = 2;
    }
}

sub vcl_recv {
    if (req.url ~ "^/_ads/") {
        # Only includes get here; a browser that asks gets a 404.
        if (req.esi_level == 0) {
            return (synth(404));
        }
        set req.backend_hint = adserver;
        set req.url = regsub(req.url, "^/_ads/", "/ads/");
        # No cookie, no login, no range of the page goes to adserver.
        unset req.http.Cookie;
        unset req.http.Authorization;
        unset req.http.Range;
        unset req.http.Referer;
        unset req.http.If-None-Match;
        unset req.http.If-Modified-Since;
        unset req.http.Accept-Encoding;
        return (pass);
    }
    set req.backend_hint = site;
}

sub vcl_backend_fetch {
    # Whatever request brought the page, an include is a plain GET.
    if (bereq.backend == adserver) {
        set bereq.method = "GET";
    }
}

sub vcl_backend_response {
    if (bereq.backend == adserver) {
        # An empty slot is a 204 and shows nothing. Whatever else is no ad shows nothing either: without this Varnish
        # would put adserver's explanation into the middle of the article.
        if (beresp.status != 200 && beresp.status != 204) {
            return (error(204, "No ad"));
        }
        # Read to its end before any of it is put into the page: of an answer that breaks off, an <aside> without an end
        # would swallow the rest of the article.
        set beresp.do_stream = false;
    } else if (beresp.http.Content-Type ~ "^text/html") {
        set beresp.do_esi = true;
    }
}

sub vcl_backend_error {
    # No answer in time, or none at all: nothing, instead of Varnish's own error page.
    if (bereq.url ~ "^/ads/" && bereq.backend == adserver) {
        set beresp.status = 204;
        set beresp.http.Content-Type = "text/html";
        set beresp.body = "";
        return (deliver);
    }
}

sub vcl_deliver {
    # A page with ads in it holds tokens that count once, so no cache behind Varnish may keep it. A browser may, for its
    # Back button: with no-store it would load the page again there, and count a second view.
    if (resp.http.Content-Type ~ "^text/html") {
        set resp.http.Cache-Control = "private, no-cache";
        unset resp.http.ETag;
        unset resp.http.Last-Modified;
        unset resp.http.Age;
    }
}
