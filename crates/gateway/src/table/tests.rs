//! The table agrees with a search through all routes, and says what it holds.

use http::{HeaderMap, Method, StatusCode};
use proptest::prelude::*;

use super::*;
use crate::problem::ObjectName;
use crate::route::{Backend, Destination, Rank};

fn target(number: usize) -> Arc<Target> {
    let origin = Origin {
        kind: "Ingress",
        object: ObjectName::new("shop", "web"),
        field: format!("path {number}"),
    };
    let to = Destination::Broken(StatusCode::SERVICE_UNAVAILABLE);
    let backends = vec![Backend { to, weight: 1 }];
    Arc::new(Target {
        origin,
        policy: Arc::default(),
        backends,
        traffic: Arc::default(),
    })
}

/// A route; `index` names it, and ranks it.
fn route(index: usize, host: &str, path: PathMatch) -> Route {
    Route {
        host: Host::parse(host).unwrap(),
        path,
        conditions: Conditions::default(),
        target: target(index),
        rank: Rank {
            created: 0,
            object: ObjectName::new("shop", "web"),
            index,
        },
    }
}

fn prefix(path: &str) -> PathMatch {
    PathMatch::Prefix(path.to_owned())
}

fn exact(path: &str) -> PathMatch {
    PathMatch::Exact(path.to_owned())
}

fn regex(text: &str) -> PathMatch {
    PathMatch::Regex(Pattern::new(text, true).unwrap())
}

fn ask<'t>(table: &'t Table, method: &Method, host: &str, path: &str) -> Option<&'t Arc<Target>> {
    table.find(&Request {
        host,
        path,
        query: "",
        method,
        headers: &HeaderMap::new(),
    })
}

/// The number of the route that has the request.
fn found(table: &Table, host: &str, path: &str) -> Option<usize> {
    let target = ask(table, &Method::GET, host, path)?;
    let number = target.origin.field.strip_prefix("path ").unwrap();
    Some(number.parse().unwrap())
}

#[test]
fn the_most_specific_host_owns_a_request() {
    let routes = vec![
        route(0, "", prefix("/")),
        route(1, "*.foo.com", prefix("/w")),
        route(2, "a.foo.com", prefix("/e")),
    ];
    let (table, lost) = Table::compile(routes, vec![], None);
    assert!(lost.is_empty());
    assert_eq!(found(&table, "a.foo.com", "/e"), Some(2));
    assert_eq!(found(&table, "a.foo.com", "/w"), None);
    assert_eq!(found(&table, "b.foo.com", "/w"), Some(1));
    assert_eq!(found(&table, "b.foo.com", "/e"), None);
    assert_eq!(found(&table, "x.a.foo.com", "/w"), Some(0));
    assert_eq!(found(&table, "foo.com", "/w"), Some(0));
    assert_eq!(found(&table, "", "/w"), Some(0));
}

#[test]
fn exact_paths_come_first_and_then_the_longest() {
    let routes = vec![
        route(0, "", prefix("/foo")),
        route(1, "", prefix("/foo/bar/")),
        route(2, "", exact("/foo/bar")),
        route(3, "", regex("/foo/[a-z]+/x")),
        route(4, "", regex("/f")),
        route(5, "", prefix("/")),
    ];
    let (table, lost) = Table::compile(routes, vec![], None);
    assert!(lost.is_empty());
    let expected = [
        ("/foo/bar", 2),
        ("/foo/bar/", 1),
        ("/foo/bar/x", 3),
        ("/foo/bar/1", 1),
        ("/foo/baz", 0),
        ("/FOO/baz", 4),
        ("/x", 5),
    ];
    for (path, number) in expected {
        assert_eq!(found(&table, "", path), Some(number), "{path}");
    }
}

#[test]
fn conditions_choose_among_routes_of_one_path() {
    let mut put = route(0, "", prefix("/a/b"));
    put.conditions.method = Some(Method::PUT);
    let (table, lost) = Table::compile(vec![put, route(1, "", prefix("/a"))], vec![], None);
    assert!(lost.is_empty());
    let chosen = |method| ask(&table, &method, "", "/a/b/c").map(|t| t.origin.field.clone());
    assert_eq!(chosen(Method::PUT).as_deref(), Some("path 0"));
    assert_eq!(chosen(Method::GET).as_deref(), Some("path 1"));
}

#[test]
fn what_is_never_reached_is_told() {
    let mut conditional = route(3, "a.com", prefix("/foo"));
    conditional.conditions.method = Some(Method::PUT);
    let routes = vec![
        route(0, "a.com", prefix("/foo/")),
        route(1, "a.com", prefix("/foo")),
        route(2, "b.com", prefix("/foo")),
        conditional,
        route(5, "a.com", exact("/foo")),
        route(4, "a.com", exact("/foo")),
        route(6, "a.com", regex("/foo")),
        route(7, "a.com", regex("/foo")),
    ];
    let (table, lost) = Table::compile(routes, vec![], None);
    let told = lost.iter().map(|lost| {
        let pair = (lost.origin.field.as_str(), lost.winner.field.as_str());
        (pair, lost.place.as_str())
    });
    let expected = [
        (("path 1", "path 0"), "a.com/foo"),
        (("path 3", "path 0"), "a.com/foo"),
        (("path 5", "path 4"), "a.com/foo"),
        (("path 7", "path 6"), "a.com/foo"),
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected);
    assert_eq!(found(&table, "a.com", "/foo"), Some(4));
}

#[test]
fn default_backends_have_an_order() {
    let claim = |host: &str, index, fallback| HostClaim {
        host: Host::parse(host).unwrap(),
        fallback,
        rank: route(index, "", prefix("/")).rank,
    };
    let claims = vec![
        claim("a.com", 2, Some(target(2))),
        claim("a.com", 1, Some(target(1))),
        claim("a.com", 0, None),
        claim("b.com", 3, None),
    ];
    let (table, _) = Table::compile(vec![route(7, "", prefix("/x"))], claims, Some(target(9)));
    assert_eq!(found(&table, "a.com", "/x"), Some(1));
    assert_eq!(found(&table, "b.com", "/x"), Some(9));
    assert_eq!(found(&table, "c.com", "/x"), Some(7));
    assert_eq!(found(&table, "c.com", "/y"), Some(9));
}

#[test]
fn rows_are_what_the_table_holds() {
    let routes = vec![
        route(0, "", prefix("/")),
        route(1, "*.foo.com", regex("/r.*")),
        route(2, "a.foo.com", exact("/e")),
        route(3, "a.foo.com", prefix("/e/f")),
        route(4, "a.foo.com", prefix("/a")),
    ];
    let (table, _) = Table::compile(routes, vec![], Some(target(9)));
    let rows = table.rows();
    let rows = rows.iter().map(|row| {
        let number = row.target.origin.field.as_str();
        (row.host.as_str(), row.kind, row.path.as_str(), number)
    });
    let expected = [
        ("a.foo.com", "Prefix", "/a", "path 4"),
        ("a.foo.com", "Exact", "/e", "path 2"),
        ("a.foo.com", "Prefix", "/e/f", "path 3"),
        ("*.foo.com", "Regex", "/r.*", "path 1"),
        ("*", "Prefix", "/", "path 0"),
        ("*", "Default", "", "path 9"),
    ];
    assert_eq!(rows.collect::<Vec<_>>(), expected);
}

/// The path with a slash at its end, so that elements can be compared as text.
fn closed(path: &str) -> String {
    match path {
        "/" => path.to_owned(),
        _ => format!("{}/", path.strip_suffix('/').unwrap_or(path)),
    }
}

/// What docs/gateway.md says, without any data structure: every route is looked at.
fn searched(routes: &[Route], host: &str, path: &str) -> Option<usize> {
    let specific = |host: &Host| match host {
        Host::Exact(_) => 2,
        Host::Wildcard(_) => 1,
        Host::Any => 0,
    };
    let covering = routes.iter().filter(|route| route.host.covers(host));
    let site = covering
        .map(|route| &route.host)
        .max_by_key(|h| specific(h))?;
    let matching = |path_match: &PathMatch| match path_match {
        PathMatch::Exact(text) => text == path,
        PathMatch::Prefix(text) => closed(path).starts_with(&closed(text)),
        PathMatch::Regex(pattern) => pattern.matches(path),
    };
    let kind = |path_match: &PathMatch| match path_match {
        PathMatch::Exact(_) => (2, 0, 0),
        PathMatch::Prefix(text) => (1, text.len(), 1),
        PathMatch::Regex(pattern) => (1, pattern.text().len(), 0),
    };
    let mine = routes.iter().filter(|route| route.host == *site);
    let mine = mine.filter(|route| matching(&route.path));
    let best = mine.max_by_key(|route| (kind(&route.path), std::cmp::Reverse(route.rank.index)));
    best.map(|route| route.rank.index)
}

fn any_path() -> impl Strategy<Value = String> {
    let element = prop_oneof![Just("a"), Just("b"), Just("ab"), Just("")];
    let elements = prop::collection::vec(element, 0..4);
    (elements, any::<bool>()).prop_map(|(elements, slash)| {
        let path = format!("/{}", elements.join("/"));
        match slash && path != "/" {
            true => path + "/",
            false => path,
        }
    })
}

fn any_match() -> impl Strategy<Value = PathMatch> {
    let text = prop_oneof![Just("/a"), Just("/[ab]+/b"), Just("/.*b"), Just("/")];
    prop_oneof![
        3 => any_path().prop_map(PathMatch::Prefix),
        2 => any_path().prop_map(PathMatch::Exact),
        1 => text.prop_map(regex),
    ]
}

fn any_host() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just(""),
        Just("*.b.c"),
        Just("a.b.c"),
        Just("b.c"),
        Just("*.c")
    ]
}

proptest! {
    #[test]
    fn the_table_finds_what_a_search_finds(
        given in prop::collection::vec((any_host(), any_match()), 0..12),
        asked in prop::collection::vec((prop_oneof![Just("a.b.c"), Just("x.b.c"), Just("b.c"), Just("x.y.b.c"), Just("")], any_path()), 1..12),
    ) {
        let routes: Vec<Route> = given.into_iter().enumerate().map(|(index, (host, path))| route(index, host, path)).collect();
        let (table, lost) = Table::compile(routes.iter().rev().cloned().collect(), vec![], None);
        for (host, path) in asked {
            prop_assert_eq!(found(&table, host, &path), searched(&routes, host, &path), "{}{}", host, path);
        }
        prop_assert_eq!(table.rows().len() + lost.len(), routes.len());
    }
}
