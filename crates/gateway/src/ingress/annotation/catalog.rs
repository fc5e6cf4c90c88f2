//! Every annotation of ingress-nginx 1.15, and how it stands with the gateway.

/// How an annotation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Carried out as ingress-nginx did.
    Supported,
    /// Carried out in another way, or not needed, as the words say.
    Different,
    /// Not carried out, as the words say.
    Refused,
}

impl Standing {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Standing::Supported => "supported",
            Standing::Different => "different",
            Standing::Refused => "refused",
        }
    }
}

use Standing::{Different, Refused, Supported};

/// Streams need no buffers.
const STREAMED: &str =
    "Nothing is to be done: bodies are passed on as they come, in both directions.";
/// Of annotations about a module that the gateway has not.
const NO_WAF: &str =
    "There is no ModSecurity in the gateway: put a web application firewall before the backend.";
/// Of snippets.
const SNIPPET: &str = "It is text for the configuration of nginx, which the gateway does not have, and it gave whoever may \
    write an Ingress all that nginx may do.";
/// Of certificates of clients.
const CLIENT_CERTIFICATE: &str = "Certificates of clients are not asked for.";
/// Of annotations for connections to auth-url.
const JUDGE_CONNECTIONS: &str = "Nothing is to be done: each question has a connection of its own.";

/// Name, standing, and words: for `Different` what differs, for `Refused` why, and what to use.
#[rustfmt::skip]
const CATALOG: &[(&str, Standing, &str)] = &[
    ("affinity", Supported, ""),
    ("affinity-canary-behavior", Different, "A canary is chosen anew for each request, as with legacy; set a cookie with canary-by-cookie for clients that must stay."),
    ("affinity-mode", Supported, ""),
    ("allowlist-source-range", Supported, ""),
    ("app-root", Supported, ""),
    ("auth-always-set-cookie", Different, "Cookies of auth-url reach the client with its refusals only."),
    ("auth-cache-duration", Different, "Answers are not cached: auth-url is asked for each request."),
    ("auth-cache-key", Different, "Answers are not cached: auth-url is asked for each request."),
    ("auth-keepalive", Different, JUDGE_CONNECTIONS),
    ("auth-keepalive-requests", Different, JUDGE_CONNECTIONS),
    ("auth-keepalive-share-vars", Different, JUDGE_CONNECTIONS),
    ("auth-keepalive-timeout", Different, JUDGE_CONNECTIONS),
    ("auth-method", Supported, ""),
    ("auth-proxy-set-headers", Refused, "Headers for auth-url come from the request only; let the service read X-Original-URL, X-Original-Method and the headers of the client."),
    ("auth-realm", Supported, ""),
    ("auth-request-redirect", Supported, ""),
    ("auth-response-headers", Supported, ""),
    ("auth-secret", Supported, ""),
    ("auth-secret-type", Supported, ""),
    ("auth-signin", Supported, ""),
    ("auth-signin-redirect-param", Supported, ""),
    ("auth-snippet", Refused, SNIPPET),
    ("auth-tls-error-page", Refused, CLIENT_CERTIFICATE),
    ("auth-tls-match-cn", Refused, CLIENT_CERTIFICATE),
    ("auth-tls-pass-certificate-to-upstream", Refused, CLIENT_CERTIFICATE),
    ("auth-tls-secret", Refused, CLIENT_CERTIFICATE),
    ("auth-tls-verify-client", Refused, CLIENT_CERTIFICATE),
    ("auth-tls-verify-depth", Refused, CLIENT_CERTIFICATE),
    ("auth-type", Supported, ""),
    ("auth-url", Supported, ""),
    ("backend-protocol", Supported, ""),
    ("canary", Supported, ""),
    ("canary-by-cookie", Supported, ""),
    ("canary-by-header", Supported, ""),
    ("canary-by-header-pattern", Supported, ""),
    ("canary-by-header-value", Supported, ""),
    ("canary-weight", Supported, ""),
    ("canary-weight-total", Supported, ""),
    ("client-body-buffer-size", Different, STREAMED),
    ("configuration-snippet", Refused, SNIPPET),
    ("connection-proxy-header", Different, "Nothing is to be done: connections to endpoints are kept and upgraded by themselves."),
    ("cors-allow-credentials", Supported, ""),
    ("cors-allow-headers", Supported, ""),
    ("cors-allow-methods", Supported, ""),
    ("cors-allow-origin", Supported, ""),
    ("cors-expose-headers", Supported, ""),
    ("cors-max-age", Supported, ""),
    ("custom-headers", Different, "The ConfigMap must have the label portolan.dev/response-headers: \"true\"; global-allowed-response-headers is not needed."),
    ("custom-http-errors", Supported, ""),
    ("default-backend", Supported, ""),
    ("denylist-source-range", Supported, ""),
    ("disable-proxy-intercept-errors", Supported, ""),
    ("enable-access-log", Supported, ""),
    ("enable-cors", Different, "OPTIONS without the headers of a preflight reaches the backend."),
    ("enable-global-auth", Different, "There is no global authentication: set auth-url on each Ingress."),
    ("enable-modsecurity", Refused, NO_WAF),
    ("enable-opentelemetry", Different, "Trace headers are passed on; the gateway sends no spans of its own."),
    ("enable-owasp-core-rules", Refused, NO_WAF),
    ("enable-rewrite-log", Different, "There is no log of rewrites; `portolan gateway routes` shows them."),
    ("fastcgi-index", Refused, "FastCGI is not spoken: put a server that speaks HTTP into the pod."),
    ("fastcgi-params-configmap", Refused, "FastCGI is not spoken: put a server that speaks HTTP into the pod."),
    ("force-ssl-redirect", Supported, ""),
    ("from-to-www-redirect", Supported, ""),
    ("http2-push-preload", Different, "Nothing is to be done: browsers do not take pushes any more."),
    ("limit-allowlist", Supported, ""),
    ("limit-burst-multiplier", Supported, ""),
    ("limit-connections", Different, "Requests under way are counted for all threads together, and an IPv6 /64 is one client."),
    ("limit-rate", Refused, "Answers are not slowed down."),
    ("limit-rate-after", Refused, "Answers are not slowed down."),
    ("limit-rpm", Different, "An IPv6 /64 is one client."),
    ("limit-rps", Different, "An IPv6 /64 is one client."),
    ("limit-whitelist", Supported, ""),
    ("load-balance", Supported, ""),
    ("mirror-host", Supported, ""),
    ("mirror-request-body", Supported, ""),
    ("mirror-target", Different, "A copy is given up where its receiver is slower than the backend."),
    ("modsecurity-snippet", Refused, NO_WAF),
    ("modsecurity-transaction-id", Refused, NO_WAF),
    ("opentelemetry-operation-name", Different, "Trace headers are passed on; the gateway sends no spans of its own."),
    ("opentelemetry-trust-incoming-span", Different, "Trace headers are passed on; the gateway sends no spans of its own."),
    ("permanent-redirect", Supported, ""),
    ("permanent-redirect-code", Supported, ""),
    ("preserve-trailing-slash", Different, "Nothing is to be done: redirects keep the path as it was sent."),
    ("proxy-body-size", Supported, ""),
    ("proxy-buffer-size", Different, STREAMED),
    ("proxy-buffering", Different, STREAMED),
    ("proxy-buffers-number", Different, STREAMED),
    ("proxy-busy-buffers-size", Different, STREAMED),
    ("proxy-connect-timeout", Supported, ""),
    ("proxy-cookie-domain", Refused, "Cookies are passed on as they are: let the backend set the right domain."),
    ("proxy-cookie-path", Refused, "Cookies are passed on as they are: let the backend set the right path."),
    ("proxy-http-version", Different, "Endpoints are spoken to by HTTP/1.1, and with gRPC by HTTP/2."),
    ("proxy-max-temp-file-size", Different, STREAMED),
    ("proxy-next-upstream", Supported, ""),
    ("proxy-next-upstream-timeout", Supported, ""),
    ("proxy-next-upstream-tries", Different, "No more than ten endpoints are tried."),
    ("proxy-read-timeout", Supported, ""),
    ("proxy-redirect-from", Refused, "Location is passed on as it is: let the backend read X-Forwarded-Host and -Proto."),
    ("proxy-redirect-to", Refused, "Location is passed on as it is: let the backend read X-Forwarded-Host and -Proto."),
    ("proxy-request-buffering", Different, STREAMED),
    ("proxy-send-timeout", Supported, ""),
    ("proxy-ssl-ciphers", Different, "TLS 1.2 and 1.3 with the ciphers of rustls are spoken to endpoints."),
    ("proxy-ssl-name", Supported, ""),
    ("proxy-ssl-protocols", Different, "TLS 1.2 and 1.3 with the ciphers of rustls are spoken to endpoints."),
    ("proxy-ssl-secret", Different, "It must be in the namespace of the Ingress."),
    ("proxy-ssl-server-name", Different, "Without it, the name of proxy-ssl-name is sent where there is one."),
    ("proxy-ssl-verify", Different, "Without proxy-ssl-name, the certificate must be for SERVICE.NAMESPACE.svc; without ca.crt, nothing is served."),
    ("proxy-ssl-verify-depth", Different, "Chains may be as long as rustls allows: six certificates between an endpoint's and its authority."),
    ("rewrite-target", Supported, ""),
    ("satisfy", Supported, ""),
    ("server-alias", Different, "It is for the rules of this Ingress, and not for those of others with the same host."),
    ("server-snippet", Refused, SNIPPET),
    ("service-upstream", Different, "Requests go straight to the endpoints, whose changes lose no request."),
    ("session-cookie-change-on-failure", Supported, ""),
    ("session-cookie-conditional-samesite-none", Different, "SameSite is written for every browser: those that misread None are from before 2020."),
    ("session-cookie-domain", Supported, ""),
    ("session-cookie-expires", Different, "It is written as Max-Age; session-cookie-max-age counts where both are set."),
    ("session-cookie-max-age", Supported, ""),
    ("session-cookie-name", Supported, ""),
    ("session-cookie-partitioned", Supported, ""),
    ("session-cookie-path", Supported, ""),
    ("session-cookie-samesite", Supported, ""),
    ("session-cookie-secure", Supported, ""),
    ("ssl-ciphers", Refused, "TLS 1.2 and 1.3 are spoken with the ciphers of rustls, all of which are strong."),
    ("ssl-passthrough", Refused, "TLS ends at the gateway: give the backend a Service of type LoadBalancer, or backend-protocol HTTPS."),
    ("ssl-prefer-server-ciphers", Different, "Nothing is to be done: there are no weak ciphers to choose."),
    ("ssl-redirect", Supported, ""),
    ("stream-snippet", Refused, SNIPPET),
    ("temporal-redirect", Supported, ""),
    ("temporal-redirect-code", Supported, ""),
    ("upstream-hash-by", Supported, ""),
    ("upstream-hash-by-subset", Refused, "Whole subsets are not hashed to: upstream-hash-by without it leads to one endpoint."),
    ("upstream-hash-by-subset-size", Refused, "Whole subsets are not hashed to: upstream-hash-by without it leads to one endpoint."),
    ("upstream-vhost", Supported, ""),
    ("use-port-in-redirects", Different, "Redirects to TLS have the port of --https-port, unless it is 443."),
    ("use-regex", Supported, ""),
    ("whitelist-source-range", Supported, ""),
    ("x-forwarded-prefix", Supported, ""),
];

/// Keys of the ConfigMap of ingress-nginx that are read: for annotations of the same name, where an Ingress has none,
/// and some that have no annotation.
const CONFIG: &[&str] = &[
    "allowlist-source-range",
    "brotli-level",
    "brotli-min-length",
    "brotli-types",
    "custom-http-errors",
    "denylist-source-range",
    "enable-brotli",
    "force-ssl-redirect",
    "gzip-level",
    "gzip-min-length",
    "gzip-types",
    "hsts",
    "hsts-include-subdomains",
    "hsts-max-age",
    "hsts-preload",
    "http-redirect-code",
    "limit-conn-status-code",
    "limit-req-status-code",
    "load-balance",
    "permanent-redirect-code",
    "proxy-body-size",
    "proxy-buffer-size",
    "proxy-buffering",
    "proxy-connect-timeout",
    "proxy-next-upstream",
    "proxy-next-upstream-timeout",
    "proxy-next-upstream-tries",
    "proxy-read-timeout",
    "proxy-request-buffering",
    "proxy-send-timeout",
    "ssl-redirect",
    "upstream-hash-by",
    "use-gzip",
    "whitelist-source-range",
];

/// Whether a key of the ConfigMap is read.
pub(super) fn is_config(name: &str) -> bool {
    CONFIG.contains(&name)
}

/// Standing, words and reason of an annotation whose value is fine.
pub(super) fn standing(name: &str) -> (Standing, String, &'static str) {
    let found = CATALOG.iter().find(|(known, ..)| *known == name);
    match found {
        Some((_, Refused, words)) => {
            let reason = match name.ends_with("-snippet") {
                true => "SnippetRefused",
                false => "AnnotationNotSupported",
            };
            (
                Refused,
                format!("{words} {}", instead(name)).trim_end().to_owned(),
                reason,
            )
        }
        Some((_, standing, words)) => (*standing, (*words).to_owned(), ""),
        None => (Refused, unknown(name), "UnknownAnnotation"),
    }
}

/// What to use instead of a snippet.
fn instead(name: &str) -> &'static str {
    match name {
        "configuration-snippet" | "server-snippet" => {
            "Use custom-headers for headers, permanent-redirect and rewrite-target for places, \
             denylist-source-range for addresses, or let the backend do it."
        }
        "auth-snippet" => "Use auth-url with auth-response-headers.",
        "stream-snippet" => "Give TCP and UDP a Service of type LoadBalancer.",
        _ => "",
    }
}

fn unknown(name: &str) -> String {
    let near = CATALOG
        .iter()
        .map(|(known, ..)| (distance(name, known), *known))
        .min();
    let meant = near.filter(|(distance, known)| *distance <= 1 + known.len() / 6);
    match meant {
        Some((_, known)) => format!("There is no such annotation; is {known} meant?"),
        None => "There is no such annotation of ingress-nginx 1.15; remove it.".to_owned(),
    }
}

/// Of an annotation with our own prefix.
pub(super) fn unknown_of_ours() -> (Standing, String, &'static str) {
    let words = "There is no such annotation for Ingresses; remove it.";
    (Refused, words.to_owned(), "UnknownAnnotation")
}

/// How many letters differ (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b = b.as_bytes();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.bytes().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let next = (before + usize::from(letter != *other))
                .min(row[j] + 1)
                .min(row[j + 1] + 1);
            before = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalog_is_sorted_and_says_something() {
        assert!(CATALOG.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(CONFIG.windows(2).all(|pair| pair[0] < pair[1]));
        for (name, standing, words) in CATALOG {
            assert_eq!(*standing == Supported, words.is_empty(), "{name}");
            assert!(words.is_empty() || words.ends_with('.'), "{name}");
        }
    }

    #[test]
    fn typing_errors_are_recognised() {
        assert_eq!(
            standing("proxy-body-sise").1,
            "There is no such annotation; is proxy-body-size meant?"
        );
        assert_eq!(
            standing("rewrite-targets").1,
            "There is no such annotation; is rewrite-target meant?"
        );
        assert!(
            standing("completely-other")
                .1
                .contains("no such annotation of ingress-nginx")
        );
        assert_eq!((distance("kitten", "sitting"), distance("", "abc")), (3, 3));
    }
}
