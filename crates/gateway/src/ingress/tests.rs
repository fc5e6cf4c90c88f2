//! What objects become, and what is said about those that are wrong.

use serde_json::{Value, json};

use super::class::Why;
use super::*;
use crate::route::Request;

fn insert<T>(
    map: &mut BTreeMap<ObjectName, Arc<T>>,
    object: Value,
    meta: fn(&T) -> &portolan_k8s::ObjectMeta,
) where
    T: serde::de::DeserializeOwned,
{
    let object: T = serde_json::from_value(object).unwrap();
    map.insert(ObjectName::of(meta(&object)), Arc::new(object));
}

/// Class `ours` and Service `web` with port `http` 80 are there, and what is given.
fn objects(given: Vec<Value>) -> Objects {
    let mut objects = Objects::default();
    let base = [
        json!({"kind": "IngressClass", "metadata": {"name": "ours"}, "spec": {"controller": CONTROLLER}}),
        json!({"kind": "Service", "metadata": {"namespace": "shop", "name": "web"}, "spec": {"ports": [
            {"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]}}),
        json!({"kind": "Secret", "metadata": {"namespace": "shop", "name": "cert"}, "type": "kubernetes.io/tls",
            "data": {"tls.crt": "eA==", "tls.key": "eA=="}}),
    ];
    for object in base.into_iter().chain(given) {
        match object["kind"].as_str().unwrap() {
            "Ingress" => insert(&mut objects.ingresses, object, |o: &Ingress| &o.metadata),
            "IngressClass" => insert(&mut objects.classes, object, |o: &IngressClass| &o.metadata),
            "Service" => insert(&mut objects.services, object, |o: &Service| &o.metadata),
            _ => insert(&mut objects.secrets, object, |o: &Secret| &o.metadata),
        }
    }
    objects
}

/// An Ingress of our class in namespace `shop`.
fn ingress(name: &str, mut spec: Value) -> Value {
    spec["ingressClassName"] = json!("ours");
    json!({"kind": "Ingress", "metadata": {"namespace": "shop", "name": name}, "spec": spec})
}

fn created(mut ingress: Value, second: u32) -> Value {
    ingress["metadata"]["creationTimestamp"] = json!(format!("2026-01-01T00:00:{second:02}Z"));
    ingress
}

fn annotated(mut ingress: Value, annotations: Value) -> Value {
    ingress["metadata"]["annotations"] = annotations;
    ingress
}

fn web() -> Value {
    json!({"service": {"name": "web", "port": {"number": 80}}})
}

fn rule(host: &str, path: &str, kind: &str, backend: Value) -> Value {
    json!({"host": host, "http": {"paths": [{"path": path, "pathType": kind, "backend": backend}]}})
}

fn built(given: Vec<Value>) -> Routing {
    build(&objects(given), &Options::default())
}

fn said(routing: &Routing) -> Vec<String> {
    routing.problems.iter().map(ToString::to_string).collect()
}

fn find<'r>(routing: &'r Routing, host: &str, path: &str) -> Option<&'r Arc<Target>> {
    routing.table.find(&Request {
        host,
        path,
        query: "",
        method: &http::Method::GET,
        headers: &http::HeaderMap::new(),
    })
}

/// The object and field of the target.
fn origin(routing: &Routing, host: &str, path: &str) -> String {
    find(routing, host, path).map_or("nothing".into(), |target| {
        format!("{} {}", target.origin.object.name, target.origin.field)
    })
}

#[test]
fn classes_say_whose_an_ingress_is() {
    let plain = |name: &str, class: Value, old: Value| {
        let mut ingress = ingress(name, json!({"defaultBackend": web()}));
        ingress["spec"]["ingressClassName"] = class;
        annotated(ingress, json!({"kubernetes.io/ingress.class": old}))
    };
    let mut without = ingress("without", json!({"defaultBackend": web()}));
    without["spec"]["ingressClassName"] = Value::Null;
    let given = vec![
        json!({"kind": "IngressClass", "metadata": {"name": "nginx"}, "spec": {"controller": "k8s.io/ingress-nginx"}}),
        plain("a", json!("ours"), json!("nginx")),
        plain("b", json!("nginx"), json!("ours")),
        plain("c", json!("nobody"), json!("ours")),
        plain("d", Value::Null, json!("ours")),
        plain("e", Value::Null, json!("portolan")),
        plain("f", json!(""), json!("nginx")),
        without,
    ];
    let routing = built(given.clone());
    let served: Vec<&str> = routing.served.iter().map(|name| &*name.name).collect();
    assert_eq!(served, ["a", "d", "e"]);
    let ignored: Vec<String> = routing.ignored.iter().map(ToString::to_string).collect();
    let expected = [
        "Ingress shop/b: its IngressClass belongs to k8s.io/ingress-nginx",
        "Ingress shop/c: there is no IngressClass nobody",
        "Ingress shop/f: its annotation kubernetes.io/ingress.class is \"nginx\", which is not ours",
        "Ingress shop/without: it has no class; set spec.ingressClassName, or mark an IngressClass as default and \
         create it anew",
    ];
    assert_eq!(ignored, expected);
    let options = Options {
        controller: "k8s.io/ingress-nginx".into(),
        without_class: true,
        ..Options::default()
    };
    let routing = build(&objects(given), &options);
    let served: Vec<&str> = routing.served.iter().map(|name| &*name.name).collect();
    assert_eq!(served, ["b", "e", "f", "without"]);
    assert!(
        routing
            .ignored
            .iter()
            .any(|i| i.why == Why::Controller(CONTROLLER.into()))
    );
}

#[test]
fn doubtful_classes_are_told() {
    let class = |name: &str, controller: &str| {
        json!({"kind": "IngressClass",
            "metadata": {"name": name, "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
            "spec": {"controller": controller, "parameters": {"kind": "ConfigMap", "name": "x"}}})
    };
    let routing = built(vec![
        class("ours", CONTROLLER),
        class("theirs", "example.com/x"),
    ]);
    let expected = [
        "IngressClass ours: spec.parameters names ConfigMap x, and the gateway has no parameters: remove it; Ingresses \
         of this class are served as if it were not there. (ParametersNotRead)",
        "IngressClass ours: ours, theirs are all marked as default: API servers refuse an Ingress without a class, or \
         take the newest of them; set ingressclass.kubernetes.io/is-default-class to \"false\" on all but one. \
         (SeveralDefaultClasses)",
    ];
    assert_eq!(said(&routing), expected);
}

#[test]
fn ports_go_by_name_or_by_number() {
    let by_name = json!({"service": {"name": "web", "port": {"name": "http"}}});
    let rules = json!({"rules": [rule("a.com", "/", "Prefix", web()), rule("b.com", "/", "Prefix", by_name)]});
    let routing = built(vec![ingress("i", rules)]);
    assert_eq!(said(&routing), [""; 0]);
    for host in ["a.com", "b.com"] {
        let to = find(&routing, host, "/").and_then(|target| target.choose(0));
        let key =
            portolan_model::PortKey::new("shop", "web", "http", portolan_model::Protocol::Tcp);
        assert_eq!(to, Some(&Destination::Port(key)));
    }
}

#[test]
fn broken_backends_hold_their_paths_and_are_told() {
    let backends = [
        json!({}),
        json!({"service": {"name": "web", "port": {}}}),
        json!({"service": {"name": "web", "port": {"name": "http", "number": 80}}}),
        json!({"service": {"name": "web", "port": {"number": 53}}}),
        json!({"service": {"name": "web", "port": {"name": "grpc"}}}),
        json!({"service": {"name": "gone", "port": {"number": 80}}}),
        json!({"service": {"name": "far", "port": {"number": 80}}}),
        json!({"resource": {"kind": "StorageBucket", "name": "b", "apiGroup": "k8s.example.com"}}),
        json!({"resource": {"kind": "X", "name": "b"}, "service": {"name": "web", "port": {"number": 80}}}),
    ];
    let path = |(index, backend): (usize, &Value)| json!({"path": format!("/{index}"), "pathType": "Prefix", "backend": backend});
    let paths: Vec<Value> = backends.iter().enumerate().map(path).collect();
    let far = json!({"kind": "Service", "metadata": {"namespace": "shop", "name": "far"}, "spec": {"type": "ExternalName"}});
    let rules = json!({"rules": [{"http": {"paths": paths}}], "defaultBackend": web()});
    let routing = built(vec![far, ingress("i", rules)]);
    let expected = [
        "0] names neither a service nor a resource; name a service. Its requests are answered with 503. (InvalidBackend)",
        "1] names no port; give its name or its number. Its requests are answered with 503. (InvalidBackend)",
        "2] gives name and number of a port; leave one of them out. Its requests are answered with 503. (InvalidBackend)",
        "3] is port 53 of the Service shop/web, which has no such TCP port; it has: http 80/TCP, dns 53/UDP. Its \
         requests are answered with 503. (PortNotFound)",
        "4] is port \"grpc\" of the Service shop/web, which has no such TCP port; it has: http 80/TCP, dns 53/UDP. Its \
         requests are answered with 503. (PortNotFound)",
        "5] is the Service shop/gone, which does not exist. Its requests are answered with 503. (ServiceNotFound)",
        "6] is the Service shop/far of type ExternalName, which the gateway does not resolve; give it endpoints. Its \
         requests are answered with 503. (ExternalName)",
        "7] is the StorageBucket b, and the gateway sends requests to Services only; name a service. Its requests are \
         answered with 503. (ResourceBackend)",
        "8] names a service and a resource; leave one of them out. Its requests are answered with 503. (InvalidBackend)",
    ];
    let mut said = said(&routing);
    said.sort_by_key(|line| line.find(" paths[").map(|_| 0).unwrap_or_default());
    for (index, words) in expected.iter().enumerate() {
        let line = format!("Ingress shop/i: The backend of spec.rules[0].http.paths[{words}");
        assert!(said.contains(&line), "{line}\n{said:#?}");
        let to = find(&routing, "", &format!("/{index}/x")).and_then(|target| target.choose(0));
        assert_eq!(
            to,
            Some(&Destination::Broken(StatusCode::SERVICE_UNAVAILABLE))
        );
    }
    assert_eq!(said.len(), expected.len());
}

#[test]
fn broken_rules_are_left_out_and_told() {
    let rules = json!([
        rule("10.1.0.2", "/", "Prefix", web()),
        rule("a.com", "x", "Exact", web()),
        rule("a.com", "", "Prefix", web()),
        rule("a.com", "/a/../b", "Prefix", web()),
        rule("a.com", "/y", "Suffix", web()),
        {"host": "a.com", "http": {"paths": [{"path": "/z", "backend": web()}]}},
        rule("a.com", "/good", "Prefix", web()),
        rule("a.com", "/v(1|2)", "ImplementationSpecific", web()),
    ]);
    let routing = built(vec![
        ingress("i", json!({"rules": rules})),
        ingress("none", json!({})),
    ]);
    let expected = [
        "Ingress shop/i: spec.rules[0].host is \"10.1.0.2\": it is an IP address, and must be a name; the rule is left \
         out. (InvalidHost)",
        "Ingress shop/i: spec.rules[1].http.paths[0]: path \"x\" cannot be served: it does not begin with /; the path is \
         left out. (InvalidPath)",
        "Ingress shop/i: spec.rules[2].http.paths[0]: path \"\" cannot be served: it does not begin with /; the path is \
         left out. (InvalidPath)",
        "Ingress shop/i: spec.rules[3].http.paths[0]: path \"/a/../b\" cannot be served: one of its elements is . or ..; \
         the path is left out. (InvalidPath)",
        "Ingress shop/i: spec.rules[4].http.paths[0]: pathType \"Suffix\" is none of Exact, Prefix, \
         ImplementationSpecific; the path is left out. (InvalidPath)",
        "Ingress shop/i: spec.rules[5].http.paths[0]: it has no pathType; set Exact, Prefix or ImplementationSpecific; \
         the path is left out. (InvalidPath)",
        "Ingress shop/i: spec.rules[7].http.paths[0].path is \"/v(1|2)\", which is taken word for word; if it is a \
         regular expression, set the annotation nginx.ingress.kubernetes.io/use-regex to \"true\". (LooksLikeRegex)",
        "Ingress shop/none: It has neither rules nor a defaultBackend: nothing is served. (NothingToServe)",
    ];
    assert_eq!(said(&routing), expected);
    assert_eq!(
        origin(&routing, "a.com", "/good/x"),
        "i spec.rules[6].http.paths[0]"
    );
    assert_eq!(origin(&routing, "a.com", "/y"), "nothing");
}

#[test]
fn several_ingresses_share_a_host_and_the_oldest_has_a_path() {
    let both = |path| json!({"rules": [rule("a.com", path, "Prefix", web()), rule("a.com", "/same", "Exact", web())]});
    let given = vec![
        created(ingress("a-younger", both("/young")), 2),
        created(ingress("b-older", both("/old")), 1),
    ];
    let routing = built(given);
    assert_eq!(
        origin(&routing, "a.com", "/young"),
        "a-younger spec.rules[0].http.paths[0]"
    );
    assert_eq!(
        origin(&routing, "a.com", "/old"),
        "b-older spec.rules[0].http.paths[0]"
    );
    assert_eq!(
        origin(&routing, "a.com", "/same"),
        "b-older spec.rules[1].http.paths[0]"
    );
    let expected = [
        "Ingress shop/a-younger: spec.rules[1].http.paths[0] is not reached: Ingress shop/b-older \
         spec.rules[1].http.paths[0] has all requests for a.com/same; remove one of them. (PathTaken)",
    ];
    assert_eq!(said(&routing), expected);
}

#[test]
fn default_backends_are_asked_in_their_order() {
    let own = |path: &str| json!({"rules": [rule("a.com", path, "Exact", web())], "defaultBackend": web()});
    let given = vec![
        created(ingress("with-rules", own("/x")), 1),
        created(ingress("second", own("/z")), 2),
        created(
            ingress("only-host", json!({"rules": [{"host": "b.com"}]})),
            3,
        ),
    ];
    let routing = built(given.clone());
    assert_eq!(
        origin(&routing, "a.com", "/y"),
        "with-rules spec.defaultBackend"
    );
    assert_eq!(
        origin(&routing, "b.com", "/y"),
        "with-rules spec.defaultBackend"
    );
    assert_eq!(
        origin(&routing, "c.com", "/y"),
        "with-rules spec.defaultBackend"
    );
    let catch_all = created(ingress("catch-all", json!({"defaultBackend": web()})), 9);
    let mut more = given;
    more.push(catch_all);
    let routing = built(more);
    assert_eq!(
        origin(&routing, "a.com", "/y"),
        "with-rules spec.defaultBackend"
    );
    assert_eq!(
        origin(&routing, "c.com", "/y"),
        "catch-all spec.defaultBackend"
    );
    let told: Vec<_> = routing
        .problems
        .iter()
        .map(|p| (&*p.object.name, p.reason))
        .collect();
    assert_eq!(
        told,
        [
            ("second", "DefaultBackendTaken"),
            ("with-rules", "DefaultBackendTaken")
        ]
    );
}

#[test]
fn the_operators_default_backend_comes_last() {
    let options = |port: &str| Options {
        default_backend: Some((ObjectName::new("shop", "web"), port.to_owned())),
        ..Options::default()
    };
    let rules = json!({"rules": [rule("a.com", "/x", "Exact", web())]});
    for (port, works) in [("80", true), ("http", true), ("81", false)] {
        let routing = build(&objects(vec![ingress("i", rules.clone())]), &options(port));
        let target = find(&routing, "z.com", "/").unwrap();
        assert_eq!(
            target.origin.to_string(),
            "option shop/web --default-backend"
        );
        assert_eq!(
            matches!(target.choose(0), Some(Destination::Port(_))),
            works,
            "{port}"
        );
    }
}

#[test]
fn hosts_with_certificates_ask_for_tls() {
    let tls = json!([{"hosts": ["a.com", "*.b.com"], "secretName": "cert"}]);
    let spec = |tls: Value| {
        let hosts = ["a.com", "x.b.com", "*.b.com", "c.com", ""];
        let rules: Vec<Value> = hosts
            .iter()
            .map(|host| rule(host, "/", "Prefix", web()))
            .collect();
        json!({"rules": rules, "tls": tls})
    };
    let redirects = |routing: &Routing| {
        let hosts = ["a.com", "x.b.com", "y.b.com", "c.com", "d.com"];
        hosts.map(|host| {
            let policy = &find(routing, host, "/").unwrap().policy;
            policy.require_tls == Some(StatusCode::PERMANENT_REDIRECT)
        })
    };
    let with = |annotations| {
        built(vec![annotated(
            ingress("i", spec(tls.clone())),
            annotations,
        )])
    };
    assert_eq!(
        redirects(&with(json!({}))),
        [true, true, true, false, false]
    );
    let off = json!({"nginx.ingress.kubernetes.io/ssl-redirect": "false"});
    assert_eq!(redirects(&with(off)), [false; 5]);
    let force = json!({"nginx.ingress.kubernetes.io/force-ssl-redirect": "true"});
    assert_eq!(redirects(&with(force)), [true; 5]);
    let all = built(vec![ingress("i", spec(json!([{"secretName": "cert"}])))]);
    assert_eq!(redirects(&all), [true; 5]);
    let hosts: Vec<String> = all
        .certificates
        .iter()
        .map(|c| c.host.to_string())
        .collect();
    assert_eq!(hosts, ["*", "*.b.com", "a.com", "c.com", "x.b.com"]);
}

#[test]
fn certificates_are_settled_and_wrong_ones_told() {
    let secret = |name: &str, kind: &str, data: Value| json!({"kind": "Secret", "metadata": {"namespace": "shop", "name": name}, "type": kind, "data": data});
    let tls = |hosts: Value, name: &str| json!({"hosts": hosts, "secretName": name});
    let spec = |tls: Value| json!({"defaultBackend": web(), "tls": tls});
    let first = json!([tls(json!(["a.com"]), "cert"), tls(json!(["10.1.0.2", "b.com"]), "cert"), {"hosts": ["e.com"]}]);
    let second = json!([
        tls(json!(["a.com"]), "other"),
        tls(json!(["b.com"]), "cert"),
        tls(json!(["c.com"]), "gone"),
        tls(json!(["c.com"]), "opaque"),
        tls(json!(["c.com"]), "empty"),
    ]);
    let full = json!({"tls.crt": "eA==", "tls.key": "eA=="});
    let routing = built(vec![
        secret("other", "kubernetes.io/tls", full.clone()),
        secret("opaque", "Opaque", full),
        secret(
            "empty",
            "kubernetes.io/tls",
            json!({"tls.crt": "eA==", "tls.key": ""}),
        ),
        created(ingress("a", spec(first)), 1),
        created(ingress("b", spec(second)), 2),
    ]);
    let kept = routing.certificates.iter();
    let kept: Vec<_> = kept
        .map(|c| (c.host.to_string(), c.secret.to_string()))
        .collect();
    assert_eq!(
        kept,
        [
            ("a.com".into(), "shop/cert".into()),
            ("b.com".into(), "shop/cert".to_owned())
        ]
    );
    let expected = [
        "Ingress shop/a: spec.tls[1].hosts has \"10.1.0.2\": it is an IP address, and must be a name; it is left out. \
         (InvalidHost)",
        "Ingress shop/b: Secret shop/other is not used for a.com: Ingress shop/a has named shop/cert for it before. \
         (CertificateTaken)",
        "Ingress shop/b: spec.defaultBackend gets no requests: another Ingress, which is older, has the default backend of all \
         hosts. (DefaultBackendTaken)",
        "Ingress shop/b: spec.tls[2].secretName is shop/gone, which does not exist, or is not of type \
         kubernetes.io/tls. The default certificate stands in for it. (InvalidCertificate)",
        "Ingress shop/b: spec.tls[3].secretName is shop/opaque, whose type is \"Opaque\" and must be \
         \"kubernetes.io/tls\". The default certificate stands in for it. (InvalidCertificate)",
        "Ingress shop/b: spec.tls[4].secretName is shop/empty, which has no tls.key. The default certificate stands in \
         for it. (InvalidCertificate)",
    ];
    assert_eq!(said(&routing), expected);
}

#[test]
fn annotations_are_carried_out_or_told() {
    let rules = json!({"rules": [
        rule("a.com", "/v[0-9]+", "ImplementationSpecific", web()),
        rule("a.com", "/(", "ImplementationSpecific", web()),
        rule("a.com", "", "ImplementationSpecific", web()),
    ]});
    let annotations = json!({
        "nginx.ingress.kubernetes.io/use-regex": "true",
        "nginx.ingress.kubernetes.io/ssl-redirect": "yes",
        "nginx.ingress.kubernetes.io/configuration-snippet": "x",
        "nginx.ingress.kubernetes.io/proxy-body-sise": "8m",
        "nginx.ingress.kubernetes.io/limit-rate": "8",
        "nginx.ingress.kubernetes.io/proxy-buffering": "on",
        "portolan.dev/timeout": "1s",
        "example.com/note": "not ours",
    });
    let routing = built(vec![annotated(ingress("i", rules), annotations)]);
    assert_eq!(
        origin(&routing, "a.com", "/v12"),
        "i spec.rules[0].http.paths[0]"
    );
    for other in ["/V12", "/v12/x", "/x"] {
        assert_eq!(
            origin(&routing, "a.com", other),
            "i spec.rules[2].http.paths[0]"
        );
    }
    let told: Vec<_> = routing
        .problems
        .iter()
        .map(|p| (p.reason, p.message.split(':').next().unwrap()))
        .collect();
    let expected = [
        (
            "AnnotationNotSupported",
            "Annotation nginx.ingress.kubernetes.io/limit-rate is \"8\"",
        ),
        (
            "InvalidAnnotation",
            "Annotation nginx.ingress.kubernetes.io/ssl-redirect is \"yes\"",
        ),
        ("InvalidPath", "spec.rules[1].http.paths[0]"),
        (
            "SnippetRefused",
            "Annotation nginx.ingress.kubernetes.io/configuration-snippet is \"x\"",
        ),
        (
            "UnknownAnnotation",
            "Annotation nginx.ingress.kubernetes.io/proxy-body-sise is \"8m\"",
        ),
        (
            "UnknownAnnotation",
            "Annotation portolan.dev/timeout is \"1s\"",
        ),
    ];
    assert_eq!(told, expected);
    let notes = routing.notes.iter();
    let notes: Vec<_> = notes.map(|(_, note)| note.standing.word()).collect();
    let expected = "refused refused refused different refused different refused";
    assert_eq!(notes.join(" "), expected);
}

#[test]
fn lists_of_names_have_an_end() {
    let list = |count: usize, end: &str| {
        let names = (0..count).map(|number| format!("x{number}{end}"));
        names.collect::<Vec<_>>().join(",")
    };
    let named = |count: usize| {
        let spec = json!({"rules": [rule("a.com", "/", "Prefix", web())]});
        let names = json!({
            "nginx.ingress.kubernetes.io/server-alias": list(count, ".com"),
            "nginx.ingress.kubernetes.io/auth-url": "http://127.0.0.1/",
            "nginx.ingress.kubernetes.io/auth-response-headers": list(count, ""),
        });
        built(vec![annotated(ingress("i", spec), names)])
    };
    let most = named(32);
    assert!(said(&most).is_empty(), "{:?}", said(&most));
    assert_eq!(
        origin(&most, "x31.com", "/"),
        "i spec.rules[0].http.paths[0]"
    );
    let more = named(33);
    assert_eq!(
        origin(&more, "x31.com", "/"),
        "i spec.rules[0].http.paths[0]"
    );
    assert_eq!(origin(&more, "x32.com", "/"), "nothing");
    let problems = said(&more).join("\n");
    assert_eq!(
        problems.matches("has more than 32 names").count(),
        2,
        "{problems}"
    );
    let judge = find(&more, "a.com", "/").unwrap().policy.judge.as_ref();
    assert_eq!(judge.unwrap().passed.len(), 32);
}

#[test]
fn routes_with_the_same_policy_have_it_once() {
    let of = |number: usize, annotations: Value| {
        let host = format!("h{number}.com");
        let spec = json!({"rules": [rule(&host, "/", "Prefix", web())]});
        annotated(ingress(&format!("i{number}"), spec), annotations)
    };
    let prefix = "nginx.ingress.kubernetes.io";
    let timeout =
        |seconds: usize| json!({format!("{prefix}/proxy-read-timeout"): seconds.to_string()});
    let limit = || json!({format!("{prefix}/limit-rps"): "5"});
    let plain = (0..3).map(|number| of(number, json!({})));
    let limited = (3..5).map(|number| of(number, limit()));
    // More than are compared, and one that is like the very first.
    let others = (5..6 + SHARED_MAX).map(|number| of(number, timeout(number)));
    let last = [of(6 + SHARED_MAX, json!({}))];
    let routing = built(plain.chain(limited).chain(others).chain(last).collect());
    let policy = |number: usize| {
        let target = find(&routing, &format!("h{number}.com"), "/").unwrap();
        (Arc::as_ptr(&target.policy), Arc::as_ptr(&target.traffic))
    };
    assert!(policy(0) == policy(1) && policy(1) == policy(2));
    assert_ne!(policy(3), policy(4), "clients are counted for each Ingress");
    assert_ne!(policy(5), policy(6));
    let target = |number| find(&routing, &format!("h{number}.com"), "/").unwrap();
    let last = 6 + SHARED_MAX;
    assert_eq!(target(last).policy, target(0).policy);
}
