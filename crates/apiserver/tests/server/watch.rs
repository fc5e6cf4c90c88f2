//! The rules of lists and watches, on the wire (`kubectl get --raw` prints what the server sends).

use crate::cluster::{Cluster, assert_has};

fn config_maps(cluster: &Cluster, query: &str) -> String {
    cluster.kubectl(&[
        "get",
        "--raw",
        &format!("/api/v1/namespaces/default/configmaps{query}"),
    ])
}

fn version(cluster: &Cluster) -> String {
    let list = config_maps(cluster, "?limit=1");
    let (_, rest) = list.split_once(r#""resourceVersion":""#).unwrap();
    rest.split('"').next().unwrap().to_owned()
}

/// The types and names of a watch's events, in order.
fn events(cluster: &Cluster, query: &str) -> Vec<String> {
    let text = config_maps(cluster, &format!("?watch=1&timeoutSeconds=1&{query}"));
    let part = |line: &str, field: &str| {
        let after = line.split_once(&format!("\"{field}\":\""));
        after
            .map(|(_, rest)| rest.split('"').next().unwrap_or_default().to_owned())
            .unwrap_or_default()
    };
    text.lines()
        .map(|line| {
            format!("{} {}", part(line, "type"), part(line, "name"))
                .trim()
                .to_owned()
        })
        .collect()
}

#[test]
fn watch_from_a_version_tells_what_came_after() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "cm", "before"]);
    let start = version(&cluster);
    cluster.kubectl(&["create", "cm", "after"]);
    cluster.kubectl(&["delete", "cm", "before"]);
    let told = events(&cluster, &format!("resourceVersion={start}"));
    assert_eq!(told, ["ADDED after", "DELETED before"]);
    assert_eq!(events(&cluster, ""), ["ADDED after"]);
}

#[test]
fn selector_turns_changes_into_additions_and_deletions() {
    let cluster = Cluster::start();
    let start = version(&cluster);
    cluster.kubectl(&["create", "cm", "a"]);
    cluster.kubectl(&["label", "cm", "a", "tier=web"]);
    cluster.kubectl(&["annotate", "cm", "a", "x=y"]);
    cluster.kubectl(&["label", "cm", "a", "tier-"]);
    let told = events(
        &cluster,
        &format!("resourceVersion={start}&labelSelector=tier%3Dweb"),
    );
    assert_eq!(told, ["ADDED a", "MODIFIED a", "DELETED a"]);
}

#[test]
fn initial_events_end_with_a_bookmark() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "cm", "a"]);
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    assert_eq!(events(&cluster, query), ["ADDED a", "BOOKMARK"]);
    let text = config_maps(&cluster, &format!("?watch=1&timeoutSeconds=1&{query}"));
    assert_has(
        &text,
        r#""annotations":{"k8s.io/initial-events-end":"true"}"#,
    );
}

#[test]
fn version_from_before_a_restart_is_gone() {
    let mut cluster = Cluster::start();
    let start = version(&cluster);
    cluster.kubectl(&["create", "cm", "a"]);
    cluster.restart();
    let text = config_maps(
        &cluster,
        &format!("?watch=1&timeoutSeconds=1&resourceVersion={start}"),
    );
    assert_has(&text, r#""type":"ERROR""#);
    assert_has(&text, r#""reason":"Expired","code":410"#);
    assert_has(&text, "too old resource version");
    let now = version(&cluster);
    assert!(now.parse::<u64>().unwrap() > start.parse().unwrap());
    assert!(events(&cluster, &format!("resourceVersion={now}")).is_empty());
}

#[test]
fn version_of_the_future_is_too_large() {
    let cluster = Cluster::start();
    let text = cluster.refused(
        &["get", "--raw", "/api/v1/configmaps?resourceVersion=999999"],
        "",
    );
    assert_has(&text, "Too large resource version");
}

#[test]
fn pages_are_of_one_state() {
    let cluster = Cluster::start();
    for name in ["a", "b", "c"] {
        cluster.kubectl(&["create", "cm", name]);
    }
    let first = config_maps(&cluster, "?limit=2");
    assert_has(&first, r#""remainingItemCount":1"#);
    let (_, rest) = first.split_once(r#""continue":""#).unwrap();
    let token = rest.split('"').next().unwrap();
    cluster.kubectl(&["create", "cm", "d"]);
    cluster.kubectl(&["delete", "cm", "c"]);
    let second = config_maps(&cluster, &format!("?limit=2&continue={token}"));
    assert_has(&second, r#""name":"c""#);
    assert!(!second.contains(r#""name":"d""#), "{second}");
    assert_has(
        &cluster.kubectl(&["get", "cm", "--chunk-size=1", "-o", "name"]),
        "configmap/d",
    );
}

#[test]
fn tables_carry_what_was_asked_for() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "cm", "a"]);
    let text = cluster.kubectl(&["get", "cm", "-v=9"]);
    assert_has(&text, "as=Table");
    assert_has(&text, "PartialObjectMetadata");
}
