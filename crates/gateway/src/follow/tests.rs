//! Events in any order become what is served.

use portolan_model::{PortKey, Protocol};
use serde_json::{Value, json};

use super::*;

fn object<K: serde::de::DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

fn ingress(name: &str) -> Ingress {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let tls = json!([{"hosts": ["a.com"], "secretName": "cert"}]);
    let rule = json!({"host": "a.com", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}});
    object(json!({"metadata": {"namespace": "shop", "name": name},
        "spec": {"ingressClassName": "ours", "rules": [rule], "tls": tls}}))
}

fn class() -> IngressClass {
    object(json!({"metadata": {"name": "ours"}, "spec": {"controller": "portolan.dev/gateway"}}))
}

fn service() -> Service {
    object(
        json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": {"ports": [{"port": 80}]}}),
    )
}

fn slice(address: &str) -> EndpointSlice {
    object(
        json!({"metadata": {"namespace": "shop", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": [{"addresses": [address]}]}),
    )
}

fn secret(chain: &str, key: &str) -> Secret {
    let data = json!({"tls.crt": k8s_bytes(chain), "tls.key": k8s_bytes(key)});
    object(
        json!({"metadata": {"namespace": "shop", "name": "cert"}, "type": "kubernetes.io/tls", "data": data}),
    )
}

fn k8s_bytes(text: &str) -> Value {
    serde_json::to_value(k8s_openapi::ByteString(text.as_bytes().to_vec())).unwrap()
}

fn world() -> World {
    World::new(Options::default(), Identity::self_signed().unwrap())
}

/// Everything listed once.
fn listed(world: &mut World) {
    let (chain, key) = ("x", "y");
    for news in [
        News::Ingress(Event::Init),
        News::Ingress(Event::InitApply(ingress("i"))),
        News::Ingress(Event::InitDone),
        News::Class(Event::Init),
        News::Class(Event::InitApply(class())),
        News::Class(Event::InitDone),
        News::Service(Box::new(Event::Init)),
        News::Service(Box::new(Event::InitApply(service()))),
        News::Service(Box::new(Event::InitDone)),
        News::Secret(Event::Init),
        News::Secret(Event::InitApply(secret(chain, key))),
        News::Secret(Event::InitDone),
        News::Opaque(Event::InitDone),
        News::HeaderMap(Event::InitDone),
        News::Slice(Event::Init),
        News::Slice(Event::InitApply(slice("10.1.0.2"))),
    ] {
        world.take(news);
        assert!(world.followed().is_none(), "not every kind has been listed");
    }
    world.take(News::Slice(Event::InitDone));
}

fn endpoints_of(followed: &Followed) -> Vec<String> {
    let key = PortKey::new("shop", "web", "", Protocol::Tcp);
    let roster = followed.live.endpoints.get(&key).unwrap();
    let all = roster.choices.addresses.iter();
    all.map(ToString::to_string).collect()
}

#[test]
fn nothing_is_served_before_everything_is_listed() {
    let mut world = world();
    listed(&mut world);
    let followed = world.followed().unwrap();
    assert_eq!(endpoints_of(&followed), ["10.1.0.2:8080"]);
    assert_eq!(followed.live.table.rows().len(), 1);
    assert!(world.followed().is_none(), "nothing has changed");
}

#[test]
fn endpoints_change_without_a_new_table() {
    let mut world = world();
    listed(&mut world);
    let before = world.followed().unwrap();
    world.take(News::Slice(Event::Apply(slice("10.1.0.3"))));
    let after = world.followed().unwrap();
    assert_eq!(endpoints_of(&after), ["10.1.0.3:8080"]);
    assert!(Arc::ptr_eq(&before.live.table, &after.live.table));
    world.take(News::Ingress(Event::Delete(ingress("i"))));
    let gone = world.followed().unwrap();
    assert!(gone.live.table.rows().is_empty());
    assert_eq!(endpoints_of(&gone), ["10.1.0.3:8080"]);
}

#[test]
fn what_a_new_listing_does_not_name_is_gone() {
    let mut world = world();
    listed(&mut world);
    world.followed().unwrap();
    for news in [
        Event::Init,
        Event::InitApply(ingress("other")),
        Event::InitDone,
    ] {
        world.take(News::Ingress(news));
    }
    let followed = world.followed().unwrap();
    let names: Vec<&str> = followed.ingresses.keys().map(|name| &*name.name).collect();
    assert_eq!(names, ["other"]);
}

#[test]
fn certificates_are_read_and_their_mistakes_told() {
    let mut world = world();
    listed(&mut world);
    let said = |followed: &Followed| {
        followed
            .routing
            .problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        said(&world.followed().unwrap()),
        [
            "Ingress shop/i: Secret shop/cert is of no use for a.com: tls.crt holds no certificate in PEM. The default \
          certificate stands in for it. (InvalidCertificate)"
        ]
    );
    let made = rcgen::generate_simple_self_signed(vec!["a.com".to_owned()]).unwrap();
    let good = secret(&made.cert.pem(), &made.signing_key.serialize_pem());
    world.take(News::Secret(Event::Apply(good)));
    assert!(said(&world.followed().unwrap()).is_empty());
}
