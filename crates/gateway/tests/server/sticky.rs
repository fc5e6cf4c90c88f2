//! Clients that stay with their endpoint by a cookie.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::backend::Backend;
use crate::site::{Served, Site, path, rules};

fn served(annotations: Value, backends: &[Backend]) -> Served {
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let paths = [path("/shop", "Prefix", "web")];
    let served = Site::new(&addresses, &[]).ingress("i", annotations, rules("a.com", &paths));
    let served = served.serve();
    assert!(served.reasons.is_empty(), "{:?}", served.reasons);
    served
}

/// Who answers a client with this cookie, and what it is told to keep.
fn ask(served: &Served, cookie: &str) -> (String, Option<String>) {
    let header = format!("Cookie: a=1; {cookie}");
    let answer = served.ask("a.com", "/shop/x", &["--header", &header]);
    assert_eq!(answer.status, 200, "{}", answer.head);
    let told = answer.header("set-cookie").map(str::to_owned);
    (answer.who(), told)
}

/// The pair without its attributes.
fn pair(told: &str) -> &str {
    told.split(';').next().unwrap()
}

#[test]
fn clients_stay_with_their_endpoint() {
    for mode in ["balanced", "persistent"] {
        let backends: Vec<Backend> = (1..=4).map(Backend::start).collect();
        let annotations = json!({"affinity": "cookie", "affinity-mode": mode, "session-cookie-name": "route",
            "session-cookie-expires": "60", "session-cookie-samesite": "lax", "session-cookie-domain": "a.com"});
        let served = served(annotations, &backends);
        let mut reached = BTreeSet::new();
        for _ in 0..24 {
            let (who, told) = ask(&served, "b=2");
            let told = told.expect("a new client gets a cookie");
            let attributes = "; Path=/shop; Domain=a.com; Max-Age=60; HttpOnly; SameSite=Lax";
            assert!(told.ends_with(attributes), "{told}");
            for _ in 0..3 {
                assert_eq!(ask(&served, pair(&told)), (who.clone(), None), "{mode}");
            }
            reached.insert(who);
        }
        assert!(reached.len() > 1, "{mode}: {reached:?}");
    }
}

#[test]
fn a_client_whose_endpoint_fails_is_answered_by_another_one() {
    for (change, mode) in [
        ("false", "balanced"),
        ("true", "balanced"),
        ("true", "persistent"),
    ] {
        let mut backends: Vec<Backend> = (1..=2).map(Backend::start).collect();
        let annotations = json!({"affinity": "cookie", "affinity-mode": mode, "session-cookie-change-on-failure": change});
        let served = served(annotations, &backends);
        let (who, told) = ask(&served, "b=2");
        let told = told.unwrap();
        assert!(told.starts_with("INGRESSCOOKIE="), "{told}");
        backends.retain(|backend| backend.address.to_string() != who);
        let (other, again) = ask(&served, pair(&told));
        assert_ne!(other, who);
        assert_eq!(again.is_some(), change == "true", "{mode}");
        if let Some(again) = again {
            assert_eq!(ask(&served, pair(&again)), (other, None));
        }
    }
}

#[test]
fn what_no_cookie_can_have_is_told() {
    let backend = Backend::start(1);
    let annotations = json!({"affinity": "cookie", "affinity-mode": "sticky", "session-cookie-path": "/a; Domain=b.com",
        "session-cookie-samesite": "Loose"});
    let paths = [path("/", "Prefix", "web")];
    let site = Site::new(&[backend.address], &[]).ingress("i", annotations, rules("a.com", &paths));
    let served = site.serve();
    assert_eq!(served.reasons, ["InvalidAnnotation"; 3]);
    let told = ask(&served, "b=2").1.unwrap();
    assert!(told.ends_with("; Path=/; HttpOnly"), "{told}");
}
