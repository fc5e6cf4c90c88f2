//! What annotations make of requests, with curl.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use portolan_gateway::ObjectName;
use serde_json::{Value, json};

use crate::backend::Backend;
use crate::site::{Served, Site, path, rules};
use crate::{all_of, curl};

/// One Ingress with these annotations: everything of `a.com` goes to `web`.
fn served(backend: &Backend, annotations: Value) -> Served {
    let site = Site::new(&[backend.address], &[]);
    site.ingress("i", annotations, json!([all_of("a.com")]))
        .serve()
}

#[test]
fn paths_are_rewritten_with_captures() {
    let backend = Backend::start(1);
    let specific = "ImplementationSpecific";
    let paths = [
        path("/app(/|$)(.*)", specific, "web"),
        path("/v[0-9]/(.*)", specific, "web"),
    ];
    let served = Site::new(&[backend.address], &[])
        .ingress(
            "regex",
            json!({"use-regex": "true", "rewrite-target": "/$2"}),
            rules("a.com", &paths),
        )
        .ingress(
            "whole",
            json!({"rewrite-target": "/new?from=old"}),
            rules("b.com", &[path("/old", "Prefix", "web")]),
        )
        .serve();
    assert_eq!(served.reasons, ["RewriteWithoutGroup"]);
    for (host, asked, got) in [
        ("a.com", "/app", "/"),
        ("a.com", "/app/x/y?q=1", "/x/y?q=1"),
        ("a.com", "/app/a%2Fb", "/a%2Fb"),
        ("b.com", "/old/deep?q=1", "/new?from=old&q=1"),
    ] {
        let answer = served.ask(host, asked, &[]);
        assert_eq!(
            (answer.status, &*answer.path()),
            (200, got),
            "{host}{asked}"
        );
    }
    assert_eq!(served.status("a.com", "/APP/x", &[]), 404);
    assert_eq!(served.status("a.com", "/xapp/x", &[]), 404);
}

#[test]
fn clients_are_sent_to_other_places() {
    let backend = Backend::start(1);
    let one = |host: &str| json!([all_of(host)]);
    let served = Site::new(&[backend.address], &[])
        .ingress(
            "a",
            json!({"permanent-redirect": "https://new.com$request_uri"}),
            one("a.com"),
        )
        .ingress(
            "b",
            json!({"temporal-redirect": "https://new.com/x", "temporal-redirect-code": "307"}),
            one("b.com"),
        )
        .ingress("c", json!({"app-root": "/app"}), one("c.com"))
        .ingress("d", json!({"from-to-www-redirect": "true"}), one("d.com"))
        .ingress("e", json!({"force-ssl-redirect": "true"}), one("e.com"))
        .ingress(
            "f",
            json!({"permanent-redirect": "ftp://new.com", "permanent-redirect-code": "200"}),
            one("f.com"),
        )
        .serve();
    assert_eq!(served.reasons, ["InvalidAnnotation", "InvalidAnnotation"]);
    for (host, asked, status, to) in [
        ("a.com", "/p?q=1", 301, "https://new.com/p?q=1"),
        ("b.com", "/p?q=1", 307, "https://new.com/x"),
        ("c.com", "/", 302, "http://c.com/app"),
        ("www.d.com", "/p?q=1", 308, "http://d.com/p?q=1"),
        ("e.com", "/p?q=1", 308, "https://e.com/p?q=1"),
    ] {
        let answer = served.ask(host, asked, &[]);
        assert_eq!(
            (answer.status, answer.header("location")),
            (status, Some(to)),
            "{host}"
        );
    }
    for (host, asked) in [("c.com", "/app"), ("d.com", "/"), ("f.com", "/")] {
        assert_eq!(served.status(host, asked, &[]), 200, "{host}");
    }
}

#[test]
fn bodies_that_are_too_long_are_refused() {
    let backend = Backend::start(1);
    let served = served(&backend, json!({"proxy-body-size": "1k"}));
    let (fits, long) = ("x".repeat(1024), "x".repeat(1025));
    let chunked = ["--header", "Transfer-Encoding: chunked", "--data"];
    for (sent, status) in [(&fits, 200), (&long, 413)] {
        assert_eq!(served.status("a.com", "/", &["--data", sent]), status);
        assert_eq!(
            served.status("a.com", "/", &[&chunked[..], &[&**sent]].concat()),
            status,
            "chunked"
        );
    }
}

#[test]
fn pages_of_other_origins_are_told_what_they_may_do() {
    let backend = Backend::start(1);
    let annotations = json!({"enable-cors": "true", "cors-allow-origin": "https://a.org, https://*.b.org",
        "cors-max-age": "60", "cors-expose-headers": "X-Seen", "proxy-body-size": "1"});
    let served = served(&backend, annotations);
    let ask = |origin: &str, more: &[&str]| {
        let header = format!("Origin: {origin}");
        served.ask("a.com", "/", &[&["--header", &*header], more].concat())
    };
    let preflight = [
        "--request",
        "OPTIONS",
        "--header",
        "Access-Control-Request-Method: PUT",
    ];
    let answer = ask("https://x.b.org", &preflight);
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (204, Some("https://x.b.org"))
    );
    assert_eq!(answer.header("access-control-max-age"), Some("60"));
    assert!(
        answer
            .header("access-control-allow-methods")
            .unwrap()
            .contains("PUT")
    );
    assert_eq!(answer.head.matches("rigin").count(), 2, "{}", answer.head);
    let answer = ask("https://evil.org", &preflight);
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (204, None)
    );
    assert_eq!(backend.connections.load(Ordering::Relaxed), 0);
    let answer = ask("https://a.org", &[]);
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (200, Some("https://a.org"))
    );
    assert_eq!(
        answer.header("access-control-expose-headers"),
        Some("X-Seen")
    );
    let refused = ask("https://a.org", &["--data", "long"]);
    assert_eq!(
        (
            refused.status,
            refused.header("access-control-allow-origin")
        ),
        (413, Some("https://a.org"))
    );
}

#[test]
fn addresses_are_let_in_or_not() {
    let backend = Backend::start(1);
    let one = |host: &str| json!([all_of(host)]);
    let served = Site::new(&[backend.address], &[])
        .ingress(
            "a",
            json!({"whitelist-source-range": "203.0.113.0/24, 127.0.0.0/8"}),
            one("a.com"),
        )
        .ingress(
            "b",
            json!({"whitelist-source-range": "203.0.113.0/24"}),
            one("b.com"),
        )
        .ingress(
            "c",
            json!({"denylist-source-range": "127.0.0.1"}),
            one("c.com"),
        )
        .ingress(
            "d",
            json!({"whitelist-source-range": "127.0.0.0/8, 10.0.0"}),
            one("d.com"),
        )
        .serve();
    let statuses = ["a.com", "b.com", "c.com", "d.com"]
        .map(|host| served.status(host, "/", &["--header", "X-Forwarded-For: 203.0.113.2"]));
    assert_eq!(
        statuses,
        [200, 403, 403, 503],
        "a list that is not right lets nobody in"
    );
    assert_eq!(served.reasons, ["AccessClosed"]);
}

#[test]
fn names_and_passwords_let_in() {
    let backend = Backend::start(1);
    use base64::Engine;
    let file = format!(
        "ann:{}\nbob:{{SHA}}5en6G6MezRroT3XKqkdPOmY/BfQ=\n",
        bcrypt::hash("secret", 4).unwrap()
    );
    let file = base64::engine::general_purpose::STANDARD.encode(file);
    let basic = |secret: &str| json!({"auth-type": "basic", "auth-secret": secret, "auth-realm": "the shop"});
    let mut either = basic("users");
    either["satisfy"] = json!("any");
    either["whitelist-source-range"] = json!("127.0.0.0/8");
    let served = Site::new(&[backend.address], &[])
        .secret("users", json!({"auth": file}))
        .ingress("a", basic("users"), json!([all_of("a.com")]))
        .ingress("b", basic("gone"), json!([all_of("b.com")]))
        .ingress("c", either, json!([all_of("c.com")]))
        .serve();
    assert_eq!(served.reasons, ["AccessClosed"]);
    for user in ["ann:secret", "bob:secret", "ann:secret"] {
        let answer = served.ask("a.com", "/", &["--user", user]);
        assert_eq!(answer.status, 200, "{user}");
        assert_eq!(
            answer.said()["headers"]["authorization"],
            Value::Null,
            "the password was for us"
        );
    }
    let refused = served.ask("a.com", "/", &[]);
    assert_eq!(
        (refused.status, refused.header("www-authenticate")),
        (401, Some("Basic realm=\"the shop\", charset=\"UTF-8\""))
    );
    assert_eq!(served.status("a.com", "/", &["--user", "ann:Secret"]), 401);
    assert_eq!(served.status("a.com", "/", &["--user", "eve:secret"]), 401);
    assert_eq!(
        served.status("b.com", "/", &["--user", "ann:secret"]),
        503,
        "without its Secret it is closed"
    );
    assert_eq!(
        served.status("c.com", "/", &[]),
        200,
        "the address is enough"
    );
}

#[test]
fn canaries_get_their_requests() {
    let (main, canary) = (Backend::start(1), Backend::start(2));
    let paths = |service: &str| rules("a.com", &[path("/", "Prefix", service)]);
    let annotations = json!({"canary": "true", "canary-by-header": "X-Canary", "canary-by-cookie": "canary", "canary-weight": "30"});
    let site = || {
        Site::new(&[main.address], &[canary.address]).ingress(
            "main",
            json!({"rewrite-target": "/all"}),
            paths("web"),
        )
    };
    let served = site()
        .ingress("canary", annotations, paths("other"))
        .serve();
    assert_eq!(served.reasons, [""; 0]);
    let is_canary = |served: &Served, more: &[&str]| {
        let answer = served.ask("a.com", "/", more);
        assert_eq!(
            (answer.status, &*answer.path()),
            (200, "/all"),
            "the rest is as with the other Ingress"
        );
        answer.who() == canary.address.to_string()
    };
    assert!(is_canary(
        &served,
        &["--header", "X-Canary: always", "--cookie", "canary=never"]
    ));
    assert!(!is_canary(
        &served,
        &["--header", "X-Canary: never", "--cookie", "canary=always"]
    ));
    assert!(is_canary(
        &served,
        &["--header", "X-Canary: x", "--cookie", "a=b; canary=always"]
    ));
    let url = format!("http://{}/?[1-400]", served.server.http()[0]);
    let all = curl(&["--header", "Host: a.com", &url]);
    let count = all.matches(&canary.address.to_string()).count();
    assert!((60..=180).contains(&count), "30 in 100 of 400: {count}");

    let pattern = json!({"canary": "true", "canary-by-header": "X-Region", "canary-by-header-pattern": "^eu-"});
    let served = site().ingress("canary", pattern, paths("other")).serve();
    assert!(
        is_canary(&served, &["--header", "X-Region: eu-1"])
            && !is_canary(&served, &["--header", "X-Region: us-1"])
    );

    let alone = json!({"canary": "true", "canary-weight": "100"});
    let elsewhere = rules("a.com", &[path("/elsewhere", "Prefix", "other")]);
    let served = site()
        .ingress("canary", alone.clone(), elsewhere)
        .ingress("x", alone.clone(), paths("other"))
        .ingress("y", alone, paths("other"))
        .serve();
    assert_eq!(served.reasons, ["CanaryAlone", "CanaryTaken"]);
}

#[test]
fn clients_that_ask_too_often_are_told() {
    let backend = Backend::start(1);
    let one = |host: &str| json!([all_of(host)]);
    let served = Site::new(&[backend.address], &[])
        .ingress(
            "a",
            json!({"limit-rpm": "3", "limit-burst-multiplier": "2"}),
            one("a.com"),
        )
        .ingress("b", json!({"limit-connections": "1"}), one("b.com"))
        .ingress(
            "c",
            json!({"limit-rpm": "1", "limit-whitelist": "127.0.0.1"}),
            one("c.com"),
        )
        .serve();
    let codes = |host: &str, count: usize| {
        let url = format!("http://{}/?[1-{count}]", served.server.http()[0]);
        let codes = curl(&[
            "--header",
            &format!("Host: {host}"),
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}\n",
            &url,
        ]);
        codes.lines().filter(|code| *code == "200").count()
    };
    assert_eq!(
        codes("a.com", 20),
        7,
        "the first, and two times three at once"
    );
    assert_eq!(codes("c.com", 20), 20);
    // One request is under way until its answer has been read.
    let mut stream = TcpStream::connect(served.server.http()[0]).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream
        .write_all(b"GET /wait HTTP/1.1\r\nhost: b.com\r\nconnection: close\r\n\r\n")
        .unwrap();
    while served.status("b.com", "/", &[]) == 200 {
        std::thread::yield_now();
    }
    assert_eq!(served.status("b.com", "/", &[]), 503);
    backend.go.notify_one();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    while served.status("b.com", "/", &[]) != 200 {
        std::thread::yield_now();
    }
}

#[test]
fn headers_come_and_go() {
    let backend = Backend::start(1);
    let annotations = json!({"upstream-vhost": "inner.$host", "x-forwarded-prefix": "/app", "custom-headers": "shop/headers", "server-alias": "alias.com, *.alias.com"});
    let mut site = Site::new(&[backend.address], &[])
        .config(
            "headers",
            json!({"X-Frame-Options": "DENY", "Server": "shop", "Content-Length": "1"}),
        )
        .config(
            "config",
            json!({"hsts": "true", "hsts-max-age": "60", "unheard-of": "x"}),
        )
        .ingress(
            "i",
            annotations,
            json!([all_of("a.com"), all_of("secure.com")]),
        );
    site.options.config = Some(ObjectName::new("shop", "config"));
    let served = site.serve();
    for reason in ["KeyNotSupported", "InvalidAnnotation"] {
        assert!(
            served.reasons.contains(&reason),
            "{reason}: {:?}",
            served.reasons
        );
    }
    for host in ["a.com", "alias.com", "x.alias.com"] {
        let answer = served.ask(host, "/", &[]);
        assert_eq!(
            (answer.header("x-frame-options"), answer.header("server")),
            (Some("DENY"), Some("shop"))
        );
        assert_eq!(answer.header("strict-transport-security"), None);
        let headers = &answer.said()["headers"];
        assert_eq!(headers["host"], format!("inner.{host}"));
        assert_eq!(
            (&headers["x-forwarded-host"], &headers["x-forwarded-prefix"]),
            (&json!(host), &json!("/app"))
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, &served.chain).unwrap();
    let port = served.server.https()[0].port();
    let to = format!("secure.com:{port}:127.0.0.1");
    let answer = served.ask_url(
        &format!("https://secure.com:{port}/"),
        &[
            "--http1.1",
            "--cacert",
            file.to_str().unwrap(),
            "--resolve",
            &to,
        ],
    );
    assert_eq!(
        answer.header("strict-transport-security"),
        Some("max-age=60; includeSubDomains")
    );
}

#[test]
fn the_quirks_of_ingress_nginx_are_there_when_asked_for() {
    let backend = Backend::start(1);
    let site = |is_compatible| {
        let mut site = Site::new(&[backend.address], &[])
            .ingress(
                "regex",
                json!({"rewrite-target": "/$1"}),
                rules(
                    "a.com",
                    &[path("/v[0-9]/(.*)", "ImplementationSpecific", "web")],
                ),
            )
            .ingress(
                "plain",
                json!({}),
                rules("a.com", &[path("/Shop", "Exact", "web")]),
            )
            .ingress(
                "slash",
                json!({}),
                rules(
                    "b.com",
                    &[
                        path("/docs/", "Exact", "web"),
                        path("/api/", "Prefix", "web"),
                        path("/a/b", "Exact", "web"),
                    ],
                ),
            );
        site.options.is_compatible = is_compatible;
        site.serve()
    };
    let (strict, compatible) = (site(false), site(true));
    let both = |host: &str, asked: &str| {
        (
            strict.status(host, asked, &[]),
            compatible.status(host, asked, &[]),
        )
    };
    // Expressions are for beginnings, and case does not matter; rewrite-target makes them of paths.
    assert_eq!(both("a.com", "/V1/x"), (404, 200));
    assert_eq!(compatible.ask("a.com", "/V1/x", &[]).path(), "/x");
    // One Ingress of a host makes expressions of the paths of all others.
    assert_eq!(both("a.com", "/Shop"), (200, 200));
    assert_eq!(both("a.com", "/shopping"), (404, 200));
    // A slash that is missing.
    assert_eq!(both("b.com", "/docs"), (404, 301));
    assert_eq!(
        compatible.ask("b.com", "/docs?q=1", &[]).header("location"),
        Some("http://b.com/docs/?q=1")
    );
    assert_eq!(both("b.com", "/api"), (200, 301));
    // Paths are resolved before they are looked for, and the endpoint gets what was found.
    assert_eq!(both("b.com", "/x/..//a/./b"), (400, 200));
    assert_eq!(
        compatible.ask("b.com", "/x/..//a/./b?q=1", &[]).path(),
        "/a/b?q=1"
    );
    assert_eq!(both("b.com", "/../a/b"), (400, 400));
    // And nginx' limit of bodies.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("body");
    std::fs::write(&file, vec![b'x'; (1 << 20) + 1]).unwrap();
    let upload = ["--data-binary", &*format!("@{}", file.display())];
    assert_eq!(
        (
            strict.status("b.com", "/a/b", &upload),
            compatible.status("b.com", "/a/b", &upload)
        ),
        (200, 413)
    );
}
